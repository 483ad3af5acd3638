import { arcCosine, sine } from "../../tensors/portable-math.ts";
import { combineInputs } from "../combine.ts";
import { type Gram, gramFrom, gramOf } from "../gram.ts";
import type { BasisTerm, JobFacts, MergeMethod } from "../method.ts";
import { globalParameter, modelParameter } from "../task-vectors.ts";

const halfTurn = Math.PI / 2;
/** Points opposite to the mean have no direction towards them; they are left out of a step below this sine. */
const oppositeSine = 1e-6;

/**
 * The weighted mean on the sphere (Karcher's or Riemannian center): tensors as directions u_k = x_k/‖x_k‖ and lengths.
 * From the normalized mean, repeat T = Σ a_k·(θ_k/sin θ_k)·(u_k − cos θ_k·u), u ← cos‖T‖·u + sin‖T‖·T/‖T‖ until ‖T‖ < tol;
 * W = (Σ α_k‖x_k‖)·u. The iterate is a combination of the inputs, so the loop runs on their cosines alone.
 */
export const karcher: MergeMethod = {
  name: "karcher",
  title: "Mean on the sphere",
  description: "The point nearest to all models along the sphere, scaled to their mean length.",
  reference: "Karcher 1977, https://doi.org/10.1002/cpa.3160300502",
  base: "none",
  unlistedBase: "input under compat",
  inputs: [1, Number.POSITIVE_INFINITY],
  parameters: [
    {
      name: "weight",
      description: "share of this model (mergekit weighs all alike)",
      scope: "model",
      type: "number",
      default: 1,
      range: [0, 1e6],
      search: { range: [0, 1.5], scale: "linear", start: 1 },
    },
    {
      name: "max_iter",
      description: "largest number of steps",
      scope: "global",
      type: "number",
      default: 10,
      range: [0, 1000],
    },
    {
      name: "tol",
      description: "steps, angles and lengths below this count as zero",
      scope: "global",
      type: "number",
      default: 1e-5,
      range: [0, 1],
    },
  ],
  check({ models }) {
    const some = models.some((model) => (model["weight"] ?? 1) > 0);
    return some ? undefined : "all weights are zero";
  },
  basis(job) {
    return meanTerms(job, gramFrom(job, positions(job)));
  },
  merge(job) {
    combineInputs(job, meanTerms(job, gramOf(job, positions(job))));
  },
};

function positions(job: JobFacts): readonly number[] {
  return job.inputs.map((_, k) => k);
}

function meanTerms(job: JobFacts, gram: Gram): readonly BasisTerm[] {
  const inputs = positions(job);
  const given = inputs.map((k) => (job.compat ? 1 : modelParameter(job, k, "weight")));
  const total = given.reduce((sum, weight) => sum + weight, 0);
  const weights = given.map((weight) => weight / total);
  const steps = Math.trunc(globalParameter(job, "max_iter"));
  const coefficients = weights.includes(1)
    ? weights
    : karcherCoefficients(gram, weights, steps, globalParameter(job, "tol"));
  return inputs.map((input) => ({ input, coefficient: coefficients[input]! }));
}

/**
 * Coefficients of the inputs in the mean.
 *
 * @param weights α_k, adding up to 1
 */
export function karcherCoefficients(
  gram: Gram,
  weights: readonly number[],
  maxIterations: number,
  tolerance: number,
): readonly number[] {
  const norms = gram.map((row, k) => Math.sqrt(row[k]!));
  const taken = norms.map((norm, k) => norm > tolerance && weights[k]! > 0);
  const share = weights.reduce((sum, weight, k) => sum + (taken[k] ? weight : 0), 0);
  if (share === 0) return weights.map(() => 0);
  const a = weights.map((weight, k) => (taken[k] ? weight / share : 0));
  const cosine = (i: number, j: number): number =>
    taken[i] && taken[j] ? gram[i]![j]! / (norms[i]! * norms[j]!) : 0;
  const along = (c: readonly number[], k: number): number =>
    c.reduce((sum, value, i) => sum + value * cosine(i, k), 0);
  const length = (c: readonly number[]): number =>
    Math.sqrt(
      Math.max(
        0,
        c.reduce((sum, value, i) => sum + value * along(c, i), 0),
      ),
    );
  const scaled = (c: readonly number[], factor: number): number[] => c.map((v) => v * factor);

  const start = length(a);
  const first = taken.indexOf(true);
  let u = start < tolerance ? a.map((_, k) => (k === first ? 1 : 0)) : scaled(a, 1 / start);
  for (let step = 0; step < maxIterations; step++) {
    const tangent = u.map(() => 0);
    a.forEach((weight, k) => {
      if (weight === 0) return;
      const cos = Math.min(1, Math.max(-1, along(u, k)));
      const angle = arcCosine(cos);
      const sin = sine(angle);
      if (angle < tolerance || sin < oppositeSine) return;
      const pull = (weight * angle) / sin;
      u.forEach((value, i) => {
        tangent[i] = tangent[i]! + pull * ((i === k ? 1 : 0) - cos * value);
      });
    });
    const size = length(tangent);
    if (size < tolerance || size === 0) break;
    const keep = sine(size + halfTurn);
    const move = sine(size) / size;
    const moved = u.map((value, i) => keep * value + move * tangent[i]!);
    u = scaled(moved, 1 / length(moved));
  }
  const radius = weights.reduce((sum, weight, k) => sum + weight * norms[k]!, 0);
  return u.map((value, k) => (taken[k] ? (radius * value) / norms[k]! : 0));
}
