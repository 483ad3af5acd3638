/** The bit patterns of float32 values; every NaN counts as one value, because arithmetic leaves its payload open. */
export function bitsOf(values: Float32Array): number[] {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  return [...bits].map((b) => ((b & 0x7fffffff) > 0x7f800000 ? 0x7fc00000 : b));
}

/** Float32 values of bit patterns. */
export function floatsOf(bits: readonly number[]): Float32Array {
  return new Float32Array(Uint32Array.from(bits).buffer);
}
