import { MendelError } from "../../base/errors.ts";
import { suggestion } from "../../base/suggest.ts";
import type { Dtype } from "../../tensors/dtype.ts";
import type { OnnxWeight } from "./graph-weights.ts";
import type { OnnxModel, OnnxNode, OnnxTensor } from "./onnx-model.ts";
import {
  dataTypeOfDtype,
  dimField,
  entryField,
  graphField,
  modelField,
  nodeField,
  shapeField,
  tensorField,
  tensorTypeField,
  typeField,
  valueInfoField,
} from "./onnx-types.ts";
import type { OnnxReader } from "./open-onnx.ts";
import {
  type ByteSource,
  bodyOf,
  concatBytes,
  encodeBytes,
  encodeHead,
  encodeNumber,
  type Span,
  type WireField,
  WireReader,
} from "./wire.ts";

/** Bytes produced when they are written. */
export interface Chunks {
  readonly length: number;
  chunks(): Iterable<Uint8Array> | AsyncIterable<Uint8Array>;
}

/** A part of a new file: literal bytes, a span of the old model file copied as it is, or bytes to come. */
export type Piece = Uint8Array | Span | Chunks;

export function pieceLength(piece: Piece): number {
  return "start" in piece ? piece.end - piece.start : piece.length;
}

export function piecesLength(pieces: readonly Piece[]): number {
  return pieces.reduce((length, piece) => length + pieceLength(piece), 0);
}

/** A length-delimited field around pieces. */
export function fieldOf(number: number, body: readonly Piece[]): Piece[] {
  return [encodeHead(number, piecesLength(body)), ...body];
}

/** Changes to a model. What is not mentioned stays as it is, byte for byte. */
export interface ModelEdit {
  /** New bodies of initializers of the main graph; null removes one. */
  readonly initializers: ReadonlyMap<OnnxTensor, readonly Piece[] | null>;
  /** New bodies of tensors anywhere else: in subgraphs, functions, sparse initializers. */
  readonly hidden: ReadonlyMap<OnnxTensor, readonly Piece[]>;
  /** New bodies of nodes of the main graph; null removes one. */
  readonly nodes: ReadonlyMap<OnnxNode, readonly Piece[] | null>;
  /** Bodies of additional initializers, inputs and nodes; nodes are put first. */
  readonly addInitializers: readonly (readonly Piece[])[];
  readonly addInputs: readonly Uint8Array[];
  readonly addNodes: readonly Uint8Array[];
  /** Added to `metadata_props`; replaces entries of the same key. */
  readonly metadata: Readonly<Record<string, string>>;
}

/** The model's bytes after an edit. Fields this program does not know are carried over. */
export function rewriteModel(model: OnnxModel, edit: ModelEdit): Piece[] {
  const wire = new WireReader(model.source);
  const copy = copier(wire, edit.hidden);
  const graph = rewriteGraph(model, edit, copy);
  const keys = Object.keys(edit.metadata);
  const pieces: Piece[] = [];
  for (const field of model.fields) {
    if (field.number === modelField.graph && graph !== undefined) {
      pieces.push(...fieldOf(modelField.graph, graph));
    } else if (field.number !== modelField.metadataProps || !keys.includes(keyOf(wire, field))) {
      pieces.push(...copy(field));
    }
  }
  for (const key of keys) {
    const entry = [
      encodeBytes(entryField.key, key),
      encodeBytes(entryField.value, edit.metadata[key]!),
    ];
    pieces.push(encodeBytes(modelField.metadataProps, concatBytes(entry)));
  }
  return joinSpans(pieces);
}

/** The new graph, or undefined when the edit does not touch it directly. */
function rewriteGraph(
  model: OnnxModel,
  edit: ModelEdit,
  copy: (field: WireField) => Piece[],
): Piece[] | undefined {
  const { initializers, nodes, addInitializers, addInputs, addNodes } = edit;
  const added = addInitializers.length + addInputs.length + addNodes.length;
  if (initializers.size + nodes.size + added === 0) return undefined;
  const pieces: Piece[] = addNodes.map((node) => encodeBytes(graphField.node, node));
  let node = 0;
  let initializer = 0;
  for (const field of model.graph.fields) {
    let body: readonly Piece[] | null | undefined;
    if (field.number === graphField.node) body = nodes.get(model.graph.nodes[node++]!);
    if (field.number === graphField.initializer) {
      body = initializers.get(model.graph.initializers[initializer++]!);
    }
    if (body === null) continue;
    pieces.push(...(body === undefined ? copy(field) : fieldOf(field.number, body)));
  }
  for (const body of addInitializers) pieces.push(...fieldOf(graphField.initializer, body));
  for (const input of addInputs) pieces.push(encodeBytes(graphField.input, input));
  return joinSpans(pieces);
}

/**
 * Copies fields, replacing tensors that lie somewhere inside. No schema is needed on the way down: only a field that
 * contains a replaced tensor is opened, and that is a message.
 */
