import type { Kernels } from "./kernels.ts";

/** Where a ranking by magnitude is cut: everything above `threshold` is kept, and the first `ties` elements equal to it. */
export interface MagnitudeRank {
  /** Bits of the k-th largest |x|. */
  readonly threshold: number;
  readonly ties: number;
}

const bins = 65_536;

/**
 * The k-th largest magnitude of a tensor that is visited in blocks, without sorting or holding it: a histogram of the upper
 * 16 bits finds the bin, a second one of the lower 16 bits inside it the value.
 *
 * @param count k, at least 1 and at most the number of elements
 * @param visitAll calls its argument with every block; called twice
 */
export function kthLargestMagnitude(
  kernels: Kernels,
  count: number,
  visitAll: (visit: (block: Float32Array) => void) => void,
): MagnitudeRank {
  const mark = kernels.mark();
  try {
    const histogram = kernels.counters(bins);
    visitAll((block) => kernels.magnitudeHistogram(block, histogram));
    const upper = cut(histogram, count);
    histogram.fill(0);
    visitAll((block) => kernels.magnitudeHistogramLow(block, upper.bin, histogram));
    const lower = cut(histogram, upper.left);
    return { threshold: upper.bin * bins + lower.bin, ties: lower.left };
  } finally {
    kernels.release(mark);
  }
}

/** The bin in which the count-th largest element lies, and how many elements of that bin it takes to get there. */
function cut(histogram: Uint32Array, count: number): { bin: number; left: number } {
  let left = count;
  for (let bin = bins - 1; bin >= 0; bin--) {
    const here = histogram[bin]!;
    if (here >= left) return { bin, left };
    left -= here;
  }
  throw new Error(`rank ${count} is beyond the number of elements`);
}
