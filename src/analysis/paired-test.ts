/**
 * Is one model better than another on the same items? Fisher's randomization test for paired observations: were the two
 * models equally good, each item's difference could as well have had the other sign.
 *
 * The p-value is two-sided: the share of sign assignments whose sum is at least as far from zero as the observed one.
 * It is exact where all differences have one size (right or wrong answers: then it is the exact McNemar or sign test) and
 * where at most 20 items differ; otherwise the sum is taken as normal with its randomization variance Σd².
 *
 * Source: R. A. Fisher, The Design of Experiments (1935), §21.
 */

export interface PairedTest {
  /** Pairs. */
  readonly items: number;
  /** Mean of first − second, every item counting the same. */
  readonly meanDifference: number;
  /** Of the mean difference; undefined for fewer than two items. */
  readonly standardError: number | undefined;
  /** 95 % confidence interval of the mean difference, from Student's t; undefined without a standard error. */
  readonly interval: { readonly low: number; readonly high: number } | undefined;
  /** Items on which the first score is larger, smaller, equal. */
  readonly larger: number;
  readonly smaller: number;
  readonly equal: number;
  /** Two-sided. */
  readonly pValue: number;
  readonly method: "exact" | "normal";
}

/** All 2^m sign assignments of m differences are walked up to here: a million sums. */
const MAX_ENUMERATED = 20;
/** Sums within this share of Σ|d| count as equal: they differ by rounding only. */
const TIE = 1e-12;

/**
 * Tests paired scores.
 *
 * @param first scores of one model by item
 * @param second scores of the other on the same items
 * @throws Error for different lengths, no items, or scores that are not finite: callers look first
 */
export function pairedTest(first: readonly number[], second: readonly number[]): PairedTest {
  const items = first.length;
  if (items === 0 || second.length !== items) {
    throw new Error(`${items} scores cannot be paired with ${second.length}`);
  }
  const differences = first.map((score, i) => score - (second[i] as number));
  if (!differences.every(Number.isFinite)) throw new Error("scores must be finite");
  const meanDifference = differences.reduce((sum, d) => sum + d, 0) / items;
  const standardError = errorOfMean(differences, meanDifference);
  const moved = differences.filter((d) => d !== 0);
  const larger = moved.filter((d) => d > 0).length;
  return {
    items,
    meanDifference,
    standardError,
    interval:
      standardError === undefined
        ? undefined
        : intervalOf(meanDifference, standardError, items - 1),
    larger,
    smaller: moved.length - larger,
    equal: items - moved.length,
    ...randomizationTest(moved),
  };
}

function errorOfMean(differences: readonly number[], mean: number): number | undefined {
  const n = differences.length;
  if (n < 2) return undefined;
  const squares = differences.reduce((sum, d) => sum + (d - mean) ** 2, 0);
  return Math.sqrt(squares / (n - 1) / n);
}

function intervalOf(mean: number, error: number, freedom: number): { low: number; high: number } {
  const reach = tQuantile975(freedom) * error;
  return { low: mean - reach, high: mean + reach };
}

/**
 * Two-sided p-value of a sum of differences under random signs.
 *
 * @param moved differences other than zero, in any order
 */
export function randomizationTest(moved: readonly number[]): Pick<PairedTest, "pValue" | "method"> {
  const size = Math.abs(moved[0] ?? 0);
  // Scores such as 0 and 1 differ by exactly one size; decimal fractions do so up to rounding.
  if (moved.every((d) => Math.abs(Math.abs(d) - size) <= TIE * size)) {
    const larger = moved.filter((d) => d > 0).length;
    return { pValue: signTest(moved.length, larger), method: "exact" };
  }
  if (moved.length <= MAX_ENUMERATED) return { pValue: enumerated(moved), method: "exact" };
  const sum = moved.reduce((total, d) => total + d, 0);
  const variance = moved.reduce((total, d) => total + d * d, 0);
  return { pValue: complementaryError(Math.abs(sum) / Math.sqrt(2 * variance)), method: "normal" };
}

/** Probability that m fair coins fall at least as unevenly as `heads` to m − `heads`. */
function signTest(m: number, heads: number): number {
  const most = Math.max(heads, m - heads);
  if (2 * most === m) return 1;
  // log C(m, m) / 2^m, then downwards by C(m, k − 1) = C(m, k) k / (m − k + 1).
  let logTerm = -m * Math.LN2;
  let tail = 0;
  for (let k = m; k >= most; k--) {
    tail += Math.exp(logTerm);
    logTerm += Math.log(k) - Math.log(m - k + 1);
  }
  return Math.min(1, 2 * tail);
}

/** Share of sign assignments with a sum at least as far from zero; one sign is held, since all sums come in pairs ±s. */
function enumerated(moved: readonly number[]): number {
  let sums = Float64Array.of(moved[0] as number);
  for (const d of moved.slice(1)) {
    const next = new Float64Array(2 * sums.length);
    sums.forEach((sum, i) => {
      next[2 * i] = sum + d;
      next[2 * i + 1] = sum - d;
    });
    sums = next;
  }
  const observed = Math.abs(moved.reduce((sum, d) => sum + d, 0));
  const slack = TIE * moved.reduce((sum, d) => sum + Math.abs(d), 0);
  return sums.filter((sum) => Math.abs(sum) >= observed - slack).length / sums.length;
}

/** z with P(Z ≤ z) = 0.975. */
export const Z = 1.959963984540054;

/**
 * The 97.5 % point of Student's t: closed forms for one and two degrees of freedom, beyond that the expansion in 1/ν
 * (Abramowitz & Stegun 26.7.5), which is 0.3 % low at ν = 3 and right to five digits from ν = 10.
 */
export function tQuantile975(freedom: number): number {
  if (freedom < 1) return Number.POSITIVE_INFINITY;
  if (freedom === 1) return Math.tan(Math.PI * 0.475);
  if (freedom === 2) return 0.95 * Math.sqrt(2 / (1 - 0.95 ** 2));
  const z = Z;
  const terms = [
    (z ** 3 + z) / 4,
    (5 * z ** 5 + 16 * z ** 3 + 3 * z) / 96,
    (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / 384,
    (79 * z ** 9 + 776 * z ** 7 + 1482 * z ** 5 - 1920 * z ** 3 - 945 * z) / 92160,
  ];
  return terms.reduce((sum, term, i) => sum + term / freedom ** (i + 1), z);
}

/**
 * erfc(x) for x ≥ 0: one minus the series of erf below 2 (A&S 7.1.6), the continued fraction from there on (7.1.14).
 */
export function complementaryError(x: number): number {
  if (x < 2) {
    let term = x;
    let sum = x;
    for (let n = 1; term > 1e-17 * sum; n++) {
      term *= (2 * x * x) / (2 * n + 1);
      sum += term;
    }
    return 1 - (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
  }
  let fraction = x;
  for (let k = 60; k >= 1; k--) fraction = x + k / 2 / fraction;
  return Math.exp(-x * x) / Math.sqrt(Math.PI) / fraction;
}
