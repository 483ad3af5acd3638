import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createExecutor } from "../../src/evaluation/create-executor.ts";
import { loadEvaluator } from "../../src/evaluation/evaluator-schema.ts";
import type { EvaluationResult, Executor } from "../../src/evaluation/executor.ts";
import { prepareHost } from "../../src/evaluation/host-setup.ts";
import type { EvaluationPlan } from "../../src/evaluation/plan.ts";
import { scoreModelFile } from "../../src/evaluation/score-model-file.ts";
import type { Recipe } from "../../src/recipes/recipe.ts";
import {
  choiceOf,
  digitsCnnPlan,
  digitsEvaluator,
  digitsPlan,
  linear,
  taskArithmetic,
} from "../support/digits-plan.ts";
import { exportModel } from "../support/export-model.ts";

const folder = mkdtempSync(join(tmpdir(), "mendel-basis-"));
beforeAll(() => {
  process.env["MENDEL_CACHE"] = join(folder, "cache");
});
afterAll(() => {
  delete process.env["MENDEL_CACHE"];
  rmSync(folder, { recursive: true });
});

const root = fileURLToPath(new URL("../..", import.meta.url));

function tinylmPlan(): EvaluationPlan {
  const models = ["base", "scripture", "python", "math", "names"];
  const evaluators = ["scripture", "math"].map((task) => ({
    ...loadEvaluator(join(root, `evaluators/tinylm-${task}.yml`)),
    limit: 12,
  }));
  return {
    models: Object.fromEntries(
      models.map((model) => [model, { path: join(root, "examples/tinylm/models", model) }]),
    ),
    graph: join(root, "examples/tinylm/models/base/model.onnx"),
    base: "base",
    evaluators,
    freeze: [],
  };
}

const digits = digitsPlan(["rotate", "mirror"].map((task) => digitsEvaluator(task)));

function dare(density: number, seed = 3): Recipe {
  const recipe = taskArithmetic({ rotate: 0.5, mirror: 0.4 });
  return { ...recipe, mergeMethod: "dare_linear", parameters: { density }, seed };
}

function slerp(t: number): Recipe {
  const recipe = taskArithmetic({ rotate: 1 });
  return { ...recipe, mergeMethod: "slerp", parameters: { t } };
}

const families: readonly (readonly [string, EvaluationPlan, readonly Recipe[]])[] = [
  [
    "digits",
    { ...digits, samples: [dare(0.3)] },
    [
      linear({ rotate: 0.2, invert: 0.5, mirror: 0.9, flipfade: -0.1 }),
      linear({ rotate: 0.3, mirror: 0.4 }, false),
      taskArithmetic({ rotate: 0.4, invert: 0.1, flipfade: 0.7 }),
      slerp(0.3),
      dare(0.3),
      { ...linear({ rotate: 1 }), mergeMethod: "passthrough", parameters: {} },
    ],
  ],
  [
    "digits-cnn",
    digitsCnnPlan(["rotate", "invert"]),
    [linear({ rotate: 0.5, mirror: 0.5 }), taskArithmetic({ rotate: 0.6, invert: 0.3 })],
  ],
  [
    "tinylm",
    tinylmPlan(),
    [
      linear({ base: 0.2, scripture: 0.5, math: 0.3 }),
      taskArithmetic({ scripture: 0.4, python: 0.1, math: 0.5, names: 0.2 }),
    ],
  ],
];

async function score(executor: Executor, plan: EvaluationPlan, recipe: Recipe) {
  const evaluators = plan.evaluators.map(({ name }) => name);
  return executor.evaluate({ id: "basis", recipe, evaluators, split: "search" });
}

function metricsOf(result: EvaluationResult) {
  if (result.state !== "done") throw new Error(`${result.failure}: ${result.message}`);
  return result.results.flatMap(({ evaluator, metrics }) =>
    metrics.map(({ metric, value }) => ({ name: `${evaluator} ${metric}`, value: value! })),
  );
}

