import { basename, join, resolve } from "node:path";
import { MendelError, messageOf } from "../base/errors.ts";
import { suggestion } from "../base/suggest.ts";
import { MAX_CONFIG_BYTES, readModelJson } from "../formats/hf-folder.ts";
import { OpenModels } from "../formats/open-models.ts";
import { matchModels } from "../merge/matching.ts";
import type { ModelReader } from "../tensors/model-reader.ts";
import type { FoundModel, FoundModels, LeftOut } from "./find-models.ts";
import { type Distances, measureDistances } from "./model-distances.ts";
import { baseByName } from "./model-names.ts";

/** What the user has decided about the models; what is left out is decided here. */
export interface ModelWishes {
  /** Models the user named: all of them, or an error says why not. */
  readonly named: boolean;
  /** Id of the base; null for none. */
  readonly base?: string | null;
  /** Id of a model, or path of an ONNX file. */
  readonly graph?: string;
}

export interface ChosenModel extends FoundModel {
  /** For an adapter: the model below it. */
  readonly base: string | undefined;
}

/** Models that can be merged with each other, and a graph that runs them. */
export interface ChosenModels {
  /** The base first. */
  readonly models: readonly ChosenModel[];
  readonly base: string | undefined;
  /** How the base, or that there is none, was decided. */
  readonly baseReason: string;
  /** Id of the model whose graph it is, or undefined for a graph of its own. */
  readonly graphModel: string | undefined;
  /** Path of the ONNX file. */
  readonly graph: string;
  readonly tokenizer: string | undefined;
  readonly leftOut: readonly LeftOut[];
}

/**
 * Decides which of the found models are merged, which one is the base, and whose graph runs the result.
 *
 * The base is the one named so, else the one under the adapters, else the one that the others lie around. Models that do not
 * fit with it (without one: with the largest group that fits together), and copies of another model, are left out.
 *
 * @throws MendelError `not-found` for fewer than two models or no graph; `usage` for names that are not there; what opening
 *   throws, for models that the user named
 */
export function chooseModels(found: FoundModels, wishes: ModelWishes): ChosenModels {
  const leftOut: LeftOut[] = [...found.leftOut];
  const leave = (model: FoundModel, reason: string, error?: unknown): void => {
    if (wishes.named) {
      if (error instanceof MendelError) throw error;
      throw new MendelError("mismatch", `model ${model.id}: ${reason}`, {
        where: { file: model.path },
      });
    }
    leftOut.push({ path: model.path, reason });
  };
  const ids = found.models.map(({ id }) => id);
  if (typeof wishes.base === "string" && !ids.includes(wishes.base)) {
    throw new MendelError("usage", `--base: there is no model named "${wishes.base}"`, {
      hint: suggestion(wishes.base, ids),
    });
  }
  const nominal = wishes.base === null ? undefined : (wishes.base ?? nominalBase(found.models));
  const placed = withBases(found.models, nominal);
  const opened = openEach(placed, leave);
  try {
    const fitting = fittingModels(placed, opened, nominal, leave);
    const kept = wishes.named ? fitting : withoutCopies(fitting, opened, nominal, leave);
    if (kept.length < 2) throw tooFew(kept, leftOut);
    const chosen = chooseBase(kept, opened, nominal, wishes);
    const models = [...kept].sort(
      (a, b) => Number(b.id === chosen.base) - Number(a.id === chosen.base),
    );
    return {
      ...chosen,
      models,
      ...chooseGraph(models, found, wishes),
      tokenizer:
        models.find(({ tokenizer }) => tokenizer !== undefined)?.tokenizer ?? found.tokenizers[0],
      leftOut,
    };
  } finally {
    for (const one of opened.values()) one.close();
  }
}

function nominalBase(models: readonly FoundModel[]): string | undefined {
  const whole = models.filter(({ kind }) => kind === "model");
  const byName = baseByName(whole.map(({ id }) => id));
  if (byName !== undefined) return byName;
  const below = new Set(
    models.filter(({ kind }) => kind === "adapter").map((adapter) => namedBelow(adapter, whole)),
  );
  const [only] = below;
  return below.size === 1 ? only : undefined;
}

