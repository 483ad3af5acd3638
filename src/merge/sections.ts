import { MendelError } from "../base/errors.ts";
import { naturalOrder } from "../base/natural-order.ts";
import { gradientPosition } from "../recipes/lookup.ts";
import type { Recipe, RecipeSlice, Settings } from "../recipes/recipe.ts";
import { findLayers, groupTensors, type LayerPlace } from "../recipes/tensor-groups.ts";
import type { ModelTensor } from "../tensors/model-reader.ts";
import type { MergeMethod } from "./method.ts";
import { type MergePlan, modelIdOf, type PlannedTensor } from "./plan.ts";

/** One model of a section and what the recipe says about it. */
export interface SectionSource {
  readonly modelId: string;
  readonly settings: Settings;
}

/** What tensors of one stretch of the output are made of: the whole of `models`, or one slice. */
export interface Section {
  /** How messages call it. */
  readonly label: string;
  readonly sources: readonly SectionSource[];
  readonly baseId: string | undefined;
  /** Slice-level parameters. */
  readonly settings: Settings;
}

/** One input of an output tensor. */
export interface DraftInput extends SectionSource {
  /** Name that this model's filters are matched against: its own layer number. */
  readonly filterName: string;
  /** Absent when the model does not have it. */
  readonly tensor: ModelTensor | undefined;
}

/** An output tensor with its inputs, before parameters are looked up. */
export interface DraftTensor {
  readonly name: string;
  readonly planned: PlannedTensor;
  readonly section: Section;
  /** Gradient position. */
  readonly position: number;
  readonly inputs: readonly DraftInput[];
}

export interface Draft {
  /** In natural order of names. */
  readonly tensors: readonly DraftTensor[];
  readonly sections: readonly Section[];
  /** Number of output layers, when the recipe assembles them from slices. */
  readonly layers: number | undefined;
}

/**
 * Lays out the output of a recipe: which tensors it has and which tensor of which model enters each of them.
 *
 * @throws MendelError `invalid-config` for layers that a model does not have, `unsupported` for slices of models whose layers
 *   are not one stack
 */
export function draftTensors(recipe: Recipe, method: MergeMethod, plan: MergePlan): Draft {
  return recipe.body.kind === "models"
    ? draftModels(recipe, method, plan)
    : draftSlices(recipe, recipe.body.slices, method, plan);
}

function draftModels(recipe: Recipe, method: MergeMethod, plan: MergePlan): Draft {
  const section = wholeSection(recipe, method);
  const positions = positionsOf(plan);
  const tensors = plan.tensors.map((planned, index): DraftTensor => {
    return {
      name: planned.name,
      planned,
      section,
      position: positions[index]!,
      inputs: section.sources.map((source) => inputOf(source, planned)),
    };
  });
  return { tensors, sections: [section], layers: undefined };
}

/** A search compiles thousands of recipes against one plan. */
const knownPositions = new WeakMap<MergePlan["tensors"], readonly number[]>();

/** Gradient position of every tensor of a plan. */
function positionsOf({ tensors }: MergePlan): readonly number[] {
  const known = knownPositions.get(tensors);
  if (known !== undefined) return known;
  const structure = findLayers(tensors.map(({ name }) => name));
  const positions = tensors.map(({ name }) => {
    const place = structure.placeOf(name);
    if (place === undefined) return 0;
    const layers = structure.stacks.get(place.stack) ?? [];
    return gradientPosition(layers.indexOf(place.index), layers.length);
  });
  knownPositions.set(tensors, positions);
  return positions;
}

