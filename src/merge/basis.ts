import type { CompiledInput, CompiledRecipe, MergedTensor } from "./compile.ts";
import type { BasisJob, DerivedEntry } from "./method.ts";

/** A row of a stack: a tensor of a model, or what a method derives from it. */
export interface BasisEntry {
  /** Equal keys have equal elements. */
  readonly key: string;
  readonly source: CompiledInput;
  readonly derived: DerivedEntry | undefined;
}

export interface EntryTerm {
  readonly entry: BasisEntry;
  readonly coefficient: number;
}

/** Key of a model's tensor taken as it is. */
export function plainKey({ modelId, tensor }: CompiledInput): string {
  return `${modelId}\u0000${tensor.name}`;
}

/**
 * A tensor of a recipe as a weighted sum over entries that do not depend on the recipe's coefficients.
 *
 * @param gram ⟨a, b⟩ of two source tensors
 * @returns undefined where the method has no such form with these parameters
 */
export function basisTerms(
  compiled: CompiledRecipe,
  index: number,
  gram: (a: CompiledInput, b: CompiledInput) => number,
): readonly EntryTerm[] | undefined {
  const tensor = compiled.tensors[index];
  if (tensor === undefined) throw new Error(`no tensor ${index} of ${compiled.tensors.length}`);
  // Inputs that are rounded first are other arrays than the models'.
  if (compiled.inputDtype !== undefined) return undefined;
  if (tensor.action === "copy") return [{ entry: plainEntry(tensor.source), coefficient: 1 }];
  const terms = compiled.method.basis?.(basisJob(compiled, tensor, gram));
  return terms?.map(({ input, coefficient, derived }) => ({
    coefficient,
    entry: entryOf(tensor, input, derived),
  }));
}

/** The entry that is a model's tensor as it is. */
export function plainEntry(source: CompiledInput): BasisEntry {
  return { key: plainKey(source), source, derived: undefined };
}

function entryOf(
  tensor: MergedTensor,
  input: number,
  derived: DerivedEntry | undefined,
): BasisEntry {
  const source = tensor.inputs[input]!;
  if (derived === undefined) return plainEntry(source);
  // A derived entry may look at the base as well.
  const base = tensor.baseIndex === undefined ? "" : plainKey(tensor.inputs[tensor.baseIndex]!);
  return { key: [plainKey(source), base, derived.key].join("\u0000"), source, derived };
}

function basisJob(
  compiled: CompiledRecipe,
  tensor: MergedTensor,
  gram: (a: CompiledInput, b: CompiledInput) => number,
): BasisJob {
  const { name, shape, length, baseIndex, parameters, offset, inputs } = tensor;
  return {
    name,
    shape,
    length,
    baseIndex,
    parameters,
    offset,
    seed: compiled.seed,
    compat: compiled.compat,
    inputs: inputs.map(({ modelId }) => ({
      modelId: compiled.identities.get(modelId) ?? modelId,
    })),
    gram: (a, b) => gram(inputs[a]!, inputs[b]!),
  };
}
