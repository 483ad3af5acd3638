// Everything the module exports. Pointers are byte addresses, lengths count elements; nothing allocates.

export {
  narrowBf16,
  narrowF16,
  narrowF64,
  widenBf16,
  widenF16,
  widenF64,
} from "./cast";
export { addScaled, axpy, fill, scale, subtract, weightedSum } from "./combine";
export { electAndMerge, electTowards } from "./elect";
export { absoluteSum, countNonFinite, dot } from "./reduce";
export {
  keepLargest,
  keepRandom,
  magnitudeHistogram,
  magnitudeHistogramLow,
  selectNonzero,
} from "./select";

/** First byte that belongs to the caller. */
export function heapBase(): usize {
  return __heap_base;
}
