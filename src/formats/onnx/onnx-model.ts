import type { Dtype } from "../../tensors/dtype.ts";
import type { ByteSource, Span, WireField } from "./wire.ts";

/** Where a tensor's elements lie. Spans are positions in the model file. */
export type TensorData =
  | { readonly kind: "raw"; readonly span: Span }
  | { readonly kind: "typed"; readonly field: number; readonly spans: readonly Span[] }
  | { readonly kind: "external"; readonly entries: readonly (readonly [string, string])[] };

export interface OnnxTensor {
  readonly name: string;
  /** TensorProto.DataType. */
  readonly dataType: number;
  /** Undefined for types that no weight here can have (strings, complex, 4-bit, 8-bit floats). */
  readonly dtype: Dtype | undefined;
  readonly dims: readonly number[];
  readonly count: number;
  readonly data: TensorData;
  /** How messages call it: its name, or where it sits. */
  readonly label: string;
  /** The field that holds the message. */
  readonly field: WireField;
  /** Fields of the message, in file order. */
  readonly fields: readonly WireField[];
}

export interface OnnxAttribute {
  readonly name: string;
  readonly type: number | undefined;
  readonly int?: number | bigint;
  readonly float?: number;
  readonly ints?: readonly (number | bigint)[];
  /** Bytes of a string attribute. */
  readonly string?: Span;
  readonly tensor?: OnnxTensor;
  readonly graphs: readonly OnnxGraph[];
}

export interface OnnxNode {
  /** Position in the graph's node list. */
  readonly index: number;
  readonly op: string;
  /** "" is the standard operator set (also when the file says "ai.onnx"). */
  readonly domain: string;
  readonly name: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: ReadonlyMap<string, OnnxAttribute>;
  /** Python-style list of module scopes that torch's exporter leaves on a node. */
  readonly scopes?: string;
  readonly fields: readonly WireField[];
}

/** A graph input or output. A dimension is a size, a symbol, or "" when nothing is said. */
export interface OnnxValue {
  readonly name: string;
  /** TensorProto.DataType; undefined for sequences, maps and the like. */
  readonly dataType: number | undefined;
  readonly dtype: Dtype | undefined;
  readonly shape: readonly (number | string)[] | undefined;
}

export interface OnnxGraph {
  readonly name: string;
  readonly inputs: readonly OnnxValue[];
  readonly outputs: readonly OnnxValue[];
  readonly nodes: readonly OnnxNode[];
  readonly initializers: readonly OnnxTensor[];
  readonly sparseInitializers: readonly OnnxTensor[];
  readonly fields: readonly WireField[];
}

export interface OnnxFunction {
  readonly name: string;
  readonly domain: string;
  readonly nodes: readonly OnnxNode[];
}

/** A parsed model: everything but payloads. */
export interface OnnxModel {
  readonly source: ByteSource;
  readonly irVersion: number;
  readonly producer: string;
  readonly opsets: ReadonlyMap<string, number>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly graph: OnnxGraph;
  readonly functions: readonly OnnxFunction[];
  /** Every tensor anywhere: initializers, attributes, subgraphs, functions, sparse values, training graphs. */
  readonly tensors: readonly OnnxTensor[];
  /** Tensors that are neither initializers of the main graph nor the value of one of its `Constant` nodes. */
  readonly hidden: readonly OnnxTensor[];
  readonly fields: readonly WireField[];
}

/** The nodes and, before its successor, everything inside each node's subgraphs. */
export function* nodesWithin(nodes: readonly OnnxNode[]): Generator<OnnxNode> {
  for (const node of nodes) {
    yield node;
    for (const attribute of node.attributes.values()) {
      for (const graph of attribute.graphs) yield* nodesWithin(graph.nodes);
    }
  }
}
