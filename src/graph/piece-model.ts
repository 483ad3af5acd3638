import { encodeNode, type NodeSpec } from "../formats/onnx/onnx-builder.ts";
import type { OnnxModel, OnnxNode, OnnxTensor } from "../formats/onnx/onnx-model.ts";
import {
  dataTypeOfDtype,
  graphField,
  modelField,
  nodeField,
  valueInfoField,
} from "../formats/onnx/onnx-types.ts";
import {
  assemble,
  fieldOf,
  type NewData,
  type Piece,
  tensorBody,
  valueInfo,
} from "../formats/onnx/rewrite-model.ts";
import { encodeBytes } from "../formats/onnx/wire.ts";
import type { Dtype } from "../tensors/dtype.ts";
import type { FedTensor } from "./weight-feed.ts";
import type { WeightedGraph } from "./weighted-graph.ts";

/** Element type and shape of a value; a string dimension is symbolic, "" says nothing. */
export interface ValueType {
  readonly dtype: Dtype;
  readonly shape: readonly (number | string)[];
}

/** A node of the new model: as it is in the graph, with other names for its values where `rename` has one, or a new one. */
export type PieceNode =
  | {
      readonly node: OnnxNode;
      readonly rename?: ReadonlyMap<string, string>;
      /** The node's own name among renamed values; default: none. */
      readonly name?: string;
    }
  | NodeSpec;

/** A weight of the new model and where its elements will be. */
export interface PieceWeight {
  /** Initializer name in the new model. */
  readonly name: string;
  /** The weight of the graph whose shape and element type it has. */
  readonly like: FedTensor;
  readonly data: NewData;
}

export interface PieceModel {
  readonly nodes: readonly PieceNode[];
  readonly inputs: readonly { readonly name: string; readonly type: ValueType }[];
  /** Without a type, the runtime infers it. */
  readonly outputs: readonly { readonly name: string; readonly type?: ValueType }[];
  readonly weights: readonly PieceWeight[];
  /** Initializers taken over from the graph as they are. */
  readonly constants: readonly string[];
}

/** The name under which a piece's weights are handed to ONNX Runtime as an in-memory file. */
export const pieceWeightsName = "mendel-weights";
/** Cache-line alignment, as for whole models. */
const ALIGNMENT = 64;

/** Where the weights of a piece lie in one block of memory, in order. */
export function layOutWeights(weights: readonly FedTensor[]): {
  readonly offsets: readonly number[];
  readonly bytes: number;
} {
  let bytes = 0;
  const offsets = weights.map(({ byteLength }) => {
    const offset = Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
    bytes = offset + byteLength;
    return offset;
  });
  return { offsets, bytes };
}

/** Encodes a model made of parts of a graph; operator sets and functions are the graph's. */
export function pieceModel(graph: WeightedGraph, piece: PieceModel): Uint8Array {
  return assemble(graph.model.source, pieceModelBytes(graph, piece));
}

/** As `pieceModel`, as pieces to be written one after the other; spans refer to the graph's source. */
export function pieceModelBytes({ model, weights }: WeightedGraph, piece: PieceModel): Piece[] {
  const byName = new Map(model.graph.initializers.map((tensor) => [tensor.name, tensor]));
  const body: Piece[] = [encodeBytes(graphField.name, model.graph.name || "main")];
  for (const node of piece.nodes) body.push(...fieldOf(graphField.node, nodeBody(node)));
  for (const { name, like, data } of piece.weights) {
    const tensor = byName.get(like.graphName)!;
    const dataType = dataTypeOfDtype(weights.get(like.graphName)!.dtype);
    body.push(...fieldOf(graphField.initializer, tensorBody(tensor, name, dataType, data)));
  }
  for (const name of piece.constants) {
    body.push(...fieldOf(graphField.initializer, unchanged(byName.get(name)!)));
  }
  for (const { name, type } of piece.inputs) {
    body.push(encodeBytes(graphField.input, valueInfo(name, type.dtype, type.shape)));
  }
  for (const { name, type } of piece.outputs) {
    const info =
      type === undefined
        ? encodeBytes(valueInfoField.name, name)
        : valueInfo(name, type.dtype, type.shape);
    body.push(encodeBytes(graphField.output, info));
  }
  return model.fields.flatMap((field): Piece[] => {
    if (field.number === modelField.graph) return fieldOf(modelField.graph, body);
    if (field.number === modelField.metadataProps || field.number === modelField.trainingInfo) {
      return [];
    }
    return [{ start: field.start, end: field.end }];
  });
}

function unchanged(tensor: OnnxTensor): Piece[] {
  return tensor.fields.map(({ start, end }) => ({ start, end }));
}

function nodeBody(entry: PieceNode): Piece[] {
  if (!("node" in entry)) return [encodeNode(entry)];
  const { node, rename, name } = entry;
  if (rename === undefined) return node.fields.map(({ start, end }) => ({ start, end }));
  const renamed = (name: string): string => rename.get(name) ?? name;
  const kept = node.fields.filter(
    ({ number }) =>
      number !== nodeField.input && number !== nodeField.output && number !== nodeField.name,
  );
  return [
    ...node.inputs.map((input) => encodeBytes(nodeField.input, renamed(input))),
    ...node.outputs.map((output) => encodeBytes(nodeField.output, renamed(output))),
    ...(name === undefined ? [] : [encodeBytes(nodeField.name, name)]),
    ...kept.map(({ start, end }) => ({ start, end })),
  ];
}

/** Types of the graph's own inputs and outputs. */
export function declaredTypes({ graph }: OnnxModel): ReadonlyMap<string, ValueType> {
  const types = new Map<string, ValueType>();
  for (const { name, dtype, shape } of [...graph.inputs, ...graph.outputs]) {
    if (dtype !== undefined) types.set(name, { dtype, shape: shape ?? [] });
  }
  return types;
}
