// CMA-ES with margin as mathematics (Hamano, Saito, Nomura, Shirakawa 2022, arXiv 2205.13482): how coordinates that take few
// values are sampled, rounded, and kept from settling on one of them.
import { normalCdf, normalQuantile } from "./normal-distribution.ts";

/** The values of a coordinate that takes few, ascending and evenly spaced; undefined for a continuous one. */
export type Values = readonly number[] | undefined;

/** The value nearest to x; the lower one where two are as near. */
export function nearestValue(values: readonly number[], x: number): number {
  const [first = 0, second = first] = values;
  const spacing = second - first;
  if (spacing === 0) return first;
  const at = Math.ceil((x - first) / spacing - 0.5);
  return values[Math.min(values.length - 1, Math.max(0, at))]!;
}

/** Mean of the distribution and the factors on its steps, per coordinate. */
export interface Spread {
  readonly mean: Float64Array;
  readonly A: Float64Array;
}

/** Probabilities are kept off 0 and 1/2, where quantiles end or vanish. */
const LEAST = 1e-10;

/**
 * Moves mean and spread so that every neighboring value keeps a probability: in a coordinate whose mean lies in an outermost
 * cell, that of leaving it is at least `alpha`; elsewhere each side gets at least alpha/2.
 *
 * @param deviation σ√C_ii per coordinate
 */
export function withMargin(
  { mean, A }: Spread,
  deviation: ArrayLike<number>,
  values: readonly Values[],
  alpha: number,
): Spread {
  const moved = mean.slice();
  const spread = A.slice();
  values.forEach((allowed, i) => {
    if (allowed === undefined || allowed.length < 2) return;
    const m = mean[i]!;
    const s = deviation[i]! * A[i]!;
    const [low, up] = thresholdsAround(allowed, m);
    const pLow = normalCdf((low - m) / s);
    const pUp = normalCdf((m - up) / s);
    if (Math.max(pLow, pUp) > 0.5) {
      if (Math.min(pLow, pUp) >= alpha) return;
      moved[i] = up + Math.sign(m - up) * s * normalQuantile(1 - alpha);
      return;
    }
    const middle = 1 - pLow - pUp;
    const [qLow, qUp] = redistributed(pLow, middle, pUp, alpha);
    spread[i] = (up - low) / ((qLow + qUp) * deviation[i]!);
    moved[i] = (low * qUp + up * qLow) / (qLow + qUp);
  });
  return { mean: moved, A: spread };
}

/** Distances of the thresholds in deviations, once both tails have at least alpha/2 and all three parts sum to 1 again. */
function redistributed(
  pLow: number,
  pMiddle: number,
  pUp: number,
  alpha: number,
): readonly [low: number, up: number] {
  const half = alpha / 2;
  const low = Math.max(half, pLow);
  const up = Math.max(half, pUp);
  const over = low + pMiddle + up - 3 * half;
  const missing = 1 - low - up - pMiddle;
  const quantile = (p: number): number => {
    const shifted = p + (missing * (p - half)) / over;
    return normalQuantile(1 - Math.min(0.5 - LEAST, Math.max(LEAST, shifted)));
  };
  return [quantile(low), quantile(up)];
}

/** The midpoints between values that enclose m; the outermost one twice where m lies beyond it. */
function thresholdsAround(values: readonly number[], m: number): readonly [number, number] {
  const cells = values.length - 1;
  const threshold = (k: number): number => (values[k]! + values[k + 1]!) / 2;
  let above = 0;
  while (above < cells && threshold(above) <= m) above++;
  if (above === 0) return [threshold(0), threshold(0)];
  if (above === cells) return [threshold(cells - 1), threshold(cells - 1)];
  return [threshold(above - 1), threshold(above)];
}
