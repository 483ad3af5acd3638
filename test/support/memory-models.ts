import { naturalOrder } from "../../src/base/natural-order.ts";
import type { WeightSource } from "../../src/merge/materialize.ts";
import type { MergeInputs, PlannedTensor } from "../../src/merge/plan.ts";
import { type Dtype, dtypeBytes } from "../../src/tensors/dtype.ts";
import type { ModelReader, ModelTensor } from "../../src/tensors/model-reader.ts";
import type { Shape } from "../../src/tensors/shape.ts";

/** Elements of one tensor: float32 values, or raw bytes of any dtype. */
export interface MemoryTensor {
  readonly shape: Shape;
  readonly values: Float32Array | { readonly dtype: Dtype; readonly raw: Uint8Array };
}

/** Models as plain arrays: name → tensor. */
export type MemoryModels = ReadonlyMap<string, ReadonlyMap<string, MemoryTensor>>;

/** Float32 models of which every tensor has one dimension, or the shape given. */
export function memoryModels(
  models: Readonly<Record<string, Readonly<Record<string, readonly number[]>>>>,
  shape?: Shape,
): MemoryModels {
  return new Map(
    Object.entries(models).map(([id, tensors]) => [
      id,
      new Map(
        Object.entries(tensors).map(([name, values]) => [
          name,
          { shape: shape ?? [values.length], values: Float32Array.from(values) },
        ]),
      ),
    ]),
  );
}

function rawOf({ values }: MemoryTensor): { dtype: Dtype; raw: Uint8Array } {
  if (!(values instanceof Float32Array)) return values;
  const raw = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  return { dtype: "f32", raw };
}

function modelTensor(name: string, tensor: MemoryTensor): ModelTensor {
  return {
    name,
    shape: tensor.shape,
    dtype: rawOf(tensor).dtype,
    storedName: name,
    transposed: false,
    namedBy: "file",
    aliases: [],
  };
}

/** A weight source over plain arrays. */
export function memorySource(models: MemoryModels): WeightSource {
  const find = (modelId: string, name: string): { dtype: Dtype; raw: Uint8Array } => {
    const tensor = models.get(modelId)?.get(name);
    if (tensor === undefined) throw new Error(`no ${name} in ${modelId}`);
    return rawOf(tensor);
  };
  return {
    dtypeOf: (modelId, name) => find(modelId, name).dtype,
    read(modelId, name, start, target) {
      const { dtype, raw } = find(modelId, name);
      const from = start * dtypeBytes[dtype];
      target.set(raw.subarray(from, from + target.length));
    },
  };
}

/** A weight source over opened models. */
export function readerSource(readers: ReadonlyMap<string, ModelReader>): WeightSource {
  const find = (modelId: string): ModelReader => {
    const reader = readers.get(modelId);
    if (reader === undefined) throw new Error(`no model ${modelId}`);
    return reader;
  };
  return {
    dtypeOf: (modelId, name) => find(modelId).tensors.get(name)?.dtype ?? "f32",
    read: (modelId, name, start, target) => find(modelId).read(name, start, target),
  };
}

/** The plan for models whose tensors have the same names: floats are merged, all else is copied. */
export function planByName(
  models: ReadonlyMap<string, ReadonlyMap<string, ModelTensor>>,
  base?: string,
): MergeInputs {
  const names = new Set([...models.values()].flatMap((tensors) => [...tensors.keys()]));
  const tensors = [...names].sort(naturalOrder).map((name): PlannedTensor => {
    const sources = new Map<string, ModelTensor>();
    for (const [id, own] of models) {
      const tensor = own.get(name);
      if (tensor !== undefined) sources.set(id, tensor);
    }
    const first = [...sources.values()][0] as ModelTensor;
    const float = /^(f|bf)\d/.test(first.dtype);
    return {
      name,
      shape: first.shape,
      dtype: first.dtype,
      action: float ? "merge" : "copy",
      reason: float ? "in all models" : `${first.dtype} is not merged`,
      sources,
    };
  });
  return { tensors, ...(base === undefined ? {} : { base }) };
}

/** The plan for models in memory. */
export function memoryPlan(models: MemoryModels, base?: string): MergeInputs {
  const described = new Map(
    [...models].map(([id, tensors]) => [
      id,
      new Map([...tensors].map(([name, tensor]) => [name, modelTensor(name, tensor)])),
    ]),
  );
  return planByName(described, base);
}
