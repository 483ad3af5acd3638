/**
 * Random numbers without a state: u(i) depends on four names and an index alone, so a mask is the same for every candidate,
 * thread and order of evaluation, and masks of growing keep probability are nested.
 */

/** Two 32-bit keys of one stream. */
export interface UniformKeys {
  readonly k0: number;
  readonly k1: number;
}

/** MurmurHash3's 32-bit finalizer, as an unsigned integer. */
export function fmix(value: number): number {
  let h = value;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** FNV-1a, 32 bits, over the UTF-8 bytes of a text. */
export function fnv1a32(text: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 0;
}

/**
 * The keys of one stream.
 *
 * @param seed the recipe's seed
 * @param modelId identity of the source model
 * @param tensorName output name of the tensor
 * @param purpose what the numbers are for, `dare` for instance
 */
export function uniformKeys(
  seed: number,
  modelId: string,
  tensorName: string,
  purpose: string,
): UniformKeys {
  const text = [seed, modelId, tensorName, purpose].join("\u001f");
  return { k0: fmix(fnv1a32(text)), k1: fmix(fnv1a32(`${text}\u001e`)) };
}

/** The index-th draw as an integer in [0, 2^24). */
export function uniformBits(keys: UniformKeys, index: number): number {
  return fmix(fmix((index + keys.k0) >>> 0) ^ keys.k1) >>> 8;
}

/** The index-th draw, uniform on [0, 1) in steps of 2^-24. */
export function uniformAt(keys: UniformKeys, index: number): number {
  return uniformBits(keys, index) / 0x1000000;
}

/** The number of draws below p: `uniformBits < keepLimit(p)` is `uniformAt < p` exactly. */
export function keepLimit(p: number): number {
  return Math.min(0x1000000, Math.max(0, Math.ceil(p * 0x1000000)));
}
