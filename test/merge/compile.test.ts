import { describe, expect, it } from "vitest";
import { MendelError } from "../../src/base/errors.ts";
import { type CompiledRecipe, compileRecipe, type MergedTensor } from "../../src/merge/compile.ts";
import type { MergeInputs, PlannedTensor } from "../../src/merge/plan.ts";
import { parseRecipe } from "../../src/recipes/parse.ts";
import { type MemoryModels, memoryModels, memoryPlan } from "../support/memory-models.ts";

/** Models of five layers in Llama's names, one element per tensor. */
function family(...ids: readonly string[]): MemoryModels {
  const tensors: Record<string, readonly number[]> = {
    "model.embed_tokens.weight": [1],
    "model.norm.weight": [2],
    "lm_head.weight": [3],
  };
  for (let i = 0; i < 5; i++) {
    tensors[`model.layers.${i}.mlp.up_proj.weight`] = [i];
    tensors[`model.layers.${i}.self_attn.q_proj.weight`] = [i];
  }
  return memoryModels(Object.fromEntries(ids.map((id) => [id, tensors])));
}

const compile = (text: string, inputs: MergeInputs = memoryPlan(family("base", "a", "b"))) =>
  compileRecipe(parseRecipe(text, "recipe.yml").recipe, inputs);

function merged(compiled: CompiledRecipe, name: string): MergedTensor {
  const tensor = compiled.tensors.find((candidate) => candidate.name === name);
  if (tensor?.action !== "merge") throw new Error(`${name} is not merged`);
  return tensor;
}

function refusal(text: string, inputs?: MergeInputs): MendelError {
  try {
    compile(text, inputs);
  } catch (error) {
    if (error instanceof MendelError) return error;
    throw error;
  }
  throw new Error("not refused");
}

const twoModels = "models: [{model: a, parameters: {weight: 1}}, {model: b}]";

describe("parameter lookup over a whole model", () => {
  it("follows the reference on gradients, filters and levels", () => {
    const compiled = compile(`
merge_method: ties
base_model: base
models:
  - {model: a, parameters: {weight: [0, 0.25, 0.5, 0.75, 1], lambda: 0.1}}
  - model: b
    parameters:
      weight: [{filter: mlp, value: [1, 0]}, {filter: lm_head, value: 7}, {value: 0.5}]
parameters: {lambda: [2, 3], density: 0.4}
`);
    const numbers = (name: string): readonly (number | undefined)[] => {
      const { parameters, baseIndex } = merged(compiled, name);
      expect(baseIndex).toBe(2);
      // The base needs no weight, and its record holds defaults alone.
      expect(parameters.models[2]).toEqual({ density: 1 });
      const [a, b] = parameters.models;
      expect([a?.["density"], b?.["density"]]).toEqual([0.4, 0.4]);
      return [parameters.global["lambda"], a?.["weight"], b?.["weight"]];
    };
    expect(numbers("model.embed_tokens.weight")).toEqual([2, 0, 0.5]);
    expect(numbers("model.norm.weight")).toEqual([2, 0, 0.5]);
    expect(numbers("lm_head.weight")).toEqual([2, 0, 7]);
    for (let i = 0; i < 5; i++) {
      const [lambda, weight] = [2 + 0.25 * i, 0.25 * i];
      expect(numbers(`model.layers.${i}.mlp.up_proj.weight`)).toEqual([lambda, weight, 1 - weight]);
      expect(numbers(`model.layers.${i}.self_attn.q_proj.weight`)).toEqual([lambda, weight, 0.5]);
    }
    expect(compiled.warnings).toEqual([expect.stringMatching(/"lambda" under a has no effect/)]);
  });

  it("gives filters under a source that source's own layer numbers", () => {
    const compiled = compile(`
merge_method: passthrough
slices:
  - sources: [{model: a, layer_range: [0, 2], parameters: {scale: [{filter: layers.1., value: 9}, {value: 1}]}}]
  - sources: [{model: b, layer_range: [1, 3], parameters: {scale: [{filter: layers.1., value: 5}, {value: 2}]}}]
  - sources: [{model: a, layer_range: [4, 5], parameters: {scale: [0.1, 0.2]}}]
`);
    const scale = (name: string) => merged(compiled, name).parameters.models[0]?.["scale"];
    expect(scale("model.embed_tokens.weight")).toBe(1);
    const layers = [0, 1, 2, 3, 4].map((i) => scale(`model.layers.${i}.mlp.up_proj.weight`));
    expect(layers).toEqual([1, 9, 5, 2, 0.2]);
    expect([scale("model.norm.weight"), scale("lm_head.weight")]).toEqual([0.1, 0.1]);
    expect(compiled.layers).toBe(5);
    const source = merged(compiled, "model.layers.4.mlp.up_proj.weight").inputs[0];
    expect([source?.modelId, source?.tensor.name]).toEqual([
      "a",
      "model.layers.4.mlp.up_proj.weight",
    ]);
    const moved = merged(compiled, "model.layers.2.mlp.up_proj.weight").inputs[0];
    expect(moved?.tensor.name).toBe("model.layers.1.mlp.up_proj.weight");
  });

  it("numbers the merged elements in natural order of names", () => {
    const compiled = compile(`
merge_method: linear
base_model: base
${twoModels}
parameters: {weight: 1}
freeze: [model.layers.1.*]
`);
    let expected = 0;
    for (const tensor of compiled.tensors) {
      if (tensor.action === "copy") continue;
      expect(tensor.offset).toBe(expected);
      expected += tensor.length;
    }
    expect(expected).toBe(11);
  });
});

