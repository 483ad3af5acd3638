import { naturalOrder } from "../../base/natural-order.ts";
import { isFloat } from "../../tensors/dtype.ts";
import type { ModelTensor } from "../../tensors/model-reader.ts";
import { canonicalOrder } from "./graph-order.ts";
import type { OnnxGraph, OnnxNode, OnnxTensor } from "./onnx-model.ts";
import {
  isAutomaticName,
  isIntegerData,
  isSetting,
  isStoredTransposed,
  nameFromNode,
} from "./weight-names.ts";

/** A `Constant` node's tensor below this size is arithmetic (a scale, an epsilon, a small table), not a weight. */
const minConstantElements = 16;

/** Where an alias of a weight branches off: whoever gives the alias its own values cuts here. */
export type WeightFork =
  | { readonly kind: "identity"; readonly name: string; readonly node: OnnxNode }
  | {
      readonly kind: "edge";
      readonly name: string;
      readonly node: OnnxNode;
      readonly slot: number;
    };

/** A weight of the main graph. */
export interface OnnxWeight extends ModelTensor {
  readonly kind: "initializer" | "constant";
  readonly tensor: OnnxTensor;
  /** The `Constant` node that holds it. */
  readonly node?: OnnxNode;
  /** One per alias, in the same order. */
  readonly forks: readonly WeightFork[];
}

/** A node that computes with a weight, seen through `Identity`, `Cast`, `Transpose` and `DequantizeLinear`. */
interface Consumer {
  /** The node of the main graph. */
  readonly node: OnnxNode;
  /** The node itself; inside a subgraph of `node` if different. */
  readonly inner: OnnxNode;
  readonly slot: number;
  readonly flips: number;
  /** The edge by which the way to it leaves the weight. */
  readonly edge: { readonly node: OnnxNode; readonly slot: number };
}

interface Use {
  readonly node: OnnxNode;
  readonly inner: OnnxNode;
  readonly slot: number;
}

interface Found {
  readonly kind: "initializer" | "constant";
  readonly tensor: OnnxTensor;
  readonly storedName: string;
  /** `storedName` without what this program adds when it stores a weight in another dtype than the graph's. */
  readonly baseName: string;
  readonly node?: OnnxNode;
  readonly consumers: readonly Consumer[];
  /** `Identity` nodes that forward it, in canonical order. */
  readonly identities: readonly OnnxNode[];
}

/**
 * The weights of a graph under their logical names, in natural order of names.
 *
 * What counts as a weight:
 * - a float initializer, unless it only sets operations up (bounds of `Clip`, scales of `Resize`, …) or is a single
 *   number with an automatic name;
 * - a float `Constant` of rank 1 or more with at least 16 elements, under the same exception;
 * - an integer or boolean initializer that some node reads as data (a table, quantized weights), not as shape or index.
 *
 * How it is called: by its own name unless that is automatic; then after the module of the node that consumes it
 * first, and a matrix that enters a product as [in, out] is presented as [out, in]. Without a module path the automatic
 * name stays, and `graphPosition` is what pairs two models.
 *
 * @returns the weights, and for each node of the main graph the slots that weights reach
 */
export function findWeights(graph: OnnxGraph): {
  readonly weights: ReadonlyMap<string, OnnxWeight>;
  readonly slots: ReadonlyMap<OnnxNode, readonly number[]>;
} {
  const rank = new Map(canonicalOrder(graph).map((node, i) => [node, i]));
  const byRank = (a: Consumer, b: Consumer): number =>
    rank.get(a.node)! - rank.get(b.node)! || a.slot - b.slot;
  const uses = usesIn(graph);
  const found: Found[] = [];
  for (const { kind, tensor, storedName, node } of candidates(graph)) {
    const { consumers, identities } = consumersOf(storedName, uses);
    consumers.sort(byRank);
    identities.sort((a, b) => rank.get(a)! - rank.get(b)!);
    const baseName = baseNameOf(storedName, uses);
    const item = { kind, tensor, storedName, baseName, consumers, identities };
    if (isWeight(item)) found.push(node === undefined ? item : { ...item, node });
  }
  const consuming = new Map<OnnxNode, Set<number>>();
  for (const { consumers } of found) {
    for (const { node, inner, slot } of consumers) {
      const slots = consuming.get(node) ?? new Set();
      // A weight that enters through a subgraph has no slot of its own on the outer node.
      slots.add(inner === node ? slot : node.inputs.length);
      consuming.set(node, slots);
    }
  }
  const position = new Map(
    [...consuming.keys()].sort((a, b) => rank.get(a)! - rank.get(b)!).map((node, i) => [node, i]),
  );
  const slots = new Map(
    [...consuming].map(([node, set]) => [node, [...set].sort((a, b) => a - b)]),
  );
  const last = graph.nodes.length;
  const firstRank = ({ consumers }: Found): number =>
    consumers[0] === undefined ? last : rank.get(consumers[0].node)!;
  found.sort((a, b) => firstRank(a) - firstRank(b));
  return { weights: nameWeights(found, position, uses), slots };
}

