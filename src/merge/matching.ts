import { MendelError } from "../base/errors.ts";
import { naturalOrder } from "../base/natural-order.ts";
import { findLayers, kindOf, selectTensors, unmatchedPattern } from "../recipes/tensor-groups.ts";
import { type Dtype, dtypeBytes, isFloat } from "../tensors/dtype.ts";
import type { ModelReader, ModelTensor } from "../tensors/model-reader.ts";
import { elementCount, formatShape, type Shape, sameShape } from "../tensors/shape.ts";
import { correspond, isOutputHead, isTokenEmbedding, type NamedTensors } from "./correspondence.ts";
import type { MergePlan, PlannedTensor } from "./plan.ts";

/** A model as matching sees it: an open reader, or its table of tensors. */
export interface MatchedModel extends NamedTensors {
  /** For messages. */
  readonly path: string;
  /** Where given, copied integer tensors are compared between models, and a difference is a warning. */
  readonly read?: ModelReader["read"];
}

export interface MatchInput {
  readonly models: ReadonlyMap<string, MatchedModel>;
  /** The model whose names and tensors the output has: the base where there is one. */
  readonly reference: string;
  /** The base of task vectors, donor of what is copied. */
  readonly base?: string;
  /** Tensors to copy instead of merging: globs, or `kind:` and a tensor kind. */
  readonly freeze?: readonly string[];
  /** The model whose ONNX graph will run the result: what its graph does not use need not be merged. */
  readonly graph?: string;
}

/** What becomes of one tensor of one model. */
export interface TensorFate {
  readonly model: string;
  /** Logical name in that model. */
  readonly tensor: string;
  readonly fate: "merged" | "copied" | "refused" | "unused";
  /** Name in the output; undefined for what is unused. */
  readonly output: string | undefined;
  /** One clause. */
  readonly reason: string;
}

/** A tensor that cannot be merged, with all that is needed to say why and what to do. */
export interface Refusal {
  readonly tensor: string;
  /** What is wrong, with shapes and models. */
  readonly reason: string;
  /** What the user can do about it. */
  readonly hint: string;
  /** File of the model that does not fit. */
  readonly file: string | undefined;
}

/**
 * How the tensors of several models correspond. Every tensor of every model appears in `fates`, once per output it serves,
 * or once as unused.
 */
export interface MatchReport {
  /** Refused tensors are in it with the sources they have, so that a recipe that asks for one is refused too. */
  readonly plan: MergePlan;
  readonly fates: readonly TensorFate[];
  readonly refused: readonly Refusal[];
  /** Outputs that `freeze` took out of the merge, in natural order. */
  readonly frozen: readonly string[];
  /** Worth knowing, but no reason to stop: ties, counters that differ, weights without use. */
  readonly warnings: readonly string[];
}

/** One tensor of the output while its sources are collected. */
interface Slot {
  readonly name: string;
  readonly sources: Map<string, ModelTensor>;
  readonly how: Map<string, string>;
}

/** Integer tensors up to this size are compared between models; larger ones are tables that nobody edits. */
const maxComparedBytes = 1 << 20;

/**
 * Matches the tensors of several models, header data only.
 *
 * Float tensors that all models have in one shape are merged. Integers, booleans, counters and recomputed buffers are
 * copied from the base; frozen tensors too, or from the graph's model, or from the first model that has them. Everything
 * else is refused with a reason, except weights that no graph and no base needs: they are unused, with a warning.
 *
 * @throws MendelError `invalid-config` for a freeze pattern that matches nothing
 */
export function matchModels(input: MatchInput): MatchReport {
  const { slots, problems } = collectSlots(input);
  const classifier = new Classifier(input, problems);
  const frozenBy = frozenSlots(input, slots);
  for (const slot of slots) classifier.place(slot, frozenBy.get(slot.name));
  return classifier.report();
}