/** The model that an adapter says it was trained on, when it is among these. */
function namedBelow(adapter: FoundModel, models: readonly FoundModel[]): string | undefined {
  const config = readModelJson(join(adapter.path, "adapter_config.json"), MAX_CONFIG_BYTES);
  const name = config["base_model_name_or_path"];
  if (typeof name !== "string") return models.length === 1 ? models[0]?.id : undefined;
  const beside = resolve(adapter.path, name);
  const last = basename(name.replace(/[/\\]+$/, ""));
  const found = models.find(({ path }) => path === beside) ?? models.find(({ id }) => id === last);
  return (found ?? (models.length === 1 ? models[0] : undefined))?.id;
}

function withBases(models: readonly FoundModel[], nominal: string | undefined): ChosenModel[] {
  const whole = models.filter(({ kind }) => kind === "model");
  return models.map((model) => ({
    ...model,
    base:
      model.kind === "adapter" ? (namedBelow(model, whole) ?? nominal ?? whole[0]?.id) : undefined,
  }));
}

type Leave = (model: FoundModel, reason: string, error?: unknown) => void;

/** Opens every model by itself, so that one broken file does not hide the others. */
function openEach(models: readonly ChosenModel[], leave: Leave): Map<string, OpenModels> {
  const opened = new Map<string, OpenModels>();
  for (const model of models) {
    const below = models.find(({ id }) => id === model.base);
    if (model.kind === "adapter" && below === undefined) {
      leave(model, "it is an adapter, and there is no model to put it on");
      continue;
    }
    try {
      opened.set(
        model.id,
        OpenModels.open([...(below === undefined ? [] : [place(below)]), place(model)]),
      );
    } catch (error) {
      if (!(error instanceof MendelError)) throw error;
      leave(model, messageOf(error), error);
    }
  }
  return opened;
}

function place({ id, path, base }: ChosenModel): { id: string; path: string; base?: string } {
  return { id, path, ...(base === undefined ? {} : { base }) };
}

function readerOf(id: string, opened: ReadonlyMap<string, OpenModels>): ModelReader {
  return (opened.get(id) as OpenModels).require(id);
}

const MISFIT = "does not fit with";

/** Why two models cannot be merged; undefined when they can. */
function misfit(
  reference: [string, ModelReader],
  other: [string, ModelReader],
): string | undefined {
  const graph = [reference, other].find(([, reader]) => reader.format === "onnx")?.[0];
  const { refused } = matchModels({
    models: new Map([reference, other]),
    reference: reference[0],
    ...(graph === undefined ? {} : { graph }),
  });
  const [first] = refused;
  if (first === undefined) return undefined;
  const more = refused.length > 1 ? ` (and ${refused.length - 1} more tensors)` : "";
  return `${MISFIT} ${reference[0]}: ${first.tensor}: ${first.reason}${more}`;
}

function fittingModels(
  models: readonly ChosenModel[],
  opened: ReadonlyMap<string, OpenModels>,
  nominal: string | undefined,
  leave: Leave,
): ChosenModel[] {
  const open = models.filter(({ id }) => opened.has(id));
  const references =
    nominal !== undefined && opened.has(nominal) ? [nominal] : open.map(({ id }) => id);
  let best: Map<string, string | undefined> | undefined;
  const fits = (group: ReadonlyMap<string, string | undefined>): number =>
    [...group.values()].filter((reason) => reason === undefined).length;
  for (const reference of references) {
    // A later reference can only win with a larger group, so members of a found one need not be tried.
    if (best?.has(reference) && best.get(reference) === undefined) continue;
    const own: [string, ModelReader] = [reference, readerOf(reference, opened)];
    const group = new Map(
      open.map(({ id }) => [
        id,
        id === reference ? undefined : misfit(own, [id, readerOf(id, opened)]),
      ]),
    );
    if (best === undefined || fits(group) > fits(best)) best = group;
  }
  return open.filter((model) => {
    const reason = best?.get(model.id);
    if (reason !== undefined) leave(model, reason);
    return reason === undefined;
  });
}

