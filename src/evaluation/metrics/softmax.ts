import { expOfMinus } from "./exp.ts";
import type { LabelItem } from "./metric.ts";

/**
 * log Σ exp of one row, in float64, shifted by the row's maximum so that it never overflows.
 *
 * @param values row-major outputs; the row is [start, start + width)
 */
export function logSumExp(values: Float32Array, start: number, width: number): number {
  const end = start + width;
  let highest = values[start]!;
  for (let i = start + 1; i < end; i++) {
    const value = values[i]!;
    if (value > highest) highest = value;
  }
  let sum = 0;
  for (let i = start; i < end; i++) sum += expOfMinus(highest - values[i]!);
  return highest + Math.log(sum);
}

/** Column of a row's largest value; of equal ones the lowest column. */
export function argmax(values: Float32Array, start: number, width: number): number {
  let best = 0;
  let highest = values[start]!;
  for (let i = 1; i < width; i++) {
    const value = values[start + i]!;
    if (value > highest) {
      highest = value;
      best = i;
    }
  }
  return best;
}

/** Σ over rows of −log softmax(row)[label], in nats. */
export function negativeLogLikelihood(item: LabelItem): number {
  const { output, labels, rows, width, start } = item;
  let sum = 0;
  for (let row = 0; row < rows; row++) {
    const at = start + row * width;
    sum += logSumExp(output, at, width) - output[at + labels[row]!]!;
  }
  return sum;
}
