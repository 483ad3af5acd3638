import type { MergeMethod, SourceTensor, TensorParameters } from "../../src/merge/method.ts";
import type { Kernels } from "../../src/tensors/kernels.ts";
import { createKernels } from "../../src/tensors/wasm-kernels.ts";

/** Kernels for tests on small tensors. */
export const testKernels: Kernels = createKernels({ bytes: 1 << 21 });

export interface MethodRun {
  readonly inputs: readonly ArrayLike<number>[];
  readonly baseIndex?: number;
  /** Values by name: a number holds for the tensor or for all inputs, a list gives one value per input besides the base. */
  readonly values?: Readonly<Record<string, number | readonly number[]>>;
  readonly lists?: TensorParameters["lists"];
  readonly shape?: readonly number[];
  readonly name?: string;
  readonly modelIds?: readonly string[];
  readonly seed?: number;
  readonly compat?: boolean;
  readonly offset?: number;
  readonly blockLength?: number;
  readonly kernels?: Kernels;
}

/** Parameters of a method from a flat record of values, defaults filled in. */
export function parametersOf(method: MergeMethod, run: MethodRun): TensorParameters {
  const experts = run.inputs.map((_, k) => k).filter((k) => k !== run.baseIndex);
  const global: Record<string, number> = {};
  const models: Record<string, number>[] = run.inputs.map(() => ({}));
  for (const { name, scope, type, default: fallback } of method.parameters) {
    if (type === "list") continue;
    const given = run.values?.[name] ?? fallback;
    if (scope === "global") {
      if (typeof given === "number") global[name] = given;
      continue;
    }
    for (const [k, model] of models.entries()) {
      const rank = experts.indexOf(k);
      const value = rank < 0 ? fallback : typeof given === "number" ? given : given?.[rank];
      if (value !== undefined) model[name] = value;
    }
  }
  return { global, models, ...(run.lists === undefined ? {} : { lists: run.lists }) };
}

/** Runs a method on one tensor and returns its elements. */
export function runMethod(method: MergeMethod, run: MethodRun): Float32Array {
  const kernels = run.kernels ?? testKernels;
  const arrays = run.inputs.map((values) => Float32Array.from(values));
  const length = arrays[0]?.length ?? 0;
  const result = new Float32Array(length).fill(Number.NaN);
  const inputs = arrays.map(
    (values, k): SourceTensor => ({
      modelId: run.modelIds?.[k] ?? `model-${k}`,
      load: (start, out) => out.set(values.subarray(start, start + out.length)),
    }),
  );
  const mark = kernels.mark();
  method.merge({
    name: run.name ?? "layer.weight",
    shape: run.shape ?? [length],
    length,
    inputs,
    baseIndex: run.baseIndex,
    parameters: parametersOf(method, run),
    seed: run.seed ?? 0,
    compat: run.compat ?? false,
    offset: run.offset ?? 0,
    kernels,
    blockLength: run.blockLength ?? 1 << 18,
    store: (start, values) => result.set(values, start),
  });
  kernels.release(mark);
  return result;
}
