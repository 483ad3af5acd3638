import { endianness } from "node:os";
import type { FitnessOutcome, MetricRow, ValueKind } from "./rows.ts";

const littleEndian = endianness() === "LE";

/** Numbers as little-endian float64; NaN and infinities survive, as they would not in a REAL column. */
export function encodeFloats(values: readonly number[]): Buffer {
  const array = Float64Array.from(values);
  const bytes = Buffer.from(array.buffer);
  return littleEndian ? bytes : bytes.swap64();
}

/** @throws Error when the length is not a multiple of 8 */
export function decodeFloats(bytes: Uint8Array): number[] {
  if (bytes.byteLength % 8 !== 0) throw new Error(`${bytes.byteLength} bytes are not float64s`);
  // A fresh array begins at offset 0, as a float64 view needs; a Buffer from the pool might not.
  const copy = new Uint8Array(bytes);
  if (!littleEndian) Buffer.from(copy.buffer).swap64();
  return Array.from(new Float64Array(copy.buffer));
}

/** Columns of a metric: the kind decides, so that a NaN can never pass as a number. */
export function metricColumns(metric: MetricRow): { kind: ValueKind; value: number | null } {
  if (metric.kind !== "finite") return { kind: metric.kind, value: null };
  const { value } = metric;
  if (value === undefined || Number.isNaN(value)) return { kind: "nan", value: null };
  if (Number.isFinite(value)) return { kind: "finite", value };
  return { kind: value > 0 ? "pinf" : "ninf", value: null };
}

/** The number that ranks a trial: its fitness, or the mean of its objectives. */
export function rankingValue(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Columns of a fitness; anything that is not finite is a failure with a reason. */
export function fitnessColumns(fitness: FitnessOutcome): {
  kind: "finite" | "nan";
  value: number | null;
  feasible: 0 | 1;
  reason: string | null;
} {
  if (fitness.state === "failed") {
    return { kind: "nan", value: null, feasible: 0, reason: fitness.reason };
  }
  const value = rankingValue(fitness.values);
  if (!Number.isFinite(value)) {
    return { kind: "nan", value: null, feasible: 0, reason: "the fitness is not finite" };
  }
  return { kind: "finite", value, feasible: fitness.feasible ? 1 : 0, reason: null };
}
