import { parse } from "yaml";
import type { Recipe } from "../recipes/recipe.ts";
import { writeRecipe } from "../recipes/write.ts";

/**
 * A recipe's settings one by one, under names that match between recipes: "models[rotated].parameters.weight". Entries of
 * lists go by their model or filter where they have one, else by position.
 */
export function flatRecipe(recipe: Recipe): ReadonlyMap<string, string> {
  const flat = new Map<string, string>();
  flatten(parse(writeRecipe(recipe)), "", flat);
  return flat;
}

function flatten(value: unknown, path: string, into: Map<string, string>): void {
  if (Array.isArray(value) && value.some(isMapping)) {
    const seen = new Map<string, number>();
    value.forEach((entry, i) => {
      const name = nameOf(entry) ?? String(i);
      const times = (seen.get(name) ?? 0) + 1;
      seen.set(name, times);
      // A filter may be written twice; the second entry is another setting.
      flatten(entry, `${path}[${times === 1 ? name : `${name}#${times}`}]`, into);
    });
    return;
  }
  if (isMapping(value)) {
    for (const [key, member] of Object.entries(value)) {
      if (key !== "filter") flatten(member, path === "" ? key : `${path}.${key}`, into);
    }
    return;
  }
  into.set(path, typeof value === "string" ? value : JSON.stringify(value));
}

function isMapping(value: unknown): value is Record<string, unknown> {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}

function nameOf(entry: unknown): string | undefined {
  if (!isMapping(entry)) return undefined;
  for (const key of ["model", "filter"]) {
    const name = entry[key];
    if (typeof name === "string") return name;
    if (name !== undefined) return JSON.stringify(name);
  }
  // The last value of a filtered list has no filter: it is for everything else.
  return "value" in entry ? "*" : undefined;
}

/** One setting in several recipes; undefined where a recipe has none. */
export interface SettingRow {
  readonly setting: string;
  readonly values: readonly (string | undefined)[];
  readonly differs: boolean;
}

/** Settings of several recipes side by side, in the order in which they first appear. */
export function recipesSideBySide(recipes: readonly Recipe[]): SettingRow[] {
  const flat = recipes.map(flatRecipe);
  const settings = new Set(flat.flatMap((recipe) => [...recipe.keys()]));
  return [...settings].map((setting) => {
    const values = flat.map((recipe) => recipe.get(setting));
    return { setting, values, differs: new Set(values).size > 1 };
  });
}