/** All of `models`, and a base that is not among them as one more input without parameters. */
function wholeSection(recipe: Recipe, method: MergeMethod): Section {
  const models = recipe.body.kind === "models" ? recipe.body.models : [];
  const sources = models.map(({ model, parameters }) => ({
    modelId: modelIdOf(model),
    settings: parameters,
  }));
  const baseId = recipe.baseModel === undefined ? undefined : modelIdOf(recipe.baseModel);
  const unlisted = baseId !== undefined && !sources.some(({ modelId }) => modelId === baseId);
  // A base that is there for frozen tensors, an idea mergekit does not have, is not also averaged in.
  const donorOnly =
    method.unlistedBase === "donor" ||
    (method.unlistedBase === "input under compat" && recipe.compat !== "mergekit") ||
    recipe.freeze.length > 0;
  if (unlisted && (method.base !== "none" || !donorOnly)) {
    sources.push({ modelId: baseId, settings: {} });
  }
  return { label: "models", sources, baseId, settings: {} };
}

function inputOf(source: SectionSource, planned: PlannedTensor): DraftInput {
  // Spelt out: spreading here was a third of the time that compiling takes.
  const { modelId, settings } = source;
  return { modelId, settings, filterName: planned.name, tensor: planned.sources.get(modelId) };
}

/** A planned tensor inside the stack of layers. */
interface LayerTensor {
  readonly planned: PlannedTensor;
  readonly place: LayerPlace;
}

/** The tensors of one layer by the part of the name after the layer's number. */
type LayerTensors = ReadonlyMap<string, LayerTensor>;

/**
 * Assembles layers from slices: output layers are numbered from 0 over all slices, what comes before the layers is made of
 * the first slice's models, what comes after them of the last one's.
 */
function draftSlices(
  recipe: Recipe,
  slices: readonly RecipeSlice[],
  method: MergeMethod,
  plan: MergePlan,
): Draft {
  const layers = layersOf(plan);
  const sections = slices.map((slice, i): Section => {
    const base = slice.baseModel ?? recipe.baseModel;
    return {
      label: `slice ${i + 1}`,
      sources: slice.sources.map(({ model, parameters }) => ({
        modelId: modelIdOf(model),
        settings: parameters,
      })),
      baseId: base === undefined ? undefined : modelIdOf(base),
      settings: slice.parameters,
    };
  });
  const tensors: DraftTensor[] = [];
  let output = 0;
  slices.forEach((slice, i) => {
    const section = sections[i] as Section;
    checkRanges(slice, section, layers);
    const [first, end] = slice.sources[0]?.layerRange ?? [0, 0];
    for (let p = 0; p < end - first; p++) {
      const position = gradientPosition(p, end - first);
      tensors.push(...draftLayer(slice, section, layers, p, output++, position));
    }
  });
  const outer = outerSection(recipe, method);
  tensors.push(...draftOuter(recipe, outer === undefined ? sections : [outer], plan));
  tensors.sort((a, b) => naturalOrder(a.name, b.name));
  return { tensors, sections, layers: output };
}

function draftLayer(
  slice: RecipeSlice,
  section: Section,
  layers: ReadonlyMap<number, LayerTensors>,
  p: number,
  output: number,
  position: number,
): DraftTensor[] {
  const own = slice.sources.map(({ layerRange }) => layers.get(layerRange[0] + p) as LayerTensors);
  const has = (k: number, rest: string): boolean => {
    const modelId = section.sources[k]?.modelId as string;
    return own[k]?.get(rest)?.planned.sources.has(modelId) === true;
  };
  // The first source that has a tensor gives it its place; the others may lack it.
  const places = new Map<string, LayerTensor>();
  own.forEach((layer, k) => {
    for (const [rest, tensor] of layer) {
      if (has(k, rest) && !places.has(rest)) places.set(rest, tensor);
    }
  });
  return [...places].map(([rest, { planned, place }]): DraftTensor => {
    const candidates = own.map((layer) => layer.get(rest)?.planned);
    return {
      name: `${planned.name.slice(0, place.stack.length + 1)}${output}${rest}`,
      planned: candidates.find((candidate) => candidate?.action === "copy") ?? planned,
      section,
      position,
      inputs: section.sources.map((source, k): DraftInput => {
        const mine = candidates[k];
        return mine === undefined
          ? { ...source, filterName: planned.name, tensor: undefined }
          : inputOf(source, mine);
      }),
    };
  });
}

