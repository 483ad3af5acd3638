import { describe, expect, it } from "vitest";
import { MendelError } from "../../src/base/errors.ts";
import { compileRecipe } from "../../src/merge/compile.ts";
import { canonicalName } from "../../src/merge/correspondence.ts";
import { type MatchedModel, matchModels, requireMatched } from "../../src/merge/matching.ts";
import type { Recipe } from "../../src/recipes/recipe.ts";
import type { Dtype } from "../../src/tensors/dtype.ts";
import type { ModelTensor } from "../../src/tensors/model-reader.ts";
import { bertShapes, cnnShapes, gpt2Names, llamaShapes, mlpShapes } from "../recipes/families.ts";

type Change = Partial<ModelTensor>;

/** A model whose tensors have the given shapes; `change` may alter each, `undefined` drops it. */
function model(
  path: string,
  shapes: Readonly<Record<string, readonly number[]>>,
  change: (name: string) => Change | undefined = () => ({}),
): MatchedModel {
  const tensors = new Map<string, ModelTensor>();
  for (const [name, shape] of Object.entries(shapes)) {
    const changed = change(name);
    if (changed === undefined) continue;
    const dtype: Dtype = name.endsWith("num_batches_tracked") ? "i64" : "f32";
    const tensor: ModelTensor = {
      name,
      shape,
      dtype,
      storedName: name,
      transposed: false,
      namedBy: "file",
      aliases: [],
      ...changed,
    };
    tensors.set(tensor.name, tensor);
  }
  return { path, tensors };
}

/** The weights of an MLP as a graph with folded constants shows them: made-up names, in the order of use. */
function automaticMlp(path: string, first: number, order = [0, 1, 2, 3]): MatchedModel {
  const shapes = mlpShapes();
  const tensors = new Map<string, ModelTensor>();
  for (const [node, layer] of order.entries()) {
    const name = `onnx::MatMul_${first + node}`;
    tensors.set(name, {
      name,
      shape: shapes[`layers.${layer}.weight`] as number[],
      dtype: "f32",
      storedName: name,
      transposed: true,
      namedBy: "automatic",
      aliases: [],
      graphPosition: { node: 2 * node, slot: 1, op: "MatMul" },
    });
    tensors.set(`layers.${layer}.bias`, {
      name: `layers.${layer}.bias`,
      shape: shapes[`layers.${layer}.bias`] as number[],
      dtype: "f32",
      storedName: `layers.${layer}.bias`,
      transposed: false,
      namedBy: "file",
      aliases: [],
      graphPosition: { node: 2 * node + 1, slot: 0, op: "Add" },
    });
  }
  return { path, tensors };
}

/** The same MLP under its own names, with positions. */
function namedMlp(path: string): MatchedModel {
  return model(path, mlpShapes(), (name) => {
    const layer = Number(name.split(".")[1]);
    const isBias = name.endsWith("bias");
    return {
      transposed: !isBias,
      graphPosition: {
        node: 2 * layer + (isBias ? 1 : 0),
        slot: isBias ? 0 : 1,
        op: isBias ? "Add" : "MatMul",
      },
    };
  });
}

type Options = Partial<Parameters<typeof matchModels>[0]>;
const match = (models: Record<string, MatchedModel>, options: Options = {}) => {
  const reference = Object.keys(models)[0] as string;
  const report = matchModels({
    models: new Map(Object.entries(models)),
    reference,
    base: reference,
    ...options,
  });
  // The promise of every matching: each tensor of each model has one fate per output it serves, or one as unused.
  for (const [id, { tensors }] of Object.entries(models)) {
    for (const name of tensors.keys()) {
      const fates = report.fates.filter((fate) => fate.model === id && fate.tensor === name);
      expect(fates.length, `${id} ${name}`).toBeGreaterThan(0);
      expect(new Set(fates.map(({ output }) => output)).size).toBe(fates.length);
      if (fates.some(({ fate }) => fate === "unused")) expect(fates).toHaveLength(1);
    }
  }
  const names = report.plan.tensors.map(({ name }) => name);
  expect(new Set(names).size).toBe(names.length);
  return report;
};
const planned = (report: ReturnType<typeof match>, name: string) =>
  report.plan.tensors.find((tensor) => tensor.name === name);
