import { combineInputs } from "../combine.ts";
import { type Gram, gramFrom, gramOf } from "../gram.ts";
import type { BasisTerm, JobFacts, MergeMethod, TensorJob } from "../method.ts";
import { baseOf, deltaTerms, expertsOf, globalParameter } from "../task-vectors.ts";
import { loadWhole, loadWholeDelta, rowLayout, storeWhole } from "../whole-tensors.ts";
import { extensionLambda, extensionScale, flag } from "./parameters.ts";

/** mergekit divides by no product of two lengths smaller than this. */
const compatFloor = 1e-6;

/**
 * Model Stock (Jang et al., 2024): with c the mean cosine between the task vectors of N experts and
 * t = N·c/(1 + (N − 1)·c), W = θ₀ + λ·t·mean(θ_k − θ₀). The less the experts agree, the closer the result stays to the base.
 *
 * t is kept inside [0, 1]. mergekit lets it leave, and divides by no less than 1e-6 when it computes cosines, so that tensors
 * with small changes hardly move; both are followed under `compat`.
 */
export const modelStock: MergeMethod = {
  name: "model_stock",
  title: "Model Stock",
  description: "Averages the changes and takes as much of them as the models agree.",
  reference: "Jang et al. 2024, https://arxiv.org/abs/2403.19522",
  base: "required",
  inputs: [2, Number.POSITIVE_INFINITY],
  parameters: [
    flag("filter_wise", false, "one ratio per row instead of per tensor"),
    extensionLambda,
  ],
  basis(job) {
    return byRow(job) ? undefined : stockTerms(job, gramFrom(job, expertsOf(job), baseOf(job)));
  },
  merge(job) {
    if (byRow(job)) mergeRows(job);
    else combineInputs(job, stockTerms(job, gramOf(job, expertsOf(job), baseOf(job))));
  },
};

function byRow(job: JobFacts): boolean {
  return globalParameter(job, "filter_wise") === 1 && job.shape.length > 1;
}

function stockTerms(job: JobFacts, gram: Gram): readonly BasisTerm[] {
  const experts = expertsOf(job);
  const coefficient = (extensionScale(job) * stockRatio(gram, job.compat)) / experts.length;
  return deltaTerms(
    baseOf(job),
    experts.map((input) => ({ input, coefficient })),
  );
}

/** t from the inner products of the task vectors; a vector of zeros is at right angles to everything. */
export function stockRatio(gram: Gram, compat: boolean): number {
  const n = gram.length;
  let sum = 0;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < i; j++) {
      const lengths = Math.sqrt(gram[i]![i]!) * Math.sqrt(gram[j]![j]!);
      const divisor = compat ? Math.max(lengths, compatFloor) : lengths;
      const cosine = divisor === 0 ? 0 : gram[i]![j]! / divisor;
      sum += Math.min(1, Math.max(-1, cosine));
    }
  }
  const mean = sum / ((n * (n - 1)) / 2);
  const divisor = 1 + (n - 1) * mean;
  const ratio = divisor === 0 ? 0 : (n * mean) / divisor;
  if (compat) return ratio;
  // Beyond mean = −1/(N − 1) the quotient turns positive again; such vectors disagree all the same.
  return mean <= 0 ? 0 : Math.min(1, ratio);
}

function mergeRows(job: TensorJob): void {
  const experts = expertsOf(job);
  const scale = extensionScale(job);
  const base = loadWhole(job, baseOf(job));
  const deltas = experts.map((input) => loadWholeDelta(job, input, base));
  const out = new Float32Array(job.length);
  const { rows, columns } = rowLayout(job);
  for (let row = 0; row < rows; row++) {
    const from = row * columns;
    const gram = deltas.map((x) =>
      deltas.map((y) => {
        let sum = 0;
        for (let i = from; i < from + columns; i++) sum += x[i]! * y[i]!;
        return sum;
      }),
    );
    const coefficient = (scale * stockRatio(gram, job.compat)) / experts.length;
    for (let i = from; i < from + columns; i++) {
      let sum = 0;
      for (const delta of deltas) sum += delta[i]!;
      out[i] = base[i]! + coefficient * sum;
    }
  }
  storeWhole(job, out);
}
