import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createExecutor } from "../../src/evaluation/create-executor.ts";
import type { EvaluationResult, Executor } from "../../src/evaluation/executor.ts";
import type { Recipe } from "../../src/recipes/recipe.ts";
import {
  choiceOf,
  digitsCnnPlan,
  digitsEvaluator,
  digitsPlan,
  digitTasks,
  linear,
  moduleEvaluator,
  taskArithmetic,
  uniform,
} from "../support/digits-plan.ts";

/** What every executor promises, whatever it runs candidates in. */

const thrown = ["throws-error", "throws-late", "throws-text", "throws-null"];
const unusable = ["returns-nothing", "returns-text", "returns-few", "returns-other"];
const odd = [
  "returns-nan",
  "returns-infinity",
  "returns-minus-infinity",
  "returns-minus-zero",
  "returns-huge",
];
const evaluators = [
  ...digitTasks.map((task) => digitsEvaluator(task)),
  moduleEvaluator("margin", "margin", "margin"),
  moduleEvaluator("slow", "slow"),
  ...thrown.map((name) => moduleEvaluator(name, "throwing")),
  ...[...unusable, ...odd].map((name) => moduleEvaluator(name, "odd")),
];
const plan = digitsPlan(evaluators);
const executors = [
  ["inline", "slab"],
  ["inline", "basis"],
  ["pool", "slab"],
  ["pool", "basis"],
] as const;
type Kind = (typeof executors)[number][0];
type ProgramName = (typeof executors)[number][1];
const open = (kind: Kind, program: ProgramName, workers = 2): Promise<Executor> =>
  createExecutor(plan, { kind, workers, program: choiceOf("inputs", program) });

let request = 0;
function evaluate(
  executor: Executor,
  recipe: Recipe,
  names: readonly string[] = digitTasks,
  signal?: AbortSignal,
): Promise<EvaluationResult> {
  request += 1;
  const split = "search" as const;
  return executor.evaluate({ id: `r${request}`, recipe, evaluators: names, split }, signal);
}

/** Results without what may differ from run to run. */
function scoresOf(result: EvaluationResult): unknown {
  return result.state === "done" ? result.results : result;
}

function scoreOf(result: EvaluationResult, evaluator = 0, metric = 0): number | undefined {
  if (result.state !== "done") throw new Error(`${result.failure}: ${result.message}`);
  return result.results[evaluator]?.metrics[metric]?.value;
}

const recipes: readonly Recipe[] = [
  uniform,
  taskArithmetic({ rotate: 0.45, invert: 0.45, mirror: 0.45, flipfade: 0.45 }),
  linear({ mirror: 1 }),
  taskArithmetic({ rotate: 0.9, flipfade: -0.1 }),
];

