import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { type InferenceSession, Tensor } from "onnxruntime-node";
import { afterAll } from "vitest";
import { buildOnnx, type ModelSpec } from "../../../src/formats/onnx/onnx-builder.ts";
import { type OnnxReader, openOnnx } from "../../../src/formats/onnx/open-onnx.ts";
import { dtypeBytes } from "../../../src/tensors/dtype.ts";
import { elementCount } from "../../../src/tensors/shape.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..", "..");

/** A model of the shipped examples. */
export function example(path: string): string {
  return join(root, "examples", path);
}

const folders: string[] = [];
const readers: OnnxReader[] = [];

afterAll(() => {
  for (const reader of readers.splice(0)) reader.close();
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

/** A fresh folder, removed after the tests of the file. */
export function freshFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "mendel-onnx-"));
  folders.push(folder);
  return folder;
}

/** Writes a model into a fresh folder. */
export function writeModel(spec: ModelSpec | Uint8Array): string {
  const path = join(freshFolder(), "model.onnx");
  writeFileSync(path, spec instanceof Uint8Array ? spec : buildOnnx(spec));
  return path;
}

/** Opens a model that is closed after the tests of the file. */
export function openModel(model: ModelSpec | Uint8Array | string): OnnxReader {
  const reader = openOnnx(typeof model === "string" ? model : writeModel(model));
  readers.push(reader);
  return reader;
}

/** All bytes of a tensor in logical layout. */
export function readAll(reader: OnnxReader, name: string): Uint8Array {
  const weight = reader.find(name)!;
  const bytes = new Uint8Array(elementCount(weight.shape) * dtypeBytes[weight.dtype]);
  reader.read(name, 0, bytes);
  return bytes;
}

export function readFloats(reader: OnnxReader, name: string): Float32Array {
  return new Float32Array(readAll(reader, name).buffer);
}

/** One thread, and prepacking off: packed and unpacked products differ in the last bits. */
export const sessionOptions: InferenceSession.SessionOptions = {
  graphOptimizationLevel: "disabled",
  intraOpNumThreads: 1,
  extra: { session: { disable_prepacking: "1" } },
};

/** Fixed inputs for a model whose only true input is named: token ids, or an image. */
export function feedsOf(input: string, shape: readonly number[]): Record<string, Tensor> {
  const count = elementCount(shape);
  const tensor =
    input === "input_ids"
      ? new Tensor(
          "int64",
          BigInt64Array.from({ length: count }, (_, i) => BigInt((7 * i) % 16)),
          shape,
        )
      : new Tensor(
          "float32",
          Float32Array.from({ length: count }, (_, i) => Math.sin(i)),
          shape,
        );
  return { [input]: tensor };
}
