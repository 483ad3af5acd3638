import { MendelError } from "../base/errors.ts";
import type { OnnxReader } from "../formats/onnx/open-onnx.ts";
import { basisTerms, plainKey } from "../merge/basis.ts";
import {
  type CompiledInput,
  type CompiledRecipe,
  compileRecipe,
  type MergedTensor,
} from "../merge/compile.ts";
import { kernelBytesFor, materializeTensor, type WeightSource } from "../merge/materialize.ts";
import type { MergeInputs } from "../merge/plan.ts";
import type { Recipe } from "../recipes/recipe.ts";
import { createKernels } from "../tensors/wasm-kernels.ts";
import { type BasisStack, openBasisStack } from "./basis-stack.ts";
import type { Program } from "./program.ts";
import { createMappedSession, type Feeds } from "./session.ts";

export interface BasisOptions {
  readonly graph: OnnxReader;
  readonly inputs: MergeInputs;
  readonly source: WeightSource;
  readonly sourceDigest: string;
  readonly names: ReadonlyMap<string, string>;
  /** Recipes like those to come; see `BasisStackOptions`. */
  readonly samples: readonly Recipe[];
  /** The program for recipes that no stack serves; opened when the first one comes. */
  fallback(): Promise<Program>;
  readonly cache?: string;
}

/**
 * Sums inside the graph: W_t = Σ_k c[t,k]·S[t,k] over a stack of constant tensors that all workers and processes map from one
 * file. A candidate is a vector of coefficients; its weights exist only while the graph runs. A recipe that is not such a sum
 * over the stack goes to the fallback.
 *
 * @throws MendelError `unsupported` when the graph allows no stack; `resource` when the stack cannot be written
 */
export async function openBasisProgram(options: BasisOptions): Promise<Program> {
  const { inputs } = options;
  const stack = openBasisStack(options);
  const session = await createMappedSession(stack.modelPath);
  const gram = gramCache(options.source);
  let fallback: Promise<Program> | undefined;
  let current:
    | ((feeds: Feeds, outputs: readonly string[]) => ReturnType<Program["run"]>)
    | undefined;
  return {
    kind: "basis",
    signature: {
      inputs: session.signature.inputs.filter(({ name }) => name !== stack.coefficients),
      outputs: session.signature.outputs,
    },
    async load(recipe) {
      current = undefined;
      const compiled = compileRecipe(recipe, inputs);
      const coefficients = coefficientsOf(compiled, stack, (a, b) => gram(compiled, a, b));
      if (coefficients === undefined) {
        fallback ??= options.fallback();
        const other = await fallback;
        await other.load(recipe);
        current = other.run;
        return;
      }
      const feed = {
        type: "float32",
        dims: [coefficients.length],
        data: coefficients,
      } as const;
      current = (feeds, outputs) => session.run({ ...feeds, [stack.coefficients]: feed }, outputs);
    },
    run(feeds, outputs) {
      if (current === undefined) throw new Error("no candidate is loaded");
      return current(feeds, outputs);
    },
    async release() {
      await session.release();
      await (await fallback)?.release();
    },
  };
}

/**
 * The coefficients of a recipe over a stack.
 *
 * @returns undefined when the recipe is not a sum over the stack's entries
 * @throws MendelError `non-finite` naming the tensor of a coefficient that float32 cannot hold
 */
export function coefficientsOf(
  compiled: CompiledRecipe,
  stack: BasisStack,
  gram: (a: CompiledInput, b: CompiledInput) => number,
): Float32Array | undefined {
  const coefficients = new Float32Array(stack.coefficientCount);
  let missing = stack.rows.size + stack.constants.size;
  for (let index = 0; index < compiled.tensors.length; index++) {
    const tensor = compiled.tensors[index]!;
    const constant = stack.constants.get(tensor.name);
    if (constant !== undefined) {
      if (tensor.action !== "copy" || plainKey(tensor.source) !== constant) return undefined;
      missing -= 1;
      continue;
    }
    const row = stack.rows.get(tensor.name);
    if (row === undefined) {
      // Not in the graph: whatever becomes of it, no output depends on it. A merged one is one layer too many.
      if (tensor.action === "merge") return undefined;
      continue;
    }
    const terms = basisTerms(compiled, index, gram);
    if (terms === undefined) return undefined;
    for (const { entry, coefficient } of terms) {
      // What does not count need not be in the stack.
      if (coefficient === 0) continue;
      const position = row.positions.get(entry.key);
      if (position === undefined) return undefined;
      const at = row.firstCoefficient + position;
      coefficients[at] = coefficients[at]! + coefficient;
      if (!Number.isFinite(coefficients[at])) throw nonFinite(compiled, tensor.name);
    }
    missing -= 1;
  }
  return missing === 0 ? coefficients : undefined;
}

function nonFinite(compiled: CompiledRecipe, tensor: string): MendelError {
  return new MendelError(
    "non-finite",
    `${compiled.method.name} has a coefficient for ${tensor} that is not a finite number`,
    { where: { tensor } },
  );
}

/** Gram entries, each computed once from the source weights, with the reductions that `merge` uses. */
function gramCache(
  source: WeightSource,
): (compiled: CompiledRecipe, a: CompiledInput, b: CompiledInput) => number {
  const known = new Map<string, number>();
  return (compiled, a, b) => {
    const key = [plainKey(a), plainKey(b)].sort().join("\u0000");
    const found = known.get(key);
    if (found !== undefined) return found;
    const value = innerProduct(compiled, a, b, source);
    known.set(key, value);
    return value;
  };
}

function innerProduct(
  compiled: CompiledRecipe,
  a: CompiledInput,
  b: CompiledInput,
  source: WeightSource,
): number {
  const owner = compiled.tensors.findIndex(
    (tensor) => tensor.action === "merge" && tensor.inputs.includes(a) && tensor.inputs.includes(b),
  );
  const tensor = compiled.tensors[owner];
  if (tensor?.action !== "merge") throw new Error("a Gram entry of tensors that are not merged");
  let sum = 0;
  const pair: MergedTensor = { ...tensor, inputs: [a, b] };
  const only: CompiledRecipe = {
    ...compiled,
    tensors: [pair],
    method: {
      ...compiled.method,
      merge(job) {
        const x = job.kernels.float32(Math.min(job.blockLength, job.length));
        const y = job.kernels.float32(Math.min(job.blockLength, job.length));
        for (let start = 0; start < job.length; start += job.blockLength) {
          const length = Math.min(job.blockLength, job.length - start);
          const [left, right] = [x.subarray(0, length), y.subarray(0, length)];
          job.inputs[0]!.load(start, left);
          job.inputs[1]!.load(start, right);
          sum += job.kernels.dot(left, right);
        }
      },
    },
  };
  const kernels = createKernels({ bytes: kernelBytesFor(only) });
  materializeTensor(only, 0, { kernels, source, store: () => {} });
  return sum;
}
