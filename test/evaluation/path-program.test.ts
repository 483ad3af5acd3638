import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createExecutor } from "../../src/evaluation/create-executor.ts";
import { loadEvaluator } from "../../src/evaluation/evaluator-schema.ts";
import type { Executor, Split } from "../../src/evaluation/executor.ts";
import { openGraph, prepareHost } from "../../src/evaluation/host-setup.ts";
import { openPathProgram, type PathProgram } from "../../src/evaluation/path-program.ts";
import type { EvaluationPlan } from "../../src/evaluation/plan.ts";
import type { Feeds } from "../../src/evaluation/session.ts";
import { weightSourceOf } from "../../src/evaluation/shared-weights.ts";
import { graphNames, openSlabProgram } from "../../src/evaluation/slab-program.ts";
import { type LayerStep, layerRecipe } from "../../src/recipes/layer-path.ts";
import type { Recipe } from "../../src/recipes/recipe.ts";

const models = resolve("examples/tinylm/models");
const domains = ["scripture", "python", "math", "names"];

/** The base is the float32 graph's own model; the experts are bfloat16 folders. */
const plan: EvaluationPlan = {
  models: {
    base: { path: `${models}/base/model.onnx` },
    python: { path: `${models}/python` },
    math: { path: `${models}/math` },
  },
  graph: "base",
  base: "base",
  evaluators: domains.map((name) => loadEvaluator(resolve(`evaluators/tinylm-${name}.yml`))),
  freeze: [],
  program: "path",
};

const step = (model: string, layer: number, scale = 1): LayerStep => ({
  model: { model },
  layer,
  scale,
});
const own = Array.from({ length: 8 }, (_, layer) => step("base", layer));
const recipe = (steps: readonly LayerStep[]): Recipe =>
  layerRecipe(steps, { model: "base" }, { seed: 0 });
const whole = (model: string): Recipe => ({
  mergeMethod: "linear",
  body: { kind: "models", models: [{ model: { model }, parameters: { weight: 1 } }] },
  parameters: {},
  seed: 0,
  freeze: [],
  passthrough: {},
});

interface Golden {
  readonly base: Readonly<Record<string, number>>;
  readonly drop: Readonly<Record<string, Readonly<Record<string, number>>>>;
  readonly repeat_once: Golden["drop"];
}
const golden = JSON.parse(readFileSync("test/golden/tinylm-layers.json", "utf8")) as Golden;

describe("scores of walks", () => {
  let executor: Executor;
  beforeAll(async () => {
    executor = await createExecutor(plan, { kind: "inline" });
  });
  afterAll(() => executor.close());

  const losses = async (
    candidate: Recipe,
    split: Split = "validation",
  ): Promise<Record<string, number>> => {
    const evaluators = plan.evaluators.map(({ name }) => name);
    const result = await executor.evaluate({ id: "walk", recipe: candidate, evaluators, split });
    if (result.state === "failed") throw new Error(result.message);
    return Object.fromEntries(
      result.results.map(({ evaluator, metrics }) => [
        evaluator.replace("tinylm-", ""),
        metrics[0]!.value!,
      ]),
    );
  };

  it("of a model's own path are the model's", async () => {
    const walked = await losses(recipe(own));
    const run = await losses(whole("base"));
    for (const domain of domains) {
      expect(Math.abs(walked[domain]! - run[domain]!)).toBeLessThan(1e-5);
      expect(Math.abs(walked[domain]! - golden.base[domain]!)).toBeLessThan(1e-4);
    }
  });

  it.each([0, 3, 5, 7])("without layer %i are those measured elsewhere", async (layer) => {
    const dropped = await losses(recipe(own.filter((_, i) => i !== layer)));
    for (const domain of domains) {
      expect(Math.abs(dropped[domain]! - golden.drop[layer]![domain]!)).toBeLessThan(1e-3);
    }
  });

  it.each([0, 2, 7])("with layer %i twice are those measured elsewhere", async (layer) => {
    const repeated = await losses(recipe([...own.slice(0, layer + 1), ...own.slice(layer)]));
    for (const domain of domains) {
      expect(Math.abs(repeated[domain]! - golden.repeat_once[layer]![domain]!)).toBeLessThan(1e-3);
    }
  });

  it("refuse layers and models that are not there as failures of the candidate", async () => {
    for (const [steps, words] of [
      [[step("base", 8)], "layer 8 of base"],
      [[step("nobody", 0)], 'the model "nobody"'],
      [[], "no step"],
    ] as const) {
      const result = await executor.evaluate({
        id: "bad",
        recipe: recipe(steps),
        evaluators: ["tinylm-math"],
        split: "search",
      });
      expect(result).toMatchObject({ state: "failed", failure: "merge" });
      if (result.state === "failed") expect(result.message).toContain(words);
    }
  });
});

describe("shared beginnings", () => {
  const feeds = (tokens: number): Feeds => {
    const ids = BigInt64Array.from({ length: 2 * tokens }, (_, i) => BigInt((7 * i) % 300));
    const dims = [2, tokens];
    return {
      input_ids: { type: "int64", dims, data: ids },
      attention_mask: { type: "int64", dims, data: ids.map(() => 1n) },
    };
  };

  const open = async (cacheBytes: number): Promise<PathProgram> => {
    const { inputs, weights } = await prepareHost(plan);
    const source = weightSourceOf(weights);
    const { reader, modelId } = openGraph(plan);
    return openPathProgram({
      graph: reader,
      inputs,
      source,
      names: graphNames({ graph: reader, graphId: modelId, inputs }),
      owner: "base",
      fallback: () =>
        openSlabProgram({ graph: reader, graphId: modelId, inputs, source, feed: "session" }),
      cacheBytes,
    });
  };

  const candidates = [
    own,
    [...own.slice(0, 6), step("math", 6), step("base", 7)],
    [...own.slice(0, 6), step("math", 6, 0.9), step("base", 7)],
    [step("python", 0), ...own.slice(1)],
    own,
  ];

  it("are computed once and change no bit", async () => {
    const [roomy, none] = [await open(1 << 26), await open(0)];
    const batches = [feeds(9), feeds(17)];
    for (const steps of candidates) {
      for (const batch of batches) {
        await roomy.load(recipe(steps));
        await none.load(recipe(steps));
        const [a, b] = [await roomy.run(batch, ["logits"]), await none.run(batch, ["logits"])];
        expect(a["logits"]!.dims).toEqual(b["logits"]!.dims);
        expect(Buffer.from(a["logits"]!.data.buffer)).toEqual(
          Buffer.from(b["logits"]!.data.buffer),
        );
      }
    }
    // Twice 8 blocks asked per candidate; saved: 6, 6, 0 and all 8. The check of the cut asked for 8 more, once.
    expect(roomy.counts).toEqual({ asked: 5 * 16 + 8, saved: 2 * (6 + 6 + 8) + 8 });
    expect(none.counts.saved).toBe(0);
    await roomy.release();
    await none.release();
  });

  it("stay within their memory", async () => {
    const states = 3 * 2 * 17 * 96 * 4;
    const small = await open(states);
    const batch = feeds(17);
    for (const steps of [...candidates, ...candidates]) {
      await small.load(recipe(steps));
      await small.run(batch, ["logits"]);
    }
    expect(small.counts.saved).toBeLessThan(small.counts.asked / 2);
    await small.release();
  });
});
