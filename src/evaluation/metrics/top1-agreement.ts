import type { Metric } from "./metric.ts";
import { argmax } from "./softmax.ts";

/** Share of rows in which student and teacher put the same class first (of equal outputs, the lowest class). */
export const top1Agreement: Metric = {
  name: "top1_agreement",
  title: "Share of the teacher's first choices",
  direction: "higher",
  tasks: ["agreement"],
  bounds: [0, 1],
  measure: {
    needs: "teacher",
    sum({ output, teacher, rows, width, start }) {
      let hits = 0;
      for (let row = 0; row < rows; row++) {
        const at = row * width;
        if (argmax(output, start + at, width) === argmax(teacher, at, width)) hits += 1;
      }
      return hits;
    },
  },
  itemFitness: (score) => score,
};
