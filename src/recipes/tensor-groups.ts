import { MendelError } from "../base/errors.ts";
import { naturalOrder } from "../base/natural-order.ts";
import { closest, suggestion } from "../base/suggest.ts";
import { matchesGlob } from "./glob.ts";

/** What a weight is for, told from its name. */
export type TensorKind = "embedding" | "attention" | "mlp" | "norm" | "other" | "head";

/** All kinds, in the order in which groups of kinds are listed. */
export const tensorKinds: readonly TensorKind[] = [
  "embedding",
  "attention",
  "mlp",
  "norm",
  "other",
  "head",
];

/** Where a tensor sits in a stack of repeated blocks: `model.layers.3.mlp.up_proj.weight` → "model.layers", 3. */
export interface LayerPlace {
  /** Name up to the block's number, without the separator. */
  readonly stack: string;
  /** The block's number. */
  readonly index: number;
  /** Name after the block's number, with its separator: ".mlp.up_proj.weight". */
  readonly rest: string;
}

/** The stacks of repeated blocks of one model. */
export interface LayerStructure {
  /** Stack → numbers of its blocks, ascending; stacks in natural order. */
  readonly stacks: ReadonlyMap<string, readonly number[]>;
  /** The outermost block a tensor belongs to; undefined outside of all stacks. */
  placeOf(name: string): LayerPlace | undefined;
}

/** Names under which a stack of a single block is recognized, where nothing repeats that would show the structure. */
const loneStackNames = new Set(["layers", "layer", "h", "blk", "block", "blocks"]);

/**
 * Finds the repeated blocks by structure: a part of the names that is a number and after which at least two numbers go on
 * in the same way (`h.0.attn.weight`, `h.1.attn.weight`). The outermost such number is the block; numbers further in
 * (experts, sub-layers) belong to the block's inside.
 */
export function findLayers(names: Iterable<string>): LayerStructure {
  const candidates = new Map<string, Map<number, Set<string>>>();
  const all = [...names];
  for (const name of all) {
    for (const { stack, index, rest } of numberedParts(name)) {
      const blocks = candidates.get(stack) ?? new Map<number, Set<string>>();
      candidates.set(stack, blocks);
      const rests = blocks.get(index) ?? new Set<string>();
      blocks.set(index, rests);
      rests.add(rest);
    }
  }
  const repeated = new Set<string>();
  for (const [stack, blocks] of candidates) {
    if (repeats([...blocks.values()]) || isLoneStack(stack)) repeated.add(stack);
  }
  const placeOf = (name: string): LayerPlace | undefined =>
    numberedParts(name).find((part) => repeated.has(part.stack));

  const used = new Map<string, Set<number>>();
  for (const name of all) {
    const place = placeOf(name);
    if (place === undefined) continue;
    used.set(place.stack, (used.get(place.stack) ?? new Set()).add(place.index));
  }
  const stacks = new Map(
    [...used]
      .sort(([a], [b]) => naturalOrder(a, b))
      .map(([stack, indices]) => [stack, [...indices].sort((a, b) => a - b)]),
  );
  return { stacks, placeOf };
}

/** Every part of a name that is a number with something before and after it, outermost first. */
function numberedParts(name: string): LayerPlace[] {
  const parts: LayerPlace[] = [];
  for (const match of name.matchAll(/(?<=[./])\d{1,9}(?=[./])/g)) {
    const at = match.index;
    parts.push({
      stack: name.slice(0, at - 1),
      index: Number(match[0]),
      rest: name.slice(at + match[0].length),
    });
  }
  return parts;
}

function repeats(blocks: readonly ReadonlySet<string>[]): boolean {
  const seen = new Set<string>();
  for (const rests of blocks) {
    for (const rest of rests) if (seen.has(rest)) return true;
    for (const rest of rests) seen.add(rest);
  }
  return false;
}

function isLoneStack(stack: string): boolean {
  return loneStackNames.has(stack.split(/[./]/).at(-1) as string);
}

/** Last parts of names that say which array of a module a tensor is, not which module. */
const arrayNames = new Set([
  "weight",
  "bias",
  "gamma",
  "beta",
  "running_mean",
  "running_var",
  "num_batches_tracked",
]);

const normModule = /norm|^ln($|_|\d)|_ln$|^bn\d*$|^rms/;
const normArray = /^(gamma|beta|running_mean|running_var|num_batches_tracked)$/;
const headModule =
  /^(lm_head|embed_out|classifier|cls|score|heads?|qa_outputs|output_projection|logits)$/;
const embeddingModule = /embed|embd|^(wte|wpe|shared|class_token|cls_token)$/;
const attentionModule = /attn|attention|^[qkvo](_proj)?$|^w[qkvo]$|^qkv|^query_key_value$/;
const mlpModule =
  /mlp|feed_?forward|ffn|^ff$|^fc_?\d|^intermediate$|^dense(reludense|act)|^(gate|up|down)_proj$|^gate_up_proj$|experts?$|^w[123]$|^wi(_\d)?$|^c_fc$|^dense_(h_to_4h|4h_to_h)$/;

