import { createHash } from "node:crypto";
import { MendelError } from "../base/errors.ts";
import type { WeightSource } from "../merge/materialize.ts";
import type { MergeInputs } from "../merge/plan.ts";
import { type Dtype, dtypeBytes, isFloat } from "../tensors/dtype.ts";
import type { ModelReader } from "../tensors/model-reader.ts";
import { elementCount } from "../tensors/shape.ts";

/** A source tensor in memory that all worker threads see: stored dtype, logical layout. Never written after loading. */
export interface SharedTensor {
  readonly dtype: Dtype;
  readonly bytes: Uint8Array<SharedArrayBuffer>;
}

/** Model id → tensor name in that model → its elements. */
export type SharedWeights = ReadonlyMap<string, ReadonlyMap<string, SharedTensor>>;

/**
 * Reads every float tensor that recipes may ask for, once per process.
 *
 * @throws MendelError `non-finite` naming model and tensor when a source holds NaN or infinity; `resource` when memory runs
 *   out; what reading throws
 */
export function loadSharedWeights(
  inputs: MergeInputs,
  models: ReadonlyMap<string, ModelReader>,
): SharedWeights {
  const weights = new Map<string, Map<string, SharedTensor>>();
  for (const planned of inputs.tensors) {
    for (const [modelId, tensor] of planned.sources) {
      if (!isFloat(tensor.dtype)) continue;
      const reader = models.get(modelId);
      if (reader === undefined) throw new Error(`the plan names an unopened model ${modelId}`);
      const length = elementCount(tensor.shape) * dtypeBytes[tensor.dtype];
      const bytes = shared(length, reader.path);
      reader.read(tensor.name, 0, bytes);
      if (hasNonFinite(tensor.dtype, bytes)) {
        throw new MendelError(
          "non-finite",
          `tensor "${tensor.name}" of model "${modelId}" holds NaN or infinity`,
          {
            hint: "such a model cannot be merged; check how it was saved",
            where: { file: reader.path, tensor: tensor.name },
          },
        );
      }
      const ofModel = weights.get(modelId) ?? new Map<string, SharedTensor>();
      ofModel.set(tensor.name, { dtype: tensor.dtype, bytes });
      weights.set(modelId, ofModel);
    }
  }
  return weights;
}

function shared(length: number, file: string): Uint8Array<SharedArrayBuffer> {
  try {
    return new Uint8Array(new SharedArrayBuffer(length));
  } catch (cause) {
    throw new MendelError("resource", `no memory for ${length} bytes of weights`, {
      cause,
      hint: "all source models are held in memory once; use fewer or smaller ones",
      where: { file },
    });
  }
}

/** SHA-256 over names, dtypes and elements of all weights. */
export function digestOfWeights(weights: SharedWeights): string {
  const hash = createHash("sha256");
  for (const [modelId, tensors] of weights) {
    for (const [name, { dtype, bytes }] of tensors) {
      hash.update(`${JSON.stringify([modelId, name, dtype, bytes.length])}\n`);
      hash.update(bytes);
    }
  }
  return hash.digest("hex");
}

/** A view of shared weights as `materializeTensor` wants it. */
export function weightSourceOf(weights: SharedWeights): WeightSource {
  const find = (modelId: string, name: string): SharedTensor => {
    const tensor = weights.get(modelId)?.get(name);
    if (tensor === undefined) throw new Error(`no weights ${name} of ${modelId} were loaded`);
    return tensor;
  };
  return {
    dtypeOf: (modelId, name) => find(modelId, name).dtype,
    read(modelId, name, start, target) {
      const { dtype, bytes } = find(modelId, name);
      const from = start * dtypeBytes[dtype];
      target.set(bytes.subarray(from, from + target.length));
    },
  };
}

/** Exponent bits all set means NaN or infinity; only the word that holds the exponent is looked at. */
function hasNonFinite(dtype: Dtype, bytes: Uint8Array<SharedArrayBuffer>): boolean {
  const { buffer, byteLength } = bytes;
  switch (dtype) {
    case "f32":
      return anyMasked(new Uint32Array(buffer, 0, byteLength / 4), 0x7f800000, 1, 0);
    case "f64":
      // Little-endian: the upper half of element i is word 2i + 1.
      return anyMasked(new Uint32Array(buffer, 0, byteLength / 4), 0x7ff00000, 2, 1);
    case "bf16":
      return anyMasked(new Uint16Array(buffer, 0, byteLength / 2), 0x7f80, 1, 0);
    case "f16":
      return anyMasked(new Uint16Array(buffer, 0, byteLength / 2), 0x7c00, 1, 0);
    default:
      return false;
  }
}

function anyMasked(
  words: Uint32Array | Uint16Array,
  mask: number,
  step: number,
  first: number,
): boolean {
  for (let i = first; i < words.length; i += step) {
    if ((words[i]! & mask) === mask) return true;
  }
  return false;
}
