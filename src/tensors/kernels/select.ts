// Choosing elements: magnitude ranks, random masks. Magnitude order of float32 is integer order of the bits without sign.

export function magnitudeHistogram(x: usize, histogram: usize, n: usize): void {
  for (let i: usize = 0; i < n; i++) {
    const bin: usize = (load<u32>(x + (i << 2)) & 0x7fffffff) >> 16;
    const counter = histogram + (bin << 2);
    store<u32>(counter, load<u32>(counter) + 1);
  }
}

export function magnitudeHistogramLow(x: usize, upper: u32, histogram: usize, n: usize): void {
  for (let i: usize = 0; i < n; i++) {
    const bits = load<u32>(x + (i << 2)) & 0x7fffffff;
    if (bits >> 16 != upper) continue;
    const counter = histogram + (((bits & 0xffff) as usize) << 2);
    store<u32>(counter, load<u32>(counter) + 1);
  }
}

export function keepLargest(x: usize, threshold: i32, ties: u32, out: usize, n: usize): u32 {
  const limit = i32x4.splat(threshold);
  const magnitude = i32x4.splat(0x7fffffff);
  let left = ties;
  let i: usize = 0;
  const whole = n & ~3;
  for (; i < whole; i += 4) {
    const value = v128.load(x + (i << 2));
    const bits = v128.and(value, magnitude);
    if (v128.any_true(i32x4.eq(bits, limit))) {
      left = keepFew(x, threshold, left, out, i, i + 4);
    } else {
      v128.store(out + (i << 2), v128.and(value, i32x4.gt_s(bits, limit)));
    }
  }
  return keepFew(x, threshold, left, out, i, n);
}

/** Elements [from, to) one by one: a tie is kept while any are left. */
function keepFew(x: usize, threshold: i32, ties: u32, out: usize, from: usize, to: usize): u32 {
  for (let i = from; i < to; i++) {
    const value = load<u32>(x + (i << 2));
    const bits: i32 = value & 0x7fffffff;
    let kept = bits > threshold;
    if (bits == threshold && ties > 0) {
      kept = true;
      ties--;
    }
    store<u32>(out + (i << 2), kept ? value : 0);
  }
  return ties;
}

/** out = x where mask is not zero (of either sign), else y. */
export function selectNonzero(mask: usize, x: usize, y: usize, out: usize, n: usize): void {
  const whole = n & ~3;
  const magnitude = i32x4.splat(0x7fffffff);
  const zero = i32x4.splat(0);
  for (let i: usize = 0; i < whole; i += 4) {
    const isZero = i32x4.eq(v128.and(v128.load(mask + (i << 2)), magnitude), zero);
    v128.store(
      out + (i << 2),
      v128.bitselect(v128.load(y + (i << 2)), v128.load(x + (i << 2)), isZero),
    );
  }
  for (let i = whole; i < n; i++) {
    const isZero = (load<u32>(mask + (i << 2)) & 0x7fffffff) == 0;
    store<u32>(out + (i << 2), load<u32>((isZero ? y : x) + (i << 2)));
  }
}

/** The 32-bit finalizer of MurmurHash3 on four lanes. */
// @ts-expect-error: decorator
@inline
function mix4(h: v128): v128 {
  h = v128.xor(h, i32x4.shr_u(h, 16));
  h = i32x4.mul(h, i32x4.splat(0x85ebca6b));
  h = v128.xor(h, i32x4.shr_u(h, 13));
  h = i32x4.mul(h, i32x4.splat(0xc2b2ae35));
  return v128.xor(h, i32x4.shr_u(h, 16));
}

// @ts-expect-error: decorator
@inline
function mix(h: u32): u32 {
  h ^= h >> 16;
  h *= 0x85ebca6b;
  h ^= h >> 13;
  h *= 0xc2b2ae35;
  return h ^ (h >> 16);
}

/** A draw is the upper 24 bits of the hash; kept where it is below `limit` = ⌈p·2^24⌉, which is u < p exactly. */
export function keepRandom(
  x: usize,
  k0: u32,
  k1: u32,
  start: u32,
  limit: i32,
  out: usize,
  n: usize,
): void {
  const first = start + k0;
  const whole = n & ~3;
  const key = i32x4.splat(k1);
  const bound = i32x4.splat(limit);
  let index = i32x4.add(i32x4.splat(first), i32x4(0, 1, 2, 3));
  for (let i: usize = 0; i < whole; i += 4) {
    const draw = i32x4.shr_u(mix4(v128.xor(mix4(index), key)), 8);
    v128.store(out + (i << 2), v128.and(v128.load(x + (i << 2)), i32x4.lt_s(draw, bound)));
    index = i32x4.add(index, i32x4.splat(4));
  }
  for (let i = whole; i < n; i++) {
    const draw: i32 = mix(mix(first + (i as u32)) ^ k1) >> 8;
    store<u32>(out + (i << 2), draw < limit ? load<u32>(x + (i << 2)) : 0);
  }
}
