import { arcCosine, sine } from "../../tensors/portable-math.ts";
import { forEachBlock, scratchBlock, withScratch } from "../blocks.ts";
import { combineInputs } from "../combine.ts";
import type { BasisTerm, JobFacts, MergeMethod, TensorJob } from "../method.ts";
import { baseOf, expertsOf, globalParameter } from "../task-vectors.ts";

/** Above this |cosine| (1.8° apart) the arc is a straight line for all purposes. */
const parallelCosine = 0.9995;
/** A vector this short has no direction: it is not normalized, and its cosine is about 0. */
const shortestNorm = 1e-8;

/**
 * Spherical interpolation of whole tensors as flat vectors (Shoemake 1985): with θ the angle between A and B,
 * W = sin((1 − t)θ)/sin θ · A + sin(tθ)/sin θ · B; (1 − t)·A + t·B where they are nearly parallel or antiparallel.
 */
export const slerp: MergeMethod = {
  name: "slerp",
  title: "Spherical interpolation",
  description:
    "Two models, interpolated along the arc between each pair of tensors; t = 0 is the base.",
  reference: "Shoemake 1985, https://doi.org/10.1145/325165.325242",
  base: "required",
  inputs: [1, 1],
  parameters: [
    {
      name: "t",
      description: "position on the way from the base (0) to the other model (1)",
      scope: "global",
      type: "number",
      range: [-10, 11],
      search: { range: [0, 1], scale: "linear", start: 0.5 },
    },
  ],
  basis(job) {
    const [a, b] = [baseOf(job), expertsOf(job)[0]!];
    return slerpTerms(job, { aa: job.gram(a, a), ab: job.gram(a, b), bb: job.gram(b, b) });
  },
  merge(job) {
    combineInputs(job, slerpTerms(job, gramOf(job, baseOf(job), expertsOf(job)[0]!)));
  },
};

function slerpTerms(job: JobFacts, gram: PairGram): readonly BasisTerm[] {
  const [a, b] = slerpCoefficients(gram, globalParameter(job, "t"));
  return [
    { input: baseOf(job), coefficient: a },
    { input: expertsOf(job)[0]!, coefficient: b },
  ];
}

/** ⟨A,A⟩, ⟨A,B⟩, ⟨B,B⟩ of one tensor. */
export interface PairGram {
  readonly aa: number;
  readonly ab: number;
  readonly bb: number;
}

/** The coefficients of A and B: all that SLERP needs to know of the tensors is their Gram matrix. */
export function slerpCoefficients(gram: PairGram, t: number): readonly [number, number] {
  const norm = (square: number): number => {
    const length = Math.sqrt(square);
    return length > shortestNorm ? length : 1;
  };
  const cosine = gram.ab / (norm(gram.aa) * norm(gram.bb));
  if (Math.abs(cosine) > parallelCosine) return [1 - t, t];
  const angle = arcCosine(cosine);
  const whole = sine(angle);
  return [sine((1 - t) * angle) / whole, sine(t * angle) / whole];
}

function gramOf(job: TensorJob, a: number, b: number): PairGram {
  const { kernels } = job;
  let aa = 0;
  let ab = 0;
  let bb = 0;
  withScratch(job, () => {
    const left = scratchBlock(job);
    const right = scratchBlock(job);
    forEachBlock(job, (start, length) => {
      const x = left.subarray(0, length);
      const y = right.subarray(0, length);
      job.inputs[a]!.load(start, x);
      job.inputs[b]!.load(start, y);
      aa += kernels.dot(x, x);
      ab += kernels.dot(x, y);
      bb += kernels.dot(y, y);
    });
  });
  return { aa, ab, bb };
}
