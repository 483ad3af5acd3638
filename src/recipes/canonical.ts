import { digestOf } from "../base/hash.ts";
import type {
  FilteredSetting,
  ModelRef,
  Recipe,
  RecipeModel,
  Setting,
  Settings,
} from "./recipe.ts";

/**
 * SHA-256 of what a recipe means: two recipes that are written differently but ask for the same weights have one digest.
 *
 * Left out are the name and keys without effect; a filter "*" is no filter, entries behind one without filter are never
 * reached, a list with only such an entry is its value, the order of frozen patterns does not matter, and -0 is 0.
 * Seed and compatibility mode are part of it, because they are part of what the weights are.
 */
export function recipeDigest(recipe: Recipe): string {
  return digestOf(canonicalRecipe(recipe));
}

/** The normalized plain data that the digest is taken over. */
export function canonicalRecipe(recipe: Recipe): unknown {
  const { body } = recipe;
  return {
    mergeMethod: recipe.mergeMethod,
    body:
      body.kind === "models"
        ? { models: body.models.map(canonicalModel) }
        : {
            slices: body.slices.map((slice) => ({
              sources: slice.sources.map((source) => ({
                ...canonicalModel(source),
                layerRange: source.layerRange,
              })),
              baseModel: canonicalRef(slice.baseModel),
              parameters: canonicalSettings(slice.parameters),
            })),
          },
    baseModel: canonicalRef(recipe.baseModel),
    parameters: canonicalSettings(recipe.parameters),
    dtype: recipe.dtype,
    outDtype: recipe.outDtype,
    seed: recipe.seed,
    compat: recipe.compat,
    freeze: [...new Set(recipe.freeze)].sort(),
    passthrough: recipe.passthrough,
  };
}

function canonicalModel(entry: RecipeModel): Record<string, unknown> {
  return { model: canonicalRef(entry.model), parameters: canonicalSettings(entry.parameters) };
}

function canonicalRef(ref: ModelRef | undefined): unknown {
  return ref === undefined
    ? undefined
    : { model: ref.model, revision: ref.revision, lora: ref.lora };
}

function canonicalSettings(settings: Settings): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(settings).map(([name, setting]) => [name, canonicalSetting(setting)]),
  );
}

function canonicalSetting(setting: Setting): unknown {
  if (!isConditional(setting)) return setting;
  const entries: { readonly filter?: string; readonly value: number | readonly number[] }[] = [];
  for (const { filter, value } of setting) {
    const catchAll = filter === undefined || filter === "*";
    entries.push(catchAll ? { value } : { filter, value });
    if (catchAll) break;
  }
  const [first] = entries;
  return first !== undefined && first.filter === undefined ? first.value : entries;
}

/** Whether a setting is a conditional list (an empty list is a gradient without values). */
export function isConditional(setting: Setting): setting is readonly FilteredSetting[] {
  return typeof setting === "object" && typeof setting[0] === "object";
}