function copier(
  wire: WireReader,
  replaced: ReadonlyMap<OnnxTensor, readonly Piece[]>,
): (field: WireField) => Piece[] {
  const bodies = new Map([...replaced].map(([tensor, body]) => [tensor.field.start, body]));
  const starts = [...bodies.keys()].sort((a, b) => a - b);
  const copy = (field: WireField): Piece[] => {
    const body = bodies.get(field.start);
    if (body !== undefined) return fieldOf(field.number, body);
    const touched = starts.some((start) => start > field.start && start < field.end);
    if (!touched) return [{ start: field.start, end: field.end }];
    const parts = [...wire.fields(bodyOf(field))].flatMap(copy);
    return fieldOf(field.number, joinSpans(parts));
  };
  return copy;
}

function keyOf(wire: WireReader, entry: WireField): string {
  for (const field of wire.fields(bodyOf(entry))) {
    if (field.number === entryField.key) return wire.string(field);
  }
  return "";
}

/** Neighboring spans become one, so that copying does not work field by field. */
function joinSpans(pieces: readonly Piece[]): Piece[] {
  const joined: Piece[] = [];
  for (const piece of pieces) {
    const last = joined.at(-1);
    if (last !== undefined && "start" in last && "start" in piece && last.end === piece.start) {
      joined[joined.length - 1] = { start: last.start, end: piece.end };
    } else joined.push(piece);
  }
  return joined;
}

/** How many bytes are copied at once. */
export const copyBytes = 1024 * 1024;

/** The bytes of a piece, in order, for synchronous and asynchronous pieces alike. */
export function chunksOf(
  source: ByteSource,
  piece: Piece,
): Iterable<Uint8Array> | AsyncIterable<Uint8Array> {
  if (piece instanceof Uint8Array) return [piece];
  if (!("start" in piece)) return piece.chunks();
  return readChunks(piece.end - piece.start, (from, target) =>
    source.read(piece.start + from, target),
  );
}

/** Reads `length` bytes through a callback, in chunks. */
export function* readChunks(
  length: number,
  read: (from: number, target: Uint8Array) => void,
): Generator<Uint8Array> {
  for (let from = 0; from < length; from += copyBytes) {
    const chunk = new Uint8Array(Math.min(copyBytes, length - from));
    read(from, chunk);
    yield chunk;
  }
}

/** All pieces in one buffer. Pieces must be synchronous. */
export function assemble(source: ByteSource, pieces: readonly Piece[]): Uint8Array {
  const bytes = new Uint8Array(piecesLength(pieces));
  let at = 0;
  for (const piece of pieces) {
    if (piece instanceof Uint8Array) {
      bytes.set(piece, at);
      at += piece.length;
    } else if ("start" in piece) {
      source.read(piece.start, bytes.subarray(at, at + piece.end - piece.start));
      at += piece.end - piece.start;
    } else {
      const chunks = piece.chunks();
      if (!(Symbol.iterator in chunks))
        throw new Error("an asynchronous piece cannot be assembled");
      for (const chunk of chunks) {
        bytes.set(chunk, at);
        at += chunk.length;
      }
    }
  }
  return bytes;
}

/** Where a rewritten tensor's elements are. */
export type NewData =
  | { readonly kind: "embedded"; readonly bytes: Chunks }
  | {
      readonly kind: "external";
      readonly location: string;
      readonly offset: number;
      readonly length: number;
    };

const replacedFields: ReadonlySet<number> = new Set([
  tensorField.name,
  tensorField.dataType,
  tensorField.floatData,
  tensorField.int32Data,
  tensorField.stringData,
  tensorField.int64Data,
  tensorField.rawData,
  tensorField.doubleData,
  tensorField.uint64Data,
  tensorField.externalData,
  tensorField.dataLocation,
]);

/** The body of a tensor message with other data; dimensions, documentation and unknown fields stay. */
export function tensorBody(
  tensor: OnnxTensor,
  name: string,
  dataType: number,
  data: NewData,
): Piece[] {
  const pieces: Piece[] = tensor.fields
    .filter((field) => !replacedFields.has(field.number))
    .map(({ start, end }) => ({ start, end }));
  pieces.push(encodeNumber(tensorField.dataType, dataType));
  if (name !== "") pieces.push(encodeBytes(tensorField.name, name));
  if (data.kind === "embedded") {
    pieces.push(encodeHead(tensorField.rawData, data.bytes.length), data.bytes);
    return pieces;
  }
  const entries = [
    ["location", data.location],
    ["offset", String(data.offset)],
    ["length", String(data.length)],
  ] as const;
  for (const [key, value] of entries) {
    const entry = [encodeBytes(entryField.key, key), encodeBytes(entryField.value, value)];
    pieces.push(encodeBytes(tensorField.externalData, concatBytes(entry)));
  }
  pieces.push(encodeNumber(tensorField.dataLocation, 1));
  return pieces;
}

/** The tensor's own bytes, from wherever they are. Not for typed fields. */
export function storedChunks(reader: OnnxReader, tensor: OnnxTensor): Chunks {
  const { data } = tensor;
  if (data.kind === "typed") throw new Error("typed fields stay as they are");
  const length =
    data.kind === "external"
      ? reader.external.get(tensor)!.length
      : data.span.end - data.span.start;
  return {
    length,
    chunks: () => readChunks(length, (from, target) => reader.readStored(tensor, from, target)),
  };
}