/**
 * The kind of a tensor, by the names that Llama, GPT-2, BERT, T5, ViT, GGUF and convolutional checkpoints use.
 *
 * @param place where `findLayers` put it: the same word means different things inside and outside of a block
 */
export function kindOf(name: string, place: LayerPlace | undefined): TensorKind {
  const parts = name.toLowerCase().split(/[./]/);
  const array = parts.at(-1) as string;
  const modules = arrayNames.has(array) ? parts.slice(0, -1) : parts;
  const owner = modules.at(-1) ?? "";
  if (normModule.test(owner) || normArray.test(array)) return "norm";

  const outside = place === undefined ? modules : place.stack.toLowerCase().split(/[./]/);
  if (outside.some((part) => headModule.test(part))) return "head";
  // GGUF calls the head plainly "output.weight".
  if (place === undefined && modules.length === 1 && owner === "output") return "head";
  if (place === undefined && outside.some((part) => embeddingModule.test(part))) return "embedding";

  if (modules.some((part) => attentionModule.test(part))) return "attention";
  if (modules.some((part) => mlpModule.test(part))) return "mlp";
  // BERT's second feed-forward matrix is "layer.N.output.dense"; attention's own output was told above.
  if (place !== undefined && modules.includes("output")) return "mlp";
  return "other";
}

/**
 * How tensors are put into groups: "whole" | "layer" | "layer/N" (N consecutive blocks) | "kind" | "layer+kind" |
 * "layer/N+kind" | "tensor", or name → patterns. A pattern is a glob over tensor names, or `kind:norm`.
 */
export type GroupsSpec = string | Readonly<Record<string, string | readonly string[]>>;

const groupWords = ["whole", "layer", "layer/2", "kind", "layer+kind", "tensor"];
/** Name of the group of a `whole` grouping. */
export const wholeGroup = "whole";
/** Where tensors go that no pattern of a mapping names. */
const restGroup = "rest";

/**
 * Puts every tensor into exactly one group.
 *
 * Outside of the repeated blocks, "layer" makes one group "embedding", one group "final" (norm and head after the blocks)
 * and one per module for anything else. In a mapping the first matching group wins, and what no pattern names is the
 * group "rest".
 *
 * @returns group → tensors, both in a fixed order: embedding, blocks by number, modules by name, final; mappings as written
 * @throws MendelError `invalid-config` for an unknown word, and for a pattern or a group that gets no tensor
 */
export function groupTensors(
  names: readonly string[],
  spec: GroupsSpec,
): ReadonlyMap<string, readonly string[]> {
  const sorted = [...names].sort(naturalOrder);
  if (typeof spec !== "string") return groupByPatterns(sorted, spec);
  if (spec === "whole") return new Map(sorted.length === 0 ? [] : [[wholeGroup, sorted]]);
  if (spec === "tensor") return new Map(sorted.map((name) => [name, [name]]));
  const structure = findLayers(sorted);
  if (spec === "kind") {
    const groups = collect(sorted, (name) => kindOf(name, structure.placeOf(name)));
    return inOrder(groups, (group) => tensorKinds.indexOf(group as TensorKind));
  }
  const match = /^layer(?:\/([1-9]\d{0,5}))?(\+kind)?$/.exec(spec);
  if (match === null) {
    throw new MendelError("invalid-config", `unknown grouping "${spec}"`, {
      hint: `${suggestion(spec, groupWords)}; or a mapping of group name to patterns`,
      where: { key: "groups" },
    });
  }
  return groupByLayer(sorted, structure, Number(match[1] ?? 1), match[2] !== undefined);
}

function groupByLayer(
  names: readonly string[],
  structure: LayerStructure,
  blocksPerGroup: number,
  byKind: boolean,
): ReadonlyMap<string, readonly string[]> {
  const labels = stackLabels([...structure.stacks.keys()]);
  const groups = collect(names, (name) => {
    const place = structure.placeOf(name);
    if (place === undefined) return outerGroup(name, structure.stacks.size > 0);
    const blocks = structure.stacks.get(place.stack) as readonly number[];
    const first = Math.floor(blocks.indexOf(place.index) / blocksPerGroup) * blocksPerGroup;
    const last = Math.min(first + blocksPerGroup, blocks.length) - 1;
    const numbers = first === last ? `${blocks[first]}` : `${blocks[first]}-${blocks[last]}`;
    const label = `${labels.get(place.stack)}.${numbers}`;
    return byKind ? `${label}/${kindOf(name, place)}` : label;
  });
  const rank = (group: string): number => {
    const member = groups.get(group)?.[0] as string;
    if (group === "embedding") return 0;
    if (group === "final") return 3;
    return structure.placeOf(member) === undefined ? 2 : 1;
  };
  return inOrder(groups, rank);
}