describe.each(families)("scores of %s", (name, plan, recipes) => {
  it.each(["slab", "basis"] as const)(
    "by a %s are those of the exported model",
    async (program) => {
      const setup = await prepareHost(plan);
      const executor = await createExecutor(plan, {
        kind: "inline",
        program: choiceOf("inputs", program),
      });
      for (const [at, recipe] of recipes.entries()) {
        const path = join(folder, `${name}-${program}-${at}.onnx`);
        await exportModel(plan, setup, recipe, path);
        const exported = await scoreModelFile(path, plan.evaluators, { split: "search" });
        const [own, its] = [metricsOf(await score(executor, plan, recipe)), metricsOf(exported)];
        expect(own.map((one) => one.name)).toEqual(its.map((one) => one.name));
        own.forEach(({ name: metric, value }, i) => {
          if (metric.endsWith("accuracy")) expect(value).toBe(its[i]!.value);
          else expect(Math.abs(value - its[i]!.value)).toBeLessThan(1e-5 * Math.abs(its[i]!.value));
        });
      }
      await executor.close();
    },
  );
});

describe("a basis", () => {
  const samples = [dare(0.3), dare(0.6)];
  const open = (program: "slab" | "basis"): Promise<Executor> =>
    createExecutor(
      { ...digits, samples },
      { kind: "inline", program: choiceOf("inputs", program) },
    );

  it("leaves recipes that are no such sum to a slab, bit for bit, and goes on", async () => {
    const [basis, slab] = [await open("basis"), await open("slab")];
    const sum = linear({ rotate: 0.5, mirror: 0.5 });
    const before = metricsOf(await score(basis, digits, sum));
    const ties = { ...taskArithmetic({ rotate: 0.8, mirror: 0.8 }), mergeMethod: "ties" };
    for (const recipe of [ties, dare(0.45), dare(0.3, 4)]) {
      expect(metricsOf(await score(basis, digits, recipe))).toEqual(
        metricsOf(await score(slab, digits, recipe)),
      );
    }
    expect(metricsOf(await score(basis, digits, sum))).toEqual(before);
    await basis.close();
    await slab.close();
  });

  it("gives parents back up to rounding", async () => {
    const [basis, slab] = [await open("basis"), await open("slab")];
    for (const model of ["base", "rotate", "invert", "mirror", "flipfade"]) {
      const own = metricsOf(await score(basis, digits, linear({ [model]: 1 })));
      const its = metricsOf(await score(slab, digits, linear({ [model]: 1 })));
      own.forEach(({ value }, i) => {
        expect(value).toBeCloseTo(its[i]!.value, 6);
      });
    }
    await basis.close();
    await slab.close();
  });

  it("is chosen by the probe where candidates are such sums, and not where they are not", async () => {
    const ties = { ...taskArithmetic({ rotate: 0.8, mirror: 0.8 }), mergeMethod: "ties" };
    const forTies = await createExecutor({ ...digits, samples: [ties] }, { kind: "inline" });
    expect(forTies.program.program).toBe("slab");
    expect(forTies.program.probe.noBasis).toContain("ties");
    await forTies.close();
    const wanted = { ...digits, samples, program: "basis" } as const;
    const forSums = await createExecutor(wanted, { kind: "inline" });
    expect(forSums.program.program).toBe("basis");
    expect(forSums.program.probe.basis).toBeGreaterThan(0);
    await forSums.close();
    const unwanted = await createExecutor({ ...digits, program: "slab" }, { kind: "inline" });
    expect(unwanted.program.program).toBe("slab");
    await unwanted.close();
  });

  it("refuses what cannot be merged and stays usable", async () => {
    const basis = await open("basis");
    expect(await score(basis, digits, linear({ nobody: 1 }))).toMatchObject({ failure: "merge" });
    const huge = taskArithmetic({ rotate: 1e6 });
    const result = await score(basis, digits, { ...huge, parameters: { lambda: 1e6 } });
    expect(result.state).toBe("done");
    expect((await score(basis, digits, linear({ rotate: 1 }))).state).toBe("done");
    await basis.close();
  });
});
