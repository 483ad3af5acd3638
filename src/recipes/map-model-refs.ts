import type { ModelRef, Recipe, RecipeModel } from "./recipe.ts";

/** The recipe with every model reference replaced by `change` of it; everything else stays. */
export function mapModelRefs(recipe: Recipe, change: (ref: ModelRef) => ModelRef): Recipe {
  const entry = <M extends RecipeModel>(model: M): M => ({ ...model, model: change(model.model) });
  const { body, baseModel } = recipe;
  return {
    ...recipe,
    ...(baseModel === undefined ? {} : { baseModel: change(baseModel) }),
    body:
      body.kind === "models"
        ? { kind: "models", models: body.models.map(entry) }
        : {
            kind: "slices",
            slices: body.slices.map((slice) => ({
              ...slice,
              ...(slice.baseModel === undefined ? {} : { baseModel: change(slice.baseModel) }),
              sources: slice.sources.map(entry),
            })),
          },
  };
}

/** Every model reference of a recipe, in the order written, the base first; repeats included. */
export function modelRefsOf(recipe: Recipe): ModelRef[] {
  const refs: ModelRef[] = [];
  mapModelRefs(recipe, (ref) => {
    refs.push(ref);
    return ref;
  });
  return refs;
}
