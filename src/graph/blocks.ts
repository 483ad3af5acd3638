import { MendelError } from "../base/errors.ts";
import { neededBy } from "../formats/onnx/graph-order.ts";
import type { OnnxNode } from "../formats/onnx/onnx-model.ts";
import { findLayers } from "../recipes/tensor-groups.ts";
import { cutGraph, type GraphCut } from "./cut.ts";
import { attributeDigester, type GraphValues, valuesOf, weightBehind } from "./graph-values.ts";
import type { WeightedGraph } from "./weighted-graph.ts";

/**
 * Finds the repeated blocks of a network by structure.
 *
 * What carries the computation are the values that depend on a weight matrix. Where exactly one such value is alive, the
 * network can be cut; the stretches between cuts are compared node by node, and the repetition that covers most weights is
 * the stack of blocks. Shapes, masks and tables of positions depend on no weight matrix and may cross cuts. Names are asked
 * only where a repetition could begin at several places.
 *
 * @throws MendelError `unsupported` with the reason when nothing repeats or no cut is clean
 */
export function findBlocks(graph: WeightedGraph): GraphCut {
  const values = valuesOf(graph);
  const candidates = seedChoices(values)
    .flatMap((excluded) => repetitions(graph, values, excluded))
    .sort((a, b) => b.weight - a.weight || b.boundaries.length - a.boundaries.length);
  let problem: string | undefined;
  for (const { boundaries, carriers } of candidates) {
    const cut = cutGraph(graph, values, carriers, boundaries);
    if (typeof cut !== "string") return cut;
    problem ??= cut;
  }
  throw new MendelError(
    "unsupported",
    `${graph.path}: ${problem ?? "the graph has no repeated blocks that one value runs through"}`,
    {
      hint: "layer space needs a stack of blocks of one shape, each reading only the one before it",
      where: { file: graph.path },
    },
  );
}

/** More tables than this are not told apart one by one. */
const MAX_TABLES = 8;

/**
 * Lookups that are not taken as the beginning of the computation. Tables of rotary angles or position biases are looked up
 * like embeddings, but their rows go into every block; so if all lookups together allow no repetition, each one alone may.
 */
function seedChoices({ order, constants, matrices }: GraphValues): ReadonlySet<OnnxNode>[] {
  const lookups = order.filter(
    ({ op, inputs, outputs }) =>
      op === "Gather" && matrices.has(inputs[0] ?? "") && !constants.has(outputs[0] ?? ""),
  );
  if (lookups.length < 2 || lookups.length > MAX_TABLES) return [new Set()];
  return [
    new Set(),
    ...lookups.map((kept) => new Set(lookups.filter((lookup) => lookup !== kept))),
  ];
}

/** Values that depend on a weight matrix and on an input. A shape carries no numbers on. */
function carriersOf(values: GraphValues, excluded: ReadonlySet<OnnxNode>): ReadonlySet<string> {
  const carriers = new Set<string>();
  for (const node of values.order) {
    if (node.op === "Shape" || node.op === "Size") continue;
    const needs = neededBy(node);
    if (node.outputs.every((name) => values.constants.has(name))) continue;
    const seed = !excluded.has(node) && needs.some((name) => values.matrices.has(name));
    if (!seed && !needs.some((name) => carriers.has(name))) continue;
    for (const name of node.outputs) if (name !== "") carriers.add(name);
  }
  return carriers;
}

/** A stretch between two neighboring cuts. */
interface Stretch {
  /** The value at its end. */
  readonly end: string;
  readonly signature: string;
  /** Elements of the weight matrices in it. */
  readonly weight: number;
  /** Layer number in the names of its weights, where they agree on one. */
  readonly layer: number | undefined;
}

/** A repetition that was found: the values before the first block and after each of them. */
interface Repetition {
  readonly boundaries: readonly string[];
  readonly weight: number;
  readonly carriers: ReadonlySet<string>;
}

function repetitions(
  graph: WeightedGraph,
  values: GraphValues,
  excluded: ReadonlySet<OnnxNode>,
): Repetition[] {
  const carriers = carriersOf(values, excluded);
  const stretches = stretchesOf(graph, values, carriers);
  const found: Repetition[] = [];
  // The first stretch leads from the inputs to the first cut: no block can begin inside of it.
  const last = stretches.length - 1;
  for (let period = 1; 2 * period <= last; period++) {
    let run = 0;
    for (let at = 1; at + period <= last + 1; at++) {
      const same =
        at + period <= last && stretches[at]!.signature === stretches[at + period]!.signature;
      if (same) run++;
      if (!same && run >= period) {
        const repetition = bestPhase(stretches, at - run, run + period, period);
        if (repetition !== undefined) found.push({ ...repetition, carriers });
      }
      if (!same) run = 0;
    }
  }
  return found;
}

