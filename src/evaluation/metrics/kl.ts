import { expOfMinus } from "./exp.ts";
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
    sum({ output, teacher, rows, width, start }) {
      let sum = 0;
      for (let row = 0; row < rows; row++) {
        const at = row * width;
        sum += divergence(teacher, at, output, start + at, width);
      }
      return sum;
    },
  },
  itemFitness: (score) => Math.exp(-score),
};

function divergence(
  teacher: Float32Array,
  teacherAt: number,
  student: Float32Array,
  studentAt: number,
  width: number,
): number {
  const teacherNorm = logSumExp(teacher, teacherAt, width);
  const studentNorm = logSumExp(student, studentAt, width);
  let sum = 0;
  for (let i = 0; i < width; i++) {
    const logTeacher = Math.min(0, teacher[teacherAt + i]! - teacherNorm);
    const logStudent = student[studentAt + i]! - studentNorm;
    sum += expOfMinus(-logTeacher) * (logTeacher - logStudent);
  }
  // Rounding may leave a value just below zero when both agree.
  return Math.max(0, sum);
}
