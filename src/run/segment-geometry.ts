import type { SegmentGeometry } from "../optimizers/optimizer.ts";

/** At most so many split points: each costs models² numbers in memory, and finer ones change nothing that can be measured. */
const MAX_BOUNDARIES = 16_384;
/** Elements per read. */
const BLOCK = 1 << 16;

/** Models' merged elements as one long vector each. */
export interface FlatModels {
  /** Model ids, in the order of coefficients. */
  readonly models: readonly string[];
  /** Merged tensors in natural order: their lengths make up the flat index. */
  readonly tensors: readonly { readonly name: string; readonly length: number }[];
  /** Elements [start, start + out.length) of one tensor of one model, as float32. */
  readonly load: (model: string, tensor: string, start: number, out: Float32Array) => void;
}

/**
 * Prefix sums of the models' Gram matrix over the flat parameter index, at evenly spaced boundaries: from these an
 * optimizer gets the angle between any two piecewise combinations without ever forming a vector.
 *
 * Sums are float64 in index order. One pass over all weights.
 */
export function segmentGeometry({ models, tensors, load }: FlatModels): SegmentGeometry {
  const length = tensors.reduce((sum, tensor) => sum + tensor.length, 0);
  const step = Math.max(1, Math.ceil(length / MAX_BOUNDARIES));
  const count = models.length;
  const sums = new Float64Array(count * count);
  const boundaries = [0];
  const gram: number[][][] = [square(sums, count)];
  const buffers = models.map(() => new Float32Array(BLOCK));
  let position = 0;
  for (const tensor of tensors) {
    for (let start = 0; start < tensor.length; start += BLOCK) {
      const size = Math.min(BLOCK, tensor.length - start);
      const views = buffers.map((buffer) => buffer.subarray(0, size));
      models.forEach((model, k) => {
        load(model, tensor.name, start, views[k] as Float32Array);
      });
      for (let from = 0; from < size; ) {
        const to = Math.min(size, from + step - (position % step));
        addProducts(sums, views, from, to);
        position += to - from;
        from = to;
        if (position % step === 0 || position === length) {
          boundaries.push(position);
          gram.push(square(sums, count));
        }
      }
    }
  }
  return { length, boundaries, gram };
}

/** sums[k][l] += Σ x_k·x_l over [from, to). */
function addProducts(
  sums: Float64Array,
  views: readonly Float32Array[],
  from: number,
  to: number,
): void {
  const count = views.length;
  for (let k = 0; k < count; k++) {
    const x = views[k] as Float32Array;
    for (let l = k; l < count; l++) {
      const y = views[l] as Float32Array;
      let sum = 0;
      for (let i = from; i < to; i++) sum += x[i]! * y[i]!;
      sums[k * count + l]! += sum;
      if (l !== k) sums[l * count + k] = sums[k * count + l]!;
    }
  }
}

function square(sums: Float64Array, count: number): number[][] {
  return Array.from({ length: count }, (_, k) => [...sums.subarray(k * count, (k + 1) * count)]);
}
