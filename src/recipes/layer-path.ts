import type { ModelRef, Recipe, RecipeSlice } from "./recipe.ts";

/** The method of recipes whose layers are entered with a scaled hidden state: `passthrough` with one more parameter. */
export const layersMethod = "layers";
/** Slice parameter: factor on the hidden state that enters the slice's first layer. */
export const inputScale = "input_scale";

/** One step of a walk through blocks. */
export interface LayerStep {
  /** Whose block. */
  readonly model: ModelRef;
  /** Its number in that model, from 0. */
  readonly layer: number;
  /** Factor on the hidden state that enters it. */
  readonly scale: number;
}

/** A walk as a recipe tells it. */
export interface LayerPath {
  readonly steps: readonly LayerStep[];
  /** Whose embedding and head; absent: the first and the last step's model, as mergekit has it. */
  readonly outer: ModelRef | undefined;
}

/**
 * The recipe of a walk, the same for equal walks: neighboring layers of one model make one slice, and a walk without scales
 * is a plain `passthrough` recipe where that says the same.
 *
 * @param outer whose embedding and head
 */
export function layerRecipe(
  steps: readonly LayerStep[],
  outer: ModelRef,
  common: Pick<Recipe, "seed" | "compat">,
): Recipe {
  const slices: RecipeSlice[] = [];
  for (const { model, layer, scale } of steps) {
    const last = slices.at(-1)?.sources[0];
    if (
      last !== undefined &&
      scale === 1 &&
      same(last.model, model) &&
      last.layerRange[1] === layer
    ) {
      const source = { ...last, layerRange: [last.layerRange[0], layer + 1] as const };
      slices[slices.length - 1] = { ...(slices.at(-1) as RecipeSlice), sources: [source] };
      continue;
    }
    slices.push({
      sources: [{ model, layerRange: [layer, layer + 1], parameters: {} }],
      parameters: scale === 1 ? {} : { [inputScale]: scale },
    });
  }
  const ends = [steps[0], steps.at(-1)].every(
    (step) => step !== undefined && same(step.model, outer),
  );
  const plain = ends && steps.every(({ scale }) => scale === 1);
  return {
    mergeMethod: plain ? "passthrough" : layersMethod,
    body: { kind: "slices", slices },
    ...(ends ? {} : { baseModel: outer }),
    parameters: {},
    freeze: [],
    passthrough: {},
    ...common,
  };
}

/**
 * The walk that a recipe describes, or undefined when it is none: slices of one source each, without parameters but
 * `input_scale`.
 */
export function layerPathOf(recipe: Recipe): LayerPath | undefined {
  const { mergeMethod, body, parameters } = recipe;
  if (mergeMethod !== layersMethod && mergeMethod !== "passthrough") return undefined;
  if (body.kind !== "slices" || Object.keys(parameters).length > 0) return undefined;
  const steps: LayerStep[] = [];
  for (const slice of body.slices) {
    const [source, ...others] = slice.sources;
    if (source === undefined || others.length > 0) return undefined;
    if (Object.keys(source.parameters).length > 0) return undefined;
    const scale = scaleOf(slice);
    if (scale === undefined) return undefined;
    for (let layer = source.layerRange[0]; layer < source.layerRange[1]; layer++) {
      const first = layer === source.layerRange[0];
      steps.push({ model: source.model, layer, scale: first ? scale : 1 });
    }
  }
  return { steps, outer: mergeMethod === layersMethod ? recipe.baseModel : undefined };
}

function scaleOf({ parameters }: RecipeSlice): number | undefined {
  const { [inputScale]: scale = 1, ...others } = parameters;
  return typeof scale === "number" && Object.keys(others).length === 0 ? scale : undefined;
}

function same(a: ModelRef, b: ModelRef): boolean {
  return a.model === b.model && a.revision === b.revision && a.lora === b.lora;
}
