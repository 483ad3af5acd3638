// Reductions over eight float64 lanes: lane j adds elements j, j + 8, j + 16, …; the lanes are joined at the end in one
// fixed order. Products of two float32 are exact in float64.

/** ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7)); each register holds lanes (2r, 2r + 1). */
// @ts-expect-error: decorator
@inline
function joinLanes(a: v128, b: v128, c: v128, d: v128): f64 {
  const sum = f64x2.add(f64x2.add(a, c), f64x2.add(b, d));
  return f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1);
}

// @ts-expect-error: decorator
@inline
function lower(x: v128): v128 {
  return f64x2.promote_low_f32x4(x);
}

// @ts-expect-error: decorator
@inline
function upper(x: v128): v128 {
  return f64x2.promote_low_f32x4(i64x2.shuffle(x, x, 1, 1));
}

/** The rest of an array, padded with zeros, which add nothing. */
const restX: usize = memory.data(32);
const restY: usize = memory.data(32);

// @ts-expect-error: decorator
@inline
function copyRest(x: usize, from: usize, n: usize, rest: usize): void {
  memory.fill(rest, 0, 32);
  memory.copy(rest, x + (from << 2), (n - from) << 2);
}

export function dot(x: usize, y: usize, n: usize): f64 {
  let a = f64x2.splat(0);
  let b = a;
  let c = a;
  let d = a;
  const whole = n & ~7;
  for (let i: usize = 0; i < n; i += 8) {
    let p = x + (i << 2);
    let q = y + (i << 2);
    if (i == whole) {
      copyRest(x, i, n, restX);
      copyRest(y, i, n, restY);
      p = restX;
      q = restY;
    }
    const x0 = v128.load(p);
    const x1 = v128.load(p, 16);
    const y0 = v128.load(q);
    const y1 = v128.load(q, 16);
    a = f64x2.add(a, f64x2.mul(lower(x0), lower(y0)));
    b = f64x2.add(b, f64x2.mul(upper(x0), upper(y0)));
    c = f64x2.add(c, f64x2.mul(lower(x1), lower(y1)));
    d = f64x2.add(d, f64x2.mul(upper(x1), upper(y1)));
  }
  return joinLanes(a, b, c, d);
}

export function absoluteSum(x: usize, n: usize): f64 {
  let a = f64x2.splat(0);
  let b = a;
  let c = a;
  let d = a;
  const whole = n & ~7;
  for (let i: usize = 0; i < n; i += 8) {
    let p = x + (i << 2);
    if (i == whole) {
      copyRest(x, i, n, restX);
      p = restX;
    }
    const x0 = f32x4.abs(v128.load(p));
    const x1 = f32x4.abs(v128.load(p, 16));
    a = f64x2.add(a, lower(x0));
    b = f64x2.add(b, upper(x0));
    c = f64x2.add(c, lower(x1));
    d = f64x2.add(d, upper(x1));
  }
  return joinLanes(a, b, c, d);
}

export function countNonFinite(x: usize, n: usize): u32 {
  const exponent = i32x4.splat(0x7f800000);
  let counts = i32x4.splat(0);
  const whole = n & ~3;
  for (let i: usize = 0; i < n; i += 4) {
    let p = x + (i << 2);
    if (i == whole) {
      copyRest(x, i, n, restX);
      p = restX;
    }
    // A match is −1 in its lane.
    counts = i32x4.sub(counts, i32x4.eq(v128.and(v128.load(p), exponent), exponent));
  }
  return (
    i32x4.extract_lane(counts, 0) +
    i32x4.extract_lane(counts, 1) +
    i32x4.extract_lane(counts, 2) +
    i32x4.extract_lane(counts, 3)
  );
}