/**
 * The error for everything that was refused; for callers that need all tensors of all models to fit.
 *
 * @throws MendelError `mismatch` when anything was refused
 */
export function requireMatched(report: MatchReport): void {
  const [first] = report.refused;
  if (first === undefined) return;
  const shown = report.refused.slice(0, 5).map(({ tensor, reason }) => `  ${tensor}: ${reason}`);
  const more = report.refused.length - shown.length;
  const lines = [...shown, ...(more > 0 ? [`  and ${more} more`] : [])];
  const isFamily = report.fates.some(({ fate }) => fate === "merged");
  const strangers = "the models have no tensor in common; merge models of one architecture";
  const count =
    report.refused.length === 1 ? "a tensor does" : `${report.refused.length} tensors do`;
  throw new MendelError("mismatch", `${count} not fit together:\n${lines.join("\n")}`, {
    hint: isFamily ? first.hint : strangers,
    where: { tensor: first.tensor, ...(first.file === undefined ? {} : { file: first.file }) },
  });
}

/** Starts from the reference's tensors and adds what the other models have beyond them. */
function collectSlots({ models, reference }: MatchInput): {
  readonly slots: readonly Slot[];
  readonly problems: ReadonlyMap<string, string>;
} {
  const first = models.get(reference);
  if (first === undefined) throw new Error(`no model ${reference} to match against`);
  const slots = new Map<string, Slot>();
  /** The tensor that stands for a slot when further models are compared with it. */
  const known = new Map<string, ModelTensor>();
  const problems = new Map<string, string>();
  const add = (id: string, tensor: ModelTensor): void => {
    // A made-up name must not meet an equal one of another model.
    const name = known.has(tensor.name) ? `${tensor.name} of ${id}` : tensor.name;
    slots.set(name, { name, sources: new Map([[id, tensor]]), how: new Map() });
    // Only the reference's own positions are places in the graph that others are compared with.
    const { graphPosition, ...plain } = tensor;
    const isOwn = id === reference && graphPosition !== undefined;
    known.set(name, { ...plain, name, ...(isOwn ? { graphPosition } : {}) });
  };
  for (const tensor of first.tensors.values()) add(reference, tensor);
  for (const [id, model] of models) {
    if (id === reference) continue;
    const { signature } = first;
    const target = { tensors: known, ...(signature === undefined ? {} : { signature }) };
    const { pairs, graphProblem } = correspond(target, model);
    if (graphProblem !== undefined) problems.set(id, graphProblem);
    const used = new Set<ModelTensor>();
    for (const [name, { tensor, how }] of pairs) {
      const slot = slots.get(name) as Slot;
      slot.sources.set(id, tensor);
      if (how !== undefined) slot.how.set(id, how);
      used.add(tensor);
    }
    for (const tensor of model.tensors.values()) if (!used.has(tensor)) add(id, tensor);
  }
  return { slots: [...slots.values()].sort((a, b) => naturalOrder(a.name, b.name)), problems };
}

/** Output name → the pattern that freezes it; a pattern may use any model's own name. */
function frozenSlots(
  { freeze = [] }: MatchInput,
  slots: readonly Slot[],
): ReadonlyMap<string, string> {
  const owners = new Map<string, Slot[]>();
  for (const slot of slots) {
    const names = [slot.name, ...[...slot.sources.values()].map((tensor) => tensor.name)];
    for (const name of new Set(names)) owners.set(name, [...(owners.get(name) ?? []), slot]);
  }
  const names = [...owners.keys()].sort(naturalOrder);
  const frozen = new Map<string, string>();
  for (const pattern of freeze) {
    const matched = selectTensors(names, pattern);
    if (matched.length === 0) throw unmatchedPattern(names, pattern, "freeze");
    for (const slot of matched.flatMap((name) => owners.get(name) ?? [])) {
      if (!frozen.has(slot.name)) frozen.set(slot.name, pattern);
    }
  }
  return frozen;
}

