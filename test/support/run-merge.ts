import { type CompiledRecipe, compileRecipe } from "../../src/merge/compile.ts";
import {
  kernelBytesFor,
  materializeBytes,
  materializeTensor,
  type WeightSource,
} from "../../src/merge/materialize.ts";
import type { MergeInputs } from "../../src/merge/plan.ts";
import { parseRecipe } from "../../src/recipes/parse.ts";
import type { Recipe } from "../../src/recipes/recipe.ts";
import { type Dtype, dtypeBytes } from "../../src/tensors/dtype.ts";
import type { Kernels } from "../../src/tensors/kernels.ts";
import { createKernels } from "../../src/tensors/wasm-kernels.ts";
import { type MemoryModels, memoryPlan, memorySource } from "./memory-models.ts";

/** A merged tensor as it would be written, and its values. */
export interface MergedOutput {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** Every tensor of a compiled recipe in its written dtype. */
export function mergeAll(
  compiled: CompiledRecipe,
  source: WeightSource,
  create: (options: { bytes: number }) => Kernels = createKernels,
): Map<string, MergedOutput> {
  const kernels = create({ bytes: kernelBytesFor(compiled) });
  return new Map(
    compiled.tensors.map((tensor, index) => {
      const width = dtypeBytes[tensor.dtype];
      const bytes = new Uint8Array(tensor.length * width);
      materializeBytes(compiled, index, {
        kernels,
        source,
        write: (start, block) => bytes.set(block, start * width),
      });
      return [tensor.name, { dtype: tensor.dtype, shape: tensor.shape, bytes }];
    }),
  );
}

/** Every float tensor of a compiled recipe as float32. */
export function mergeToFloat32(
  compiled: CompiledRecipe,
  source: WeightSource,
  create: (options: { bytes: number }) => Kernels = createKernels,
): Map<string, Float32Array> {
  const kernels = create({ bytes: kernelBytesFor(compiled) });
  return new Map(
    compiled.tensors.map((tensor, index) => {
      const values = new Float32Array(tensor.length);
      const store = (start: number, block: Float32Array): void => values.set(block, start);
      materializeTensor(compiled, index, { kernels, source, store });
      return [tensor.name, values];
    }),
  );
}

/** Merges models in memory by a recipe's text, or a recipe. */
export function mergeMemory(
  recipe: string | Recipe,
  models: MemoryModels,
  plan: MergeInputs = memoryPlan(models),
): Map<string, Float32Array> {
  const parsed = typeof recipe === "string" ? parseRecipe(recipe, "recipe.yml").recipe : recipe;
  return mergeToFloat32(compileRecipe(parsed, plan), memorySource(models));
}
