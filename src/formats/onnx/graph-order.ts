import { sha256 } from "../../base/hash.ts";
import { nodesWithin, type OnnxGraph, type OnnxNode } from "./onnx-model.ts";

/** Names a node needs from its own graph: its inputs, then what its subgraphs capture, in order of first mention. */
export function neededBy(node: OnnxNode): readonly string[] {
  const captured: string[] = [];
  for (const attribute of node.attributes.values()) {
    for (const graph of attribute.graphs) captured.push(...capturedBy(graph));
  }
  return captured.length === 0 ? node.inputs : [...node.inputs, ...captured];
}

/** Names a subgraph takes from outside. */
function capturedBy(graph: OnnxGraph): string[] {
  const own = new Set<string>();
  for (const value of graph.inputs) own.add(value.name);
  for (const tensor of graph.initializers) own.add(tensor.name);
  for (const tensor of graph.sparseInitializers) own.add(tensor.name);
  const captured: string[] = [];
  for (const node of graph.nodes) {
    for (const name of neededBy(node)) if (!own.has(name)) captured.push(name);
    for (const name of node.outputs) own.add(name);
  }
  for (const value of graph.outputs) if (!own.has(value.name)) captured.push(value.name);
  return captured;
}

/**
 * Nodes in an order that depends on the graph's structure only, not on the order or names in the file: depth first from
 * the outputs, inputs by slot, a node after everything it needs. Nodes that reach no output come last, in file order.
 */
export function canonicalOrder(graph: OnnxGraph): readonly OnnxNode[] {
  const producer = new Map<string, OnnxNode>();
  for (const node of graph.nodes) for (const name of node.outputs) producer.set(name, node);
  const order: OnnxNode[] = [];
  const seen = new Set<OnnxNode>();
  const visit = (root: OnnxNode | undefined): void => {
    if (root === undefined || seen.has(root)) return;
    seen.add(root);
    const stack = [{ node: root, needs: neededBy(root), next: 0 }];
    for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
      const need = top.needs[top.next++];
      if (need === undefined) {
        order.push(top.node);
        stack.pop();
        continue;
      }
      const node = need === "" ? undefined : producer.get(need);
      if (node === undefined || seen.has(node)) continue;
      seen.add(node);
      stack.push({ node, needs: neededBy(node), next: 0 });
    }
  };
  for (const output of graph.outputs) visit(producer.get(output.name));
  for (const node of graph.nodes) visit(node);
  return order;
}

/** What two graphs must share for their weights to be paired by position. */
export interface GraphSignature {
  /** SHA-256 over `steps`. */
  readonly digest: string;
  /** Per computing node in canonical order: its op and, after "#", the slots that weights enter. */
  readonly steps: readonly string[];
}

/**
 * The sequence of operations with weight slots. Constant folding, transposed storage, deduplication and stored precision
 * do not show: nodes that compute from constants and weights alone, `Identity`, `Cast` and dead nodes are left out.
 *
 * @param weightSlots slots of each node that weights reach
 */
export function signatureOf(
  graph: OnnxGraph,
  weightSlots: ReadonlyMap<OnnxNode, readonly number[]>,
): GraphSignature {
  const inner = new Set(graph.initializers.map((tensor) => tensor.name));
  // Names that hang on a true input, hence on data.
  const live = new Set(graph.inputs.map((value) => value.name).filter((name) => !inner.has(name)));
  const steps: string[] = [];
  for (const node of reachable(graph)) {
    const needs = neededBy(node);
    const random = node.op.startsWith("Random");
    if (!random && !needs.some((name) => live.has(name))) continue;
    for (const name of node.outputs) live.add(name);
    if (node.op === "Identity" || node.op === "Cast") continue;
    const within = [...nodesWithin([node])].slice(1).map((other) => other.op);
    const slots = weightSlots.get(node) ?? [];
    const op = node.domain === "" ? node.op : `${node.domain}.${node.op}`;
    const body = within.length === 0 ? "" : `{${within.join(" ")}}`;
    steps.push(`${op}${body}${slots.map((slot) => `#${slot}`).join("")}`);
  }
  return { digest: sha256(steps.join("\n")), steps };
}

function reachable(graph: OnnxGraph): readonly OnnxNode[] {
  return canonicalOrder({ ...graph, nodes: liveNodes(graph) });
}

/** Nodes some output depends on, in file order. */
function liveNodes(graph: OnnxGraph): OnnxNode[] {
  const producer = new Map<string, OnnxNode>();
  for (const node of graph.nodes) for (const name of node.outputs) producer.set(name, node);
  const live = new Set<OnnxNode>();
  const wanted = graph.outputs.map((value) => value.name);
  for (let name = wanted.pop(); name !== undefined; name = wanted.pop()) {
    const node = producer.get(name);
    if (node === undefined || live.has(node)) continue;
    live.add(node);
    wanted.push(...neededBy(node));
  }
  return graph.nodes.filter((node) => live.has(node));
}