/** Arrays that count training steps. */
const counter = /(^|\.)num_batches_tracked$/;

/** Float arrays that old checkpoints store although the model recomputes them. */
function isBuffer(name: string, shape: Shape): boolean {
  if (/(^|\.)(rotary_emb\.inv_freq|masked_bias)$/.test(name)) return true;
  return /(^|\.)attn(ention)?\.bias$/.test(name) && shape.length === 4;
}

/** Decides about one slot after the other. */
class Classifier {
  private readonly input: MatchInput;
  private readonly problems: ReadonlyMap<string, string>;
  private readonly tensors: PlannedTensor[] = [];
  private readonly fates: TensorFate[] = [];
  private readonly refused: Refusal[] = [];
  private readonly frozen: string[] = [];
  private readonly warnings: string[] = [];
  /** Shape of the reference's token embedding, when the reference stores no head of its own. */
  private readonly tiedShape: Shape | undefined;

  constructor(input: MatchInput, problems: ReadonlyMap<string, string>) {
    this.input = input;
    this.problems = problems;
    const own = [...(this.model(input.reference)?.tensors.values() ?? [])];
    const untied = own.some(({ name }) => isOutputHead(name));
    this.tiedShape = untied ? undefined : own.find(({ name }) => isTokenEmbedding(name))?.shape;
  }

  report(): MatchReport {
    const { base } = this.input;
    return {
      plan: { tensors: this.tensors, ...(base === undefined ? {} : { base }) },
      fates: this.fates,
      refused: this.refused,
      frozen: this.frozen,
      warnings: this.warnings,
    };
  }

  place(slot: Slot, frozenBy: string | undefined): void {
    for (const [id, how] of slot.how) {
      if (/serves as head|stored once/.test(how)) {
        this.warnings.push(`${slot.name}: ${id} ties head and embedding; ${how}`);
      }
    }
    if (frozenBy !== undefined) {
      this.frozen.push(slot.name);
      this.copy(slot, `frozen by "${frozenBy}"`);
      return;
    }
    const floats = [...slot.sources.values()].filter(({ dtype }) => isFloat(dtype)).length;
    const sample = firstOf(slot);
    if (floats === 0 || counter.test(slot.name)) this.copyData(slot, dataKind(slot));
    else if (isBuffer(slot.name, sample.shape)) this.copyData(slot, "recomputed by the model");
    else if (floats < slot.sources.size) this.refuseTypes(slot);
    else this.placeWeight(slot);
  }

  private placeWeight(slot: Slot): void {
    const missing = [...this.input.models.keys()].filter((id) => !slot.sources.has(id));
    const { graph, reference } = this.input;
    const automatic = [...slot.sources.values()].every(({ namedBy }) => namedBy === "automatic");
    const { shape } = firstOf(slot);
    const odd = [...slot.sources].find(([, tensor]) => !sameShape(tensor.shape, shape));
    if (!slot.sources.has(reference) && this.isTiedHead(slot)) {
      this.leaveUnused(slot, `${reference} ties its head to the embedding, and so does the result`);
    } else if (missing.length > 0 && automatic) {
      this.refuseUnnamed(slot, missing);
    } else if (missing.length > 0 && graph !== undefined && !slot.sources.has(graph)) {
      this.leaveUnused(slot, `the graph of ${graph} has no such weight`);
    } else if (missing.length > 0) {
      this.refuseMissing(slot, missing);
    } else if (odd !== undefined) {
      this.refuseShapes(slot, odd[0]);
    } else {
      this.merge(slot);
    }
  }

  private merge(slot: Slot): void {
    const { shape } = firstOf(slot);
    const others = [...slot.how].map(([id, how]) => `${id}: ${how}`);
    const reason = ["in all models", ...others].join("; ");
    this.tensors.push({
      name: slot.name,
      shape,
      dtype: widest([...slot.sources.values()].map(({ dtype }) => dtype)),
      action: "merge",
      reason,
      sources: slot.sources,
    });
    for (const [id] of slot.sources) {
      this.fate(slot, id, "merged", slot.how.get(id) ?? "the same name in all models");
    }
  }