function candidates(graph: OnnxGraph): Pick<Found, "kind" | "tensor" | "storedName" | "node">[] {
  const list: Pick<Found, "kind" | "tensor" | "storedName" | "node">[] = [];
  for (const tensor of graph.initializers) {
    if (tensor.name !== "") list.push({ kind: "initializer", tensor, storedName: tensor.name });
  }
  for (const node of graph.nodes) {
    const tensor = node.op === "Constant" ? node.attributes.get("value")?.tensor : undefined;
    const storedName = node.outputs[0] ?? "";
    if (tensor !== undefined && storedName !== "") {
      list.push({ kind: "constant", tensor, storedName, node });
    }
  }
  return list;
}

/** A weight `x` that was stored in another dtype is called `x/f16` (say), and a `Cast` node makes `x` of it. */
function baseNameOf(storedName: string, uses: ReadonlyMap<string, readonly Use[]>): string {
  let name = storedName;
  for (;;) {
    const base = /^(.+)\/(?:f64|f32|f16|bf16)$/.exec(name)?.[1];
    const cast = uses.get(name)?.some(({ node }) => node.op === "Cast" && node.outputs[0] === base);
    if (base === undefined || cast !== true) return name;
    name = base;
  }
}

function isWeight({ kind, tensor, baseName, consumers }: Found): boolean {
  const { dtype, count, dims } = tensor;
  if (dtype === undefined) return false;
  if (!isFloat(dtype)) {
    return (
      kind === "initializer" && consumers.some(({ inner, slot }) => isIntegerData(inner.op, slot))
    );
  }
  if (kind === "constant" && (dims.length === 0 || count < minConstantElements)) return false;
  if (kind === "constant" && consumers.length === 0) return false;
  if (isAutomaticName(baseName) && count <= 1) return false;
  return consumers.length === 0
    ? !isAutomaticName(baseName)
    : consumers.some(({ inner, slot }) => !isSetting(inner.op, slot));
}

/** Every use of every value of the main graph, subgraphs included, in file order. */
function usesIn(graph: OnnxGraph): ReadonlyMap<string, readonly Use[]> {
  const uses = new Map<string, Use[]>();
  const walk = (inside: OnnxGraph, outer: OnnxNode | undefined, hidden: Set<string>): void => {
    for (const inner of inside.nodes) {
      const node = outer ?? inner;
      inner.inputs.forEach((name, slot) => {
        if (name === "" || hidden.has(name)) return;
        const list = uses.get(name) ?? [];
        list.push({ node, inner, slot });
        uses.set(name, list);
      });
      for (const attribute of inner.attributes.values()) {
        for (const sub of attribute.graphs) {
          const own = new Set(hidden);
          for (const value of sub.inputs) own.add(value.name);
          for (const tensor of sub.initializers) own.add(tensor.name);
          for (const producer of sub.nodes) for (const name of producer.outputs) own.add(name);
          walk(sub, node, own);
        }
      }
    }
  };
  walk(graph, undefined, new Set());
  return uses;
}

function consumersOf(
  storedName: string,
  uses: ReadonlyMap<string, readonly Use[]>,
): { consumers: Consumer[]; identities: OnnxNode[] } {
  const consumers: Consumer[] = [];
  const identities: OnnxNode[] = [];
  const seen = new Set<string>();
  const follow = (
    name: string,
    flips: number,
    edge: Consumer["edge"] | undefined,
    forwarded: boolean,
  ): void => {
    if (name === "" || seen.has(name)) return;
    seen.add(name);
    for (const { node, inner, slot } of uses.get(name) ?? []) {
      const from = edge ?? { node, slot };
      const passes = node === inner && slot === 0 && passThrough.has(node.op);
      if (!passes) {
        consumers.push({ node, inner, slot, flips, edge: from });
        continue;
      }
      const onlyForwarded = forwarded && node.op === "Identity";
      if (onlyForwarded) identities.push(node);
      const more = node.op === "Transpose" && swapsTwo(node) ? 1 : 0;
      follow(node.outputs[0] ?? "", flips + more, from, onlyForwarded);
    }
  };
  follow(storedName, 0, undefined, true);
  return { consumers, identities };
}

const passThrough = new Set(["Identity", "Cast", "Transpose", "DequantizeLinear"]);