describe.each(executors)("executor %s, %s", (kind, program) => {
  let executor: Executor;
  beforeAll(async () => {
    executor = await open(kind, program);
  });
  afterAll(() => executor.close());

  it("scores every evaluator in the order asked for, with item scores", async () => {
    const result = await evaluate(executor, uniform, ["mirror", "rotate"]);
    if (result.state !== "done") throw new Error(result.message);
    expect(result.results.map(({ evaluator }) => evaluator)).toEqual(["mirror", "rotate"]);
    expect(result.attempts).toBe(1);
    for (const { split, metrics } of result.results) {
      expect(split).toBe("search");
      expect(metrics.map(({ metric }) => metric)).toEqual(["accuracy", "cross_entropy"]);
      for (const { items, itemScores, value, standardError } of metrics) {
        expect(items).toBe(80);
        const mean = itemScores!.reduce((sum, score) => sum + score, 0) / 80;
        expect(value).toBeCloseTo(mean, 12);
        expect(standardError).toBeGreaterThan(0);
      }
    }
  });

  it("gives the same scores whatever ran before, after or beside", async () => {
    const first = await Promise.all(recipes.map((recipe) => evaluate(executor, recipe)));
    const second = await Promise.all(
      [...recipes].reverse().map((recipe) => evaluate(executor, recipe)),
    );
    expect(second.reverse().map(scoresOf)).toEqual(first.map(scoresOf));
  });

  it("lets a module score", async () => {
    const result = await evaluate(executor, linear({ rotate: 1 }), ["margin"]);
    expect(scoreOf(result)).toBeGreaterThan(0.9);
    expect(scoreOf(await evaluate(executor, linear({ invert: 1 }), ["margin"]))).toBeLessThan(0.5);
  });

  it.each(thrown)("records a module that %s", async (name) => {
    const result = await evaluate(executor, uniform, [name]);
    expect(result).toMatchObject({ state: "failed", failure: "metric", attempts: 1 });
  });

  it.each(unusable)("records a module that %s", async (name) => {
    const result = await evaluate(executor, uniform, [name]);
    expect(result).toMatchObject({ state: "failed", failure: "metric" });
    expect(result.state === "failed" && result.message).toContain(`"${name}"`);
  });

  it("keeps what is not finite as a kind, and no negative zero", async () => {
    const result = await evaluate(executor, uniform, odd);
    if (result.state !== "done") throw new Error(result.message);
    const metrics = result.results.map(({ metrics: [metric] }) => metric!);
    expect(metrics.map(({ kind }) => kind)).toEqual(["nan", "pinf", "ninf", "finite", "pinf"]);
    expect(metrics.map(({ value }) => value)).toEqual([
      undefined,
      undefined,
      undefined,
      0,
      undefined,
    ]);
    expect(Object.is(metrics[3]!.value, -0)).toBe(false);
  });

  it("records a recipe that cannot be merged", async () => {
    const recipe = { ...uniform, mergeMethod: "liniar" };
    const result = await evaluate(executor, recipe);
    expect(result).toMatchObject({ state: "failed", failure: "merge" });
    expect(await evaluate(executor, linear({ nobody: 1 }))).toMatchObject({ failure: "merge" });
  });

  it("is as good as new after failures", async () => {
    const before = await evaluate(executor, uniform);
    await evaluate(executor, linear({ nobody: 1 }));
    await evaluate(executor, uniform, ["throws-null"]);
    expect(scoresOf(await evaluate(executor, uniform))).toEqual(scoresOf(before));
  });

  it("cancels between minibatches and before the start", async () => {
    const controller = new AbortController();
    const running = evaluate(executor, uniform, ["slow"], controller.signal);
    const waiting = Array.from({ length: 4 }, () =>
      evaluate(executor, uniform, ["slow"], controller.signal),
    );
    setTimeout(() => controller.abort(), 120);
    for (const result of await Promise.all([running, ...waiting])) {
      expect(result).toMatchObject({ state: "failed", failure: "cancelled" });
    }
    const late = await evaluate(executor, uniform, ["slow"], controller.signal);
    expect(late).toMatchObject({ state: "failed", failure: "cancelled" });
    expect(await evaluate(executor, uniform)).toMatchObject({ state: "done" });
  });

  it("refuses evaluators that are not in its plan", async () => {
    await expect(async () => evaluate(executor, uniform, ["rotat"])).rejects.toThrow("rotat");
  });
});

describe.each(executors)("closing executor %s, %s", (kind, program) => {
  it("abandons what runs and what waits, twice without harm", async () => {
    const executor = await open(kind, program);
    const pending = Array.from({ length: 5 }, () => evaluate(executor, uniform, ["slow"]));
    await executor.close();
    await executor.close();
    for (const result of await Promise.all(pending)) {
      expect(result).toMatchObject({ state: "failed", failure: "cancelled" });
    }
    expect(await evaluate(executor, uniform)).toMatchObject({ failure: "cancelled" });
  });
});

it.each(executors)(
  "executor %s, %s, records outputs that are not finite",
  async (kind, program) => {
    const executor = await createExecutor(digitsCnnPlan(["rotate"]), {
      kind,
      workers: 1,
      program: choiceOf("inputs", program),
    });
    // Subtracting this expert's task vector makes a running variance negative, and its square root NaN.
    const result = await evaluate(executor, taskArithmetic({ rotate: -1 }), ["rotate"]);
    await executor.close();
    expect(result).toMatchObject({ state: "failed", failure: "non-finite" });
    expect(result.state === "failed" && result.message).toContain("logits");
  },
);

it.each(["slab", "basis"] as const)(
  "%s: all executors and numbers of workers give the same scores, bit for bit",
  async (program) => {
    const scores: unknown[] = [];
    for (const [kind, workers] of [
      ["inline", 1],
      ["pool", 1],
      ["pool", 2],
    ] as const) {
      const executor = await open(kind, program, workers);
      const results = await Promise.all(recipes.map((recipe) => evaluate(executor, recipe)));
      await executor.close();
      scores.push(results.map(scoresOf));
    }
    expect(scores[1]).toEqual(scores[0]);
    expect(scores[2]).toEqual(scores[0]);
  },
);
