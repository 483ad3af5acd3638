/**
 * A recipe: how one model is made. This is mergekit's YAML language as plain data (described in `docs/recipes.md`),
 * with our own methods under our own names.
 */

/** A number, a gradient over layers, or values by tensor-name filter (first match wins). */
export type Setting = number | readonly number[] | readonly FilteredSetting[];

/** `filter` is a plain substring of the tensor's name; absent or "*" matches all. */
export interface FilteredSetting {
  readonly filter?: string;
  readonly value: number | readonly number[];
}

/** Parameter name → setting. Booleans are 0 and 1. */
export type Settings = Readonly<Record<string, Setting>>;

/** A model reference: a path or a short name, with an optional LoRA adapter on top. */
export interface ModelRef {
  readonly model: string;
  readonly revision?: string;
  readonly lora?: string;
}

/** Keys that have no effect, kept as they were written so that a recipe survives reading and writing. */
export type Extra = Readonly<Record<string, unknown>>;

export interface RecipeModel {
  readonly model: ModelRef;
  readonly parameters: Settings;
  readonly extra?: Extra;
}

export interface RecipeSource extends RecipeModel {
  /** [start, end) of the source model's layers. */
  readonly layerRange: readonly [number, number];
}

export interface RecipeSlice {
  readonly sources: readonly RecipeSource[];
  readonly baseModel?: ModelRef;
  readonly parameters: Settings;
  readonly extra?: Extra;
}

export type RecipeDtype = "float32" | "float16" | "bfloat16" | "float64" | "int64";

/** What is merged: whole models, or slices of layers. Exactly one of the two. */
export type RecipeBody =
  | { readonly kind: "models"; readonly models: readonly RecipeModel[] }
  | { readonly kind: "slices"; readonly slices: readonly RecipeSlice[] };

export interface Recipe {
  readonly mergeMethod: string;
  readonly body: RecipeBody;
  readonly baseModel?: ModelRef;
  readonly parameters: Settings;
  readonly dtype?: RecipeDtype;
  readonly outDtype?: RecipeDtype;
  /** Seed of random masks (DARE); part of the recipe's digest, because it is part of what the weights are. */
  readonly seed: number;
  /** Follow the reference implementation where it departs from the papers. */
  readonly compat?: "mergekit";
  /** Tensors copied from the base: glob patterns over logical names. Our extension. */
  readonly freeze: readonly string[];
  readonly name?: string;
  /** Tokenizer and chat-template keys, kept as they were written. */
  readonly passthrough: Readonly<Record<string, unknown>>;
  readonly extra?: Extra;
}
