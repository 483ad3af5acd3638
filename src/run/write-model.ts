import { copyFileSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { basename, extname, join } from "node:path";
import { MendelError } from "../base/errors.ts";
import { sha256, sha256OfFile } from "../base/hash.ts";
import type { HfReader } from "../formats/hf-folder.ts";
import type { OnnxReader } from "../formats/onnx/open-onnx.ts";
import { writeOnnx } from "../formats/onnx/write-onnx.ts";
import { SafetensorsWriter } from "../formats/safetensors-writer.ts";
import type { CompiledRecipe } from "../merge/compile.ts";
import { kernelBytesFor, materializeBytes, type WeightSource } from "../merge/materialize.ts";
import { type Dtype, dtypeBytes } from "../tensors/dtype.ts";
import type { ModelReader } from "../tensors/model-reader.ts";
import { createKernels } from "../tensors/wasm-kernels.ts";

export type OutputFormat = "onnx" | "safetensors" | "hf";

export interface WrittenFile {
  readonly path: string;
  readonly bytes: number;
  readonly sha256: string;
}

export interface WriteModelOptions {
  readonly compiled: CompiledRecipe;
  readonly source: WeightSource;
  readonly format: OutputFormat;
  /** Folder that gets `model.onnx`, `model.safetensors` or a whole Hugging Face folder; or the file itself. */
  readonly out: string;
  /** Bytes of weights per safetensors file. */
  readonly shardBytes?: number | undefined;
  /** The graph that an ONNX model is made from, and how its weights are called there. */
  readonly graph?:
    | { readonly reader: OnnxReader; readonly nameIn: (tensor: string) => string | undefined }
    | undefined;
  /** Donor of configuration and tokenizer files for `hf`. */
  readonly donor?: ModelReader | undefined;
}

/**
 * Materializes a recipe into files, tensor by tensor; memory holds one block (one tensor for ONNX). Files appear complete
 * or not at all.
 *
 * @throws MendelError `mismatch` when the format cannot hold this model; `non-finite`; `resource` on a full disk
 */
export async function writeModel(options: WriteModelOptions): Promise<WrittenFile[]> {
  switch (options.format) {
    case "onnx":
      return writeAsOnnx(options);
    case "safetensors":
      return writeAsSafetensors(options, weightsPath(options.out, ".safetensors"));
    case "hf":
      return writeAsHf(options);
  }
}

/** The weights file: `out` itself when it has the ending, else a file in the folder `out`. */
function weightsPath(out: string, ending: string): string {
  if (extname(out) === ending) return out;
  mkdirSync(out, { recursive: true });
  return join(out, `model${ending}`);
}

async function writeAsSafetensors(
  options: WriteModelOptions,
  path: string,
): Promise<WrittenFile[]> {
  const { compiled, source, shardBytes } = options;
  const writer = new SafetensorsWriter(path, compiled.tensors, {
    metadata: { format: "pt" },
    ...(shardBytes === undefined ? {} : { maxShardBytes: shardBytes }),
  });
  const kernels = createKernels({ bytes: kernelBytesFor(compiled) });
  try {
    compiled.tensors.forEach(({ name }, index) => {
      materializeBytes(compiled, index, {
        kernels,
        source,
        write: (_, bytes) => writer.write(name, bytes),
      });
    });
  } catch (thrown) {
    writer.discard();
    throw thrown;
  }
  const files: WrittenFile[] = [];
  for (const file of writer.finish())
    files.push({ ...file, sha256: await sha256OfFile(file.path) });
  return files;
}

async function writeAsOnnx(options: WriteModelOptions): Promise<WrittenFile[]> {
  const { compiled, source, graph } = options;
  if (graph === undefined) {
    throw new MendelError(
      "mismatch",
      "an ONNX model needs a graph, and none of the models is ONNX",
      {
        hint: "give one with --graph FILE, or write safetensors or hf",
      },
    );
  }
  if (compiled.layers !== undefined) {
    throw new MendelError(
      "unsupported",
      "a recipe with slices changes the number of layers; an ONNX graph has a fixed one",
      {
        hint: "write it as hf or safetensors",
      },
    );
  }
  const kernels = createKernels({ bytes: kernelBytesFor(compiled) });
  const replace = new Map(
    compiled.tensors.flatMap(({ name, dtype, length }, index) => {
      const graphName = graph.nameIn(name);
      if (graphName === undefined) return [];
      const make = (): Uint8Array => {
        const bytes = new Uint8Array(length * dtypeBytes[dtype]);
        const write = (start: number, block: Uint8Array): void =>
          bytes.set(block, start * dtypeBytes[dtype]);
        materializeBytes(compiled, index, { kernels, source, write });
        return bytes;
      };
      return [[graphName, oneTensor(dtype, make)] as const];
    }),
  );
  return [...(await writeOnnx(graph.reader, weightsPath(options.out, ".onnx"), replace))];
}

/** A weight that is computed whole when its first element is asked for, and forgotten after the last. */
function oneTensor(dtype: Dtype, make: () => Uint8Array) {
  let bytes: Uint8Array | undefined;
  return {
    dtype,
    read: (start: number, target: Uint8Array): void => {
      bytes ??= make();
      const from = start * dtypeBytes[dtype];
      target.set(bytes.subarray(from, from + target.length));
      if (from + target.length >= bytes.length) bytes = undefined;
    },
  };
}

function isHf(reader: ModelReader | undefined): reader is HfReader {
  return reader?.format === "hf";
}

/** A Hugging Face folder: weights, and the donor's configuration and tokenizer with what the merge changed in it. */
async function writeAsHf(options: WriteModelOptions): Promise<WrittenFile[]> {
  const { donor, out, compiled } = options;
  if (!isHf(donor)) {
    throw new MendelError(
      "mismatch",
      "a Hugging Face folder needs the configuration of one of the models, and none has one",
      {
        hint: "write onnx or safetensors instead, or name a base that is a Hugging Face folder",
      },
    );
  }
  mkdirSync(out, { recursive: true });
  const files = await writeAsSafetensors(options, join(out, "model.safetensors"));
  for (const side of donor.sideFiles) {
    const path = join(out, basename(side));
    if (basename(side) === "config.json") {
      writeFileSync(path, `${JSON.stringify(configOf(side, compiled), null, 2)}\n`);
    } else {
      copyFileSync(side, path);
    }
    files.push({ path, bytes: statSync(path).size, sha256: sha256(readFileSync(path)) });
  }
  return files;
}

const torchNames: Partial<Record<Dtype, string>> = {
  f32: "float32",
  f16: "float16",
  bf16: "bfloat16",
  f64: "float64",
};

/** The donor's configuration with dtype and number of layers as they are in the written weights. */
function configOf(path: string, compiled: CompiledRecipe): Record<string, unknown> {
  const config = JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown>;
  const dtype =
    torchNames[compiled.tensors.find((tensor) => tensor.dtype in torchNames)?.dtype ?? "f32"];
  const dtypeKey = "dtype" in config ? "dtype" : "torch_dtype";
  return {
    ...config,
    [dtypeKey]: dtype,
    ...(compiled.layers === undefined ? {} : { num_hidden_layers: compiled.layers }),
  };
}
