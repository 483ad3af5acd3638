/**
 * Exponential and logarithm from additions, multiplications and divisions alone: the language leaves the last bits of
 * `Math.exp` and `Math.log` to the engine, and merged weights must not depend on which one is used.
 * Relative errors stay below 4e-16 (of the result; for `logarithm` near 1, of the distance from 1).
 */

/** ln 2 in two parts; the first has 20 trailing zero bits, so that its product with an exponent is exact. */
const ln2High = 0.6931471803691238;
const ln2Low = 1.9082149292705877e-10;

const word = new DataView(new ArrayBuffer(8));

/** 2^k for −1022 ≤ k ≤ 1023, from its bits. */
function powerOfTwo(k: number): number {
  word.setInt32(0, (k + 1023) << 20);
  word.setInt32(4, 0);
  return word.getFloat64(0);
}

/** e^r − 1 for |r| ≤ 0.36 by its Taylor series; the first term left out is below 2^-58 of the result. */
function smallExpm1(r: number): number {
  let sum = 0;
  for (let n = 14; n >= 2; n--) sum = (r / n) * (1 + sum);
  return r + r * sum;
}

/** e^x; 0 below −745.2, infinite above 709.8. */
export function exponential(x: number): number {
  if (Number.isNaN(x)) return x;
  if (x > 709.79) return Number.POSITIVE_INFINITY;
  if (x < -745.2) return 0;
  const k = Math.round(x / ln2High);
  const value = 1 + smallExpm1(x - k * ln2High - k * ln2Low);
  // In two steps, because 2^k itself may be out of range where the product is not.
  const half = Math.trunc(k / 2);
  return value * powerOfTwo(half) * powerOfTwo(k - half);
}

/** e^x − 1 without cancellation near 0. */
export function exponentialMinusOne(x: number): number {
  return Math.abs(x) <= 0.35 ? smallExpm1(x) : exponential(x) - 1;
}

/** ln x for a normal x > 0 (down to 2.3e-308); −∞ for 0. */
export function logarithm(x: number): number {
  if (x === 0) return Number.NEGATIVE_INFINITY;
  if (!(x > 0) || x === Number.POSITIVE_INFINITY) return x > 0 ? x : Number.NaN;
  word.setFloat64(0, x);
  const high = word.getInt32(0);
  let exponent = (high >> 20) - 1023;
  word.setInt32(0, (high & 0xfffff) | 0x3ff00000);
  let mantissa = word.getFloat64(0);
  if (mantissa > Math.SQRT2) {
    mantissa /= 2;
    exponent++;
  }
  // ln m = 2·artanh s with s = (m − 1)/(m + 1), |s| < 0.172.
  const s = (mantissa - 1) / (mantissa + 1);
  const square = s * s;
  let sum = 0;
  for (let n = 23; n >= 3; n -= 2) sum = square * (1 / n + sum);
  return exponent * ln2High + (2 * s + 2 * s * sum + exponent * ln2Low);
}

/** x^y for x > 0; 0^0 is 1. */
export function power(x: number, y: number): number {
  if (y === 0) return 1;
  return x === 0 ? 0 : exponential(y * logarithm(x));
}
