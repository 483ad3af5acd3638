import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { EvaluatorResult, MetricResult } from "../../src/evaluation/executor.ts";
import { parseConstraint } from "../../src/run/constraints.ts";
import {
  type Fitness,
  fitnessOf,
  itemFitness,
  type Objective,
  type ObjectiveKind,
} from "../../src/run/objectives.ts";

function metric(name: string, value: number, itemScores?: readonly number[]): MetricResult {
  const kind = Number.isNaN(value)
    ? "nan"
    : value === Number.POSITIVE_INFINITY
      ? "pinf"
      : value === Number.NEGATIVE_INFINITY
        ? "ninf"
        : "finite";
  return {
    metric: name,
    kind,
    value: kind === "finite" ? value : undefined,
    standardError: undefined,
    items: 4,
    ...(itemScores === undefined ? {} : { itemScores }),
  };
}

/** One value per evaluator, under the metric "accuracy" of evaluators "a", "b", "c". */
function results(...values: readonly number[]): EvaluatorResult[] {
  return values.map((value, i) => ({
    evaluator: "abc"[i] as string,
    split: "search",
    metrics: [metric("accuracy", value)],
  }));
}

function objective(
  kind: ObjectiveKind,
  weights: readonly number[],
  constraints: readonly string[] = [],
): Objective {
  const names = weights.map((_, i) => "abc"[i] as string);
  const metrics = new Map(names.map((name) => [name, ["accuracy", "loss"]]));
  return {
    kind,
    terms: weights.map((weight, i) => ({
      evaluator: names[i] as string,
      weight,
      fitness: [{ metric: "accuracy", weight: 1 }],
      direction: { accuracy: 1, loss: -1 },
    })),
    constraints: constraints.map((text) => parseConstraint(text, metrics, "x.yml")),
  };
}

function valuesOf(fitness: Fitness): readonly number[] {
  if (fitness.state === "failed") throw new Error(fitness.reason);
  return fitness.values;
}

describe("one number from several evaluators", () => {
  it.each<[ObjectiveKind, readonly number[], readonly number[], readonly number[]]>([
    ["mean", [1, 1], [0.2, 0.6], [0.4]],
    ["mean", [3, 1], [0.2, 0.6], [0.3]],
    ["worst", [1, 1, 1], [0.5, 0.3, 0.9], [0.3]],
    ["product", [1, 1], [0.25, 1], [0.5]],
    ["product", [1, 3], [1 / 16, 1], [0.5]],
    ["pareto", [1, 1, 1], [0.5, 0.3, 0.9], [0.5, 0.3, 0.9]],
  ])("%s with weights %j of %j is %j", (kind, weights, scores, expected) => {
    const values = valuesOf(fitnessOf(objective(kind, weights), results(...scores), []));
    expect(values).toHaveLength(expected.length);
    for (const [i, value] of values.entries()) expect(value).toBeCloseTo(expected[i] as number, 12);
  });

  it("stays finite where a product meets zero, and ranks it below everything positive", () => {
    const product = objective("product", [1, 1]);
    const [zero] = valuesOf(fitnessOf(product, results(0, 1), []));
    const [small] = valuesOf(fitnessOf(product, results(1e-6, 1e-6), []));
    expect(zero).toBeGreaterThanOrEqual(0);
    expect(zero).toBeLessThan(1e-5);
    expect(small).toBeCloseTo(1e-6, 12);
  });

  it("weights are shares: their scale does not matter", () => {
    const value = fc.double({ min: 0, max: 1, noNaN: true });
    const weight = fc.double({ min: 0.01, max: 10, noNaN: true });
    fc.assert(
      fc.property(
        fc.array(fc.tuple(value, weight), { minLength: 1, maxLength: 3 }),
        weight,
        fc.constantFrom<ObjectiveKind>("mean", "worst", "product"),
        (pairs, scale, kind) => {
          const scores = results(...pairs.map(([score]) => score));
          const weights = pairs.map(([, share]) => share);
          const [a] = valuesOf(fitnessOf(objective(kind, weights), scores, []));
          const scaled = weights.map((share) => share * scale);
          const [b] = valuesOf(fitnessOf(objective(kind, scaled), scores, []));
          expect(b).toBeCloseTo(a as number, 9);
        },
      ),
    );
  });

  it("never falls when one evaluator's score rises", () => {
    const value = fc.double({ min: 0, max: 1, noNaN: true });
    fc.assert(
      fc.property(
        fc.tuple(value, value, value),
        fc.nat(2),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.constantFrom<ObjectiveKind>("mean", "worst", "product"),
        (scores, which, rise, kind) => {
          const raised = scores.map((score, i) => (i === which ? score + rise : score));
          const rule = objective(kind, [1, 2, 3]);
          const [low] = valuesOf(fitnessOf(rule, results(...scores), []));
          const [high] = valuesOf(fitnessOf(rule, results(...raised), []));
          expect(high).toBeGreaterThanOrEqual((low as number) - 1e-12);
        },
      ),
    );
  });
});

