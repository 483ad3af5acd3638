import type { Measure, Metric } from "./metric.ts";
import { negativeLogLikelihood } from "./softmax.ts";

/** Shared with `perplexity`, so that one pass over the vocabulary serves both. */
export const tokenNll: Measure = {
  needs: "labels",
  sum: negativeLogLikelihood,
};

/** Mean negative log-likelihood per predicted token in nats; all tokens count equally, so a long text weighs more. */
export const nll: Metric = {
  name: "nll",
  title: "Negative log-likelihood per token in nats",
  direction: "lower",
  tasks: ["language-modeling"],
  bounds: [0, Number.POSITIVE_INFINITY],
  measure: tokenNll,
  itemFitness: (score) => Math.exp(-score),
};
