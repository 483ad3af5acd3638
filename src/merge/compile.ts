import { MendelError } from "../base/errors.ts";
import { suggestion } from "../base/suggest.ts";
import type { Recipe, RecipeDtype } from "../recipes/recipe.ts";
import { selectTensors, unmatchedPattern } from "../recipes/tensor-groups.ts";
import { type Dtype, isFloat } from "../tensors/dtype.ts";
import type { ModelTensor } from "../tensors/model-reader.ts";
import { elementCount, formatShape, type Shape, sameShape } from "../tensors/shape.ts";
import { mergeMethods } from "./index.ts";
import type { MergeMethod, TensorParameters } from "./method.ts";
import { lookupParameters, unusedSettings } from "./parameters.ts";
import { type MergeInputs, modelIdOf } from "./plan.ts";
import { type Draft, type DraftTensor, draftTensors, type Section } from "./sections.ts";

/** One tensor of one model. */
export interface CompiledInput {
  readonly modelId: string;
  readonly tensor: ModelTensor;
}

interface OutputTensor {
  readonly name: string;
  readonly shape: Shape;
  readonly length: number;
  /** Dtype in which the tensor is written. */
  readonly dtype: Dtype;
  /** For the coverage report. */
  readonly reason: string;
}

export interface MergedTensor extends OutputTensor {
  readonly action: "merge";
  readonly inputs: readonly CompiledInput[];
  readonly baseIndex: number | undefined;
  readonly parameters: TensorParameters;
  /** Flat position of the first element among all merged elements, in natural order of names. */
  readonly offset: number;
}

export interface CopiedTensor extends OutputTensor {
  readonly action: "copy";
  readonly source: CompiledInput;
}

export type CompiledTensor = MergedTensor | CopiedTensor;

/** A recipe with everything decided: what every output tensor is made of, and with which numbers. */
export interface CompiledRecipe {
  readonly method: MergeMethod;
  /** In natural order of names. */
  readonly tensors: readonly CompiledTensor[];
  readonly seed: number;
  readonly compat: boolean;
  /** Inputs are rounded to this dtype first; only under `compat`, where mergekit loads in it. */
  readonly inputDtype: "f16" | "bf16" | undefined;
  /** Model id → what seeds its random masks; the id itself where absent. */
  readonly identities: ReadonlyMap<string, string>;
  /** Number of output layers, when the recipe assembles them from slices. */
  readonly layers: number | undefined;
  /** Settings without effect, one sentence each. */
  readonly warnings: readonly string[];
}

/**
 * Decides everything about a merge before a single weight is read.
 *
 * @param inputs how the models' tensors correspond
 * @throws MendelError `invalid-config` for an unknown method, a wrong number of models, a missing base, parameters that are
 *   misspelt, missing or out of range, and patterns that match nothing; `mismatch` for tensors that a model lacks or that
 *   differ in shape; `unsupported` for an integer `dtype` and for slices of models with several stacks of layers
 */
export function compileRecipe(recipe: Recipe, inputs: MergeInputs): CompiledRecipe {
  const method = methodOf(recipe.mergeMethod);
  checkDtypes(recipe);
  checkModels(recipe, inputs);
  const draft = draftTensors(recipe, method, inputs);
  for (const section of draft.sections) checkArity(method, section);
  const warnings = unusedSettings(method, recipe, draft.sections);
  const frozen = frozenBy(recipe, draft);
  const frozenBase = frozen.size > 0 ? freezeBase(recipe, inputs) : undefined;

  let offset = 0;
  const tensors = draft.tensors.map((tensor): CompiledTensor => {
    const pattern = frozen.get(tensor.name);
    if (pattern !== undefined) {
      const source = frozenSource(tensor, inputs, frozenBase as string);
      return copied(recipe, tensor, source, `frozen by "${pattern}"`);
    }
    if (tensor.planned.action === "copy") {
      return copied(recipe, tensor, donorOf(tensor, inputs), tensor.planned.reason);
    }
    const result = merged(method, recipe, tensor, offset);
    offset += result.length;
    return result;
  });
  return {
    method,
    tensors,
    seed: recipe.seed,
    compat: recipe.compat === "mergekit",
    inputDtype: recipe.compat === "mergekit" ? narrowInput(recipe.dtype) : undefined,
    identities: inputs.identities ?? new Map(),
    layers: draft.layers,
    warnings,
  };
}

/** @throws MendelError `invalid-config` with a suggestion */
function methodOf(name: string): MergeMethod {
  const methods: Readonly<Record<string, MergeMethod>> = mergeMethods;
  const method = Object.hasOwn(methods, name) ? methods[name] : undefined;
  if (method !== undefined) return method;
  throw new MendelError("invalid-config", `unknown merge method "${name}"`, {
    hint: suggestion(name, Object.keys(methods)),
    where: { key: "merge_method" },
  });
}