const sourceNames = (report: ReturnType<typeof match>, name: string) =>
  Object.fromEntries(
    [...(planned(report, name)?.sources ?? [])].map(([id, tensor]) => [id, tensor.name]),
  );
const fatesOf = (report: ReturnType<typeof match>, fate: string) =>
  report.fates
    .filter((entry) => entry.fate === fate)
    .map(({ model: id, tensor }) => `${id} ${tensor}`);

describe("matching by name", () => {
  it("merges what all models have, in natural order, whatever the order in the files", () => {
    const shapes = llamaShapes(12);
    const reversed = Object.fromEntries(Object.entries(shapes).reverse());
    const report = match({ base: model("b", shapes), a: model("a", reversed) });
    expect(report.refused).toEqual([]);
    expect(report.plan.base).toBe("base");
    const names = report.plan.tensors.map(({ name }) => name);
    expect(names).toHaveLength(Object.keys(shapes).length);
    expect(names.indexOf("model.layers.2.mlp.up_proj.weight")).toBeLessThan(
      names.indexOf("model.layers.10.mlp.up_proj.weight"),
    );
    expect(report.plan.tensors.every(({ action }) => action === "merge")).toBe(true);
  });

  it("keeps the widest float type", () => {
    const types = (...dtypes: Dtype[]) => {
      const models = dtypes.map((dtype, i) => [
        `m${i}`,
        model(`m${i}`, { w: [2] }, () => ({ dtype })),
      ]);
      return planned(match(Object.fromEntries(models)), "w")?.dtype;
    };
    expect(types("bf16", "f32")).toBe("f32");
    expect(types("bf16", "bf16")).toBe("bf16");
    expect(types("bf16", "f16")).toBe("f32");
    expect(types("f16", "f64", "f32")).toBe("f64");
  });

  it("sees through the prefixes of wrappers", () => {
    expect(canonicalName("_orig_mod.module.base_model.model.model.layers.0.w")).toBe("layers.0.w");
    const shapes = (prefix: string) =>
      Object.fromEntries(gpt2Names(2, prefix).map((name) => [name, [4]]));
    const report = match({
      base: model("b", shapes("transformer.")),
      plain: model("p", shapes("")),
      compiled: model("c", shapes("_orig_mod.module.transformer.")),
    });
    expect(report.refused).toEqual([]);
    expect(sourceNames(report, "transformer.h.1.ln_2.weight")).toEqual({
      base: "transformer.h.1.ln_2.weight",
      plain: "h.1.ln_2.weight",
      compiled: "_orig_mod.module.transformer.h.1.ln_2.weight",
    });
    expect(planned(report, "transformer.h.1.ln_2.weight")?.reason).toMatch(/called h\.1\.ln_2/);
  });

  it("knows gamma and beta of norms, and of nothing else", () => {
    const report = match({
      base: model("b", { "encoder.LayerNorm.weight": [4], "encoder.LayerNorm.bias": [4] }),
      old: model("o", { "encoder.LayerNorm.gamma": [4], "encoder.LayerNorm.beta": [4] }),
    });
    expect(report.refused).toEqual([]);
    expect(sourceNames(report, "encoder.LayerNorm.bias")["old"]).toBe("encoder.LayerNorm.beta");
    expect(canonicalName("mixer.gamma")).toBe("mixer.gamma");
  });

  it("does not choose between two tensors that could be meant", () => {
    const report = match({
      base: model("b", { "h.0.w": [4] }),
      odd: model("o", { "model.h.0.w": [4], "module.h.0.w": [4] }),
    });
    expect(report.refused.map(({ tensor }) => tensor)).toEqual([
      "h.0.w",
      "model.h.0.w",
      "module.h.0.w",
    ]);
  });
});

