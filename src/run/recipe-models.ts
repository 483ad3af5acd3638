import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { MendelError } from "../base/errors.ts";
import type { ModelPlace } from "../formats/open-models.ts";
import { modelIdOf } from "../merge/plan.ts";
import { modelRefsOf } from "../recipes/map-model-refs.ts";
import type { Recipe } from "../recipes/recipe.ts";

/** Where the models of a recipe are, by the ids its references have; the bases of its adapters are among them. */
export function placesOf(recipe: Recipe, folder: string): ModelPlace[] {
  const places = new Map<string, ModelPlace>();
  for (const ref of modelRefsOf(recipe)) {
    const id = modelIdOf(ref);
    if (ref.lora === undefined) {
      places.set(id, { id, path: locate(ref.model, folder) });
      continue;
    }
    const base = modelIdOf({ model: ref.model });
    places.set(base, { id: base, path: locate(ref.model, folder) });
    places.set(id, { id, path: locate(ref.lora, folder), base });
  }
  return [...places.values()];
}

/** Paths are relative to the recipe; mergekit takes them relative to the working directory, which is tried next. */
function locate(path: string, folder: string): string {
  const beside = resolve(folder, path);
  if (existsSync(beside)) return beside;
  const here = resolve(path);
  if (existsSync(here)) return here;
  throw new MendelError("not-found", `no model at ${beside}`, {
    hint: /^[\w.-]+\/[\w.-]+$/.test(path)
      ? "models are not downloaded; fetch it first and write the path of its folder"
      : "paths are relative to the recipe's folder, then to the working directory",
    where: { file: beside },
  });
}
