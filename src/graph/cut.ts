import { digestOf, sha256 } from "../base/hash.ts";
import { neededBy } from "../formats/onnx/graph-order.ts";
import type { OnnxNode, OnnxTensor } from "../formats/onnx/onnx-model.ts";
import { tensorField } from "../formats/onnx/onnx-types.ts";
import { WireReader } from "../formats/onnx/wire.ts";
import { attributeDigester, type GraphValues } from "./graph-values.ts";
import type { WeightedGraph } from "./weighted-graph.ts";

/** A part of a graph that can run alone. */
export interface GraphPiece {
  /** A node after everything it needs. Nodes that compute from constants alone are in every piece that wants them. */
  readonly nodes: readonly OnnxNode[];
  /** What it reads besides the hidden state: graph inputs, and values that the embedding piece makes. */
  readonly reads: readonly string[];
  /** Weights in order of first use: the same position is the same role in every block. */
  readonly weights: readonly string[];
  /** Other initializers. */
  readonly constants: readonly string[];
}

/** A model taken apart: what comes before the blocks, the blocks, what comes after them. */
export interface GraphCut {
  readonly graph: WeightedGraph;
  /** The hidden state's name before the first block and after each of them: one more than there are blocks. */
  readonly boundaries: readonly string[];
  /** Values made before the first block that go on to blocks or head: masks, rotary tables, position ids, shapes. */
  readonly sides: readonly string[];
  /** From the graph's inputs to the first hidden state and the sides. */
  readonly embedding: GraphPiece;
  /** Of one structure: each reads the hidden state before it, sides and graph inputs, and writes the hidden state after it. */
  readonly blocks: readonly GraphPiece[];
  /** From the last hidden state to the graph's outputs. */
  readonly head: GraphPiece;
}

/**
 * Cuts a graph at given values of the hidden state.
 *
 * @param carriers values that depend on a weight matrix: only the hidden state may cross a cut of these
 * @param boundaries the hidden state before the first block and after each of them
 * @returns the pieces, or the reason why these are no clean cuts
 */
export function cutGraph(
  graph: WeightedGraph,
  values: GraphValues,
  carriers: ReadonlySet<string>,
  boundaries: readonly string[],
): GraphCut | string {
  const blocks = boundaries.length - 1;
  const { keys, origins } = originsOf(values, carriers, boundaries);
  const gather = (
    targets: readonly string[],
    hidden: string | undefined,
    isSide: SideRule,
  ): GraphPiece => gatherPiece(graph, values, targets, hidden, isSide);
  const describe = pieceDescriber(graph);
  const shared = new Set<string>();
  const problems: string[] = [];
  /** Whether a value is made before the blocks (true), inside of the piece (false), or where it cannot be had. */
  const ruleOf =
    (part: string, own: readonly number[], mayShare: boolean): SideRule =>
    (name) => {
      const key = keys.get(name);
      if (key !== undefined) {
        if (own.includes(key)) return false;
        problems.push(`${part} reads the value "${name}" of another part`);
        return true;
      }
      const origin = origins.get(name) ?? new Set();
      if (origin.size === 0) return true;
      if (!mayShare) return shared.has(name);
      if ([...origin].every((key) => key === 0) && !own.includes(0)) {
        shared.add(name);
        return true;
      }
      const foreign = [...origin].find((key) => key !== 0 && !own.includes(key));
      if (foreign !== undefined) problems.push(`${part} depends on shapes of another block`);
      return foreign !== undefined;
    };
  const pieces: GraphPiece[] = new Array(blocks);
  // Backwards: what later blocks share of the first hidden state's shape is made before the first one.
  for (let i = blocks; i >= 1; i--) {
    const own = [2 * i - 2, 2 * i - 1];
    const rule = ruleOf(`block ${i - 1}`, own, i > 1);
    pieces[i - 1] = gather([boundaries[i]!], boundaries[i - 1], rule);
  }
  const outputs = graph.model.graph.outputs.map(({ name }) => name);
  const tail = [2 * blocks, 2 * blocks + 1];
  const head = gather(outputs, boundaries[blocks], ruleOf("the part after the blocks", tail, true));
  // The first block may have to read what the head shares.
  pieces[0] = gather([boundaries[1]!], boundaries[0], ruleOf("block 0", [0, 1], false));
  if (problems.length > 0) return problems[0] as string;
  const nested = pieces[0].nodes.find(({ attributes }) =>
    [...attributes.values()].some(({ graphs }) => graphs.length > 0),
  );
  if (nested !== undefined) return `the blocks hold a subgraph (${nested.op} "${nested.name}")`;
  const first = describe(pieces[0], boundaries[0]!);
  const odd = pieces.findIndex((piece, i) => describe(piece, boundaries[i]!) !== first);
  if (odd > 0) return `block ${odd} computes something else than block 0`;
  const reads = new Set([...pieces, head].flatMap((piece) => piece.reads));
  const sides = [...reads].filter((name) => !values.inputs.has(name));
  const embedding = gather([boundaries[0]!, ...sides], undefined, () => false);
  return { graph, boundaries, sides, embedding, blocks: pieces, head };
}

