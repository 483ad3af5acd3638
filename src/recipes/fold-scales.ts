import { layerPathOf } from "./layer-path.ts";
import type { FilteredSetting, Recipe } from "./recipe.ts";

/**
 * Families in which every sublayer reads the hidden state through a norm and adds to it through one projection: names of the
 * norms, and of the projections. `not` tells families apart that put further norms behind the projections.
 */
const families = [
  {
    norms: ["input_layernorm", "post_attention_layernorm"],
    projections: ["o_proj", "down_proj"],
    not: ["pre_feedforward_layernorm", "post_feedforward_layernorm", "experts."],
  },
  { norms: ["ln_1", "ln_2"], projections: ["attn.c_proj", "mlp.c_proj"], not: ["experts."] },
] as const;

/**
 * A walk with scaled inputs as a plain `passthrough` recipe, where that is possible: a norm does not see the size of what it
 * normalizes (its epsilon aside), so instead of the hidden state growing by the product S of all factors so far, what later
 * sublayers add to it shrinks by S.
 *
 * @param tensors names of the models' tensors
 * @returns the recipe, or why there is none
 */
export function foldScales(recipe: Recipe, tensors: Iterable<string>): Recipe | string {
  const path = layerPathOf(recipe);
  if (path === undefined) return "the recipe is no walk through layers";
  const { steps, outer } = path;
  const ends = [steps[0], steps.at(-1)].map((step) => step?.model.model);
  if (outer !== undefined && ends.some((model) => model !== outer.model)) {
    return "embedding and head are of another model than the first and last layer";
  }
  if (recipe.mergeMethod === "passthrough") return recipe;
  if (steps.every(({ scale }) => scale === 1)) {
    const { baseModel: _outer, ...plain } = recipe;
    return { ...plain, mergeMethod: "passthrough" };
  }
  const names = [...tensors];
  const has = (word: string): boolean => names.some((name) => name.includes(word));
  const family = families.find(
    ({ norms, projections, not }) => [...norms, ...projections].every(has) && !not.some(has),
  );
  if (family === undefined) {
    return "factors on the hidden state cannot be folded into weights of this architecture";
  }
  let product = 1;
  const slices = steps.map(({ model, layer, scale }) => {
    product *= scale;
    const settings: FilteredSetting[] = [
      ...family.projections.map((filter) => ({ filter, value: 1 / product })),
      { value: 1 },
    ];
    const parameters = product === 1 ? {} : { scale: settings };
    return {
      sources: [{ model, layerRange: [layer, layer + 1] as const, parameters }],
      parameters: {},
    };
  });
  const { baseModel: _base, ...rest } = recipe;
  return { ...rest, mergeMethod: "passthrough", body: { kind: "slices", slices } };
}