describe("tied heads", () => {
  const untied = llamaShapes(2);
  const { "lm_head.weight": _, ...tied } = untied;
  const embedding = "model.embed_tokens.weight";
  const withAlias = (name: string) => (name === embedding ? { aliases: ["lm_head.weight"] } : {});

  it("use the embedding where a model stores no head, whether its file says so or not", () => {
    for (const change of [undefined, withAlias]) {
      const report = match({ base: model("b", untied), tied: model("t", tied, change) });
      expect(report.refused).toEqual([]);
      expect(sourceNames(report, "lm_head.weight")).toEqual({
        base: "lm_head.weight",
        tied: embedding,
      });
      expect(report.warnings.join()).toMatch(/lm_head\.weight: tied ties head and embedding/);
    }
  });

  it("stay tied where the reference ties: another model's own head is left out, with a warning", () => {
    for (const change of [undefined, withAlias]) {
      const report = match({ base: model("b", tied, change), own: model("o", untied) });
      expect(report.refused).toEqual([]);
      expect(planned(report, "lm_head.weight")).toBeUndefined();
      expect(fatesOf(report, "unused")).toEqual(["own lm_head.weight"]);
      expect(report.warnings.join()).toMatch(/lm_head\.weight of own is not used/);
    }
  });

  it("are found under the other name when a file keeps only the head", () => {
    const onlyHead = model("h", untied, (name) => (name === embedding ? undefined : {}));
    const report = match({ base: model("b", tied, withAlias), onlyHead });
    expect(sourceNames(report, embedding)["onlyHead"]).toBe("lm_head.weight");
    expect(report.refused).toEqual([]);
  });
});

