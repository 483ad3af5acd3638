import { arcCosine, sine } from "../../tensors/portable-math.ts";
import { combineInputs } from "../combine.ts";
import { type Gram, gramFrom, gramOf } from "../gram.ts";
import type { BasisTerm, JobFacts, MergeMethod, TensorJob } from "../method.ts";
import { deltaTerms, expertsOf, globalParameter, modelParameter } from "../task-vectors.ts";
import { loadWhole, rowLayout, storeWhole } from "../whole-tensors.ts";
import { flag, modelWeight } from "./parameters.ts";

/** Weights whose sum is smaller than this cannot be divided by; both models then count alike. */
const zeroWeightSum = 1e-6;
/** A vector is divided by no less than this, so that one of length zero has no direction. */
const shortestNorm = 1e-7;
/** Below this sine the arc is a straight line: at an angle of π its direction would be rounding noise. */
const straightSine = 1e-6;

/**
 * SLERP of two models with weights instead of a position: t = w₂/(w₁ + w₂); with a base, SLERP of the two differences from
 * it. With θ the angle between x and y, W = sin((1 − t)θ)/sin θ · x + sin(tθ)/sin θ · y (mergekit; Shoemake 1985).
 * `nuslerp_flatten: false` takes every vector along the last dimension by itself; `nuslerp_row_wise: true` every vector
 * along the first one (mergekit's documentation has the two names the other way round).
 */
export const nuslerp: MergeMethod = {
  name: "nuslerp",
  title: "Weighted spherical interpolation",
  description:
    "Two models along the arc between them, by weights; with a base, along the arc between their changes.",
  reference: "mergekit (Goddard et al. 2024), https://arxiv.org/abs/2403.13257",
  base: "optional",
  inputs: [2, 2],
  parameters: [
    modelWeight,
    flag("nuslerp_flatten", true, "one arc per tensor; else one per vector"),
    flag("nuslerp_row_wise", false, "without flatten: vectors along the first dimension"),
  ],
  basis(job) {
    return isFlat(job) ? flatTerms(job, gramFrom(job, expertsOf(job), job.baseIndex)) : undefined;
  },
  merge(job) {
    if (!isFlat(job)) mergeVectors(job);
    else combineInputs(job, flatTerms(job, gramOf(job, expertsOf(job), job.baseIndex)));
  },
};

function isFlat(job: JobFacts): boolean {
  return globalParameter(job, "nuslerp_flatten") === 1 || job.shape.length < 2;
}

function flatTerms(job: JobFacts, gram: Gram): readonly BasisTerm[] {
  const [x, y] = expertsOf(job) as [number, number];
  const [a, b] = arcCoefficients(gram[0]![0]!, gram[0]![1]!, gram[1]![1]!, positionOf(job));
  const terms = [
    { input: x, coefficient: a },
    { input: y, coefficient: b },
  ];
  return job.baseIndex === undefined ? terms : deltaTerms(job.baseIndex, terms);
}

function positionOf(job: JobFacts): number {
  const [first, second] = expertsOf(job).map((k) => modelParameter(job, k, "weight")) as [
    number,
    number,
  ];
  const total = first + second;
  return Math.abs(total) < zeroWeightSum ? 0.5 : second / total;
}

/** Coefficients of x and y from ⟨x,x⟩, ⟨x,y⟩, ⟨y,y⟩. */
function arcCoefficients(xx: number, xy: number, yy: number, t: number): [number, number] {
  const lengths = Math.max(Math.sqrt(xx), shortestNorm) * Math.max(Math.sqrt(yy), shortestNorm);
  const angle = arcCosine(Math.min(1, Math.max(-1, xy / lengths)));
  const whole = sine(angle);
  if (Math.abs(whole) < straightSine) return [1 - t, t];
  return [sine((1 - t) * angle) / whole, sine(t * angle) / whole];
}

/** One arc per vector: along the last dimension, or along the first when `nuslerp_row_wise`. */
function mergeVectors(job: TensorJob): void {
  const [x, y] = expertsOf(job) as [number, number];
  const t = positionOf(job);
  const left = loadWhole(job, x);
  const right = loadWhole(job, y);
  const origin = job.baseIndex === undefined ? undefined : loadWhole(job, job.baseIndex);
  const out = new Float32Array(job.length);
  const { rows, columns } = rowLayout(job);
  const alongFirst = globalParameter(job, "nuslerp_row_wise") === 1;
  // Along the first dimension, a vector takes every (length / shape[0])-th element.
  const vectors = alongFirst ? job.length / job.shape[0]! : rows;
  const step = alongFirst ? vectors : 1;
  const size = alongFirst ? job.shape[0]! : columns;
  for (let v = 0; v < vectors; v++) {
    const from = alongFirst ? v : v * columns;
    let xx = 0;
    let xy = 0;
    let yy = 0;
    for (let j = 0, i = from; j < size; j++, i += step) {
      const o = origin === undefined ? 0 : origin[i]!;
      const a = left[i]! - o;
      const b = right[i]! - o;
      xx += a * a;
      xy += a * b;
      yy += b * b;
    }
    const [a, b] = arcCoefficients(xx, xy, yy, t);
    for (let j = 0, i = from; j < size; j++, i += step) {
      const o = origin === undefined ? 0 : origin[i]!;
      out[i] = a * left[i]! + b * right[i]! + (origin === undefined ? 0 : (1 - a - b) * o);
    }
  }
  storeWhole(job, out);
}
