import {
  addScaled,
  type Matrix,
  matrixOf,
  rowsOf,
  scaleRows,
  squaredNorm,
  stackRows,
} from "../../tensors/linear-algebra/matrix.ts";
import {
  columnGram,
  multiply,
  rowGram,
  transposedMultiply,
} from "../../tensors/linear-algebra/multiply.ts";
import { symmetricEigen } from "../../tensors/linear-algebra/symmetric-eigen.ts";
import { exponentialMinusOne } from "../../tensors/portable-exponential.ts";
import type { MergeMethod, TensorJob } from "../method.ts";
import {
  deltaMatrices,
  matrixShape,
  mergeVectors,
  sharedEntries,
  storeParts,
  taskWeights,
  vectorBasis,
} from "../subspace.ts";
import { baseOf, expertsOf, globalParameter } from "../task-vectors.ts";
import { flag } from "./parameters.ts";
import { flattenKernels, partLambda, partWeight, vectorScale } from "./subspace-parameters.ts";

/** Values of `filter`. */
const landweber = 1;
const tikhonov = 2;

/**
 * WUDI (Cheng et al., 2025) in closed form, per matrix: the merged change should do to the rows of each τ_t what τ_t does,
 * min Σ ‖(θ − τ_t)·τ_tᵀ‖²/‖τ_t‖². With C = Σ τ_tᵀτ_t/‖τ_t‖² and H = Σ τ_tτ_tᵀτ_t/‖τ_t‖², gradient descent from Σ τ_t that
 * is stopped early is θ = Σ τ_t·(I − f(C)) + H·f(C)/C with a filter f that goes from 0 to 1 with the eigenvalue. It is linear
 * in the experts: W = θ₀ + λ·Σ c_t·D_t. Other tensors are averaged.
 */
export const wudi: MergeMethod = {
  name: "wudi",
  title: "WUDI: without interference, in closed form",
  description:
    "Finds the change that acts on what each model has learned to look at as that model does.",
  reference: "Cheng et al. 2025, https://arxiv.org/abs/2503.08099",
  base: "required",
  inputs: [1, Number.POSITIVE_INFINITY],
  parameters: [
    partWeight,
    { ...partLambda, search: { range: [0.1, 2], scale: "log", start: 1 } },
    {
      name: "time",
      description:
        "how long the descent goes on, in steps that the average direction takes as 1; long is overfitted",
      scope: "global",
      type: "number",
      default: 3,
      range: [0, 1e9],
      search: { range: [0.3, 30], scale: "log", start: 3 },
    },
    {
      name: "filter",
      description:
        "how it is stopped: 0 exponential (gradient flow), 1 Landweber (gradient steps), 2 Tikhonov (ridge)",
      scope: "global",
      type: "number",
      default: 0,
      range: [0, 2],
    },
    {
      name: "keep",
      description: "share of the strongest input directions that is changed; 0 changes none",
      scope: "global",
      type: "number",
      default: 1,
      range: [0, 1],
      search: { range: [0.1, 1], scale: "linear", start: 1 },
    },
    flag(
      "adaptive_rank",
      false,
      "solve for the (Σ√λ)²/Σλ strongest directions and leave the others; time, filter and keep rest",
    ),
    vectorScale,
    flattenKernels,
  ],
  check({ global }) {
    return Number.isInteger(global["filter"]) ? undefined : "filter must be 0, 1 or 2";
  },
  basis(job) {
    if (matrixShape(job) === undefined) return vectorBasis(job);
    const names = ["time", "filter", "keep", "adaptive_rank", "flatten_kernels"];
    const key = `wudi ${names.map((name) => globalParameter(job, name)).join(" ")}`;
    const experts = expertsOf(job);
    const weights = taskWeights(job);
    const entries = sharedEntries(job, key, experts.length, wudiParts);
    const scale = globalParameter(job, "lambda");
    return [
      { input: baseOf(job), coefficient: 1 },
      ...experts.map((input, k) => ({
        input,
        coefficient: scale * weights[k]!,
        derived: entries[k]!,
      })),
    ];
  },
  merge(job) {
    if (matrixShape(job) === undefined) {
      mergeVectors(job);
      return;
    }
    const scale = globalParameter(job, "lambda");
    storeParts(
      job,
      wudiParts(job),
      taskWeights(job).map((weight) => scale * weight),
    );
  },
};

/**
 * D_t of every expert. With B the stack of the τ_t/‖τ_t‖, C = BᵀB and g(C) = Bᵀ·(…)·B only needs the smaller of C and
 * K = B·Bᵀ: τ_t·g(C) = ‖τ_t‖·g(K)[block t]·B.
 */