describe("made-up names", () => {
  const weights = [0, 1, 2, 3].map((layer) => `layers.${layer}.weight`);

  it("are paired by place in the graph, not by number", () => {
    const report = match({
      base: automaticMlp("b.onnx", 100),
      a: automaticMlp("a.onnx", 101),
    });
    expect(report.refused).toEqual([]);
    expect(sourceNames(report, "onnx::MatMul_101")).toEqual({
      base: "onnx::MatMul_101",
      a: "onnx::MatMul_102",
    });
  });

  it("take the names of a model that has some", () => {
    const report = match({ base: namedMlp("b.onnx"), auto: automaticMlp("a.onnx", 7) });
    expect(report.refused).toEqual([]);
    for (const [i, name] of weights.entries()) {
      expect(sourceNames(report, name)["auto"]).toBe(`onnx::MatMul_${7 + i}`);
    }
  });

  it("are refused when the graphs do not agree: square matrices say nothing by themselves", () => {
    // Layers 1 and 2 change places: all three matrices are 64 x 64, only the named biases tell.
    const swapped = automaticMlp("a.onnx", 7, [0, 2, 1, 3]);
    const report = match({ base: namedMlp("b.onnx"), swapped });
    expect(report.refused.map(({ tensor }) => tensor)).toEqual(
      expect.arrayContaining([...weights, "onnx::MatMul_7"]),
    );
    expect(report.refused.find(({ tensor }) => tensor === "onnx::MatMul_7")?.reason).toMatch(
      /names and positions disagree/,
    );
    expect(() => requireMatched(report)).toThrow(MendelError);
  });

  it("are refused when an operation, a count or a shape differs", () => {
    const altered = (change: (tensor: ModelTensor) => ModelTensor | undefined): string => {
      const auto = automaticMlp("a.onnx", 7);
      const tensors = new Map<string, ModelTensor>();
      for (const [name, tensor] of auto.tensors) {
        const next = change(tensor);
        if (next !== undefined) tensors.set(name, next);
      }
      const report = match({ base: namedMlp("b.onnx"), auto: { ...auto, tensors } });
      return report.refused.find(({ tensor }) => tensor === "onnx::MatMul_8")?.reason ?? "accepted";
    };
    const isLast = (tensor: ModelTensor) => tensor.name === "onnx::MatMul_10";
    expect(altered((tensor) => tensor)).toBe("accepted");
    expect(altered((tensor) => (isLast(tensor) ? undefined : tensor))).toMatch(/8 and 7 weights/);
    expect(altered((tensor) => (isLast(tensor) ? { ...tensor, shape: [64, 10] } : tensor))).toMatch(
      /\[10, 64\].*\[64, 10\].*stored transposed/,
    );
    expect(
      altered((tensor) =>
        isLast(tensor) ? { ...tensor, graphPosition: { node: 6, slot: 1, op: "Gemm" } } : tensor,
      ),
    ).toMatch(/enters MatMul in one graph and Gemm/);
  });

  it("are refused between graphs that compute differently, and against a file without a graph", () => {
    const reason = (base: MatchedModel, auto: MatchedModel) =>
      match({ base, auto }).refused.find(({ tensor }) => tensor === "onnx::MatMul_7")?.reason;
    const signed = (graph: MatchedModel, digest: string) => ({ ...graph, signature: { digest } });
    const auto = automaticMlp("a.onnx", 7);
    expect(reason(signed(namedMlp("b.onnx"), "x"), signed(auto, "y"))).toMatch(/different ways/);
    expect(reason(signed(namedMlp("b.onnx"), "x"), signed(auto, "x"))).toBeUndefined();
    expect(reason(model("b.safetensors", mlpShapes()), auto)).toMatch(/no graph to compare/);
  });

  it("never meet an equal number by name alone", () => {
    const plain = (path: string) =>
      model(path, { "onnx::MatMul_7": [64, 64] }, () => ({ namedBy: "automatic" }));
    const report = match({ base: plain("b.onnx"), a: plain("a.onnx") });
    expect(report.refused).toHaveLength(2);
    expect(report.plan.tensors.every(({ sources }) => sources.size === 1)).toBe(true);
  });
});

