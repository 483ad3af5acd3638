/** Φ(x), the standard normal distribution function, to about 1e-15 absolute and with full relative precision in the lower tail. */
export function normalCdf(x: number): number {
  if (x > 0) return 1 - normalCdf(-x);
  return x > -3 ? 0.5 - series(-x) : tail(-x);
}

/** ∫₀ˣ φ, by φ(x)·(x + x³/3 + x⁵/15 + …); all terms are positive. */
function series(x: number): number {
  let term = x;
  let sum = x;
  for (let k = 1; term > 1e-18 * sum; k++) {
    term *= (x * x) / (2 * k + 1);
    sum += term;
  }
  return sum * density(x);
}

/** 1 − Φ(x) for x ≥ 3, by Laplace's continued fraction from a fixed depth upwards. */
function tail(x: number): number {
  let fraction = x;
  for (let k = 60; k > 0; k--) fraction = x + k / fraction;
  return density(x) / fraction;
}

function density(x: number): number {
  return Math.exp(-0.5 * x * x) / Math.sqrt(2 * Math.PI);
}

/** Φ⁻¹(p) for p in (0, 1): bisection until the interval is small, then Newton steps. */
export function normalQuantile(p: number): number {
  if (!(p > 0 && p < 1)) throw new Error(`a probability of ${p} has no quantile`);
  if (p > 0.5) return -normalQuantile(1 - p);
  let low = -39;
  let high = 0;
  while (high - low > 1e-3) {
    const middle = (low + high) / 2;
    if (normalCdf(middle) < p) low = middle;
    else high = middle;
  }
  let x = (low + high) / 2;
  for (let i = 0; i < 4; i++) x -= (normalCdf(x) - p) / density(x);
  return x;
}
