import type { Dtype } from "./dtype.ts";
import type { Shape } from "./shape.ts";

/** How a model is stored. */
export type ModelFormat = "safetensors" | "hf" | "onnx" | "lora";

/**
 * One weight of a model as the checkpoint's author would name and shape it ("logical"), whatever the file does with it.
 *
 * An exporter may store a linear layer's weight as [in, out] under an automatic name such as `onnx::MatMul_731`; here it
 * appears as `model.layers.0.self_attn.q_proj.weight`, [out, in], `transposed`, with the automatic name in `storedName`.
 */
export interface ModelTensor {
  /** Logical name, unique in the model. */
  readonly name: string;
  /** Logical shape. */
  readonly shape: Shape;
  readonly dtype: Dtype;
  /** Name in the file. */
  readonly storedName: string;
  /** The file holds the transpose (2-D only). */
  readonly transposed: boolean;
  /** Where `name` came from: the file itself, the graph node that consumes the weight, or nothing better than the file. */
  readonly namedBy: "file" | "node" | "automatic";
  /** Other logical names that share this storage (tied or deduplicated weights). */
  readonly aliases: readonly string[];
  /** Position of the first consumer in the graph's topological order and its input slot; ONNX only. */
  readonly graphPosition?: { readonly node: number; readonly slot: number; readonly op: string };
}

/**
 * A model opened for reading. Opening reads headers only: time and memory do not grow with the weights.
 * A reader never writes, never follows a path that leaves its model's folder, and refuses damaged files by name.
 */
export interface ModelReader {
  /** Path as the user gave it. */
  readonly path: string;
  readonly format: ModelFormat;
  /** Files that make up the model, absolute, in a fixed order (for digests). */
  readonly files: readonly string[];
  /** In natural order of names. */
  readonly tensors: ReadonlyMap<string, ModelTensor>;
  /** Free-form metadata of the file (safetensors `__metadata__`, ONNX `metadata_props`). */
  readonly metadata: Readonly<Record<string, string>>;
  /** Oddities that do not make the model unusable. */
  readonly warnings?: readonly string[];
  /**
   * Fills `target` with the tensor's elements in logical layout (row-major), stored dtype, little-endian, from flat
   * element `start` on. `target` is a byte view of whole elements; it must not run past the tensor's end.
   * @throws MendelError `not-found` for an unknown name, `invalid-file` when the file changed underneath.
   */
  read(name: string, start: number, target: Uint8Array): void;
  /** Closes file handles; reading afterwards is an error. Safe to call twice. */
  close(): void;
}