describe("what is copied", () => {
  it("frozen tensors come from the base, which is then no input of a method without one", () => {
    const compiled = compile(`
merge_method: linear
base_model: base
${twoModels}
parameters: {weight: 1}
freeze: ["*norm*", "kind:head"]
`);
    const copies = compiled.tensors.filter(({ action }) => action === "copy");
    expect(copies.map(({ name, reason }) => [name, reason])).toEqual([
      ["lm_head.weight", 'frozen by "kind:head"'],
      ["model.norm.weight", 'frozen by "*norm*"'],
    ]);
    for (const copy of copies) {
      expect(copy.action === "copy" && copy.source.modelId).toBe("base");
    }
    expect(merged(compiled, "model.embed_tokens.weight").inputs.map((i) => i.modelId)).toEqual([
      "a",
      "b",
    ]);
  });

  it("without freezing, an unlisted base is averaged in, as the reference does", () => {
    const compiled = compile(`
merge_method: linear
base_model: base
${twoModels}
parameters: {weight: 1}
`);
    const { inputs, baseIndex } = merged(compiled, "lm_head.weight");
    expect(inputs.map(({ modelId }) => modelId)).toEqual(["a", "b", "base"]);
    expect(baseIndex).toBeUndefined();
  });

  it("what the plan copies comes from the plan's choice, the base, or the first that has it", () => {
    const plan = memoryPlan(family("base", "a", "b"));
    const copying = (change: Partial<PlannedTensor>): MergeInputs => ({
      tensors: plan.tensors.map((tensor) =>
        tensor.name === "lm_head.weight" ? { ...tensor, action: "copy", ...change } : tensor,
      ),
    });
    const donor = (inputs: MergeInputs, base: string): string | undefined => {
      const text = `merge_method: passthrough\n${base}models: [{model: a}]`;
      const found = compile(text, inputs).tensors.find(({ name }) => name === "lm_head.weight");
      return found?.action === "copy" ? found.source.modelId : undefined;
    };
    expect(donor(copying({ copyFrom: "b" }), "")).toBe("b");
    expect(donor({ ...copying({}), base: "base" }, "")).toBe("base");
    expect(donor(copying({}), "base_model: base\nfreeze: [model.norm.weight]\n")).toBe("base");
    expect(donor(copying({}), "")).toBe("a");
  });
});

