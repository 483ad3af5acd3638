import { describe, expect, it } from "vitest";
import { MendelError } from "../../src/base/errors.ts";
import { createOptimizer, optimizerNamed, optimizers } from "../../src/optimizers/index.ts";
import type { OptimizerProblem } from "../../src/optimizers/optimizer.ts";
import { completeSettings } from "../../src/optimizers/settings.ts";

const problem: OptimizerProblem = {
  seed: 1,
  axes: ["a", "b"],
  start: [0.5, 0.5],
  initial: [],
  objectives: 1,
};

function refusal(action: () => unknown): MendelError {
  try {
    action();
  } catch (error) {
    if (error instanceof MendelError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

describe("settings", () => {
  it("take their defaults", () => {
    expect(completeSettings(optimizers.cma_es, { sigma: 0.3 })).toEqual({
      sigma: 0.3,
      population: 0,
      restarts: "ipop",
      profile: "pycma",
    });
  });

  it.each([
    [{ sigmaa: 1 }, "optimizer.sigmaa", /sigma"\?/],
    [{ sigma: 0 }, "optimizer.sigma", /standard deviation/],
    [{ sigma: "0.2" }, "optimizer.sigma", /standard deviation/],
    [{ sigma: Number.NaN }, "optimizer.sigma", /standard deviation/],
    [{ population: 2.5 }, "optimizer.population", /candidates/],
    [{ population: 1 }, "optimizer.population", undefined],
    [{ restarts: "ipo" }, "optimizer.restarts", /ipop"\?/],
    [{ restarts: 3 }, "optimizer.restarts", /converged/],
  ])("refuse %j", (settings, key, hint) => {
    const error = refusal(() => createOptimizer("cma_es", settings, problem));
    expect(error.code).toBe("invalid-config");
    expect(error.where).toEqual({ key });
    if (hint !== undefined) expect(error.hint).toMatch(hint);
  });

  it("refuse a flag that is not one", () => {
    const error = refusal(() => createOptimizer("natural_niches", { split: "yes" }, problem));
    expect(error.message).toMatch(/true or false, got "yes"/);
  });

  it("name ranges and defaults that hold for every optimizer", () => {
    for (const definition of Object.values(optimizers)) {
      const defaults = Object.fromEntries(
        definition.settings.map((setting) => [setting.name, setting.default]),
      );
      expect(completeSettings(definition, defaults)).toEqual(defaults);
    }
  });
});

describe("the registry", () => {
  it("is keyed by each optimizer's own name", () => {
    for (const [name, definition] of Object.entries(optimizers)) expect(definition.name).toBe(name);
  });

  it.each(["cmaes", "CMA_ES", "natural_nichess"])("suggests a name for %s", (name) => {
    expect(refusal(() => optimizerNamed(name)).hint).toMatch(/did you mean/);
  });

  it("does not mistake inherited properties for optimizers", () => {
    expect(refusal(() => optimizerNamed("constructor")).code).toBe("invalid-config");
  });
});

describe("problems an optimizer cannot work on", () => {
  const segments = {
    length: 4,
    boundaries: [0, 2, 4],
    gram: [
      [
        [0, 0],
        [0, 0],
      ],
      [
        [1, 0],
        [0, 1],
      ],
      [
        [2, 0],
        [0, 2],
      ],
    ],
  };

  it("of the wrong kind of genome", () => {
    const error = refusal(() => createOptimizer("cma_es", {}, { ...problem, segments }));
    expect(error.hint).toContain("natural_niches");
  });

  it("with too many objectives", () => {
    const error = refusal(() => createOptimizer("cma_es", {}, { ...problem, objectives: 2 }));
    expect(error.message).toContain("1 objective, there are 2");
  });

  it("without genes", () => {
    const empty = { ...problem, axes: [], start: [] };
    expect(refusal(() => createOptimizer("random", {}, empty)).message).toContain("no free gene");
  });

  it("with one model to merge", () => {
    const gram = segments.gram.map((matrix) => [[matrix[0]![0]!]]);
    const lone = { ...problem, segments: { ...segments, gram } };
    expect(refusal(() => createOptimizer("natural_niches", {}, lone)).message).toContain(
      "at least two",
    );
  });

  it("with neither crossover nor mutation, so that children would be copies", () => {
    const error = refusal(() => createOptimizer("natural_niches", { crossover: false }, problem));
    expect(error.where).toEqual({ key: "optimizer.crossover" });
  });

  it("with mutation of segments", () => {
    const error = refusal(() =>
      createOptimizer("natural_niches", { mutation: 0.1 }, { ...problem, segments }),
    );
    expect(error.where).toEqual({ key: "optimizer.mutation" });
  });
});
