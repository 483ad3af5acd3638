import { openGraph, type SharedSetup } from "../../src/evaluation/host-setup.ts";
import type { EvaluationPlan } from "../../src/evaluation/plan.ts";
import { weightSourceOf } from "../../src/evaluation/shared-weights.ts";
import { writeOnnx } from "../../src/formats/onnx/write-onnx.ts";
import { compileRecipe } from "../../src/merge/compile.ts";
import { kernelBytesFor, materializeBytes } from "../../src/merge/materialize.ts";
import type { Recipe } from "../../src/recipes/recipe.ts";
import { dtypeBytes } from "../../src/tensors/dtype.ts";
import { createKernels } from "../../src/tensors/wasm-kernels.ts";

/** Writes the model that a recipe makes, as the plan's graph with float32 weights inside. */
export async function exportModel(
  plan: EvaluationPlan,
  { inputs, weights }: SharedSetup,
  recipe: Recipe,
  path: string,
): Promise<void> {
  const compiled = compileRecipe({ ...recipe, outDtype: "float32" }, inputs);
  const kernels = createKernels({ bytes: kernelBytesFor(compiled) });
  const source = weightSourceOf(weights);
  const { reader } = openGraph(plan);
  try {
    const replace = new Map(
      compiled.tensors
        .map(({ name, length, dtype }, index) => {
          const bytes = new Uint8Array(length * dtypeBytes[dtype]);
          materializeBytes(compiled, index, {
            kernels,
            source,
            write: (start, block) => bytes.set(block, start * dtypeBytes[dtype]),
          });
          const read = (start: number, target: Uint8Array): void => {
            const from = start * dtypeBytes[dtype];
            target.set(bytes.subarray(from, from + target.length));
          };
          return [name, { dtype, read }] as const;
        })
        .filter(([name]) => reader.find(name) !== undefined),
    );
    await writeOnnx(reader, path, replace);
  } finally {
    reader.close();
  }
}