describe("what is copied", () => {
  const counters = (path: string, steps: number) => ({
    ...model(path, cnnShapes(true)),
    read: (_: string, __: number, target: Uint8Array) => {
      target[0] = steps;
    },
  });

  it("is every counter, from the base, with a word where they differ", () => {
    const report = match({
      base: counters("b", 126),
      a: counters("a", 252),
      b: counters("c", 126),
    });
    expect(planned(report, "bn1.num_batches_tracked")).toMatchObject({
      action: "copy",
      copyFrom: "base",
      shape: [],
      dtype: "i64",
    });
    expect(report.warnings).toHaveLength(2);
    expect(report.warnings[0]).toMatch(/bn1\.num_batches_tracked.*differs in a \(/);
    // Running statistics are weights like others.
    expect(planned(report, "bn1.running_var")?.action).toBe("merge");
  });

  it("leaves a counter out that only a checkpoint has and the base's graph has not", () => {
    const onnx = model("base.onnx", cnnShapes(false));
    const report = match({ base: onnx, a: counters("a", 1) });
    expect(report.refused).toEqual([]);
    expect(report.warnings).toEqual([]);
    expect(fatesOf(report, "unused")).toEqual([
      "a bn1.num_batches_tracked",
      "a bn2.num_batches_tracked",
    ]);
  });

  it("is every boolean and integer table and every recomputed buffer, present everywhere or not", () => {
    const shapes = {
      "w.weight": [2, 2],
      "embeddings.position_ids": [1, 8],
      "h.0.attn.bias": [1, 1, 8, 8],
      "h.0.attn.c_attn.bias": [8],
      "layers.0.self_attn.rotary_emb.inv_freq": [4],
    };
    const change = (name: string) =>
      name.endsWith("position_ids") ? { dtype: "i64" as const } : {};
    const base = model("b", shapes, change);
    const bare = model("a", { "w.weight": [2, 2], "h.0.attn.c_attn.bias": [8] });
    const report = match({ base, bare });
    expect(report.refused).toEqual([]);
    const copied = report.plan.tensors.filter(({ action }) => action === "copy");
    expect(copied.map(({ name }) => name)).toEqual([
      "embeddings.position_ids",
      "h.0.attn.bias",
      "layers.0.self_attn.rotary_emb.inv_freq",
    ]);
    const reverse = match({ bare, base });
    expect(reverse.refused).toEqual([]);
    expect(reverse.plan.tensors.map(({ name }) => name)).toEqual([
      "h.0.attn.c_attn.bias",
      "w.weight",
    ]);
  });

  it("is what is frozen, from the base", () => {
    const shapes = llamaShapes(2);
    const report = match(
      { base: model("b", shapes), a: model("a", shapes) },
      { freeze: ["*norm*"] },
    );
    expect(report.frozen).toHaveLength(5);
    expect(planned(report, "model.norm.weight")).toMatchObject({
      action: "copy",
      copyFrom: "base",
    });
    expect(planned(report, "model.norm.weight")?.reason).toMatch(/frozen by "\*norm\*", from base/);
    const kinds = match(
      { base: model("b", shapes), a: model("a", shapes) },
      { freeze: ["kind:norm"] },
    );
    expect(kinds.frozen).toEqual(report.frozen);
  });

  it("refuses a freeze pattern that matches nothing", () => {
    const models = { base: model("b", llamaShapes(2)), a: model("a", llamaShapes(2)) };
    expect(() => match(models, { freeze: ["*nrm*"] })).toThrow(/matches no tensor/);
  });
});

describe("heads of different tasks", () => {
  const family = () => ({
    base: model("base.safetensors", bertShapes(4)),
    source: model("source.onnx", bertShapes(4, 4)),
    gender: model("gender.onnx", bertShapes(4, 2)),
  });

  it("are refused, with shapes, files and the pattern that helps", () => {
    const report = match(family());
    expect(report.refused.map(({ tensor }) => tensor)).toEqual([
      "classifier.bias",
      "classifier.weight",
    ]);
    const head = report.refused[1];
    expect(head?.reason).toMatch(/missing in base \(base\.safetensors\)/);
    expect(head?.reason).toMatch(/source \[4, 64\], gender \[2, 64\]/);
    expect(head?.hint).toMatch(/add "classifier\.\*" to freeze/);
    expect(() => requireMatched(report)).toThrow(/2 tensors do not fit together/);
  });

  it("are refused too where all models have one, of different shapes", () => {
    const { base: _base, ...experts } = family();
    const report = match(experts);
    expect(report.refused[1]?.reason).toMatch(
      /shapes differ: \[4, 64\] in source \(source\.onnx\), \[2, 64\] in gender/,
    );
  });

  it("are copied when frozen, from the model whose graph will run, else from the first that has one", () => {
    const freeze = ["classifier.*"];
    const report = match(family(), { freeze, graph: "gender" });
    expect(report.refused).toEqual([]);
    expect(planned(report, "classifier.weight")).toMatchObject({
      action: "copy",
      copyFrom: "gender",
      shape: [2, 64],
    });
    expect([...(planned(report, "classifier.weight")?.sources.keys() ?? [])]).toEqual(["gender"]);
    expect(fatesOf(report, "unused")).toEqual([
      "source classifier.bias",
      "source classifier.weight",
    ]);
    expect(planned(match(family(), { freeze }), "classifier.bias")?.copyFrom).toBe("source");
    // The trunk is merged, the one-row table of token types included.
    expect(planned(report, "bert.embeddings.token_type_embeddings.weight")?.shape).toEqual([1, 64]);
  });

  it("compile into a recipe that freezes them", () => {
    const freeze = ["classifier.*"];
    const { plan } = match(family(), { freeze, graph: "gender" });
    const recipe: Recipe = {
      mergeMethod: "task_arithmetic",
      baseModel: { model: "base" },
      body: {
        kind: "models",
        models: ["source", "gender"].map((id) => ({
          model: { model: id },
          parameters: { weight: 1 },
        })),
      },
      parameters: {},
      seed: 0,
      freeze,
      passthrough: {},
    };
    const compiled = compileRecipe(recipe, plan);
    const head = compiled.tensors.find(({ name }) => name === "classifier.weight");
    expect(head).toMatchObject({ action: "copy", shape: [2, 64], source: { modelId: "gender" } });
  });
});

describe("what is refused", () => {
  it("vocabularies of different size, with both ways out", () => {
    const report = match({
      base: model("base", llamaShapes(2)),
      large: model("large", llamaShapes(2, 96, 160, 516)),
    });
    expect(report.refused.map(({ tensor }) => tensor)).toEqual([
      "lm_head.weight",
      "model.embed_tokens.weight",
    ]);
    expect(report.refused[1]?.reason).toMatch(
      /vocabularies differ: \[512, 96\] in base \(base\), \[516, 96\] in large \(large\)/,
    );
    expect(report.refused[1]?.hint).toMatch(/one vocabulary.*freeze/);
    expect(report.refused[1]?.file).toBe("large");
  });

  it("a layer that one model lacks", () => {
    const report = match({ base: model("b", llamaShapes(3)), short: model("s", llamaShapes(2)) });
    expect(report.refused).toHaveLength(9);
    expect(report.refused.every(({ reason }) => reason.startsWith("missing in short (s)"))).toBe(
      true,
    );
  });

  it("float against quantized weights", () => {
    const quantized = model("q", { w: [4, 4] }, () => ({ dtype: "i8" }));
    const report = match({ base: model("b", { w: [4, 4] }), quantized });
    expect(report.refused[0]?.reason).toMatch(/types differ: f32 in base, i8 in quantized/);
  });

  it("a matrix that one file holds transposed", () => {
    const report = match({ base: model("b", { w: [4, 6] }), a: model("a", { w: [6, 4] }) });
    expect(report.refused[0]?.reason).toMatch(/one file holds the transpose/);
  });

  it("models of different families, as such", () => {
    const report = match({ base: model("b", llamaShapes(2)), other: model("o", mlpShapes()) });
    expect(report.refused).toHaveLength(report.plan.tensors.length);
    try {
      requireMatched(report);
      expect.unreachable();
    } catch (error) {
      expect(error).toMatchObject({
        code: "mismatch",
        hint: expect.stringMatching(/no tensor in common/),
      });
    }
  });

  it("a recipe that asks for a refused tensor, when it is compiled", () => {
    const { plan } = match({ base: model("b", llamaShapes(3)), short: model("s", llamaShapes(2)) });
    const recipe: Recipe = {
      mergeMethod: "task_arithmetic",
      baseModel: { model: "base" },
      body: { kind: "models", models: [{ model: { model: "short" }, parameters: { weight: 1 } }] },
      parameters: {},
      seed: 0,
      freeze: [],
      passthrough: {},
    };
    expect(() => compileRecipe(recipe, plan)).toThrow(/short does not have/);
  });
});

describe("weights without use", () => {
  it("are those that the graph that will run does not have", () => {
    const shapes = { "a.weight": [2], "pooler.weight": [2] };
    const base = model("base.safetensors", shapes);
    const graph = model("graph.onnx", { "a.weight": [2] });
    const report = match({ base, graph }, { graph: "graph" });
    expect(report.refused).toEqual([]);
    expect(fatesOf(report, "unused")).toEqual(["base pooler.weight"]);
    expect(report.warnings.join()).toMatch(/pooler\.weight of base is not used/);
    expect(match({ base, graph }).refused).toHaveLength(1);
  });
});
