import type { Metric } from "./metric.ts";

/**
 * Coefficient of determination: 1 − Σ (y − f)² / Σ (y − ȳ)², both sums over items and output columns, ȳ per column over
 * the split. Written as a ratio mean: an item's weight is its share of the total variation.
 */
export const r2: Metric = {
  name: "r2",
  title: "Coefficient of determination",
  direction: "higher",
  tasks: ["regression"],
  bounds: [Number.NEGATIVE_INFINITY, 1],
  measure: {
    needs: "values",
    sum({ output, target, rows, width, start }) {
      let sum = 0;
      for (let i = 0; i < rows * width; i++) sum += (output[start + i]! - target[i]!) ** 2;
      return sum;
    },
    weight({ target, targetMean, rows, width }) {
      let sum = 0;
      for (let i = 0; i < rows * width; i++) sum += (target[i]! - targetMean[i % width]!) ** 2;
      return sum;
    },
  },
  transform: { value: (ratio) => 1 - ratio, slope: () => -1 },
  itemFitness: (score) => 1 / (1 + score),
};
