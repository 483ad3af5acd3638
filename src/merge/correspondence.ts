import { findLayers, kindOf } from "../recipes/tensor-groups.ts";
import type { ModelTensor } from "../tensors/model-reader.ts";
import { formatShape, sameShape } from "../tensors/shape.ts";

/** Which tensor of a model plays the part of a reference tensor, and how that was found out. */
export interface Pair {
  readonly tensor: ModelTensor;
  /** One clause for reports; undefined where both files simply use the same name. */
  readonly how: string | undefined;
}

export interface Correspondence {
  /** Name of a reference tensor → its counterpart. */
  readonly pairs: ReadonlyMap<string, Pair>;
  /** Why positions in the graphs could not be used, where they would have been needed. */
  readonly graphProblem: string | undefined;
}

/** A model's weights as correspondence needs them. */
export interface NamedTensors {
  readonly tensors: ReadonlyMap<string, ModelTensor>;
  /** Shape of an ONNX model's computation; models with different ones are never paired by position. */
  readonly signature?: { readonly digest: string };
}

/** Wrappers that frameworks put around a model; their name goes in front of every tensor's. */
const wrapperPrefix = /^(?:base_model\.model|_orig_mod|module|model|transformer)\./;

/**
 * A name without what differs between ways of saving the same checkpoint: wrappers' prefixes, and `gamma` and `beta` for
 * weight and bias of a norm.
 */
export function canonicalName(name: string): string {
  let bare = name;
  while (wrapperPrefix.test(bare)) bare = bare.replace(wrapperPrefix, "");
  const parts = bare.split(".");
  const array = parts.at(-1);
  if (/norm|^ln/i.test(parts.at(-2) ?? "")) {
    if (array === "gamma") return [...parts.slice(0, -1), "weight"].join(".");
    if (array === "beta") return [...parts.slice(0, -1), "bias"].join(".");
  }
  return bare;
}

/**
 * Pairs the tensors of two models: by name; then by the names under which exporters and frameworks save the same tensor;
 * then the head of a model that ties it to the embedding; then, between two ONNX graphs with the same sequence of
 * weights, by position.
 *
 * Names that an exporter made up (`onnx::MatMul_731`) are never compared: the same number in two files says nothing.
 */
export function correspond(reference: NamedTensors, model: NamedTensors): Correspondence {
  const pairs = new Map<string, Pair>();
  const used = new Set<ModelTensor>();
  const pair = (own: ModelTensor, tensor: ModelTensor, how: string | undefined): void => {
    pairs.set(own.name, { tensor, how });
    used.add(tensor);
  };
  for (const own of reference.tensors.values()) {
    const same = model.tensors.get(own.name);
    if (same !== undefined && isNamed(own) && isNamed(same)) pair(own, same, undefined);
  }
  pairByAlias(reference, model, pairs, used, pair);
  pairCanonically(reference, model, pairs, used, pair);
  pairTiedHead(reference, model, pairs, pair);
  const graphProblem = pairByPosition(reference, model, pairs, used, pair);
  return { pairs, graphProblem };
}

type PairUp = (own: ModelTensor, tensor: ModelTensor, how: string) => void;

function isNamed(tensor: ModelTensor): boolean {
  return tensor.namedBy !== "automatic";
}

/** One storage under several names: the file keeps one, the other model may keep another. */
function pairByAlias(
  reference: NamedTensors,
  model: NamedTensors,
  pairs: ReadonlyMap<string, Pair>,
  used: ReadonlySet<ModelTensor>,
  pair: PairUp,
): void {
  const byAlias = new Map<string, ModelTensor>();
  for (const tensor of model.tensors.values()) {
    for (const alias of tensor.aliases) byAlias.set(alias, tensor);
  }
  for (const own of reference.tensors.values()) {
    if (pairs.has(own.name)) continue;
    const shared = byAlias.get(own.name);
    if (shared !== undefined) {
      pair(own, shared, `${shared.name} there is stored once for both names`);
      continue;
    }
    for (const alias of own.aliases) {
      const named = model.tensors.get(alias);
      if (named === undefined || used.has(named) || !isNamed(named)) continue;
      pair(own, named, `called ${named.name} there`);
      break;
    }
  }
}

function pairCanonically(
  reference: NamedTensors,
  model: NamedTensors,
  pairs: ReadonlyMap<string, Pair>,
  used: ReadonlySet<ModelTensor>,
  pair: PairUp,
): void {
  const free = (tensors: Iterable<ModelTensor>, taken: (tensor: ModelTensor) => boolean) => {
    const found = new Map<string, ModelTensor[]>();
    for (const tensor of tensors) {
      if (taken(tensor) || !isNamed(tensor)) continue;
      const key = canonicalName(tensor.name);
      found.set(key, [...(found.get(key) ?? []), tensor]);
    }
    return found;
  };
  const owns = free(reference.tensors.values(), (own) => pairs.has(own.name));
  const others = free(model.tensors.values(), (tensor) => used.has(tensor));
  for (const [key, [own, ...moreOwn]] of owns) {
    const [other, ...moreOthers] = others.get(key) ?? [];
    if (own === undefined || other === undefined) continue;
    if (moreOwn.length > 0 || moreOthers.length > 0) continue;
    pair(own, other, `called ${other.name} there`);
  }
}