  /** Integers, counters and buffers: taken over as they are, never averaged. */
  private copyData(slot: Slot, reason: string): void {
    const { reference, graph } = this.input;
    const needed = slot.sources.has(reference) || (graph !== undefined && slot.sources.has(graph));
    if (!needed) {
      for (const [id] of slot.sources) {
        this.fate(slot, id, "unused", `${reason}; ${reference} has no such tensor`);
      }
      return;
    }
    const donor = this.copy(slot, reason);
    const differing = this.differing(slot, donor);
    if (differing.length > 0) {
      this.warnings.push(
        `${slot.name} is copied from ${donor}, and differs in ${differing.join(", ")} (${reason})`,
      );
    }
  }

  /** @returns the model whose elements are copied */
  private copy(slot: Slot, reason: string): string {
    const { base, graph, reference } = this.input;
    const order = [base, graph, reference, ...slot.sources.keys()];
    const donor = order.find((id) => id !== undefined && slot.sources.has(id)) as string;
    const tensor = slot.sources.get(donor) as ModelTensor;
    const fitting = [...slot.sources].filter(([, { shape }]) => sameShape(shape, tensor.shape));
    this.tensors.push({
      name: slot.name,
      shape: tensor.shape,
      dtype: tensor.dtype,
      action: "copy",
      reason: `${reason}, from ${donor}`,
      sources: new Map(fitting),
      copyFrom: donor,
    });
    for (const [id] of slot.sources) {
      if (id === donor) this.fate(slot, id, "copied", reason);
      else this.fate(slot, id, "unused", `${reason}; taken from ${donor}`);
    }
    return donor;
  }

  /** Models whose copied data differ from the donor's, where the values can be read. */
  private differing(slot: Slot, donor: string): string[] {
    const tensor = slot.sources.get(donor) as ModelTensor;
    const own = this.bytesOf(donor, tensor);
    return [...slot.sources].flatMap(([id, other]) => {
      if (id === donor) return [];
      if (!sameShape(other.shape, tensor.shape) || other.dtype !== tensor.dtype) return [id];
      const bytes = own === undefined ? undefined : this.bytesOf(id, other);
      return bytes !== undefined && own !== undefined && Buffer.compare(own, bytes) !== 0
        ? [id]
        : [];
    });
  }

  private bytesOf(id: string, tensor: ModelTensor): Uint8Array | undefined {
    const length = elementCount(tensor.shape) * dtypeBytes[tensor.dtype];
    const model = this.model(id);
    if (model?.read === undefined || length > maxComparedBytes) return undefined;
    const bytes = new Uint8Array(length);
    model.read(tensor.name, 0, bytes);
    return bytes;
  }

  private leaveUnused(slot: Slot, reason: string): void {
    for (const [id] of slot.sources) this.fate(slot, id, "unused", reason);
    this.warnings.push(
      `${slot.name} of ${[...slot.sources.keys()].join(", ")} is not used: ${reason}`,
    );
  }

  private isTiedHead(slot: Slot): boolean {
    const { tiedShape } = this;
    return (
      tiedShape !== undefined &&
      isOutputHead(slot.name) &&
      sameShape(firstOf(slot).shape, tiedShape)
    );
  }

  private refuseMissing(slot: Slot, missing: readonly string[]): void {
    const files = missing.map((id) => `${id} (${this.model(id)?.path})`).join(", ");
    const have = [...slot.sources].map(([id, { shape }]) => `${id} ${formatShape(shape)}`);
    const reason = `missing in ${files}; in ${have.join(", ")}`;
    this.refuse(slot, reason, this.freezeHint(slot), missing[0]);
  }

