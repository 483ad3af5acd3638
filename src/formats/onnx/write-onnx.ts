import { createHash } from "node:crypto";
import { realpathSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { MendelError } from "../../base/errors.ts";
import { type Dtype, dtypeBytes, isFloat } from "../../tensors/dtype.ts";
import { AtomicFile } from "../atomic-file.ts";
import { encodeNode } from "./onnx-builder.ts";
import type { OnnxTensor } from "./onnx-model.ts";
import { dataTypeOfDtype } from "./onnx-types.ts";
import type { OnnxReader } from "./open-onnx.ts";
import {
  type Chunks,
  chunksOf,
  copyBytes,
  embedHidden,
  type NewData,
  type Piece,
  piecesLength,
  planWeights,
  rewriteModel,
  storedChunks,
  tensorBody,
  type WeightPlan,
} from "./rewrite-model.ts";
import { transposeBytes } from "./tensor-bytes.ts";
import type { ByteSource } from "./wire.ts";

/** A single file must stay below 2 GiB; this leaves room for readers with stricter limits. */
export const maxSingleFileBytes = 1_900_000_000;
/** Tensors below this stay in the model file even when data is external; readers need small ones at once. */
export const minExternalBytes = 1024;
/** Page size: aligned tensors can be mapped from the data file. */
export const alignment = 4096;

/** New values of a weight, in logical layout. */
export interface WeightSource {
  /**
   * Of the bytes delivered. If it differs from the graph's, the weight is stored in this dtype and the graph gets a
   * `Cast` back to its own (floats only).
   */
  readonly dtype: Dtype;
  /** Fills `target` with elements from flat element `start` on; calls come in order. */
  read(start: number, target: Uint8Array): void | Promise<void>;
}

export interface WriteOnnxOptions {
  /** `auto`: one file below 1.9 GB, else weights in `<name>_data` beside it. */
  readonly externalData?: "auto" | "always" | "never";
  /** Entries for `metadata_props`. */
  readonly metadata?: Readonly<Record<string, string>>;
}

export interface WrittenFile {
  readonly path: string;
  readonly bytes: number;
  readonly sha256: string;
}

/**
 * Writes a model with other weights. Everything else stays byte for byte, unknown fields included; without replacements,
 * metadata and external data the file is identical to the original. Streams: memory holds one chunk, or one tensor where
 * the file stores a transpose. Files appear complete (temporary sibling, fsync, rename), the data file first.
 *
 * @param replace new values by logical name, alias or stored name; shared weights named apart are stored apart
 * @throws MendelError `mismatch` for a dtype that cannot replace the graph's, `usage` when the output would overwrite an
 * input, `resource` when the disk is full, `not-found` for names
 */
export async function writeOnnx(
  reader: OnnxReader,
  outPath: string,
  replace: ReadonlyMap<string, WeightSource>,
  options: WriteOnnxOptions = {},
): Promise<readonly WrittenFile[]> {
  const dataPath = `${outPath}_data`;
  refuseInputs(reader, [outPath, dataPath]);
  const mode = options.externalData ?? "auto";
  const metadata = options.metadata ?? {};
  const single = layOut(reader, replace, metadata, undefined);
  const outside = mode === "always" || (mode === "auto" && single.size > maxSingleFileBytes);
  if (!outside) return publish(reader, [{ path: outPath, pieces: single.model }]);
  const split = layOut(reader, replace, metadata, basename(dataPath));
  const files = [{ path: outPath, pieces: split.model }];
  if (split.data.length > 0) files.unshift({ path: dataPath, pieces: split.data });
  return publish(reader, files);
}

interface Layout {
  readonly model: readonly Piece[];
  readonly data: readonly Piece[];
  readonly size: number;
}

/** Decides where every tensor goes. `location`: name of the data file, or undefined to embed everything. */
function layOut(
  reader: OnnxReader,
  replace: ReadonlyMap<string, WeightSource>,
  metadata: Readonly<Record<string, string>>,
  location: string | undefined,
): Layout {
  const { plans, nodes } = planWeights(reader, replace.keys());
  const initializers = new Map<OnnxTensor, readonly Piece[]>();
  const addInitializers: (readonly Piece[])[] = [];
  const addNodes: Uint8Array[] = [];
  const data: Piece[] = [];
  let end = 0;
  const place = (bytes: Chunks): NewData => {
    if (location === undefined || bytes.length < minExternalBytes) {
      return { kind: "embedded", bytes };
    }
    const offset = Math.ceil(end / alignment) * alignment;
    if (offset > end) data.push(new Uint8Array(offset - end));
    data.push(bytes);
    end = offset + bytes.length;
    return { kind: "external", location, offset, length: bytes.length };
  };
  for (const plan of plans) {
    const source = replace.get(plan.name)!;
    const { weight, graphName, inPlace } = plan;
    let name = graphName;
    if (source.dtype !== weight.dtype) {
      name = castNameOf(reader, plan, source.dtype);
      addNodes.push(castNode(name, graphName, weight.dtype));
    }
    const bytes = weightChunks(plan, source);
    const body = tensorBody(weight.tensor, name, dataTypeOfDtype(source.dtype), place(bytes));
    if (inPlace) initializers.set(weight.tensor, body);
    else addInitializers.push(body);
  }
  for (const tensor of reader.graph.graph.initializers) {
    const { kind } = tensor.data;
    const moves = kind === "external" || (kind === "raw" && location !== undefined);
    if (initializers.has(tensor) || !moves) continue;
    const bytes = storedChunks(reader, tensor);
    if (kind === "raw" && bytes.length < minExternalBytes) continue;
    initializers.set(tensor, tensorBody(tensor, tensor.name, tensor.dataType, place(bytes)));
  }
  const hidden = embedHidden(reader);
  const edit = { initializers, hidden, nodes, addInitializers, addInputs: [], addNodes, metadata };
  const model = rewriteModel(reader.graph, edit);
  return { model, data, size: piecesLength(model) };
}

/** A source's bytes in stored layout. */
function weightChunks({ weight }: WeightPlan, source: WeightSource): Chunks {
  const size = dtypeBytes[source.dtype];
  const { count } = weight.tensor;
  const length = count * size;
  async function* chunks(): AsyncGenerator<Uint8Array> {
    const step = weight.transposed ? count : Math.floor(copyBytes / size);
    for (let start = 0; start < count; start += step) {
      const chunk = new Uint8Array(Math.min(step, count - start) * size);
      await source.read(start, chunk);
      const [rows, columns] = weight.shape as readonly [number, number];
      yield weight.transposed ? transposeBytes(chunk, rows, columns, size) : chunk;
    }
  }
  return { length, chunks };
}

/** A weight stored in another dtype is called after the value it is cast to; `findWeights` knows this spelling. */
function castNameOf(reader: OnnxReader, plan: WeightPlan, dtype: Dtype): string {
  const { weight, graphName } = plan;
  if (!isFloat(dtype) || !isFloat(weight.dtype)) {
    throw new MendelError(
      "mismatch",
      `${reader.path}: tensor "${plan.name}" is ${weight.dtype} in the graph and cannot be stored as ${dtype}`,
      { where: { file: reader.path, tensor: plan.name } },
    );
  }
  return `${graphName}/${dtype}`;
}

function castNode(from: string, to: string, dtype: Dtype): Uint8Array {
  const attributes = { to: { int: dataTypeOfDtype(dtype) } };
  return encodeNode({ op: "Cast", inputs: [from], outputs: [to], attributes });
}

/** Input models are never written, not even through another name. */
function refuseInputs(reader: OnnxReader, outputs: readonly string[]): void {
  const inputs = new Set(reader.files.map(realPath));
  for (const path of outputs) {
    if (inputs.has(realPath(path))) {
      throw new MendelError("usage", `${path}: would overwrite a file of the model being read`, {
        where: { file: path },
        hint: "Choose another output path.",
      });
    }
  }
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    try {
      return join(realpathSync(dirname(path)), basename(path));
    } catch {
      return resolve(path);
    }
  }
}

/**
 * Writes all files beside their places, then gives them their names, the data file (listed first) first.
 *
 * @param reader spans among the pieces are positions in its source
 */
export async function publish(
  reader: { readonly graph: { readonly source: ByteSource } },
  files: readonly { readonly path: string; readonly pieces: readonly Piece[] }[],
): Promise<readonly WrittenFile[]> {
  const open: AtomicFile[] = [];
  try {
    const written: WrittenFile[] = [];
    for (const { path, pieces } of files) {
      const file = new AtomicFile(path);
      open.push(file);
      const hash = createHash("sha256");
      let bytes = 0;
      for (const piece of pieces) {
        for await (const chunk of chunksOf(reader.graph.source, piece)) {
          hash.update(chunk);
          file.write(bytes, chunk);
          bytes += chunk.length;
        }
      }
      written.unshift({ path, bytes, sha256: hash.digest("hex") });
    }
    for (const file of open) file.commit();
    return written;
  } finally {
    for (const file of open) file.discard();
  }
}
