/** Arrays and the weights they enter a sum with. */
export interface WeightedTerms {
  readonly weights: readonly number[];
  readonly xs: readonly Float32Array[];
}

/** The terms that contribute; a weight of exactly zero is left out, whatever its array holds. */
export function withoutZeros(
  weights: readonly number[],
  xs: readonly Float32Array[],
): WeightedTerms {
  if (weights.length !== xs.length) throw new Error("one weight per array is needed");
  const used = weights.flatMap((weight, k) => (weight === 0 ? [] : [k]));
  return { weights: used.map((k) => weights[k]!), xs: used.map((k) => xs[k]!) };
}

/** base + Σ w_k·(x_k − base) as a plain weighted sum: experts in order, then the base with 1 − Σ w_k. */
export function joinBase(
  weights: readonly number[],
  base: Float32Array,
  xs: readonly Float32Array[],
): WeightedTerms {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return { weights: [...weights, 1 - total], xs: [...xs, base] };
}
