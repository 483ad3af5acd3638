import { forEachBlock, scratchBlock, withScratch } from "./blocks.ts";
import type { BasisTerm, JobFacts, TensorJob } from "./method.ts";
import { baseOf } from "./task-vectors.ts";

// Methods whose rules look at rows, ranks or whole matrices hold one tensor at a time in ordinary memory.

/** All elements of one input. */
export function loadWhole(job: TensorJob, input: number): Float32Array {
  const values = new Float32Array(job.length);
  withScratch(job, () => {
    const block = scratchBlock(job);
    forEachBlock(job, (start, length) => {
      const part = block.subarray(0, length);
      job.inputs[input]!.load(start, part);
      values.set(part, start);
    });
  });
  return values;
}

/** θ_k − θ₀ of one input as float32. */
export function loadWholeDelta(job: TensorJob, input: number, base: Float32Array): Float32Array {
  const values = loadWhole(job, input);
  for (let i = 0; i < values.length; i++) values[i] = values[i]! - base[i]!;
  return values;
}

/** Stores a finished tensor, rounded once to float32. */
export function storeWhole(job: TensorJob, values: Float32Array | Float64Array): void {
  withScratch(job, () => {
    const block = scratchBlock(job);
    forEachBlock(job, (start, length) => {
      const part = block.subarray(0, length);
      part.set(values.subarray(start, start + length));
      job.store(start, part);
    });
  });
}

/** A tensor as rows along its last dimension; vectors and scalars are one row. */
export interface RowLayout {
  readonly rows: number;
  readonly columns: number;
}

export function rowLayout(job: Pick<TensorJob, "shape" | "length">): RowLayout {
  const columns = job.shape.at(-1) ?? 1;
  return { rows: columns === 0 ? 0 : job.length / columns, columns };
}

/**
 * The basis of a method whose result at `lambda: 1` is the only thing it makes: W = λ·S + (1 − λ)·θ₀.
 *
 * @param key the method and its structural parameters
 */
export function fullStrength(
  job: JobFacts,
  key: string,
  lambda: number,
  merge: (job: TensorJob) => void,
): readonly BasisTerm[] {
  const base = baseOf(job);
  const models = job.inputs.map(({ modelId }) => modelId);
  const derived = {
    key: JSON.stringify([key, job.name, models]),
    make: (full: TensorJob) => {
      const global = { ...full.parameters.global, lambda: 1 };
      merge({ ...full, parameters: { ...full.parameters, global } });
    },
  };
  return [
    { input: base, coefficient: lambda, derived },
    { input: base, coefficient: 1 - lambda },
  ];
}
