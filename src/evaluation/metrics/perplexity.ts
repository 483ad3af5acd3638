import type { Metric } from "./metric.ts";
import { tokenNll } from "./nll.ts";

/** exp of the mean negative log-likelihood per token. */
export const perplexity: Metric = {
  name: "perplexity",
  title: "Perplexity per token",
  direction: "lower",
  tasks: ["language-modeling"],
  bounds: [1, Number.POSITIVE_INFINITY],
  measure: tokenNll,
  transform: { value: Math.exp, slope: Math.exp },
  itemFitness: (score) => Math.exp(-score),
};
