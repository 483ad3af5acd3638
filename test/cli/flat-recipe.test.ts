import { expect, it } from "vitest";
import { flatRecipe, recipesSideBySide } from "../../src/cli/flat-recipe.ts";
import { parseRecipe } from "../../src/recipes/parse.ts";

const recipe = (text: string) => parseRecipe(text, "recipe.yml").recipe;

const ties = recipe(`
merge_method: ties
base_model: base
models:
  - model: a
    parameters: { weight: [{ filter: mlp, value: 0.3 }, { value: 0.5 }], density: 0.2 }
  - model: b
    parameters: { weight: 0.4, density: [0.1, 0.9] }
parameters: { normalize: true }
`);

const slices = recipe(`
merge_method: linear
slices:
  - sources:
      - { model: a, layer_range: [0, 2], parameters: { weight: 1 } }
      - { model: b, layer_range: [1, 3], parameters: { weight: [{ filter: mlp, value: 1 }, { filter: mlp, value: 2 }] } }
  - sources: [{ model: a, layer_range: [0, 1], parameters: { weight: 1 } }]
`);

it("names every setting by model and filter", () => {
  expect(Object.fromEntries(flatRecipe(ties))).toEqual({
    merge_method: "ties",
    base_model: "base",
    "models[a].model": "a",
    "models[a].parameters.weight[mlp].value": "0.3",
    "models[a].parameters.weight[*].value": "0.5",
    "models[a].parameters.density": "0.2",
    "models[b].model": "b",
    "models[b].parameters.weight": "0.4",
    "models[b].parameters.density": "[0.1,0.9]",
    "parameters.normalize": "true",
  });
});

it("keeps slices and repeated filters apart", () => {
  const settings = flatRecipe(slices);
  expect(settings.get("slices[0].sources[a].layer_range")).toBe("[0,2]");
  expect(settings.get("slices[1].sources[a].layer_range")).toBe("[0,1]");
  expect(settings.get("slices[0].sources[b].parameters.weight[mlp].value")).toBe("1");
  expect(settings.get("slices[0].sources[b].parameters.weight[mlp#2].value")).toBe("2");
});

it("says which settings differ, and which recipes lack one", () => {
  const rows = recipesSideBySide([ties, slices]);
  expect(rows[0]).toEqual({
    setting: "merge_method",
    values: ["ties", "linear"],
    differs: true,
  });
  expect(rows).toContainEqual({
    setting: "parameters.normalize",
    values: ["true", undefined],
    differs: true,
  });
  expect(recipesSideBySide([ties, ties]).some(({ differs }) => differs)).toBe(false);
});