/** The same weights twice are one parent: the base's copy goes, or the later one. */
function withoutCopies(
  models: readonly ChosenModel[],
  opened: ReadonlyMap<string, OpenModels>,
  nominal: string | undefined,
  leave: Leave,
): ChosenModel[] {
  if (models.length < 2) return [...models];
  const distances = distancesOf(models, opened);
  const order = [...models].sort((a, b) => Number(b.id === nominal) - Number(a.id === nominal));
  const kept: ChosenModel[] = [];
  for (const model of order) {
    const twin = kept.find((other) => distances.equal(model.id, other.id));
    if (twin === undefined) kept.push(model);
    else leave(model, `holds the same weights as ${twin.id}`);
  }
  return models.filter((model) => kept.includes(model));
}

function distancesOf(
  models: readonly ChosenModel[],
  opened: ReadonlyMap<string, OpenModels>,
): Distances {
  return measureDistances(new Map(models.map(({ id }) => [id, readerOf(id, opened)])));
}

/** The base's distances to the others must be this much smaller in sum than any other model's. */
const CLEARLY_CLOSER = 0.8;

function chooseBase(
  models: readonly ChosenModel[],
  opened: ReadonlyMap<string, OpenModels>,
  nominal: string | undefined,
  { base: asked }: ModelWishes,
): { readonly base: string | undefined; readonly baseReason: string } {
  if (asked === null) return { base: undefined, baseReason: "no base was wanted" };
  if (nominal !== undefined && models.some(({ id }) => id === nominal)) {
    const byName =
      baseByName([nominal]) !== undefined ? "by its name" : "the model under the adapters";
    return { base: nominal, baseReason: asked === undefined ? byName : "as asked" };
  }
  // Between two models neither is nearer to the other.
  if (models.length >= 3) {
    const distances = distancesOf(models, opened);
    const sums = models
      .map(({ id }) => ({ id, sum: distances.sum(id) }))
      .sort((a, b) => a.sum - b.sum);
    const [first, second] = sums;
    if (first !== undefined && second !== undefined && first.sum < CLEARLY_CLOSER * second.sum) {
      return { base: first.id, baseReason: "the others lie around it" };
    }
  }
  return { base: undefined, baseReason: "no model looks like the one the others were tuned from" };
}

function chooseGraph(
  models: readonly ChosenModel[],
  { graphs }: FoundModels,
  { graph: asked }: ModelWishes,
): { readonly graph: string; readonly graphModel: string | undefined } {
  if (asked !== undefined) {
    const model = models.find(({ id }) => id === asked);
    if (model?.graph !== undefined) return { graph: model.graph, graphModel: model.id };
    if (model === undefined && asked.endsWith(".onnx"))
      return { graph: asked, graphModel: undefined };
    throw new MendelError(
      "usage",
      `--graph: "${asked}" is neither an ONNX file nor a model with one`,
      {
        hint: suggestion(
          asked,
          models.filter(({ graph }) => graph !== undefined).map(({ id }) => id),
        ),
      },
    );
  }
  const owner = models.find(({ graph }) => graph !== undefined);
  if (owner?.graph !== undefined) return { graph: owner.graph, graphModel: owner.id };
  const [lone] = graphs;
  if (lone !== undefined) return { graph: lone, graphModel: undefined };
  throw new MendelError(
    "not-found",
    "none of the models has an ONNX graph, which is what runs the candidates",
    {
      hint: "export one of the models to ONNX (for instance with optimum-cli export onnx) and put model.onnx beside its weights, or name it with --graph",
    },
  );
}

function tooFew(kept: readonly FoundModel[], leftOut: readonly LeftOut[]): MendelError {
  const found =
    kept.length === 0 ? "no model was found" : `only one model was found (${kept[0]?.path})`;
  const reasons = leftOut.slice(0, 5).map(({ path, reason }) => `\n  ${path}: ${reason}`);
  return new MendelError(
    "not-found",
    `a merge needs at least two models, and ${found}${reasons.join("")}`,
    {
      hint: leftOut.some(({ reason }) => reason.startsWith(MISFIT))
        ? "see mendel inspect MODEL MODEL for all that does not fit; --freeze there shows what copying some tensors would change"
        : "models are Hugging Face folders, .safetensors, .onnx and adapter folders; name them with --model NAME=PATH",
    },
  );
}