type SideRule = (name: string) => boolean;

/**
 * Where values are made, as numbers: 2i is the hidden state after i blocks, 2i − 1 the inside of block i (from 1), −1 what
 * comes before the blocks, and the largest number what comes after them.
 *
 * @returns `keys` of values with weights; `origins` of the others: the places whose shapes they depend on, none when they
 *   come from the graph's inputs and what precedes the blocks
 */
function originsOf(
  { order, constants, inputs }: GraphValues,
  carriers: ReadonlySet<string>,
  boundaries: readonly string[],
): {
  readonly keys: ReadonlyMap<string, number>;
  readonly origins: ReadonlyMap<string, ReadonlySet<number>>;
} {
  const none: ReadonlySet<number> = new Set();
  const origins = new Map<string, ReadonlySet<number>>([...inputs].map((name) => [name, none]));
  const keys = new Map<string, number>();
  let passed = -1;
  for (const node of order) {
    for (const name of node.outputs) {
      if (!carriers.has(name)) continue;
      if (name === boundaries[passed + 1]) passed++;
      const isBoundary = name === boundaries[passed];
      keys.set(name, isBoundary ? 2 * passed : 2 * passed + 1);
    }
    const carried = node.outputs.some((name) => carriers.has(name));
    if (carried || node.outputs.every((name) => constants.has(name))) continue;
    const from = new Set<number>();
    for (const name of neededBy(node)) {
      const key = keys.get(name);
      if (key !== undefined && key >= 0) from.add(key);
      for (const origin of origins.get(name) ?? none) from.add(origin);
    }
    for (const name of node.outputs) origins.set(name, from.size === 0 ? none : from);
  }
  return { keys, origins };
}

/** Collects everything that targets need, down to the hidden state, sides, graph inputs and initializers. */
function gatherPiece(
  { model, weights }: WeightedGraph,
  { producer, inputs, constants }: GraphValues,
  targets: readonly string[],
  hidden: string | undefined,
  isSide: SideRule,
): GraphPiece {
  const initializers = new Set(model.graph.initializers.map(({ name }) => name));
  const piece = {
    nodes: [] as OnnxNode[],
    reads: [] as string[],
    weights: [] as string[],
    constants: [] as string[],
  };
  const seen = new Set<string>();
  const carried = new Set<OnnxNode>();
  const visit = (name: string, target: boolean): void => {
    if (name === "" || name === hidden || seen.has(name)) return;
    seen.add(name);
    if (weights.has(name)) piece.weights.push(name);
    else if (initializers.has(name)) piece.constants.push(name);
    else if (inputs.has(name)) piece.reads.push(name);
    else {
      const node = producer.get(name);
      if (node === undefined) throw new Error(`nothing produces ${name}`);
      if (!constants.has(name) && !target && !carried.has(node) && isSide(name)) {
        piece.reads.push(name);
        return;
      }
      if (carried.has(node)) return;
      carried.add(node);
      for (const need of neededBy(node)) visit(need, false);
      piece.nodes.push(node);
    }
  };
  for (const name of targets) visit(name, true);
  return piece;
}

/** A text that is the same for pieces that compute the same with other weights. */
function pieceDescriber(graph: WeightedGraph): (piece: GraphPiece, hidden: string) => string {
  const attributes = attributeDigester(graph);
  const byName = new Map(graph.model.graph.initializers.map((tensor) => [tensor.name, tensor]));
  const contents = tensorDigester(graph);
  return (piece, hidden) => {
    const place = new Map<string, string>([
      ["", ""],
      [hidden, "H"],
    ]);
    piece.weights.forEach((name, i) => {
      const { dtype, shape } = graph.weights.get(name)!;
      place.set(name, `W${i} ${dtype} ${shape.join("x")}`);
    });
    for (const name of piece.reads) place.set(name, `read ${name}`);
    for (const name of piece.constants) place.set(name, contents(byName.get(name)!));
    const lines = piece.nodes.map((node, i) => {
      node.outputs.forEach((name, slot) => {
        if (name !== "") place.set(name, `${i}.${slot}`);
      });
      const inputs = node.inputs.map((name) => place.get(name));
      return [node.domain, node.op, attributes(node), inputs, node.outputs.length];
    });
    return digestOf(lines);
  };
}

/** A digest of a constant's shape and elements. */
function tensorDigester({ model }: WeightedGraph): (tensor: OnnxTensor) => string {
  const wire = new WireReader(model.source);
  const known = new Map<OnnxTensor, string>();
  return (tensor) => {
    const made =
      known.get(tensor) ??
      sha256(
        Buffer.concat(
          tensor.fields
            .filter(({ number }) => number !== tensorField.name)
            .map(({ start, end }) => wire.bytes({ start, end })),
        ),
      );
    known.set(tensor, made);
    return made;
  };
}
