// Sums of scaled arrays. `pointers` is an array of `count` addresses, `weights` an array of `count` float64.

export function fill(out: usize, value: f32, n: usize): void {
  for (let i: usize = 0; i < n; i++) store<f32>(out + (i << 2), value);
}

export function scale(a: f32, x: usize, out: usize, n: usize): void {
  const factor = f32x4.splat(a);
  const whole = n & ~3;
  for (let i: usize = 0; i < whole; i += 4) {
    v128.store(out + (i << 2), f32x4.mul(factor, v128.load(x + (i << 2))));
  }
  for (let i = whole; i < n; i++) store<f32>(out + (i << 2), a * load<f32>(x + (i << 2)));
}

export function axpy(a: f32, x: usize, out: usize, n: usize): void {
  const factor = f32x4.splat(a);
  const whole = n & ~3;
  for (let i: usize = 0; i < whole; i += 4) {
    const product = f32x4.mul(factor, v128.load(x + (i << 2)));
    v128.store(out + (i << 2), f32x4.add(v128.load(out + (i << 2)), product));
  }
  for (let i = whole; i < n; i++) {
    const product: f32 = a * load<f32>(x + (i << 2));
    store<f32>(out + (i << 2), load<f32>(out + (i << 2)) + product);
  }
}

export function subtract(x: usize, y: usize, out: usize, n: usize): void {
  const whole = n & ~3;
  for (let i: usize = 0; i < whole; i += 4) {
    v128.store(out + (i << 2), f32x4.sub(v128.load(x + (i << 2)), v128.load(y + (i << 2))));
  }
  for (let i = whole; i < n; i++) {
    store<f32>(out + (i << 2), load<f32>(x + (i << 2)) - load<f32>(y + (i << 2)));
  }
}

/**
 * out = Σ_k weights[k]·x_k in float64, first product first, rounded once. count ≥ 1. The accumulator starts with the first
 * product, not with zero, so that a single weight of 1 returns its array bit for bit, the sign of zero included.
 */
export function weightedSum(
  count: usize,
  pointers: usize,
  weights: usize,
  out: usize,
  n: usize,
): void {
  const whole = n & ~7;
  for (let i: usize = 0; i < whole; i += 8) {
    let p = load<usize>(pointers) + (i << 2);
    let w = v128.load64_splat(weights);
    let x0 = v128.load(p);
    let x1 = v128.load(p, 16);
    let a = f64x2.mul(w, f64x2.promote_low_f32x4(x0));
    let b = f64x2.mul(w, f64x2.promote_low_f32x4(i64x2.shuffle(x0, x0, 1, 1)));
    let c = f64x2.mul(w, f64x2.promote_low_f32x4(x1));
    let d = f64x2.mul(w, f64x2.promote_low_f32x4(i64x2.shuffle(x1, x1, 1, 1)));
    for (let k: usize = 1; k < count; k++) {
      p = load<usize>(pointers + (k << 2)) + (i << 2);
      w = v128.load64_splat(weights + (k << 3));
      x0 = v128.load(p);
      x1 = v128.load(p, 16);
      a = f64x2.add(a, f64x2.mul(w, f64x2.promote_low_f32x4(x0)));
      b = f64x2.add(b, f64x2.mul(w, f64x2.promote_low_f32x4(i64x2.shuffle(x0, x0, 1, 1))));
      c = f64x2.add(c, f64x2.mul(w, f64x2.promote_low_f32x4(x1)));
      d = f64x2.add(d, f64x2.mul(w, f64x2.promote_low_f32x4(i64x2.shuffle(x1, x1, 1, 1))));
    }
    const q = out + (i << 2);
    v128.store(q, i64x2.shuffle(f32x4.demote_f64x2_zero(a), f32x4.demote_f64x2_zero(b), 0, 2));
    v128.store(q, i64x2.shuffle(f32x4.demote_f64x2_zero(c), f32x4.demote_f64x2_zero(d), 0, 2), 16);
  }
  for (let i = whole; i < n; i++) {
    let sum = load<f64>(weights) * (load<f32>(load<usize>(pointers) + (i << 2)) as f64);
    for (let k: usize = 1; k < count; k++) {
      const x = load<f32>(load<usize>(pointers + (k << 2)) + (i << 2)) as f64;
      sum += load<f64>(weights + (k << 3)) * x;
    }
    store<f32>(out + (i << 2), sum as f32);
  }
}

/** out = base + a·x in float64, rounded once. */
export function addScaled(base: usize, a: f64, x: usize, out: usize, n: usize): void {
  const factor = f64x2.splat(a);
  const whole = n & ~3;
  for (let i: usize = 0; i < whole; i += 4) {
    const b = v128.load(base + (i << 2));
    const v = v128.load(x + (i << 2));
    const low = f64x2.add(
      f64x2.promote_low_f32x4(b),
      f64x2.mul(factor, f64x2.promote_low_f32x4(v)),
    );
    const high = f64x2.add(
      f64x2.promote_low_f32x4(i64x2.shuffle(b, b, 1, 1)),
      f64x2.mul(factor, f64x2.promote_low_f32x4(i64x2.shuffle(v, v, 1, 1))),
    );
    const rounded = i64x2.shuffle(
      f32x4.demote_f64x2_zero(low),
      f32x4.demote_f64x2_zero(high),
      0,
      2,
    );
    v128.store(out + (i << 2), rounded);
  }
  for (let i = whole; i < n; i++) {
    const sum = (load<f32>(base + (i << 2)) as f64) + a * (load<f32>(x + (i << 2)) as f64);
    store<f32>(out + (i << 2), sum as f32);
  }
}
