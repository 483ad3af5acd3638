import type { Metric } from "./metric.ts";

/** Mean absolute error over items and output columns. */
export const mae: Metric = {
  name: "mae",
  title: "Mean absolute error",
  direction: "lower",
  tasks: ["regression"],
  bounds: [0, Number.POSITIVE_INFINITY],
  measure: {
    needs: "values",
    sum({ output, target, rows, width, start }) {
      let sum = 0;
      for (let i = 0; i < rows * width; i++) sum += Math.abs(output[start + i]! - target[i]!);
      return sum / width;
    },
  },
  itemFitness: (score) => 1 / (1 + score),
};