describe("direction", () => {
  const losses = (value: number): EvaluatorResult[] => [
    {
      evaluator: "a",
      split: "search",
      metrics: [metric("loss", value), metric("accuracy", 0.5)],
    },
  ];

  it("turns a loss, so that less of it is more fitness", () => {
    const rule: Objective = {
      kind: "mean",
      terms: [
        {
          evaluator: "a",
          weight: 1,
          fitness: [{ metric: "loss", weight: 1 }],
          direction: { loss: -1, accuracy: 1 },
        },
      ],
      constraints: [],
    };
    expect(valuesOf(fitnessOf(rule, losses(2), []))).toEqual([-2]);
    expect(valuesOf(fitnessOf(rule, losses(1), []))).toEqual([-1]);
  });

  it("mixes metrics of one evaluator, each turned by itself", () => {
    const rule: Objective = {
      kind: "mean",
      terms: [
        {
          evaluator: "a",
          weight: 1,
          fitness: [
            { metric: "loss", weight: 1 },
            { metric: "accuracy", weight: 3 },
          ],
          direction: { loss: -1, accuracy: 1 },
        },
      ],
      constraints: [],
    };
    // (1·(−2) + 3·0.5) / 4
    expect(valuesOf(fitnessOf(rule, losses(2), []))[0]).toBeCloseTo(-0.125, 12);
  });
});

describe("scores that are no numbers", () => {
  it.each([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])(
    "%s is a failure that names its evaluator, whatever the other scores are",
    (value) => {
      for (const kind of ["mean", "worst", "product", "pareto"] as const) {
        const fitness = fitnessOf(objective(kind, [1, 1]), results(1, value), []);
        expect(fitness).toEqual({ state: "failed", reason: "b has no finite fitness" });
      }
    },
  );

  it("a missing evaluator or metric is a failure", () => {
    expect(fitnessOf(objective("mean", [1, 1]), results(1), []).state).toBe("failed");
    const other: EvaluatorResult[] = [
      { evaluator: "a", split: "search", metrics: [metric("f1", 1)] },
    ];
    expect(fitnessOf(objective("mean", [1]), other, []).state).toBe("failed");
  });
});