function wudiParts(job: TensorJob): readonly (Matrix | undefined)[] {
  const shape = matrixShape(job)!;
  const deltas = deltaMatrices(job, shape);
  const present = deltas.filter((delta) => delta !== undefined);
  if (present.length === 0) return deltas;
  const norms = present.map((delta) => Math.sqrt(squaredNorm(delta)));
  const units = present.map((delta, t) =>
    scaleRows(delta, new Float64Array(shape.rows).fill(1 / norms[t]!)),
  );
  const stack = stackRows(units);
  const dual = stack.rows < stack.columns;
  const eigen = symmetricEigen(dual ? rowGram(stack) : columnGram(stack));
  const { passed, inverse } = filterOf(eigen.values, filterSettings(job, deltas.length));
  const applied = (factors: Float64Array): Matrix =>
    transposedMultiply(eigen.vectors, scaleRows(eigen.vectors, factors));
  const onPassed = applied(passed);
  const onInverse = applied(inverse);
  let t = 0;
  return deltas.map((delta) => {
    if (delta === undefined) return undefined;
    const at = t++;
    const block = (x: Matrix): Matrix => rowsOf(x, at * shape.rows, (at + 1) * shape.rows);
    const unit = units[at]!;
    // With u = τ_t/‖τ_t‖: u·uᵀ·u·(f/λ)(C) − u·f(C), through K or through C.
    const change = multiply(
      dual ? rowGram(unit) : columnGram(unit),
      dual ? block(onInverse) : onInverse,
    );
    addScaled(change, -1, dual ? block(onPassed) : onPassed);
    const part = matrixOf(shape.rows, shape.columns, delta.values.slice());
    addScaled(part, norms[at]!, dual ? multiply(change, stack) : multiply(unit, change));
    return part;
  });
}

export interface FilterSettings {
  /** t of the gradient flow. */
  readonly time: number;
  readonly filter: number;
  readonly keep: number;
  readonly adaptiveRank: boolean;
  /** Columns of the matrix: the size of C. */
  readonly columns: number;
}

/** `time` counts in units of the mean eigenvalue of C, whose trace is the number of experts. */
function filterSettings(job: TensorJob, experts: number): FilterSettings {
  const { columns } = matrixShape(job)!;
  return {
    time: (globalParameter(job, "time") * columns) / experts,
    filter: globalParameter(job, "filter"),
    keep: globalParameter(job, "keep"),
    adaptiveRank: globalParameter(job, "adaptive_rank") === 1,
    columns,
  };
}

/** Eigenvalues below this are directions that nobody has. */
const smallest = 1e-8;
/** h = 0.9/λ_max: all factors 1 − hλ stay inside (0, 1). */
const stepShare = 0.9;

/**
 * f(λ) and f(λ)/λ.
 *
 * @param eigenvalues descending
 */
export function filterOf(
  eigenvalues: Float64Array,
  settings: FilterSettings,
): { readonly passed: Float64Array; readonly inverse: Float64Array } {
  const { time, filter, adaptiveRank, columns } = settings;
  const lambdas = eigenvalues.map((value) => Math.max(0, value));
  const largest = lambdas[0] ?? 0;
  const kept = adaptiveRank ? effectiveRank(lambdas) : Math.ceil(settings.keep * columns);
  const step = stepShare / largest;
  const steps = Math.max(1, Math.round(time / step));
  const passed = new Float64Array(lambdas.length);
  const inverse = new Float64Array(lambdas.length);
  for (let j = 0; j < Math.min(kept, lambdas.length); j++) {
    const value = lambdas[j]!;
    let f = 1;
    // Limit of f/λ at 0.
    let slope = 1 / smallest;
    if (!adaptiveRank && filter === tikhonov) {
      // The ridge a that belongs to a flow of time t is 1/t.
      f = (time * value) / (time * value + 1);
      slope = time;
    } else if (!adaptiveRank && filter === landweber) {
      f = 1 - wholePower(1 - step * value, steps);
      slope = steps * step;
    } else if (!adaptiveRank) {
      f = -exponentialMinusOne(-time * value);
      slope = time;
    }
    passed[j] = f;
    inverse[j] = value > smallest ? f / value : adaptiveRank ? f / smallest : slope;
  }
  return { passed, inverse };
}

/** ⌈(Σ√λ)²/Σλ⌉. */
function effectiveRank(lambdas: Float64Array): number {
  let roots = 0;
  let sum = 0;
  for (const value of lambdas) {
    roots += Math.sqrt(value);
    sum += value;
  }
  return sum === 0 ? 0 : Math.ceil((roots * roots) / sum);
}

/** x^n for a whole n ≥ 0 by squaring: the language leaves the last bits of `**` to the engine. */
function wholePower(x: number, n: number): number {
  let result = 1;
  let square = x;
  for (let left = n; left > 0; left = Math.floor(left / 2)) {
    if (left % 2 === 1) result *= square;
    square *= square;
  }
  return result;
}