/** New bodies that embed all external tensors outside the main graph, which the runtime would look for in files. */
export function embedHidden(reader: OnnxReader): ReadonlyMap<OnnxTensor, readonly Piece[]> {
  const bodies = new Map<OnnxTensor, readonly Piece[]>();
  const external = new Set([...reader.graph.hidden, ...constantsOf(reader.graph)]);
  for (const tensor of external) {
    if (tensor.data.kind !== "external") continue;
    const bytes = storedChunks(reader, tensor);
    const data = { kind: "embedded", bytes } as const;
    bodies.set(tensor, tensorBody(tensor, tensor.name, tensor.dataType, data));
  }
  return bodies;
}

function constantsOf(model: OnnxModel): OnnxTensor[] {
  return model.graph.nodes.flatMap((node) =>
    [...node.attributes.values()].flatMap(({ tensor }) => (tensor === undefined ? [] : [tensor])),
  );
}

/** The body of a ValueInfoProto for a tensor. A string dimension is symbolic; "" says nothing. */
export function valueInfo(
  name: string,
  dtype: Dtype,
  shape: readonly (number | string)[],
): Uint8Array {
  const dims = shape.map((dim) => {
    const number = typeof dim === "number";
    const body = number
      ? encodeNumber(dimField.value, dim)
      : dim === ""
        ? new Uint8Array(0)
        : encodeBytes(dimField.param, dim);
    return encodeBytes(shapeField.dim, body);
  });
  const tensor = concatBytes([
    encodeNumber(tensorTypeField.elemType, dataTypeOfDtype(dtype)),
    encodeBytes(tensorTypeField.shape, concatBytes(dims)),
  ]);
  return concatBytes([
    encodeBytes(valueInfoField.name, name),
    encodeBytes(valueInfoField.type, encodeBytes(typeField.tensor, tensor)),
  ]);
}

/** One weight that gets values of its own. */
export interface WeightPlan {
  /** As asked for: logical name, alias or stored name. */
  readonly name: string;
  readonly weight: OnnxWeight;
  /** The value in the graph that carries it afterwards. */
  readonly graphName: string;
  /** It takes the place of its own initializer; otherwise it is an addition to the graph. */
  readonly inPlace: boolean;
}

/** Weights to replace, and what has to happen to the nodes for it. */
export interface WeightPlans {
  readonly plans: readonly WeightPlan[];
  readonly nodes: ReadonlyMap<OnnxNode, readonly Piece[] | null>;
}

/**
 * Finds the weights of the given names and cuts shared ones loose: an alias that is named here gets values of its own
 * (its `Identity` node goes away, or the edge to its consumer is redirected); one that is not keeps following the weight
 * it shares. `Constant` nodes that hold a named weight go away too.
 *
 * @throws MendelError `not-found` for an unknown name
 */
export function planWeights(reader: OnnxReader, names: Iterable<string>): WeightPlans {
  const { graph } = reader.graph;
  const taken = new Set<string>();
  for (const { name } of graph.initializers) taken.add(name);
  for (const { name } of graph.inputs) taken.add(name);
  for (const { inputs, outputs } of graph.nodes) {
    for (const name of inputs) taken.add(name);
    for (const name of outputs) taken.add(name);
  }
  const plans: WeightPlan[] = [];
  const bodies = new Map<OnnxNode, readonly Piece[] | null>();
  const redirected = new Map<OnnxNode, string[]>();
  const done = new Set<string>();
  for (const name of names) {
    const weight = reader.find(name);
    if (weight === undefined) {
      throw new MendelError("not-found", `${reader.path}: there is no weight "${name}"`, {
        where: { file: reader.path, tensor: name },
        hint: suggestion(name, [...reader.tensors.keys()].slice(0, 50)),
      });
    }
    const fork = name === weight.name ? undefined : weight.forks.find((f) => f.name === name);
    let graphName = weight.storedName;
    if (fork === undefined) {
      if (weight.node !== undefined) bodies.set(weight.node, null);
    } else if (fork.kind === "identity") {
      graphName = fork.node.outputs[0]!;
      bodies.set(fork.node, null);
    } else {
      graphName = fork.name;
      for (let n = 2; taken.has(graphName); n++) graphName = `${fork.name}.${n}`;
      taken.add(graphName);
      const inputs = redirected.get(fork.node) ?? [...fork.node.inputs];
      inputs[fork.slot] = graphName;
      redirected.set(fork.node, inputs);
    }
    if (done.has(graphName)) throw new Error(`the weight "${name}" is named twice`);
    done.add(graphName);
    const inPlace = fork === undefined && weight.kind === "initializer";
    plans.push({ name, weight, graphName, inPlace });
  }
  for (const [node, inputs] of redirected) {
    if (bodies.has(node)) continue;
    const kept = node.fields.filter((field) => field.number !== nodeField.input);
    const body: Piece[] = inputs.map((input) => encodeBytes(nodeField.input, input));
    bodies.set(node, [...body, ...kept.map(({ start, end }) => ({ start, end }))]);
  }
  return { plans, nodes: bodies };
}
