// Sign election of TIES: per element, the sign of the weighted sum of the deltas is elected (zero elects +), and only
// the deltas of that sign take part. Zero has no sign and never takes part.

/** All ones where a value is of the elected sign: value > 0 where positive, else value < 0. */
// @ts-expect-error: decorator
@inline
function agrees(value: v128, positive: v128): v128 {
  const zero = f64x2.splat(0);
  return v128.bitselect(f64x2.gt(value, zero), f64x2.lt(value, zero), positive);
}

/** Two float32 as float64, from an address that need not be followed by more. */
// @ts-expect-error: decorator
@inline
function loadPair(p: usize): v128 {
  return f64x2.promote_low_f32x4(v128.load64_zero(p));
}

/** One float32 as float64 in lane 0. */
// @ts-expect-error: decorator
@inline
function loadOne(p: usize): v128 {
  return f64x2.promote_low_f32x4(v128.load32_zero(p));
}

// @ts-expect-error: decorator
@inline
function loadLanes<T>(p: usize): v128 {
  return sizeof<T>() == 8 ? loadPair(p) : loadOne(p);
}

// @ts-expect-error: decorator
@inline
function storeLanes<T>(p: usize, value: v128): void {
  const rounded = f32x4.demote_f64x2_zero(value);
  if (sizeof<T>() == 8) v128.store64_lane(p, rounded, 0);
  else v128.store32_lane(p, rounded, 0);
}

// @ts-expect-error: decorator
@inline
function mergeLanes<T>(
  count: usize,
  pointers: usize,
  weights: usize,
  normalize: bool,
  out: usize,
  offset: usize,
): void {
  const zero = f64x2.splat(0);
  let sum = zero;
  for (let k: usize = 0; k < count; k++) {
    const delta = loadLanes<T>(load<usize>(pointers + (k << 2)) + offset);
    sum = f64x2.add(sum, f64x2.mul(v128.load64_splat(weights + (k << 3)), delta));
  }
  const positive = f64x2.ge(sum, zero);
  let total = zero;
  let share = zero;
  for (let k: usize = 0; k < count; k++) {
    const weight = v128.load64_splat(weights + (k << 3));
    const value = f64x2.mul(weight, loadLanes<T>(load<usize>(pointers + (k << 2)) + offset));
    const agree = agrees(value, positive);
    total = f64x2.add(total, v128.and(value, agree));
    share = f64x2.add(share, v128.and(weight, agree));
  }
  if (normalize) {
    total = f64x2.div(total, v128.bitselect(f64x2.splat(1), share, f64x2.eq(share, zero)));
  }
  storeLanes<T>(out + offset, total);
}

/** out = Σ_{agreeing} w_k·d_k, divided by Σ_{agreeing} w_k (0 → 1) when `normalize`. `pointers` address the deltas. */
export function electAndMerge(
  count: usize,
  pointers: usize,
  weights: usize,
  normalize: bool,
  out: usize,
  n: usize,
): void {
  const whole = n & ~1;
  for (let i: usize = 0; i < whole; i += 2) {
    mergeLanes<u64>(count, pointers, weights, normalize, out, i << 2);
  }
  if (whole < n) mergeLanes<u32>(count, pointers, weights, normalize, out, whole << 2);
}

// @ts-expect-error: decorator
@inline
function towardsLanes<T>(
  count: usize,
  pointers: usize,
  weights: usize,
  strengths: usize,
  normalize: bool,
  lambda: f64,
  base: usize,
  out: usize,
  offset: usize,
): void {
  const zero = f64x2.splat(0);
  const origin = loadLanes<T>(base + offset);
  let sum = zero;
  for (let k: usize = 0; k < count; k++) {
    const delta = f64x2.sub(loadLanes<T>(load<usize>(pointers + (k << 2)) + offset), origin);
    sum = f64x2.add(sum, f64x2.mul(v128.load64_splat(strengths + (k << 3)), delta));
  }
  const positive = f64x2.ge(sum, zero);
  let total = zero;
  let taken = zero;
  let share = zero;
  for (let k: usize = 0; k < count; k++) {
    const strength = v128.load64_splat(strengths + (k << 3));
    const expert = loadLanes<T>(load<usize>(pointers + (k << 2)) + offset);
    const agree = agrees(f64x2.mul(strength, f64x2.sub(expert, origin)), positive);
    total = f64x2.add(total, v128.and(f64x2.mul(strength, expert), agree));
    taken = f64x2.add(taken, v128.and(strength, agree));
    share = f64x2.add(share, v128.and(v128.load64_splat(weights + (k << 3)), agree));
  }
  total = f64x2.mul(f64x2.splat(lambda), total);
  taken = f64x2.mul(f64x2.splat(lambda), taken);
  if (normalize) {
    share = v128.bitselect(f64x2.splat(1), share, f64x2.eq(share, zero));
    total = f64x2.div(total, share);
    taken = f64x2.div(taken, share);
  }
  const rest = f64x2.mul(f64x2.sub(f64x2.splat(1), taken), origin);
  storeLanes<T>(out + offset, f64x2.add(total, rest));
}

/**
 * out = lambda·Σ s_k·x_k / N + (1 − lambda·Σ s_k / N)·base over the agreeing experts, N = Σ w_k of them (0 → 1) when
 * `normalize`, else 1. Election and addition to the base in one, so that an expert taken whole comes back bit for bit.
 */
export function electTowards(
  count: usize,
  pointers: usize,
  weights: usize,
  strengths: usize,
  normalize: bool,
  lambda: f64,
  base: usize,
  out: usize,
  n: usize,
): void {
  const whole = n & ~1;
  for (let i: usize = 0; i < whole; i += 2) {
    towardsLanes<u64>(count, pointers, weights, strengths, normalize, lambda, base, out, i << 2);
  }
  if (whole < n) {
    towardsLanes<u32>(count, pointers, weights, strengths, normalize, lambda, base, out, whole << 2);
  }
}
