import { MendelError } from "../base/errors.ts";
import type { OnnxTensor } from "../formats/onnx/onnx-model.ts";
import type { OnnxReader } from "../formats/onnx/open-onnx.ts";
import {
  assemble,
  embedHidden,
  type NewData,
  type Piece,
  piecesLength,
  planWeights,
  rewriteModel,
  storedChunks,
  tensorBody,
  valueInfo,
  type WeightPlan,
} from "../formats/onnx/rewrite-model.ts";
import { maxSingleFileBytes } from "../formats/onnx/write-onnx.ts";
import { type Dtype, dtypeBytes } from "../tensors/dtype.ts";
import type { Shape } from "../tensors/shape.ts";

/**
 * How a candidate's weights get into the graph: as graph inputs of one session that lives on, or as external data of a
 * fresh session, in memory.
 */
export type FeedKind = "inputs" | "session";

/** One weight as the graph expects it. */
export interface FedTensor {
  /** As asked for: logical name or alias. */
  readonly name: string;
  /** The graph input, or the initializer. */
  readonly graphName: string;
  readonly dtype: Dtype;
  /** As the graph wants it; the transpose of the logical shape if `transposed`. */
  readonly shape: Shape;
  readonly transposed: boolean;
  /** Place in the slab that holds all fed tensors; for the session feed the slab is the file `weightsPath`. */
  readonly offset: number;
  readonly byteLength: number;
}

/** An in-memory file for `SessionOptions.externalData`. */
export interface MemoryFile {
  readonly path: string;
  readonly data: Uint8Array;
}

export interface WeightFeed {
  readonly feed: FeedKind;
  /** The model without the fed weights. ONNX Runtime needs no file for it. */
  readonly model: Uint8Array;
  /** In the order asked for. */
  readonly tensors: readonly FedTensor[];
  readonly slabBytes: number;
  /**
   * Session feed: the name under which the slab goes into `SessionOptions.externalData`, together with `externalData`
   * below. Undefined for the input feed and when nothing is fed.
   */
  readonly weightsPath: string | undefined;
  /** Weights that stay as they are but do not fit into one model message. Usually empty. */
  readonly externalData: readonly MemoryFile[];
}

export interface WeightFeedOptions {
  readonly feed: FeedKind;
  /** Logical names and aliases, each once. An alias that is named gets values of its own. */
  readonly names: Iterable<string>;
  /** Above this size, weights that stay are handed over as in-memory files. Default 1.9 GB. */
  readonly embedLimit?: number;
}

/** Names of in-memory files. All other external data is embedded, so nothing can clash. */
const weightsName = "mendel-weights";
const restName = "mendel-rest";
/** Cache-line alignment suits SIMD kernels and ONNX Runtime alike. */
const slabAlignment = 64;
/** In-memory files are filled up to this size (a larger tensor gets one of its own). */
const memoryFileBytes = 2 ** 30;
/** Below this, moving a tensor out of the message saves nothing. */
const minMovedBytes = 1024;

/**
 * Weights that cannot be graph inputs: ONNX Runtime's Node binding has no bfloat16 tensors. An empty list means that
 * the input feed is possible.
 */
export function inputFeedProblems(
  reader: OnnxReader,
  names: Iterable<string>,
): readonly { readonly name: string; readonly reason: string }[] {
  const problems: { name: string; reason: string }[] = [];
  for (const { name, weight } of planWeights(reader, names).plans) {
    if (weight.dtype === "bf16") {
      problems.push({ name, reason: "bfloat16 tensors cannot be graph inputs" });
    }
  }
  return problems;
}

/**
 * Turns weights of a model into graph inputs or in-memory external data. Everything else is embedded, from files that were
 * opened and verified, so that ONNX Runtime never resolves a path.
 *
 * @throws MendelError `unsupported` for the input feed of weights that `inputFeedProblems` lists; `not-found` for a name
 */
export function buildWeightFeed(reader: OnnxReader, options: WeightFeedOptions): WeightFeed {
  const names = [...options.names];
  const problem = options.feed === "inputs" ? inputFeedProblems(reader, names)[0] : undefined;
  if (problem !== undefined) {
    throw new MendelError(
      "unsupported",
      `${reader.path}: tensor "${problem.name}": ${problem.reason}`,
      {
        where: { file: reader.path, tensor: problem.name },
        hint: "Feed the weights through fresh sessions instead.",
      },
    );
  }
  const limit = options.embedLimit ?? maxSingleFileBytes;
  const embedded = layOut(reader, options.feed, names, false);
  const fits = piecesLength(embedded.pieces) <= limit;
  const { pieces, memory, ...feed } = fits ? embedded : layOut(reader, options.feed, names, true);
  if (piecesLength(pieces) >= 2 ** 31) {
    throw new MendelError("unsupported", `${reader.path}: too large for one ONNX message`, {
      where: { file: reader.path },
    });
  }
  return {
    feed: options.feed,
    model: assemble(reader.graph.source, pieces),
    ...feed,
    externalData: memory.map(fillFile(reader)),
  };
}