/** A periodic range holds as many whole blocks as fit; where that leaves room, names decide where they begin, else the end. */
function bestPhase(
  stretches: readonly Stretch[],
  first: number,
  length: number,
  period: number,
): Omit<Repetition, "carriers"> | undefined {
  const blocks = Math.floor(length / period);
  const phases = Array.from({ length: (length % period) + 1 }, (_, shift) => first + shift);
  const agreeing = phases.filter((start) => layersAgree(stretches, start, period, blocks));
  const start = (agreeing.length > 0 ? agreeing : phases).at(-1)!;
  const inside = stretches.slice(start, start + blocks * period);
  const weight = inside.reduce((sum, stretch) => sum + stretch.weight, 0);
  if (weight === 0) return undefined;
  const boundaries = Array.from(
    { length: blocks + 1 },
    (_, block) => stretches[start + block * period - 1]!.end,
  );
  return { boundaries, weight };
}

/** Whether the weights of every block are named after one layer, another one in each block. */
function layersAgree(
  stretches: readonly Stretch[],
  start: number,
  period: number,
  blocks: number,
): boolean {
  const seen = new Set<number>();
  for (let block = 0; block < blocks; block++) {
    const part = stretches.slice(start + block * period, start + (block + 1) * period);
    const layers = new Set(part.filter(({ weight }) => weight > 0).map(({ layer }) => layer));
    const [layer] = layers;
    if (layers.size !== 1 || layer === undefined || seen.has(layer)) return false;
    seen.add(layer);
  }
  return true;
}

function stretchesOf(
  graph: WeightedGraph,
  values: GraphValues,
  carriers: ReadonlySet<string>,
): Stretch[] {
  const nodes = values.order.filter(({ outputs }) => outputs.some((name) => carriers.has(name)));
  const uses = new Map<string, number>();
  const use = (name: string, change: number): number => {
    const count = (uses.get(name) ?? 0) + change;
    uses.set(name, count);
    return count;
  };
  for (const node of nodes) for (const name of neededBy(node)) if (carriers.has(name)) use(name, 1);
  // What the graph hands out stays alive to its end.
  for (const { name } of graph.model.graph.outputs) use(name, 1);
  const describe = stretchDescriber(graph, values, carriers);
  const stretches: Stretch[] = [];
  const alive = new Set<string>();
  let begin = 0;
  nodes.forEach((node, at) => {
    for (const name of neededBy(node)) {
      if (carriers.has(name) && use(name, -1) === 0) alive.delete(name);
    }
    for (const name of node.outputs) if ((uses.get(name) ?? 0) > 0) alive.add(name);
    const [only] = alive;
    if (alive.size !== 1 || only === undefined || !node.outputs.includes(only)) return;
    stretches.push({ end: only, ...describe(nodes.slice(begin, at + 1)) });
    begin = at + 1;
  });
  return stretches;
}

/** Describes a stretch by its nodes in order: operation, attributes, and where each input comes from. */
function stretchDescriber(
  graph: WeightedGraph,
  values: GraphValues,
  carriers: ReadonlySet<string>,
): (nodes: readonly OnnxNode[]) => Omit<Stretch, "end"> {
  const attributes = attributeDigester(graph);
  const names = [...graph.weights.values()].map(({ name }) => name);
  const layers = findLayers(names);
  const weightOf = weightBehind(graph, values);
  return (nodes) => {
    const place = new Map<string, string>();
    const parts: string[] = [];
    let weight = 0;
    const numbers = new Set<number | undefined>();
    nodes.forEach((node, i) => {
      node.outputs.forEach((name, slot) => {
        place.set(name, `${i}.${slot}`);
      });
      const inputs = node.inputs.map((name) => {
        if (name === "") return "";
        const stored = weightOf(name);
        if (stored !== undefined) {
          const { shape, dtype } = stored;
          if (values.matrices.has(name)) weight += shape.reduce((n, dim) => n * dim, 1);
          numbers.add(layers.placeOf(stored.name)?.index);
          return `W ${dtype} ${shape.join("x")}`;
        }
        if (carriers.has(name)) return place.get(name) ?? "H";
        return values.constants.has(name) ? "c" : "s";
      });
      parts.push(`${node.domain}.${node.op}(${inputs.join(",")})${attributes(node)}`);
    });
    const [layer] = numbers;
    return { signature: parts.join(";"), weight, layer: numbers.size === 1 ? layer : undefined };
  };
}
