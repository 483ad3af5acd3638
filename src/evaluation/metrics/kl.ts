import type { Metric } from "./metric.ts";
import { logSumExp } from "./softmax.ts";

/** Mean KL(teacher ‖ student) between the softmaxes of the outputs, in nats; per item, or per token for texts. */
export const kl: Metric = {
  name: "kl",
  title: "KL divergence from the teacher in nats",
  direction: "lower",
  tasks: ["agreement"],
  bounds: [0, Number.POSITIVE_INFINITY],
  measure: {
    needs: "teacher",
    sum({ output, teacher, rows, width }) {
      let sum = 0;
      for (let row = 0; row < rows; row++) sum += divergence(teacher, output, row * width, width);
      return sum;
    },
  },
  itemFitness: (score) => Math.exp(-score),
};

function divergence(
  teacher: Float32Array,
  student: Float32Array,
  start: number,
  width: number,
): number {
  const teacherNorm = logSumExp(teacher, start, width);
  const studentNorm = logSumExp(student, start, width);
  let sum = 0;
  for (let i = start; i < start + width; i++) {
    const logTeacher = teacher[i]! - teacherNorm;
    sum += Math.exp(logTeacher) * (logTeacher - (student[i]! - studentNorm));
  }
  // Rounding may leave a value just below zero when both agree.
  return Math.max(0, sum);
}
