import type { Metric } from "./metric.ts";
import { argmax } from "./softmax.ts";

/** Share of rows whose largest output is the label; of equal outputs the lowest class counts. */
export const accuracy: Metric = {
  name: "accuracy",
  title: "Share of right answers",
  direction: "higher",
  tasks: ["classification", "language-modeling"],
  bounds: [0, 1],
  measure: {
    needs: "labels",
    sum({ output, labels, rows, width, start }) {
      let hits = 0;
      for (let row = 0; row < rows; row++) {
        if (argmax(output, start + row * width, width) === labels[row]) hits += 1;
      }
      return hits;
    },
  },
  itemFitness: (score) => score,
};
