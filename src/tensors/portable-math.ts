/**
 * Sine and arc cosine from additions, multiplications, divisions and square roots alone. The language leaves the last bits
 * of `Math.sin` and `Math.acos` to the engine; merge coefficients must not depend on which one is used.
 * Absolute errors stay below 2e-15 for angles within ±10.
 */

/** π/2 as the sum of two float64: its nearest value and the remainder. */
const halfPi = 1.5707963267948966;
const halfPiRest = 6.123233995736766e-17;

/** Taylor series of sine on [−π/4, π/4]; the first term left out is below 2^-60. */
function sineSeries(x: number): number {
  const square = x * x;
  let sum = 0;
  for (let n = 19; n >= 3; n -= 2) sum = (-square / (n * (n - 1))) * (1 + sum);
  return x + x * sum;
}

/** Taylor series of cosine on [−π/4, π/4]. */
function cosineSeries(x: number): number {
  const square = x * x;
  let sum = 0;
  for (let n = 20; n >= 2; n -= 2) sum = (-square / (n * (n - 1))) * (1 + sum);
  return 1 + sum;
}

/** sin x. */
export function sine(x: number): number {
  const quarter = Math.round(x / halfPi);
  const rest = x - quarter * halfPi - quarter * halfPiRest;
  switch (((quarter % 4) + 4) % 4) {
    case 0:
      return sineSeries(rest);
    case 1:
      return cosineSeries(rest);
    case 2:
      return -sineSeries(rest);
    default:
      return -cosineSeries(rest);
  }
}

/** atan x for x ≥ 0: halves the angle three times, then the alternating series. */
function arcTangent(x: number): number {
  if (x > 1) return halfPi - arcTangent(1 / x) + halfPiRest;
  let t = x;
  for (let step = 0; step < 3; step++) t /= 1 + Math.sqrt(1 + t * t);
  const square = t * t;
  let sum = 0;
  for (let n = 25; n >= 1; n -= 2) sum = 1 / n - square * sum;
  return 8 * t * sum;
}

/** acos x in [0, π] for x in [−1, 1]. */
export function arcCosine(x: number): number {
  if (x <= -1) return 2 * halfPi;
  return 2 * arcTangent(Math.sqrt((1 - x) / (1 + x)));
}
