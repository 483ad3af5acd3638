import type { MetricResult } from "./executor.ts";
import type { Metric } from "./metrics/metric.ts";

/**
 * Collects sums and weights per item while minibatches run in any order; the result is taken in data order, so it does
 * not depend on how items were batched.
 */
export class ScoreBoard {
  readonly #metric: Metric;
  readonly #sums: Float64Array;
  readonly #weights: Float64Array;

  /** @param items number of items of the split */
  constructor(metric: Metric, items: number) {
    this.#metric = metric;
    this.#sums = new Float64Array(items);
    this.#weights = new Float64Array(items);
  }

  set(item: number, sum: number, weight: number): void {
    this.#sums[item] = sum;
    this.#weights[item] = weight;
  }

  result(): MetricResult {
    const { transform, name } = this.#metric;
    const ratio = ratioMean(this.#sums, this.#weights);
    const value = transform === undefined ? ratio.mean : transform.value(ratio.mean);
    const slope = transform === undefined ? 1 : Math.abs(transform.slope(ratio.mean));
    const error = ratio.standardError === undefined ? undefined : ratio.standardError * slope;
    const itemScores =
      transform === undefined
        ? { itemScores: Array.from(this.#sums, (sum, i) => sum / this.#weights[i]!) }
        : {};
    return metricResult(name, value, error, this.#sums.length, itemScores.itemScores);
  }
}

/** A metric's result with NaN and infinities as a kind. Item scores are left out unless all are finite. */
export function metricResult(
  metric: string,
  value: number,
  standardError: number | undefined,
  items: number,
  itemScores: readonly number[] | undefined,
): MetricResult {
  const kind = kindOf(value);
  const finite = kind === "finite";
  const usable = itemScores?.every(Number.isFinite) === true;
  return {
    metric,
    kind,
    value: finite ? value : undefined,
    standardError:
      finite && standardError !== undefined && Number.isFinite(standardError)
        ? standardError
        : undefined,
    items,
    ...(usable && itemScores !== undefined ? { itemScores } : {}),
  };
}

function kindOf(value: number): MetricResult["kind"] {
  if (Number.isNaN(value)) return "nan";
  if (Number.isFinite(value)) return "finite";
  return value > 0 ? "pinf" : "ninf";
}

/**
 * Mean r = Σ s / Σ w and its standard error by linearization,
 * SE² = n/(n−1) · Σ (s_i − r·w_i)² / (Σ w)²; with unit weights this is the usual s/√n.
 * Undefined error for fewer than two items. (Cochran, Sampling Techniques, 3rd ed., §2.11.)
 */
export function ratioMean(
  sums: ArrayLike<number>,
  weights: ArrayLike<number>,
): { readonly mean: number; readonly standardError: number | undefined } {
  const n = sums.length;
  let sum = 0;
  let weight = 0;
  for (let i = 0; i < n; i++) {
    sum += sums[i]!;
    weight += weights[i]!;
  }
  const mean = sum / weight;
  if (n < 2) return { mean, standardError: undefined };
  let squares = 0;
  for (let i = 0; i < n; i++) squares += (sums[i]! - mean * weights[i]!) ** 2;
  return { mean, standardError: Math.sqrt((n / (n - 1)) * squares) / weight };
}
