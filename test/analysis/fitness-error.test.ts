import { describe, expect, it } from "vitest";
import { type FitnessRule, fitnessError, fitnessRule } from "../../src/analysis/fitness-error.ts";
import type { Json } from "../../src/base/json.ts";
import type { ScoreTable } from "../../src/store/queries.ts";
import type { RunRow } from "../../src/store/rows.ts";

const score = (value: number, standardError: number) => ({
  search: { kind: "finite" as const, value, standardError, items: 10 },
});
const scores: ScoreTable = {
  a: { accuracy: score(0.8, 0.03) },
  b: { loss: score(0.5, 0.04), accuracy: score(0.6, 0.02) },
};

const term = (evaluator: string, metric: string, weight = 1, lower: string[] = []) => ({
  evaluator,
  weight,
  metrics: [{ metric, weight: 1 }],
  lower,
});

const rule = (objective: FitnessRule["objective"], weight = 1): FitnessRule => ({
  objective,
  terms: [term("a", "accuracy", weight), term("b", "accuracy")],
});

describe("the standard error of a fitness", () => {
  it("adds independent evaluators in squares", () => {
    expect(fitnessError(rule("mean"), scores, "search", 0.7)).toBeCloseTo(
      Math.hypot(0.03, 0.02) / 2,
      12,
    );
    const weighted = fitnessError(rule("mean", 3), scores, "search", 0.75);
    expect(weighted).toBeCloseTo(Math.hypot(0.75 * 0.03, 0.25 * 0.02), 12);
  });

  it("is the worst evaluator's own, or first order for a product", () => {
    expect(fitnessError(rule("worst"), scores, "search", 0.6)).toBe(0.02);
    const value = Math.sqrt(0.8 * 0.6);
    expect(fitnessError(rule("product"), scores, "search", value)).toBeCloseTo(
      (value / 2) * Math.hypot(0.03 / 0.8, 0.02 / 0.6),
      12,
    );
  });

  it("turns metrics where smaller is better", () => {
    const turned: FitnessRule = { objective: "mean", terms: [term("b", "loss", 1, ["loss"])] };
    expect(fitnessError(turned, scores, "search", -0.5)).toBe(0.04);
  });

  it("is not told for a number that the rule does not reproduce, nor without all scores", () => {
    expect(fitnessError(rule("mean"), scores, "search", -999_999.3)).toBeUndefined();
    expect(fitnessError(rule("mean"), scores, "test", 0.7)).toBeUndefined();
    expect(fitnessError(undefined, scores, "search", 0.7)).toBeUndefined();
  });
});

describe("the rule of a run", () => {
  const run = (config: Json, configGiven: string): RunRow => ({
    id: 1,
    name: "r",
    experiment: "e",
    experimentPath: "e.yml",
    createdMs: 0,
    state: "done",
    reason: undefined,
    seed: "0",
    configGiven,
    config,
    configSha256: "",
    codeVersion: "0",
    environment: {},
    budget: {},
    objectives: ["mean"],
    axes: [],
  });
  const evaluators = [
    { name: "a", fitness: [{ metric: "loss", weight: 2 }], direction: { loss: "lower" } },
  ];

  it("comes from the recorded experiment", () => {
    const given = JSON.stringify({ evaluate: [{ evaluator: "a", weight: 3 }] });
    expect(fitnessRule(run({ objective: "worst", evaluators }, given))).toEqual({
      objective: "worst",
      terms: [
        { evaluator: "a", weight: 3, metrics: [{ metric: "loss", weight: 2 }], lower: ["loss"] },
      ],
    });
  });

  it.each<[Json, string]>([
    [{ objective: "pareto", evaluators }, '{"evaluate":["a"]}'],
    [{ objective: "mean", evaluators }, "evaluate: [a]"],
    [{ objective: "mean", evaluators: [] }, '{"evaluate":[]}'],
    [null, "{}"],
    [{ objective: "mean", evaluators }, "null"],
  ])("is unknown for %j given %s", (config, given) => {
    expect(fitnessRule(run(config, given))).toBeUndefined();
  });
});