/** A transpose of a matrix: perm [1, 0], or none. */
function swapsTwo(node: OnnxNode): boolean {
  const perm = node.attributes.get("perm")?.ints;
  return perm === undefined || (perm.length === 2 && perm[0] === 1 && perm[1] === 0);
}

/** Gives names in order of first use, so that a clash is settled the same way in every export of the same network. */
function nameWeights(
  found: readonly Found[],
  position: ReadonlyMap<OnnxNode, number>,
  uses: ReadonlyMap<string, readonly Use[]>,
): ReadonlyMap<string, OnnxWeight> {
  const taken = new Set(
    found.map(({ baseName }) => baseName).filter((name) => !isAutomaticName(name)),
  );
  for (const { identities } of found) {
    for (const { outputs } of identities) {
      if (!isAutomaticName(outputs[0] ?? "")) taken.add(outputs[0]!);
    }
  }
  const claim = (name: string): string => {
    let free = name;
    for (let n = 2; taken.has(free); n++) free = `${name}.${n}`;
    taken.add(free);
    return free;
  };
  const named = found.map((item) => ({ item, ...nameOf(item, claim) }));
  const weights = named.map(({ item, name, namedBy }): OnnxWeight => {
    const { kind, tensor, storedName, baseName, node, consumers } = item;
    const first = consumers[0];
    const transposed =
      tensor.dims.length === 2 &&
      isAutomaticName(baseName) &&
      first !== undefined &&
      isStoredTransposed(first.inner, first.slot, first.flips);
    const forks = forksOf(item, name, taken, uses);
    return {
      name,
      shape: transposed ? [tensor.dims[1]!, tensor.dims[0]!] : tensor.dims,
      dtype: tensor.dtype!,
      storedName,
      transposed,
      namedBy,
      aliases: forks.map((fork) => fork.name),
      ...(first === undefined
        ? {}
        : {
            graphPosition: {
              node: position.get(first.node)!,
              slot: first.slot,
              op: first.inner.op,
            },
          }),
      kind,
      tensor,
      ...(node === undefined ? {} : { node }),
      forks,
    };
  });
  weights.sort((a, b) => naturalOrder(a.name, b.name));
  return new Map(weights.map((weight) => [weight.name, weight]));
}

function nameOf(
  { baseName, consumers }: Found,
  claim: (name: string) => string,
): Pick<ModelTensor, "name" | "namedBy"> {
  if (!isAutomaticName(baseName)) return { name: baseName, namedBy: "file" };
  const first = consumers[0];
  const derived = first === undefined ? undefined : nameFromNode(first.inner, first.slot);
  if (derived === undefined) return { name: claim(baseName), namedBy: "automatic" };
  return { name: claim(derived), namedBy: "node" };
}

/**
 * Other names of one storage: outputs of `Identity` nodes by which exporters share equal tensors, and the names that
 * further consumers in other modules would give it (an output layer tied to the embedding).
 */
function forksOf(
  item: Found,
  name: string,
  taken: Set<string>,
  uses: ReadonlyMap<string, readonly Use[]>,
): WeightFork[] {
  const forks: WeightFork[] = [];
  const seen = new Set([name]);
  for (const node of item.identities) {
    const output = node.outputs[0]!;
    const next = consumersOf(output, uses).consumers[0];
    const derived = next === undefined ? undefined : nameFromNode(next.inner, next.slot);
    const alias = isAutomaticName(output) ? (derived ?? output) : output;
    if (seen.has(alias) || (alias !== output && taken.has(alias))) continue;
    seen.add(alias);
    taken.add(alias);
    forks.push({ kind: "identity", name: alias, node });
  }
  const [first, ...others] = item.consumers;
  const own = first === undefined ? undefined : nameFromNode(first.inner, first.slot);
  if (first === undefined || own === undefined) return forks;
  seen.add(own);
  const prefix = own.endsWith(`.${name}`) ? own.slice(0, own.length - name.length) : "";
  const shared = new Set(item.identities);
  const flipped = isStoredTransposed(first.inner, first.slot, first.flips);
  for (const { node, inner, slot, flips, edge } of others) {
    if (!tying.has(inner.op) || node !== inner || shared.has(edge.node)) continue;
    const derived = nameFromNode(inner, slot);
    const alias = derived?.startsWith(prefix) === true ? derived.slice(prefix.length) : derived;
    if (derived === undefined || alias === undefined) continue;
    if (seen.has(derived) || seen.has(alias) || taken.has(alias)) continue;
    if (isStoredTransposed(inner, slot, flips) !== flipped) continue;
    seen.add(alias);
    taken.add(alias);
    forks.push({ kind: "edge", name: alias, ...edge });
  }
  return forks;
}

/** Operations whose weights models tie on purpose. */
const tying = new Set(["MatMul", "Gemm", "Gather", "Conv", "ConvTranspose"]);
