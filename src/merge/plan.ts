import type { ModelRef } from "../recipes/recipe.ts";
import type { Dtype } from "../tensors/dtype.ts";
import type { ModelTensor } from "../tensors/model-reader.ts";
import type { Shape } from "../tensors/shape.ts";

/**
 * One tensor as the models of a recipe have it: which model calls it what, and whether it can be merged.
 *
 * A tensor that only some of the models have lists only these: a recipe whose slices never ask for the others is fine.
 */
export interface PlannedTensor {
  /** Name in the output; the base's name where models differ. Layer indices are those of the models, before `slices`. */
  readonly name: string;
  readonly shape: Shape;
  /** Stored dtype of the output when the recipe names none: the widest float of the sources. */
  readonly dtype: Dtype;
  readonly action: "merge" | "copy";
  /** Why, as one clause for the coverage report. */
  readonly reason: string;
  /** Model id → that model's tensor, logical shape equal to `shape`. */
  readonly sources: ReadonlyMap<string, ModelTensor>;
  /** Whose elements are copied when `action` is `copy`; absent: the base's, else the first source's. */
  readonly copyFrom?: string;
}

/** How the tensors of several models correspond. Produced by matching, consumed by `compileRecipe`. */
export interface MergePlan {
  /** In natural order of names, each name once. */
  readonly tensors: readonly PlannedTensor[];
  /** Model id of the base, the donor of copied tensors. */
  readonly base?: string;
}

/** What a recipe is compiled against. Plain data: travels to workers. */
export interface MergeInputs extends MergePlan {
  /**
   * Model id → the identity that seeds random masks, when it should not be the id itself (a digest, or the name under
   * which the search knew the model), so that a recipe keeps its weights when its models are referred to differently.
   */
  readonly identities?: ReadonlyMap<string, string>;
}

/** The id of a model reference: `path[@revision][+lora]`, mergekit's spelling. Keys of plans, sources and masks. */
export function modelIdOf(ref: ModelRef): string {
  const revision = ref.revision === undefined ? "" : `@${ref.revision}`;
  const lora = ref.lora === undefined ? "" : `+${ref.lora}`;
  return `${ref.model}${revision}${lora}`;
}