/** A recipe's dtype names in ours. */
const floatDtypes: Readonly<Record<Exclude<RecipeDtype, "int64">, Dtype>> = {
  float32: "f32",
  float16: "f16",
  bfloat16: "bf16",
  float64: "f64",
};

function checkDtypes(recipe: Recipe): void {
  for (const key of ["dtype", "outDtype"] as const) {
    if (recipe[key] !== "int64") continue;
    throw new MendelError("unsupported", "weights cannot be merged as int64", {
      hint: `choose one of ${Object.keys(floatDtypes).join(", ")}`,
      where: { key: key === "dtype" ? "dtype" : "out_dtype" },
    });
  }
}

function recipeDtype(recipe: Recipe): Dtype | undefined {
  const named = recipe.outDtype ?? recipe.dtype;
  return named === undefined || named === "int64" ? undefined : floatDtypes[named];
}

function narrowInput(dtype: RecipeDtype | undefined): "f16" | "bf16" | undefined {
  if (dtype === "float16") return "f16";
  return dtype === "bfloat16" ? "bf16" : undefined;
}

/** Every model of the recipe must be one of the plan's: a wrong id would otherwise look like a model without tensors. */
function checkModels(recipe: Recipe, inputs: MergeInputs): void {
  const known = modelsOf(inputs);
  const { body } = recipe;
  const used =
    body.kind === "models"
      ? body.models
      : body.slices.flatMap((slice) => [
          ...slice.sources,
          ...(slice.baseModel === undefined ? [] : [{ model: slice.baseModel }]),
        ]);
  const refs = [
    ...used.map(({ model }) => model),
    ...(recipe.baseModel === undefined ? [] : [recipe.baseModel]),
  ];
  for (const id of refs.map(modelIdOf)) {
    if (known.has(id)) continue;
    throw new MendelError("invalid-config", `the recipe uses a model that is not there: ${id}`, {
      hint: suggestion(id, known),
      where: { key: "models" },
    });
  }
}

/** A search compiles thousands of recipes against one plan. */
const knownModels = new WeakMap<MergeInputs["tensors"], ReadonlySet<string>>();

function modelsOf({ tensors }: MergeInputs): ReadonlySet<string> {
  const known = knownModels.get(tensors);
  if (known !== undefined) return known;
  const models = new Set(tensors.flatMap(({ sources }) => [...sources.keys()]));
  knownModels.set(tensors, models);
  return models;
}

/** mergekit's rules on the number of models and the base, per section. */
function checkArity(method: MergeMethod, section: Section): void {
  const ids = section.sources.map(({ modelId }) => modelId);
  const fault = (message: string, hint: string): MendelError =>
    new MendelError("invalid-config", `${section.label}: ${message}`, { hint });
  const twice = ids.find((id, i) => ids.indexOf(id) !== i);
  if (twice !== undefined) throw fault(`${twice} is given twice`, "list every model once");
  const hasBase = method.base !== "none" && section.baseId !== undefined;
  if (method.base === "required") {
    if (!hasBase) {
      throw fault(`${method.name} needs a base`, "name it with base_model");
    }
    if (!ids.includes(section.baseId as string)) {
      throw fault(
        `${method.name} needs the base ${section.baseId} among the sources`,
        "slices do not add base_model by themselves: list it in every slice",
      );
    }
  }
  const others = hasBase ? ids.filter((id) => id !== section.baseId) : ids;
  const [low, high] = method.inputs;
  if (others.length >= low && others.length <= high) return;
  const besides = method.base === "none" ? "" : " besides the base";
  const count =
    low === high ? `exactly ${low}` : high < Infinity ? `${low} to ${high}` : `at least ${low}`;
  throw fault(
    `${method.name} takes ${count} model${low === 1 && high <= 1 ? "" : "s"}${besides}, got ${others.length}: ${others.join(", ") || "none"}`,
    baseHint(method, section),
  );
}

function baseHint(method: MergeMethod, section: Section): string {
  if (section.baseId === undefined || method.base !== "none") return "add or remove models";
  return `${method.name} has no base: base_model counts as one of the models`;
}

/** Output name → the pattern that freezes it. */
function frozenBy(recipe: Recipe, draft: Draft): ReadonlyMap<string, string> {
  const names = draft.tensors.map(({ name }) => name);
  const frozen = new Map<string, string>();
  for (const pattern of recipe.freeze) {
    const matched = selectTensors(names, pattern);
    if (matched.length === 0) throw unmatchedPattern(names, pattern, "freeze");
    for (const name of matched) if (!frozen.has(name)) frozen.set(name, pattern);
  }
  return frozen;
}