  private refuseShapes(slot: Slot, odd: string): void {
    const shapes = [...slot.sources].map(
      ([id, { shape }]) => `${formatShape(shape)} in ${id} (${this.model(id)?.path})`,
    );
    const [a, b] = [firstOf(slot).shape, (slot.sources.get(odd) as ModelTensor).shape];
    const isVocabulary =
      (isTokenEmbedding(slot.name) || isOutputHead(slot.name)) &&
      a.length === 2 &&
      b.length === 2 &&
      a[1] === b[1];
    const isTurned = a.length === 2 && sameShape([...a].reverse(), b);
    const freeze = this.freezeHint(slot);
    if (isVocabulary) {
      const hint = `give all models one vocabulary (resize the token embeddings), or ${freeze}`;
      this.refuse(slot, `vocabularies differ: ${shapes.join(", ")}`, hint, odd);
    } else {
      const turned = isTurned ? "; one file holds the transpose" : "";
      this.refuse(slot, `shapes differ: ${shapes.join(", ")}${turned}`, freeze, odd);
    }
  }

  private refuseTypes(slot: Slot): void {
    const types = [...slot.sources].map(([id, { dtype }]) => `${dtype} in ${id}`);
    const odd = [...slot.sources].find(([, { dtype }]) => !isFloat(dtype))?.[0];
    const hint = "quantized weights cannot be merged with float ones; convert them first";
    this.refuse(slot, `types differ: ${types.join(", ")}`, hint, odd);
  }

  private refuseUnnamed(slot: Slot, missing: readonly string[]): void {
    const [id] = [...slot.sources.keys()];
    const problem = missing
      .map((other) => this.problems.get(other))
      .find((text) => text !== undefined);
    const own = this.problems.get(id as string);
    const why = own ?? problem ?? "no model has a graph to compare positions with";
    this.refuse(
      slot,
      `its name in ${id} says nothing about the layer, and ${why}`,
      "export the model again with node names or without constant folding, or merge its safetensors",
      id,
    );
  }

  private freezeHint(slot: Slot): string {
    const kind = kindOf(slot.name, findLayers([slot.name]).placeOf(slot.name));
    const module = slot.name.includes(".") ? slot.name.replace(/[^.]+$/, "*") : slot.name;
    return kind === "head"
      ? `heads of different tasks are copied, not merged: add "${module}" to freeze in the search space`
      : `add "${module}" to freeze in the search space, or leave out the model that does not fit`;
  }

  private refuse(slot: Slot, reason: string, hint: string, model: string | undefined): void {
    const file = model === undefined ? undefined : this.model(model)?.path;
    this.refused.push({ tensor: slot.name, reason, hint, file });
    const { shape, dtype } = firstOf(slot);
    const { name, sources } = slot;
    this.tensors.push({
      name,
      shape,
      dtype,
      action: "merge",
      reason: `refused: ${reason}`,
      sources,
    });
    for (const [id] of sources) this.fate(slot, id, "refused", reason);
  }

  private fate(slot: Slot, model: string, fate: TensorFate["fate"], reason: string): void {
    const tensor = (slot.sources.get(model) as ModelTensor).name;
    const output = fate === "unused" ? undefined : slot.name;
    this.fates.push({ model, tensor, fate, output, reason });
  }

  private model(id: string): MatchedModel | undefined {
    return this.input.models.get(id);
  }
}

function firstOf(slot: Slot): ModelTensor {
  return [...slot.sources.values()][0] as ModelTensor;
}

function dataKind(slot: Slot): string {
  if (counter.test(slot.name)) return "a training counter";
  return firstOf(slot).dtype === "bool" ? "boolean" : "integer";
}

/** The smallest float type that holds all of them. */
function widest(dtypes: readonly Dtype[]): Dtype {
  if (dtypes.includes("f64")) return "f64";
  if (dtypes.includes("f32")) return "f32";
  const [first] = dtypes;
  return dtypes.every((dtype) => dtype === first) ? (first as Dtype) : "f32";
}