/** A stack is called by its last part where that is unique: "layers" for "model.layers", but "encoder.block" in T5. */
function stackLabels(stacks: readonly string[]): ReadonlyMap<string, string> {
  const short = (stack: string): string => stack.split(/[./]/).at(-1) as string;
  const counts = new Map<string, number>();
  for (const stack of stacks) counts.set(short(stack), (counts.get(short(stack)) ?? 0) + 1);
  return new Map(
    stacks.map((stack) => [stack, counts.get(short(stack)) === 1 ? short(stack) : stack]),
  );
}

function outerGroup(name: string, hasBlocks: boolean): string {
  const parts = name.split(/[./]/);
  const module = parts.length > 1 ? name.slice(0, -((parts.at(-1) as string).length + 1)) : name;
  if (!hasBlocks) return module;
  if (parts.some((part) => embeddingModule.test(part.toLowerCase())) && !/embed_out/.test(name)) {
    return "embedding";
  }
  const kind = kindOf(name, undefined);
  return kind === "norm" || kind === "head" ? "final" : module;
}

function groupByPatterns(
  names: readonly string[],
  spec: Readonly<Record<string, string | readonly string[]>>,
): ReadonlyMap<string, readonly string[]> {
  const groups = new Map<string, string[]>();
  const taken = new Map<string, string>();
  for (const [group, given] of Object.entries(spec)) {
    const members: string[] = [];
    for (const pattern of typeof given === "string" ? [given] : given) {
      const matched = selectTensors(names, pattern);
      if (matched.length === 0) throw unmatchedPattern(names, pattern, `groups.${group}`);
      for (const name of matched) {
        if (taken.has(name)) continue;
        taken.set(name, group);
        members.push(name);
      }
    }
    if (members.length === 0) {
      throw new MendelError("invalid-config", `the group "${group}" gets no tensor`, {
        hint: "all tensors its patterns match belong to groups above it; the first match wins",
        where: { key: `groups.${group}` },
      });
    }
    groups.set(group, members.sort(naturalOrder));
  }
  const rest = names.filter((name) => !taken.has(name));
  if (rest.length > 0) {
    groups.set(restGroup, [...(groups.get(restGroup) ?? []), ...rest].sort(naturalOrder));
  }
  return groups;
}

/**
 * The tensors that a pattern names: a glob (`*` any run of characters, `?` one) or `kind:` and a tensor kind.
 *
 * @returns a subset of `names` in their order, empty when nothing matches
 * @throws MendelError `invalid-config` for an unknown kind
 */
export function selectTensors(names: readonly string[], pattern: string): string[] {
  if (!pattern.startsWith("kind:")) return names.filter((name) => matchesGlob(name, pattern));
  const kind = pattern.slice("kind:".length).trim();
  if (!tensorKinds.some((known) => known === kind)) {
    throw new MendelError("invalid-config", `unknown tensor kind "${kind}"`, {
      hint: suggestion(kind, tensorKinds),
    });
  }
  const structure = findLayers(names);
  return names.filter((name) => kindOf(name, structure.placeOf(name)) === kind);
}

/** The error for a pattern that no tensor matches, with the nearest part of a name that would. */
export function unmatchedPattern(
  names: readonly string[],
  pattern: string,
  key: string,
): MendelError {
  return new MendelError("invalid-config", `the pattern "${pattern}" matches no tensor`, {
    hint: unmatchedHint(names, pattern),
    where: { key },
  });
}

function unmatchedHint(names: readonly string[], pattern: string): string {
  const structure = findLayers(names);
  if (pattern.startsWith("kind:")) {
    const present = tensorKinds.filter((kind) =>
      names.some((name) => kindOf(name, structure.placeOf(name)) === kind),
    );
    return `kinds of these models: ${present.join(", ") || "none"}`;
  }
  const examples = names.slice(0, 3).join(", ");
  const list = `names look like ${examples}${names.length > 3 ? ", …" : ""}`;
  const core = pattern.replace(/^[*?]+|[*?]+$/g, "");
  const parts = new Set(names.flatMap((name) => name.split(/[./]/)));
  const words = [...parts].flatMap((part) => [part, ...part.split("_")]);
  const near = names.length === 0 ? undefined : (closest(core, words) ?? closest(core, names));
  if (near === undefined) return list;
  // A part alone is not a whole name: what helps is the corrected pattern, stars and all.
  const corrected = pattern.includes("*") || names.includes(near) ? near : `*${near}*`;
  return `did you mean "${core === "" ? corrected : pattern.replace(core, corrected)}"? ${list}`;
}

function collect(names: readonly string[], groupOf: (name: string) => string) {
  const groups = new Map<string, string[]>();
  for (const name of names) {
    const group = groupOf(name);
    const members = groups.get(group);
    if (members === undefined) groups.set(group, [name]);
    else members.push(name);
  }
  return groups;
}

function inOrder(
  groups: ReadonlyMap<string, readonly string[]>,
  rank: (group: string) => number,
): ReadonlyMap<string, readonly string[]> {
  return new Map([...groups].sort(([a], [b]) => rank(a) - rank(b) || naturalOrder(a, b)));
}
