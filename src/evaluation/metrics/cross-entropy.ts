import type { Metric } from "./metric.ts";
import { negativeLogLikelihood } from "./softmax.ts";

/** Mean −log softmax(output)[label] over items, in nats. */
export const crossEntropy: Metric = {
  name: "cross_entropy",
  title: "Cross-entropy in nats",
  direction: "lower",
  tasks: ["classification"],
  bounds: [0, Number.POSITIVE_INFINITY],
  measure: {
    needs: "labels",
    sum: negativeLogLikelihood,
  },
  itemFitness: (score) => Math.exp(-score),
};