/** The base, for methods that take everything outside of the layers from it. */
function outerSection(recipe: Recipe, method: MergeMethod): Section | undefined {
  if (method.outerFromBase !== true || recipe.baseModel === undefined) return undefined;
  const modelId = modelIdOf(recipe.baseModel);
  const sources = [{ modelId, settings: {} }];
  return { label: "base_model", sources, baseId: modelId, settings: {} };
}

/** Tensors outside of the layers. They are at gradient position 0, the last ones too. */
function draftOuter(recipe: Recipe, sections: readonly Section[], plan: MergePlan): DraftTensor[] {
  const names = plan.tensors.map(({ name }) => name);
  const structure = findLayers(names);
  const before = new Set(groupTensors(names, "layer").get("embedding"));
  const first = sections[0] as Section;
  const last = sections.at(-1) as Section;
  // mergekit cuts the last slice's models to as many as the first slice has.
  const tail =
    recipe.compat === "mergekit"
      ? { ...last, sources: last.sources.slice(0, first.sources.length) }
      : last;
  return plan.tensors.flatMap((planned): DraftTensor[] => {
    if (structure.placeOf(planned.name) !== undefined) return [];
    const section = before.has(planned.name) ? first : tail;
    if (!section.sources.some(({ modelId }) => planned.sources.has(modelId))) return [];
    const inputs = section.sources.map((source) => inputOf(source, planned));
    return [{ name: planned.name, planned, section, position: 0, inputs }];
  });
}

/** The tensors of every layer of the one stack that slices count in. */
function layersOf(plan: MergePlan): ReadonlyMap<number, LayerTensors> {
  const structure = findLayers(plan.tensors.map(({ name }) => name));
  const stacks = [...structure.stacks.keys()];
  if (stacks.length !== 1) {
    const found = stacks.length === 0 ? "no repeated layers" : `several: ${stacks.join(", ")}`;
    throw new MendelError("unsupported", `slices need one stack of layers; found ${found}`, {
      hint: "merge such models whole, with `models` instead of `slices`",
      where: { key: "slices" },
    });
  }
  const layers = new Map<number, Map<string, LayerTensor>>();
  for (const planned of plan.tensors) {
    const place = structure.placeOf(planned.name);
    if (place === undefined) continue;
    const layer = layers.get(place.index) ?? new Map();
    layers.set(place.index, layer.set(place.rest, { planned, place }));
  }
  return layers;
}

/** Every layer that a slice asks for must be there in its model. */
function checkRanges(
  slice: RecipeSlice,
  section: Section,
  layers: ReadonlyMap<number, LayerTensors>,
): void {
  slice.sources.forEach(({ layerRange: [start, end] }, k) => {
    const modelId = section.sources[k]?.modelId as string;
    const count = layerCountOf(modelId, layers);
    for (let index = start; index < end; index++) {
      const layer = [...(layers.get(index)?.values() ?? [])];
      if (layer.some(({ planned }) => planned.sources.has(modelId))) continue;
      throw new MendelError(
        "invalid-config",
        `${section.label}: layer_range [${start}, ${end}] of ${modelId} asks for layer ${index}, but the model has ${count}`,
        { where: { key: "layer_range" }, hint: "the end of a layer_range is exclusive" },
      );
    }
  });
}

function layerCountOf(modelId: string, layers: ReadonlyMap<number, LayerTensors>): string {
  const own = [...layers]
    .filter(([, layer]) => [...layer.values()].some((t) => t.planned.sources.has(modelId)))
    .map(([index]) => index);
  if (own.length === 0) return "no layers at all";
  return `${own.length} (${Math.min(...own)} to ${Math.max(...own)})`;
}