describe("constraints", () => {
  it("an infeasible candidate ranks below every feasible one, and the more it breaks the lower", () => {
    const value = fc.double({ min: 0, max: 1, noNaN: true });
    const rule = objective("mean", [1, 1], ["b.accuracy >= 0.5"]);
    fc.assert(
      fc.property(value, value, value, value, (a1, b1, a2, b2) => {
        const one = fitnessOf(rule, results(a1, b1), []);
        const two = fitnessOf(rule, results(a2, b2), []);
        if (one.state === "failed" || two.state === "failed") throw new Error("failed");
        expect(one.feasible).toBe(b1 >= 0.5);
        const [first, second] = [one.values[0] as number, two.values[0] as number];
        if (one.feasible && !two.feasible) expect(first).toBeGreaterThan(second);
        if (!one.feasible && !two.feasible && b1 > b2 + 1e-3) expect(first).toBeGreaterThan(second);
      }),
    );
  });

  it("holds exactly at the bound", () => {
    const rule = objective("mean", [1], ["a.accuracy >= 0.5", "a.accuracy <= 0.5"]);
    expect(fitnessOf(rule, results(0.5), [])).toEqual({
      state: "scored",
      values: [0.5],
      feasible: true,
    });
  });

  it("all objectives of a Pareto search are lowered together", () => {
    const rule = objective("pareto", [1, 1], ["a.accuracy >= 0.9"]);
    const fitness = fitnessOf(rule, results(0.5, 0.99), []);
    expect(fitness).toMatchObject({ state: "scored", feasible: false });
    for (const value of valuesOf(fitness)) expect(value).toBeLessThan(-1e5);
  });

  it("relative ones follow the best parent, in the metric's direction", () => {
    const parents = [results(0.7, 0.2), results(0.4, 0.9)];
    const feasible = (constraint: string, scores: readonly number[]): boolean => {
      const fitness = fitnessOf(
        objective("mean", [1, 1], [constraint]),
        results(...scores),
        parents,
      );
      return fitness.state === "scored" && fitness.feasible;
    };
    expect(feasible("a.accuracy >= parent - 0.1", [0.61, 0])).toBe(true);
    expect(feasible("a.accuracy >= parent - 0.1", [0.59, 0])).toBe(false);
    expect(feasible("b.accuracy >= parent + 0.05", [0, 0.94])).toBe(false);
    expect(feasible("b.accuracy >= parent", [0, 0.9])).toBe(true);
    // "At most": the best parent is the one with the least.
    expect(feasible("a.accuracy <= parent + 0.05", [0.45, 0])).toBe(true);
    expect(feasible("a.accuracy <= parent", [0.5, 0])).toBe(false);
  });

  it("parents themselves are measured against absolute bounds only", () => {
    const rule = objective("mean", [1], ["a.accuracy >= parent + 0.5"]);
    expect(fitnessOf(rule, results(0.1), [])).toMatchObject({ feasible: true });
  });

  it("a constraint on a metric that came out as NaN is broken", () => {
    const rule = objective("mean", [1], ["a.loss <= 2"]);
    const scores: EvaluatorResult[] = [
      {
        evaluator: "a",
        split: "search",
        metrics: [metric("accuracy", 0.9), metric("loss", Number.NaN)],
      },
    ];
    expect(fitnessOf(rule, scores, [])).toMatchObject({ state: "scored", feasible: false });
  });
});

describe("item scores for niches", () => {
  it("come in the evaluators' order, turned, from the first metric of the fitness", () => {
    const rule = objective("mean", [1, 1]);
    const scores: EvaluatorResult[] = [
      { evaluator: "b", split: "search", metrics: [metric("accuracy", 0.5, [0, 1])] },
      { evaluator: "a", split: "search", metrics: [metric("accuracy", 1, [1, 1, 1])] },
    ];
    const turned = itemFitness(rule, scores, (evaluator, name, score) => {
      expect(name).toBe("accuracy");
      return evaluator === "a" ? score : 1 - score;
    });
    expect(turned).toEqual([1, 1, 1, 1, 0]);
  });

  it("are absent when one evaluator has none", () => {
    const scores: EvaluatorResult[] = [
      { evaluator: "a", split: "search", metrics: [metric("accuracy", 1, [1])] },
      { evaluator: "b", split: "search", metrics: [metric("accuracy", 1)] },
    ];
    expect(itemFitness(objective("mean", [1, 1]), scores, (_e, _m, x) => x)).toBeUndefined();
  });
});
