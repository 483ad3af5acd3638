import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { createExecutor } from "../../src/evaluation/create-executor.ts";
import { loadEvaluator } from "../../src/evaluation/evaluator-schema.ts";
import type { EvaluationResult } from "../../src/evaluation/executor.ts";
import { scoreModelFile } from "../../src/evaluation/score-model-file.ts";
import {
  choiceOf,
  digitsFile,
  digitsPlan,
  digitTasks,
  linear,
  taskArithmetic,
  uniform,
} from "../support/digits-plan.ts";

/**
 * Scores of the example models on their test splits, against those that PyTorch gave for the same models and items when the
 * families were made (float32, rounded to the digits shown).
 */

const repository = fileURLToPath(new URL("../..", import.meta.url));
const evaluator = (name: string): ReturnType<typeof loadEvaluator> =>
  loadEvaluator(`${repository}/evaluators/${name}.yml`);

function values(result: EvaluationResult): readonly (number | undefined)[] {
  if (result.state !== "done") throw new Error(`${result.failure}: ${result.message}`);
  return result.results.map(({ metrics: [metric] }) => metric?.value);
}

/** One item in 597 is 0.17 %, so half a digit of the table tells every item. */
function expectPercent(result: EvaluationResult, expected: readonly number[]): void {
  values(result).forEach((value, i) => {
    expect(Math.abs(value! * 100 - expected[i]!)).toBeLessThan(0.06);
  });
}

describe("digits, accuracy in %", () => {
  const evaluators = digitTasks.map((task) => evaluator(`digits-${task}`));

  it.each([
    ["base", [12.1, 0.8, 39.4, 26.8]],
    ["invert", [10.7, 96.2, 14.4, 18.8]],
    ["mirror", [13.9, 1.5, 97.2, 15.6]],
  ])("%s as an ONNX file", async (model, expected) => {
    const file = digitsFile(`models/${model}/model.onnx`);
    const result = await scoreModelFile(file, evaluators, { split: "test" });
    expectPercent(result, expected);
  });

  it.each(["inputs", "session"] as const)("merged models, weights fed by %s", async (feed) => {
    const executor = await createExecutor(digitsPlan(evaluators), {
      kind: "inline",
      program: choiceOf(feed),
    });
    const names = evaluators.map(({ name }) => name);
    const recipes = [
      [linear({ rotate: 1 }), [96.3, 8.9, 34.8, 29.6]],
      [linear({ flipfade: 1 }), [16.1, 10.5, 42.9, 96.7]],
      [uniform, [20.1, 13.2, 55.6, 49.8]],
      [
        taskArithmetic({ rotate: 0.45, invert: 0.45, mirror: 0.45, flipfade: 0.45 }),
        [49.6, 38.5, 63.5, 47.4],
      ],
    ] as const;
    for (const [recipe, expected] of recipes) {
      const request = { id: "golden", recipe, evaluators: names, split: "test" as const };
      expectPercent(await executor.evaluate(request), expected);
    }
    await executor.close();
  });
});

describe("tinylm, negative log-likelihood per token", () => {
  const evaluators = ["scripture", "math"].map((domain) => evaluator(`tinylm-${domain}`));
  const at = (model: string): string => `${repository}/examples/tinylm/models/${model}`;

  it("base in float32, and in bfloat16 through a recipe", async () => {
    const plain = await scoreModelFile(`${at("base")}/model.onnx`, evaluators, { split: "test" });
    const executor = await createExecutor(
      {
        models: { base: { path: at("base") }, math: { path: at("math") } },
        graph: "base",
        base: "base",
        evaluators,
        freeze: [],
      },
      { kind: "inline", program: choiceOf("inputs") },
    );
    const rounded = await executor.evaluate({
      id: "golden",
      recipe: linear({ base: 1 }),
      evaluators: evaluators.map(({ name }) => name),
      split: "test",
    });
    await executor.close();
    expect(values(plain)[0]).toBeCloseTo(3.2015, 3);
    expect(values(plain)[1]).toBeCloseTo(0.8376, 3);
    expect(Math.abs(values(rounded)[0]! - 3.202)).toBeLessThan(1e-3);
    expect(Math.abs(values(rounded)[1]! - 0.838)).toBeLessThan(1e-3);
    expect(values(rounded)).not.toEqual(values(plain));
  });
});

describe("agreement with a teacher", () => {
  const agreement = evaluator("digits-agree-rotate");

  it("is perfect for the teacher itself and worse for everyone else", async () => {
    const executor = await createExecutor(digitsPlan([agreement]), {
      kind: "inline",
      program: choiceOf("inputs"),
    });
    const scores: (number | undefined)[][] = [];
    for (const recipe of [linear({ rotate: 1 }), linear({ rotate: 0.9, mirror: 0.1 }), uniform]) {
      const result = await executor.evaluate({
        id: "agreement",
        recipe,
        evaluators: [agreement.name],
        split: "search",
      });
      if (result.state !== "done") throw new Error(result.message);
      scores.push(result.results[0]!.metrics.map(({ value }) => value));
    }
    await executor.close();
    expect(scores[0]).toEqual([0, 1]);
    expect(scores[1]![0]).toBeGreaterThan(0);
    expect(scores[2]![0]).toBeGreaterThan(scores[1]![0]!);
    expect(scores[2]![1]).toBeLessThan(1);
  });

  it("asks the whole teacher, whatever is frozen for the candidates", async () => {
    const scores = [];
    for (const freeze of [[], ["layers.0.*"]]) {
      const plan = { ...digitsPlan([agreement]), freeze };
      const executor = await createExecutor(plan, { kind: "inline", program: choiceOf("inputs") });
      // Without the frozen layer the expert is no longer itself.
      for (const recipe of [linear({ rotate: 1 }), linear({ base: 1 })]) {
        const request = { id: "f", recipe, evaluators: [agreement.name], split: "search" } as const;
        scores.push(values(await executor.evaluate(request))[0]!);
      }
      await executor.close();
    }
    const [itself, base, frozen, baseAgain] = scores as [number, number, number, number];
    expect(itself).toBe(0);
    expect(frozen).toBeGreaterThan(0.01);
    expect(baseAgain).toBe(base);
  });

  it("takes a file as teacher, and names one that is missing", async () => {
    const teacher = { kind: "file", at: digitsFile("models/mirror/model.onnx") } as const;
    const file = digitsFile("models/mirror/model.onnx");
    const result = await scoreModelFile(file, [{ ...agreement, teacher }], { split: "search" });
    expect(values(result)).toEqual([0]);
    await expect(scoreModelFile(file, [agreement], { split: "search" })).rejects.toMatchObject({
      code: "invalid-config",
    });
  });
});