describe("refusals name the place and the way out", () => {
  it("unknown methods", () => {
    const error = refusal(`merge_method: tie\n${twoModels}`);
    expect(error.message).toBe('unknown merge method "tie"');
    expect(error.hint).toMatch(/did you mean "ties"/);
  });

  it("misspelt parameters, but only a warning for foreign ones", () => {
    const misspelt =
      "merge_method: ties\nbase_model: base\nmodels: [{model: a, parameters: {weight: 1, densty: 0.5}}]";
    const error = refusal(misspelt);
    expect(error.message).toBe('ties has no parameter "densty" under a');
    expect(error.hint).toMatch(/did you mean "density"/);
    expect(compile(`${misspelt}\ncompat: mergekit`).warnings).toHaveLength(1);
    const foreign =
      "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1, density: 0.5, sauce: 1}}]";
    expect(compile(foreign).warnings).toEqual([
      '"density" under a has no effect: linear has no such parameter',
      '"sauce" under a has no effect: linear has no such parameter',
    ]);
  });

  it("missing and unusable values", () => {
    const error = refusal(`merge_method: linear\n${twoModels}`);
    expect(error.message).toBe('the parameter "weight" of b has no value for lm_head.weight');
    expect(error.where).toEqual({ tensor: "lm_head.weight", key: "weight" });
    const ties = "merge_method: ties\nbase_model: base\nmodels: [{model: a, parameters: {weight: 1";
    expect(refusal(`${ties}, density: 1.5}}]`).message).toMatch(
      /"density" of a must be a number from 0 to 1; it is 1.5/,
    );
    expect(refusal(`${ties}}}]\nparameters: {normalize: 0.5}`).message).toMatch(/true or false/);
    const zero = `merge_method: linear\n${twoModels}\nparameters: {weight: -1}`;
    expect(refusal(zero).message).toMatch(/add up to zero/);
  });

  it("wrong numbers of models and missing bases", () => {
    const slerp = "merge_method: slerp\nparameters: {t: 0.5}\n";
    expect(refusal(`${slerp}models: [{model: a}, {model: b}]`).message).toMatch(/needs a base/);
    expect(refusal(`${slerp}base_model: base\nmodels: [{model: a}, {model: b}]`).message).toBe(
      "models: slerp takes exactly 1 model besides the base, got 2: a, b",
    );
    expect(refusal("merge_method: passthrough\nmodels: [{model: a}, {model: b}]").message).toBe(
      "models: passthrough takes exactly 1 model, got 2: a, b",
    );
    const slices =
      "slices: [{sources: [{model: a, layer_range: [0, 2], parameters: {weight: 1}}]}]";
    const unlisted = refusal(`merge_method: task_arithmetic\nbase_model: base\n${slices}`);
    expect(unlisted.message).toBe("slice 1: task_arithmetic needs the base base among the sources");
    const lone = "merge_method: ties\nbase_model: base\nmodels: [{model: base}]";
    expect(refusal(lone).message).toMatch(/at least 1 models? besides the base, got 0: none/);
  });

  it("models, layers and tensors that are not there", () => {
    const error = refusal("merge_method: linear\nmodels: [{model: bass, parameters: {weight: 1}}]");
    expect(error.message).toMatch(/a model that is not there: bass/);
    expect(error.hint).toMatch(/did you mean "base"/);
    const far = "merge_method: passthrough\nslices: [{sources: [{model: a, layer_range: [3, 7]}]}]";
    expect(refusal(far).message).toMatch(/asks for layer 5, but the model has 5 \(0 to 4\)/);
    const models = new Map(family("a", "b"));
    models.set("b", new Map([...models.get("b")!].filter(([name]) => name !== "lm_head.weight")));
    const both = `merge_method: linear\n${twoModels}\nparameters: {weight: 1}`;
    const missing = refusal(both, memoryPlan(models));
    expect([missing.code, missing.message]).toEqual(["mismatch", "b does not have lm_head.weight"]);
    const shapes = new Map(family("a", "b"));
    const wide = { shape: [2], values: new Float32Array(2) };
    shapes.set("b", new Map([...shapes.get("b")!, ["model.norm.weight", wide]]));
    expect(refusal(both, memoryPlan(shapes)).message).toBe(
      "model.norm.weight is [1] in a but [2] in b",
    );
  });

  it("patterns that match nothing, and freezing without a base", () => {
    const linear = `merge_method: linear\n${twoModels}\nparameters: {weight: 1}`;
    expect(refusal(`${linear}\nfreeze: ["*nrom*"]`).message).toMatch(
      /"\*nrom\*" matches no tensor/,
    );
    expect(refusal(`${linear}\nfreeze: ["*norm*"]`).message).toMatch(/there is none/);
    expect(refusal(`${linear}\ndtype: int64`).code).toBe("unsupported");
  });

  it("slices of models with several stacks", () => {
    const tensors = Object.fromEntries(
      ["encoder", "decoder"].flatMap((side) =>
        [0, 1].map((i) => [`${side}.layers.${i}.weight`, [1]] as const),
      ),
    );
    const plan = memoryPlan(memoryModels({ a: tensors }));
    const text =
      "merge_method: passthrough\nslices: [{sources: [{model: a, layer_range: [0, 1]}]}]";
    expect(refusal(text, plan).message).toMatch(/one stack of layers; found several/);
    // Whole models may have as many as they like; each stack has its own gradient.
    const whole = compile(
      "merge_method: passthrough\nmodels: [{model: a, parameters: {scale: [1, 3]}}]",
      plan,
    );
    const scales = whole.tensors.map(
      ({ name }) => merged(whole, name).parameters.models[0]?.["scale"],
    );
    expect(scales).toEqual([1, 3, 1, 3]);
  });
});
