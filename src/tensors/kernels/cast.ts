// Casts between float32 and the stored float types, round to nearest even, in integer arithmetic wherever a NaN could
// pass, because WebAssembly leaves the payload of a computed NaN open.
//
// bfloat16 is the upper half of a float32. float16 has 5 exponent bits (bias 15) and 10 fraction bits.

const SIGN: v128 = i32x4.splat(0x80000000);
const MAGNITUDE: v128 = i32x4.splat(0x7fffffff);
const INFINITY_BITS: v128 = i32x4.splat(0x7f800000);

/** Four lanes at the end of an array that is not a multiple of four long pass through here. */
const scratchIn: usize = memory.data(32);
const scratchOut: usize = memory.data(32);

// @ts-expect-error: decorator
@inline
function widenBf16x4(raw: usize, out: usize): void {
  v128.store(out, i32x4.shl(v128.load16x4_u(raw), 16));
}

/** (x << 13) read as float32 is the value times 2^-112, subnormals included; the product with 2^112 is exact. */
// @ts-expect-error: decorator
@inline
function widenF16x4(raw: usize, out: usize): void {
  const half = v128.load16x4_u(raw);
  const sign = i32x4.shl(v128.and(half, i32x4.splat(0x8000)), 16);
  const shifted = i32x4.shl(v128.and(half, i32x4.splat(0x7fff)), 13);
  const finite = f32x4.mul(shifted, f32x4.splat(reinterpret<f32>((127 + 112) << 23)));
  const special = i32x4.gt_s(shifted, i32x4.splat(0x7bff << 13));
  const magnitude = v128.bitselect(v128.or(shifted, INFINITY_BITS), finite, special);
  v128.store(out, v128.or(sign, magnitude));
}

/** Adds half of the dropped part, minus one unless the kept part is odd: ties go to the even neighbor. */
// @ts-expect-error: decorator
@inline
function narrowBf16x4(values: usize, raw: usize): void {
  const bits = v128.load(values);
  const odd = v128.and(i32x4.shr_u(bits, 16), i32x4.splat(1));
  const rounded = i32x4.shr_u(i32x4.add(i32x4.add(bits, i32x4.splat(0x7fff)), odd), 16);
  const quiet = v128.or(i32x4.shr_u(bits, 16), i32x4.splat(0x40));
  const isNan = i32x4.gt_s(v128.and(bits, MAGNITUDE), INFINITY_BITS);
  const result = v128.bitselect(quiet, rounded, isNan);
  v128.store64_lane(raw, i16x8.narrow_i32x4_u(result, result), 0);
}

// @ts-expect-error: decorator
@inline
function narrowF16x4(values: usize, raw: usize): void {
  const bits = v128.load(values);
  const magnitude = v128.and(bits, MAGNITUDE);
  const sign = i32x4.shr_u(v128.and(bits, SIGN), 16);
  // Normal results: change of exponent bias, then the same rounding as above on 13 bits. A carry out of the largest
  // finite value gives the bit pattern of infinity.
  const odd = v128.and(i32x4.shr_u(magnitude, 13), i32x4.splat(1));
  const rebias = i32x4.splat((0xfff - (112 << 23)) as i32);
  const normal = i32x4.shr_u(i32x4.add(i32x4.add(magnitude, rebias), odd), 13);
  // Subnormal results: adding 0.5 aligns the float32 so that its last fraction bit counts 2^-24, float16's smallest step.
  const aligned = f32x4.add(magnitude, f32x4.splat(0.5));
  const subnormal = i32x4.sub(aligned, f32x4.splat(0.5));
  const isSmall = i32x4.lt_s(magnitude, i32x4.splat(113 << 23));
  const isLarge = i32x4.ge_s(magnitude, i32x4.splat((127 + 16) << 23));
  const isNan = i32x4.gt_s(magnitude, INFINITY_BITS);
  const nan = v128.or(v128.and(i32x4.shr_u(magnitude, 13), i32x4.splat(0x1ff)), i32x4.splat(0x7e00));
  let result = v128.bitselect(subnormal, normal, isSmall);
  result = v128.bitselect(i32x4.splat(0x7c00), result, isLarge);
  result = v128.bitselect(nan, result, isNan);
  result = v128.or(result, sign);
  v128.store64_lane(raw, i16x8.narrow_i32x4_u(result, result), 0);
}

export function widenBf16(raw: usize, out: usize, n: usize): void {
  const whole = n & ~3;
  for (let i: usize = 0; i < whole; i += 4) widenBf16x4(raw + (i << 1), out + (i << 2));
  if (whole == n) return;
  memory.copy(scratchIn, raw + (whole << 1), (n - whole) << 1);
  widenBf16x4(scratchIn, scratchOut);
  memory.copy(out + (whole << 2), scratchOut, (n - whole) << 2);
}

export function widenF16(raw: usize, out: usize, n: usize): void {
  const whole = n & ~3;
  for (let i: usize = 0; i < whole; i += 4) widenF16x4(raw + (i << 1), out + (i << 2));
  if (whole == n) return;
  memory.copy(scratchIn, raw + (whole << 1), (n - whole) << 1);
  widenF16x4(scratchIn, scratchOut);
  memory.copy(out + (whole << 2), scratchOut, (n - whole) << 2);
}

export function narrowBf16(values: usize, raw: usize, n: usize): void {
  const whole = n & ~3;
  for (let i: usize = 0; i < whole; i += 4) narrowBf16x4(values + (i << 2), raw + (i << 1));
  if (whole == n) return;
  memory.copy(scratchIn, values + (whole << 2), (n - whole) << 2);
  narrowBf16x4(scratchIn, scratchOut);
  memory.copy(raw + (whole << 1), scratchOut, (n - whole) << 1);
}

export function narrowF16(values: usize, raw: usize, n: usize): void {
  const whole = n & ~3;
  for (let i: usize = 0; i < whole; i += 4) narrowF16x4(values + (i << 2), raw + (i << 1));
  if (whole == n) return;
  memory.copy(scratchIn, values + (whole << 2), (n - whole) << 2);
  narrowF16x4(scratchIn, scratchOut);
  memory.copy(raw + (whole << 1), scratchOut, (n - whole) << 1);
}

/** A float64 NaN becomes the quiet float32 NaN of its sign. */
export function widenF64(raw: usize, out: usize, n: usize): void {
  for (let i: usize = 0; i < n; i++) {
    const x = load<f64>(raw + (i << 3));
    const nan: u32 = ((reinterpret<u64>(x) >> 32) as u32 & 0x80000000) | 0x7fc00000;
    store<u32>(out + (i << 2), isNaN(x) ? nan : reinterpret<u32>(x as f32));
  }
}

/** A float32 NaN becomes the quiet float64 NaN of its sign. */
export function narrowF64(values: usize, raw: usize, n: usize): void {
  for (let i: usize = 0; i < n; i++) {
    const x = load<f32>(values + (i << 2));
    const nan: u64 = ((reinterpret<u32>(x) & 0x80000000) as u64 << 32) | 0x7ff8000000000000;
    store<u64>(raw + (i << 3), isNaN(x) ? nan : reinterpret<u64>(x as f64));
  }
}
