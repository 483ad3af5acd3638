import { sha256 } from "../base/hash.ts";
import { canonicalOrder, neededBy } from "../formats/onnx/graph-order.ts";
import type { OnnxGraph, OnnxNode } from "../formats/onnx/onnx-model.ts";
import { nodeField } from "../formats/onnx/onnx-types.ts";
import { WireReader } from "../formats/onnx/wire.ts";
import type { FedTensor } from "./weight-feed.ts";
import type { WeightedGraph } from "./weighted-graph.ts";

/** Facts about the values of a graph that every search for blocks starts from. */
export interface GraphValues {
  /** Nodes that some output depends on, a node after everything it needs. */
  readonly order: readonly OnnxNode[];
  readonly producer: ReadonlyMap<string, OnnxNode>;
  /** Graph inputs without those that are initializers too. */
  readonly inputs: ReadonlySet<string>;
  /** Values that depend on no graph input, initializers included. */
  readonly constants: ReadonlySet<string>;
  /** Those of `constants` that a weight matrix enters. */
  readonly matrices: ReadonlySet<string>;
}

/** Works the facts out in one pass over the graph. */
export function valuesOf({ model, weights }: WeightedGraph): GraphValues {
  const { graph } = model;
  const producer = new Map<string, OnnxNode>();
  for (const node of graph.nodes) for (const name of node.outputs) producer.set(name, node);
  const order = canonicalOrder(graph).filter(reaches(graph, producer));
  const constants = new Set(graph.initializers.map(({ name }) => name));
  const inputs = new Set(
    graph.inputs.map(({ name }) => name).filter((name) => !constants.has(name)),
  );
  const matrices = new Set<string>();
  for (const [name, { shape }] of weights) {
    if (shape.filter((dim) => dim > 1).length >= 2) matrices.add(name);
  }
  for (const node of order) {
    const needs = neededBy(node).filter((name) => name !== "");
    if (node.op.startsWith("Random") || !needs.every((name) => constants.has(name))) continue;
    const matrix = needs.some((name) => matrices.has(name));
    for (const name of node.outputs) {
      constants.add(name);
      if (matrix) matrices.add(name);
    }
  }
  return { order, producer, inputs, constants, matrices };
}

/** Whether some graph output depends on a node. */
function reaches(
  graph: OnnxGraph,
  producer: ReadonlyMap<string, OnnxNode>,
): (node: OnnxNode) => boolean {
  const live = new Set<OnnxNode>();
  const wanted = graph.outputs.map(({ name }) => name);
  for (let name = wanted.pop(); name !== undefined; name = wanted.pop()) {
    const node = producer.get(name);
    if (node === undefined || live.has(node)) continue;
    live.add(node);
    wanted.push(...neededBy(node));
  }
  return (node) => live.has(node);
}

/** The weight that a constant value is made of, through operations on constants; undefined for other values. */
export function weightBehind(
  { weights }: WeightedGraph,
  { producer, constants }: GraphValues,
): (name: string) => FedTensor | undefined {
  return (value) => {
    const seen = new Set<string>();
    const open = [value];
    for (let name = open.pop(); name !== undefined; name = open.pop()) {
      if (seen.has(name) || !constants.has(name)) continue;
      seen.add(name);
      const weight = weights.get(name);
      if (weight !== undefined) return weight;
      open.push(...(producer.get(name)?.inputs ?? []));
    }
    return undefined;
  };
}

/** A digest of a node's attributes, the same for nodes that differ in names only. */
export function attributeDigester({ model }: WeightedGraph): (node: OnnxNode) => string {
  const wire = new WireReader(model.source);
  return (node) => {
    const bytes = node.fields
      .filter(({ number }) => number === nodeField.attribute)
      .map((field) => Buffer.from(wire.bytes({ start: field.body, end: field.end })))
      .sort(Buffer.compare);
    return bytes.length === 0 ? "" : sha256(Buffer.concat(bytes));
  };
}