/** A model that ties its head to the embedding may not store the head at all: its embedding is its head. */
function pairTiedHead(
  reference: NamedTensors,
  model: NamedTensors,
  pairs: ReadonlyMap<string, Pair>,
  pair: PairUp,
): void {
  if ([...model.tensors.values()].some((tensor) => isOutputHead(tensor.name))) return;
  for (const own of reference.tensors.values()) {
    if (pairs.has(own.name) || !isOutputHead(own.name)) continue;
    for (const [name, { tensor }] of pairs) {
      if (!isTokenEmbedding(name) || !sameShape(tensor.shape, own.shape)) continue;
      pair(own, tensor, `${tensor.name} there serves as head too`);
      break;
    }
  }
}

/** The matrix that turns hidden states into token scores; classifiers are heads of another kind. */
export function isOutputHead(name: string): boolean {
  return /(^|[./])(lm_head|embed_out)\.weight$|^output\.weight$/.test(name);
}

/** A matrix with one row per token. */
export function isTokenEmbedding(name: string): boolean {
  const token =
    /(^|[./])(wte|shared|tok_embeddings|token_embd|embed_tokens|embed_in|word_embeddings)\./;
  return token.test(name) && kindOf(name, findLayers([name]).placeOf(name)) === "embedding";
}

/**
 * Pairs what names could not, by the order in which two graphs consume their weights.
 *
 * Trusted only when the whole sequences agree: as many weights, each consumed by the same operation at the same input with
 * the same logical shape, and every pair that names gave at the same place. So a square matrix is never told from its
 * neighbor, nor from its transpose, by its shape.
 *
 * @returns why the graphs could not be used, when weights are left that need them
 */
function pairByPosition(
  reference: NamedTensors,
  model: NamedTensors,
  pairs: ReadonlyMap<string, Pair>,
  used: ReadonlySet<ModelTensor>,
  pair: PairUp,
): string | undefined {
  const left = [...reference.tensors.values()].filter((own) => !pairs.has(own.name));
  const open = [...model.tensors.values()].filter((tensor) => !used.has(tensor));
  if (left.length === 0 || open.length === 0) return undefined;
  if ([...left, ...open].every(isNamed)) return undefined;
  const ours = inGraphOrder(reference);
  const theirs = inGraphOrder(model);
  if (ours.length === 0 || theirs.length === 0) return "one of the files has no graph to compare";
  if (reference.signature?.digest !== model.signature?.digest) {
    return "the two graphs compute in different ways";
  }
  const problem = sequenceProblem(ours, theirs, pairs);
  if (problem !== undefined) return problem;
  for (const [i, own] of ours.entries()) {
    const tensor = theirs[i] as ModelTensor;
    if (!pairs.has(own.name)) pair(own, tensor, `${tensor.name} at the same place of the graph`);
  }
  return undefined;
}

function inGraphOrder({ tensors }: NamedTensors): ModelTensor[] {
  const place = ({ graphPosition }: ModelTensor): [number, number] =>
    graphPosition === undefined ? [0, 0] : [graphPosition.node, graphPosition.slot];
  return [...tensors.values()]
    .filter((tensor) => tensor.graphPosition !== undefined)
    .sort((a, b) => place(a)[0] - place(b)[0] || place(a)[1] - place(b)[1]);
}

function sequenceProblem(
  ours: readonly ModelTensor[],
  theirs: readonly ModelTensor[],
  pairs: ReadonlyMap<string, Pair>,
): string | undefined {
  if (ours.length !== theirs.length) {
    return `the graphs consume ${ours.length} and ${theirs.length} weights`;
  }
  for (const [i, own] of ours.entries()) {
    const other = theirs[i] as ModelTensor;
    const [a, b] = [own.graphPosition, other.graphPosition];
    const where = `weight ${i + 1} (${own.name}, ${other.name})`;
    if (a?.op !== b?.op || a?.slot !== b?.slot) {
      return `${where} enters ${a?.op} in one graph and ${b?.op} in the other`;
    }
    if (!sameShape(own.shape, other.shape)) {
      const [sa, sb] = [formatShape(own.shape), formatShape(other.shape)];
      const turned = sameShape([...own.shape].reverse(), other.shape) ? ", stored transposed" : "";
      return `${where} is ${sa} in one graph and ${sb} in the other${turned}`;
    }
    const known = pairs.get(own.name);
    if (known !== undefined && known.tensor !== other) {
      return `names and positions disagree at ${where}`;
    }
  }
  return undefined;
}