interface PlannedFile {
  readonly path: string;
  readonly tensors: { readonly tensor: OnnxTensor; readonly offset: number }[];
  size: number;
}

function layOut(reader: OnnxReader, feed: FeedKind, names: readonly string[], move: boolean) {
  const { plans, nodes } = planWeights(reader, names);
  const inputs = new Set(reader.graph.graph.inputs.map((value) => value.name));
  // Before IR version 4 every initializer had to be listed among the inputs.
  const listed = feed === "inputs" || reader.graph.irVersion < 4;
  const initializers = new Map<OnnxTensor, readonly Piece[] | null>();
  const addInitializers: (readonly Piece[])[] = [];
  const addInputs: Uint8Array[] = [];
  const tensors: FedTensor[] = [];
  let slabBytes = 0;
  for (const plan of plans) {
    const fed = fedTensor(plan, Math.ceil(slabBytes / slabAlignment) * slabAlignment);
    slabBytes = fed.offset + fed.byteLength;
    tensors.push(fed);
    const { tensor } = plan.weight;
    if (listed && !inputs.has(fed.graphName)) {
      addInputs.push(valueInfo(fed.graphName, fed.dtype, fed.shape));
    }
    if (feed === "inputs") {
      if (plan.inPlace) initializers.set(tensor, null);
      continue;
    }
    // An external tensor of no bytes is refused at run time.
    const data: NewData =
      fed.byteLength === 0
        ? { kind: "embedded", bytes: { length: 0, chunks: () => [] } }
        : {
            kind: "external",
            location: weightsName,
            offset: fed.offset,
            length: fed.byteLength,
          };
    const body = tensorBody(tensor, fed.graphName, tensor.dataType, data);
    if (plan.inPlace) initializers.set(tensor, body);
    else addInitializers.push(body);
  }
  const memory: PlannedFile[] = [];
  for (const tensor of reader.graph.graph.initializers) {
    if (initializers.has(tensor)) continue;
    const body = untouched(reader, tensor, move ? memory : undefined);
    if (body !== undefined) initializers.set(tensor, body);
  }
  const hidden = embedHidden(reader);
  const edit = {
    initializers,
    hidden,
    nodes,
    addInitializers,
    addInputs,
    addNodes: [],
    metadata: {},
  };
  // ONNX Runtime refuses an empty in-memory file.
  const weightsPath = feed === "session" && slabBytes > 0 ? weightsName : undefined;
  return { pieces: rewriteModel(reader.graph, edit), tensors, slabBytes, weightsPath, memory };
}

function fedTensor({ name, weight, graphName }: WeightPlan, offset: number): FedTensor {
  return {
    name,
    graphName,
    dtype: weight.dtype,
    shape: weight.tensor.dims,
    transposed: weight.transposed,
    offset,
    byteLength: weight.tensor.count * dtypeBytes[weight.dtype],
  };
}

/** The new body of an initializer that keeps its values, or undefined when it can stay as it is. */
function untouched(
  reader: OnnxReader,
  tensor: OnnxTensor,
  memory: PlannedFile[] | undefined,
): readonly Piece[] | undefined {
  const { kind } = tensor.data;
  if (kind === "typed") return undefined;
  const bytes = storedChunks(reader, tensor);
  if (memory === undefined || bytes.length < minMovedBytes) {
    if (kind === "raw") return undefined;
    return tensorBody(tensor, tensor.name, tensor.dataType, { kind: "embedded", bytes });
  }
  let file = memory.at(-1);
  if (file === undefined || file.size + bytes.length > memoryFileBytes) {
    file = { path: `${restName}-${memory.length}`, tensors: [], size: 0 };
    memory.push(file);
  }
  const offset = Math.ceil(file.size / slabAlignment) * slabAlignment;
  file.tensors.push({ tensor, offset });
  file.size = offset + bytes.length;
  const data: NewData = {
    kind: "external",
    location: file.path,
    offset,
    length: bytes.length,
  };
  return tensorBody(tensor, tensor.name, tensor.dataType, data);
}

function fillFile(reader: OnnxReader): (file: PlannedFile) => MemoryFile {
  return ({ path, tensors, size }) => {
    const data = new Uint8Array(size);
    for (const { tensor, offset } of tensors) {
      const { length } = storedChunks(reader, tensor);
      reader.readStored(tensor, 0, data.subarray(offset, offset + length));
    }
    return { path, data };
  };
}