function freezeBase(recipe: Recipe, inputs: MergeInputs): string {
  const base = recipe.baseModel === undefined ? inputs.base : modelIdOf(recipe.baseModel);
  if (base !== undefined) return base;
  throw new MendelError(
    "invalid-config",
    "freeze copies tensors from the base, but there is none",
    {
      hint: "name the base with base_model",
      where: { key: "freeze" },
    },
  );
}

/** The base's tensor: at its own layer where the slice lists the base, else under the output's name. */
function frozenSource(draft: DraftTensor, inputs: MergeInputs, base: string): CompiledInput {
  const listed = draft.inputs.find(({ modelId }) => modelId === base)?.tensor;
  const tensor =
    listed ?? inputs.tensors.find(({ name }) => name === draft.name)?.sources.get(base);
  if (tensor !== undefined) return { modelId: base, tensor };
  // Matching has chosen a donor for what the base does not have (the head of a task on a bare trunk).
  const { action, copyFrom } = draft.planned;
  if (action === "copy" && copyFrom !== undefined) return donorOf(draft, inputs);
  throw new MendelError(
    "mismatch",
    `${draft.name} is frozen, but the base ${base} does not have it`,
    {
      where: { tensor: draft.name, key: "freeze" },
    },
  );
}

/** Whose elements are copied: the plan's choice, the base, the first model that has the tensor. */
function donorOf(draft: DraftTensor, inputs: MergeInputs): CompiledInput {
  const { planned, section } = draft;
  const own = (modelId: string | undefined): CompiledInput | undefined => {
    if (modelId === undefined) return undefined;
    const tensor =
      draft.inputs.find((input) => input.modelId === modelId)?.tensor ??
      planned.sources.get(modelId);
    return tensor === undefined ? undefined : { modelId, tensor };
  };
  const preferred = [planned.copyFrom, section.baseId, inputs.base];
  const candidates = [...preferred, ...draft.inputs.map(({ modelId }) => modelId)];
  for (const candidate of candidates) {
    const source = own(candidate);
    if (source !== undefined) return source;
  }
  throw new MendelError("mismatch", `no model of this recipe has ${draft.name} to copy from`, {
    where: { tensor: draft.name },
  });
}

function copied(
  recipe: Recipe,
  draft: DraftTensor,
  source: CompiledInput,
  reason: string,
): CopiedTensor {
  const { shape, dtype } = source.tensor;
  return {
    action: "copy",
    name: draft.name,
    shape,
    length: elementCount(shape),
    dtype: isFloat(dtype) ? (recipeDtype(recipe) ?? dtype) : dtype,
    reason,
    source,
  };
}

function merged(
  method: MergeMethod,
  recipe: Recipe,
  draft: DraftTensor,
  offset: number,
): MergedTensor {
  const inputs = draft.inputs.map(({ modelId, tensor }): CompiledInput => {
    if (tensor !== undefined) return { modelId, tensor };
    throw new MendelError("mismatch", `${modelId} does not have ${draft.name}`, {
      hint: "leave the model out, freeze the tensor, or merge models of one family",
      where: { tensor: draft.name },
    });
  });
  const shape = (inputs[0] as CompiledInput).tensor.shape;
  for (const { modelId, tensor } of inputs) {
    if (sameShape(tensor.shape, shape)) continue;
    throw new MendelError(
      "mismatch",
      `${draft.name} is ${formatShape(shape)} in ${inputs[0]?.modelId} but ${formatShape(tensor.shape)} in ${modelId}`,
      { where: { tensor: draft.name } },
    );
  }
  const position =
    method.base === "none" ? -1 : inputs.findIndex((i) => i.modelId === draft.section.baseId);
  const baseIndex = position < 0 ? undefined : position;
  return {
    action: "merge",
    name: draft.name,
    shape,
    length: elementCount(shape),
    dtype: recipeDtype(recipe) ?? widest(inputs.map(({ tensor }) => tensor.dtype)),
    reason: draft.planned.reason,
    inputs,
    baseIndex,
    parameters: lookupParameters(method, recipe, draft, baseIndex),
    offset,
  };
}

/** The dtype that holds all of these: float16 and bfloat16 together need float32. */
function widest(dtypes: readonly Dtype[]): Dtype {
  const distinct = new Set(dtypes);
  if (distinct.has("f64")) return "f64";
  if (distinct.size === 1) return dtypes[0] as Dtype;
  return "f32";
}
