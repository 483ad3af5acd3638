import type { Metric } from "./metric.ts";

/** Mean squared error over items and output columns. */
export const mse: Metric = {
  name: "mse",
  title: "Mean squared error",
  direction: "lower",
  tasks: ["regression"],
  bounds: [0, Number.POSITIVE_INFINITY],
  measure: {
    needs: "values",
    sum({ output, target, rows, width, start }) {
      let sum = 0;
      for (let i = 0; i < rows * width; i++) sum += (output[start + i]! - target[i]!) ** 2;
      return sum / width;
    },
  },
  itemFitness: (score) => 1 / (1 + score),
};
