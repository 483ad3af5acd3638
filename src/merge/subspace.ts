import { type Matrix, matrixOf, squaredNorm } from "../tensors/linear-algebra/matrix.ts";
import {
  randomizedTriplets,
  type SingularTriplets,
  singularTriplets,
} from "../tensors/linear-algebra/singular-values.ts";
import { combineDeltas } from "./combine.ts";
import type { BasisJob, BasisTerm, DerivedEntry, JobFacts, TensorJob } from "./method.ts";
import { baseOf, deltaTerms, expertsOf, globalParameter, modelParameter } from "./task-vectors.ts";
import { loadWhole, storeWhole } from "./whole-tensors.ts";

// What methods share that look at task vectors as matrices: which tensors are matrices, their differences from the base as
// float64, and the rule for all other tensors.

/**
 * Sides beyond this are vocabularies: their tensors are averaged, because a decomposition would cost much and help little.
 */
const longestSide = 16_384;

/** Task vectors shorter than this share of the base (or of 1) are no change: their directions would be noise. */
const noChange = 1e-12;

/** Leading triplets of larger matrices come from a random projection when they are few. */
const projectedSide = 1024;

export interface MatrixShape {
  readonly rows: number;
  readonly columns: number;
}

/**
 * The [out, in] matrix that a tensor is to these methods: two dimensions, or a convolution's kernels with everything but the
 * first dimension in a row when `flatten_kernels`; undefined where the method has nothing to say (vectors, scalars,
 * depthwise kernels, vocabularies).
 */
export function matrixShape(job: JobFacts): MatrixShape | undefined {
  const [rows, inner] = job.shape;
  if (rows === undefined || inner === undefined || job.length === 0) return undefined;
  if (job.shape.length > 2 && (inner === 1 || globalParameter(job, "flatten_kernels") !== 1)) {
    return undefined;
  }
  const columns = job.length / rows;
  return Math.max(rows, columns) > longestSide ? undefined : { rows, columns };
}

/** τ of every expert as a float64 matrix; undefined where the expert did not change this tensor. */
export function deltaMatrices(job: TensorJob, shape: MatrixShape): readonly (Matrix | undefined)[] {
  const base = loadWhole(job, baseOf(job));
  const baseNorm = Math.sqrt(base.reduce((sum, value) => sum + value * value, 0));
  return expertsOf(job).map((input) => {
    const values = Float64Array.from(loadWhole(job, input));
    for (let i = 0; i < values.length; i++) values[i] = values[i]! - base[i]!;
    const delta = matrixOf(shape.rows, shape.columns, values);
    return Math.sqrt(squaredNorm(delta)) <= noChange * Math.max(1, baseNorm) ? undefined : delta;
  });
}

/** The `count` leading singular triplets of a task vector. */
export function leadingTriplets(delta: Matrix, count: number): SingularTriplets {
  const side = Math.min(delta.rows, delta.columns);
  if (side > projectedSide && count <= side / 8) return randomizedTriplets(delta, count);
  return singularTriplets(delta, count);
}

/** c_t of every expert. */
export function taskWeights(job: JobFacts): readonly number[] {
  return expertsOf(job).map((input) => modelParameter(job, input, "weight"));
}

/** θ₀ + λ·vector_scale·mean_t(c_t·τ_t): what is no matrix is averaged. */
function vectorTerms(job: JobFacts): readonly BasisTerm[] {
  const experts = expertsOf(job);
  const scale = globalParameter(job, "lambda") * globalParameter(job, "vector_scale");
  return taskWeights(job).map((weight, k) => ({
    input: experts[k]!,
    coefficient: (scale * weight) / experts.length,
  }));
}

export function mergeVectors(job: TensorJob): void {
  combineDeltas(job, baseOf(job), vectorTerms(job));
}

export function vectorBasis(job: BasisJob): readonly BasisTerm[] {
  return deltaTerms(baseOf(job), vectorTerms(job));
}

/** Stores θ₀ + Σ c_k·D_k, summed in float64 and rounded once; parts that are undefined are zero. */
export function storeParts(
  job: TensorJob,
  parts: readonly (Matrix | undefined)[],
  coefficients: readonly number[],
): void {
  const sum = Float64Array.from(loadWhole(job, baseOf(job)));
  parts.forEach((part, k) => {
    const coefficient = coefficients[k]!;
    if (part === undefined || coefficient === 0) return;
    for (let i = 0; i < sum.length; i++) sum[i] = sum[i]! + coefficient * part.values[i]!;
  });
  storeWhole(job, sum);
}

/**
 * One entry per part of a decomposition that all experts enter. The decomposition is made when the first part is asked for
 * and kept until the last one was.
 *
 * @param key the method and its structural parameters
 */
export function sharedEntries(
  job: JobFacts,
  key: string,
  count: number,
  decompose: (job: TensorJob) => readonly (Matrix | undefined)[],
): readonly DerivedEntry[] {
  const models = job.inputs.map(({ modelId }) => modelId);
  let parts: readonly (Matrix | undefined)[] | undefined;
  const open = new Set<number>();
  return Array.from({ length: count }, (_, k) => ({
    key: JSON.stringify([key, k, job.name, models]),
    make(full) {
      if (parts === undefined) {
        parts = decompose(full);
        for (let part = 0; part < count; part++) open.add(part);
      }
      storeWhole(full, parts[k]?.values ?? new Float64Array(full.length));
      open.delete(k);
      if (open.size === 0) parts = undefined;
    },
  }));
}
