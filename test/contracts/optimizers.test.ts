import { describe, expect, it } from "vitest";
import { MendelError } from "../../src/base/errors.ts";
import type { Genome } from "../../src/base/genome.ts";
import type { Json } from "../../src/base/json.ts";
import { createOptimizer, optimizers } from "../../src/optimizers/index.ts";
import type {
  Candidate,
  Optimizer,
  OptimizerProblem,
  Outcome,
} from "../../src/optimizers/optimizer.ts";

const ITEMS = 12;

const vectorProblem: OptimizerProblem = {
  seed: 11,
  axes: ["a", "b", "c"],
  start: [0.5, 0.5, 0.5],
  initial: [
    { kind: "vector", values: [1 / 3, 1 / 3, 1 / 3] },
    { kind: "vector", values: [1, 0, 0] },
    { kind: "vector", values: [0, 1, 0] },
  ],
  objectives: 1,
};

/** Two orthogonal models of unit norm per block. */
const boundaries = [0, 10, 25, 40, 70, 100];
const segmentProblem: OptimizerProblem = {
  seed: 11,
  axes: [],
  start: [],
  initial: [],
  segments: {
    length: 100,
    boundaries,
    gram: boundaries.map((end) => [
      [end, 0.2 * end],
      [0.2 * end, 1.5 * end],
    ]),
  },
  objectives: 1,
};

/** Every registered optimizer on every kind of genome it takes, and some settings that change the course of events. */
const variants = Object.values(optimizers).flatMap((definition) =>
  definition.genomes.map((kind) => ({
    label: `${definition.name} on ${kind}`,
    name: definition.name,
    settings: {},
    problem: kind === "vector" ? vectorProblem : segmentProblem,
  })),
);
const special = [
  { name: "cma_es", settings: { profile: "tutorial", restarts: "none" } },
  { name: "cma_es", settings: { population: 4, restarts: "bipop", sigma: 0.001 } },
  { name: "natural_niches", settings: { mutation: 0.1, archive: 4, batch: 1 } },
  { name: "natural_niches", settings: { attraction: false, split: false, warmup: 5 } },
  {
    name: "natural_niches",
    settings: { crossover: false, mutation: 0.1, alpha: 0, min_shift: true, archive: 1 },
  },
].map((variant) => ({
  ...variant,
  label: `${variant.name} with ${JSON.stringify(variant.settings)}`,
  problem: vectorProblem,
}));
const all = [...variants, ...special];

/** Numbers of a genome, whatever its kind. */
function numbersOf(genome: Genome): readonly number[] {
  return genome.kind === "vector" ? genome.values : genome.coefficients.flat();
}

/** A smooth score with its maximum inside the box, and item scores that favor different regions. */
function scored({ id, genome }: Candidate): Outcome {
  const numbers = numbersOf(genome);
  const fitness = -numbers.reduce((sum, x, i) => sum + (x - 0.3 - 0.05 * (i % 5)) ** 2, 0);
  const items = Array.from({ length: ITEMS }, (_, j) =>
    numbers[j % numbers.length]! > j / ITEMS ? 1 : 0,
  );
  return { state: "complete", id, fitness: [fitness], items };
}

/** As `scored`, with a failure now and then. */
function scoredOrFailed(candidate: Candidate): Outcome {
  return candidate.id % 4 === 1
    ? { state: "failed", id: candidate.id, reason: "NaN in the output" }
    : scored(candidate);
}

type Judge = (candidate: Candidate) => Outcome;

/** Candidates of the next generations; stops early with the optimizer. */
function generations(optimizer: Optimizer, count: number, judge: Judge): Candidate[][] {
  const asked: Candidate[][] = [];
  for (let g = 0; g < count && optimizer.stop === undefined; g++) {
    const candidates = [...optimizer.ask()];
    asked.push(candidates);
    optimizer.tell(candidates.map(judge));
  }
  return asked;
}

function throughText(snapshot: Json): Json {
  return JSON.parse(JSON.stringify(snapshot));
}

function allNumbers(value: unknown): number[] {
  if (typeof value === "number") return [value];
  if (value === null || typeof value !== "object") return [];
  return Object.values(value).flatMap(allNumbers);
}

describe.each(all)("$label", ({ name, settings, problem }) => {
  const create = (snapshot?: Json) => createOptimizer(name, settings, problem, snapshot);

  it("proposes the same candidates for the same seed, others for another", () => {
    const first = generations(create(), 15, scored);
    expect(generations(create(), 15, scored)).toEqual(first);
    const other = createOptimizer(name, settings, { ...problem, seed: 12 });
    expect(generations(other, 15, scored)).not.toEqual(first);
  });

  it("counts ids up from 0 and generations with them, with known parents", () => {
    const asked = generations(create(), 15, scored);
    expect(asked.flat().map((candidate) => candidate.id)).toEqual([...asked.flat().keys()]);
    asked.forEach((candidates, g) => {
      expect(candidates.length).toBeGreaterThan(0);
      for (const candidate of candidates) {
        expect(candidate.generation).toBe(g);
        expect(candidate.operator).not.toBe("");
        for (const parent of candidate.parents) expect(parent).toBeLessThan(candidates[0]!.id);
      }
    });
  });

  it("begins with the known points, exactly as they are given", () => {
    const early = generations(create(), 6, scored).flat();
    for (const known of problem.initial) {
      expect(early.map((candidate) => candidate.genome)).toContainEqual(known);
    }
  });

  it("continues from a snapshot of any generation as if never stopped", () => {
    const whole = generations(create(), 40, scoredOrFailed);
    const running = create();
    for (let g = 0; g < whole.length; g++) {
      const snapshot = running.snapshot();
      expect(allNumbers(snapshot).every(Number.isFinite)).toBe(true);
      const restored = create(throughText(snapshot));
      expect(restored.snapshot()).toEqual(throughText(snapshot));
      const ahead = whole.slice(g, g + 3);
      expect(generations(restored, ahead.length, scoredOrFailed)).toEqual(ahead);
      expect(generations(running, 1, scoredOrFailed)).toEqual([whole[g]]);
    }
    expect(create(throughText(running.snapshot())).stop).toBe(running.stop);
  });

  it("asks the same again when restored between ask and tell", () => {
    const running = create();
    generations(running, 4, scored);
    const pending = running.ask();
    expect(create(throughText(running.snapshot())).ask()).toEqual(pending);
  });

  it("does not care in which order outcomes arrive", () => {
    const straight = create();
    const reversed = create();
    for (let g = 0; g < 15 && straight.stop === undefined; g++) {
      const candidates = straight.ask();
      expect(reversed.ask()).toEqual(candidates);
      straight.tell(candidates.map(scoredOrFailed));
      reversed.tell(candidates.map(scoredOrFailed).reverse());
    }
    expect(reversed.snapshot()).toEqual(straight.snapshot());
  });

  it("refuses outcomes that do not match what was asked, and stays usable", () => {
    const optimizer = create();
    expect(() => optimizer.tell([])).toThrow();
    const outcomes = optimizer.ask().map(scored);
    expect(() => optimizer.ask()).toThrow();
    const [first] = outcomes;
    if (first?.state !== "complete") throw new Error("nothing was asked");
    expect(() => optimizer.tell(outcomes.slice(1))).toThrow(/no outcome/);
    expect(() => optimizer.tell([...outcomes, first])).toThrow(/twice/);
    expect(() => optimizer.tell([...outcomes, { ...first, id: 999 }])).toThrow(/999/);
    expect(() => optimizer.tell([...outcomes.slice(1), { ...first, id: 999 }])).toThrow();
    expect(() =>
      optimizer.tell([...outcomes.slice(1), { ...first, fitness: [Number.NaN] }]),
    ).toThrow(/not finite/);
    expect(() => optimizer.tell([...outcomes.slice(1), { ...first, fitness: [1, 2] }])).toThrow(
      /2 fitness values/,
    );
    optimizer.tell(outcomes);
    expect(optimizer.ask().length).toBeGreaterThan(0);
  });

  it("keeps vectors in the unit cube and segments well-formed", () => {
    for (const { genome } of generations(create(), 60, scored).flat()) {
      expect(numbersOf(genome).every(Number.isFinite)).toBe(true);
      if (genome.kind === "vector") {
        expect(genome.values.length).toBe(problem.axes.length);
        expect(Math.min(...genome.values)).toBeGreaterThanOrEqual(0);
        expect(Math.max(...genome.values)).toBeLessThanOrEqual(1);
      } else {
        expect(genome.breaks[0]).toBe(0);
        expect(genome.breaks.every((at) => problem.segments?.boundaries.includes(at))).toBe(true);
      }
    }
  });

  it("survives a generation, and a whole search, in which everything fails", () => {
    const fail: Judge = ({ id }) => ({ state: "failed", id, reason: "timeout" });
    const optimizer = create();
    const asked = generations(optimizer, 12, fail).flat();
    expect(
      new Set(asked.map((candidate) => JSON.stringify(candidate.genome))).size,
    ).toBeGreaterThan(1);
    expect(Object.values(optimizer.status).every(Number.isFinite)).toBe(true);
    expect(optimizer.status).not.toHaveProperty("best");
    expect(allNumbers(optimizer.snapshot()).every(Number.isFinite)).toBe(true);
    expect(generations(optimizer, 3, scored).length).toBe(3);
    expect(optimizer.status).toHaveProperty("best");
  });

  it("reports finite facts and the best fitness so far", () => {
    const optimizer = create();
    const asked = generations(optimizer, 10, scored).flat();
    const fitnesses = asked
      .map(scored)
      .map((outcome) =>
        outcome.state === "complete" ? outcome.fitness[0]! : Number.NEGATIVE_INFINITY,
      );
    expect(optimizer.status["best"]).toBe(Math.max(...fitnesses));
    expect(optimizer.status["evaluations"]).toBe(asked.length);
    expect(Object.values(optimizer.status).every(Number.isFinite)).toBe(true);
  });

  it("hands each warning out once", () => {
    const optimizer = create();
    generations(optimizer, 20, scoredOrFailed);
    optimizer.takeWarnings();
    expect(optimizer.takeWarnings()).toEqual([]);
  });

  it("refuses a snapshot that is damaged or another optimizer's", () => {
    const codes = [
      null,
      {},
      { optimizer: "other" },
      { ...Object(create().snapshot()), extra: 1 },
    ].map((snapshot) => {
      try {
        create(throughText(snapshot));
      } catch (error) {
        if (error instanceof MendelError) return error.code;
        throw error;
      }
      return "accepted";
    });
    expect(codes).toEqual(["database", "database", "database", "database"]);
  });
});

describe("cma_es", () => {
  it("finds the optimum of a sphere far better than random search with the same budget", () => {
    const best = (name: string) => {
      const optimizer = createOptimizer(name, {}, { ...vectorProblem, initial: [] });
      while ((optimizer.status["evaluations"] ?? 0) < 300) generations(optimizer, 1, scored);
      return optimizer.status["best"]!;
    };
    expect(best("cma_es")).toBeGreaterThan(-1e-6);
    expect(best("random")).toBeLessThan(-1e-4);
  });

  it.each([
    [0, 0],
    [1, 1],
    [1, 0.4],
  ])("finds an optimum at the bounds (%f, %f)", (x, y) => {
    const problem = { ...vectorProblem, axes: ["a", "b"], start: [0.5, 0.5], initial: [] };
    const optimizer = createOptimizer("cma_es", { restarts: "none" }, problem);
    const judge: Judge = ({ id, genome }) => {
      const [a, b] = numbersOf(genome);
      return { state: "complete", id, fitness: [-Math.abs(a! - x) - (b! - y) ** 2] };
    };
    generations(optimizer, 200, judge);
    expect(optimizer.status["best"]!).toBeGreaterThan(-1e-3);
  });

  it("sees only the order of fitness: f and exp(f) give the same candidates", () => {
    const exponential: Judge = (candidate) => {
      const outcome = scored(candidate);
      return outcome.state === "failed"
        ? outcome
        : { ...outcome, fitness: [-Math.exp(-outcome.fitness[0]!)] };
    };
    const plain = createOptimizer("cma_es", {}, vectorProblem);
    const curved = createOptimizer("cma_es", {}, vectorProblem);
    expect(generations(curved, 20, exponential)).toEqual(generations(plain, 20, scored));
  });

  it("stops by name without restarts, restarts with a doubled population otherwise", () => {
    const lone = createOptimizer("cma_es", { restarts: "none" }, vectorProblem);
    generations(lone, 1000, scored);
    expect(lone.stop).toMatch(/^tol/);
    expect(() => lone.ask()).toThrow();

    const again = createOptimizer("cma_es", { restarts: "ipop" }, vectorProblem);
    const sizes = new Set(generations(again, 120, scored).map((candidates) => candidates.length));
    expect([...sizes].slice(0, 2)).toEqual([7, 14]);
    expect(again.takeWarnings()[0]).toMatch(/restart 1 with population 14, because tol/);
  });

  it("alternates large and small runs under BIPOP", () => {
    const optimizer = createOptimizer("cma_es", { restarts: "bipop" }, vectorProblem);
    const warnings: string[] = [];
    for (let g = 0; g < 400; g++) {
      generations(optimizer, 1, scored);
      warnings.push(...optimizer.takeWarnings());
    }
    const sizes = warnings.map((line) => Number(/population (\d+)/.exec(line)?.[1]));
    expect(sizes[0]).toBe(14);
    expect(sizes).toContain(28);
    expect(sizes.slice(1).some((size) => size < 28)).toBe(true);
  });

  it("continues exactly between two lazy decompositions in high dimension", () => {
    const axes = Array.from({ length: 120 }, (_, i) => `g${i}`);
    const problem = { ...vectorProblem, axes, start: axes.map(() => 0.5), initial: [] };
    const whole = generations(createOptimizer("cma_es", {}, problem), 6, scored);
    const running = createOptimizer("cma_es", {}, problem);
    for (let g = 0; g < 5; g++) {
      const restored = createOptimizer("cma_es", {}, problem, throughText(running.snapshot()));
      expect(generations(restored, 2, scored)).toEqual(whole.slice(g, g + 2));
      generations(running, 1, scored);
    }
  });

  it("widens the search on a plateau instead of collapsing", () => {
    const flat: Judge = ({ id }) => ({ state: "complete", id, fitness: [0.5] });
    const optimizer = createOptimizer("cma_es", { sigma: 0.01 }, vectorProblem);
    generations(optimizer, 6, flat);
    expect(optimizer.status["sigma"]!).toBeGreaterThan(0.05);
  });

  it("is drawn to a good known point", () => {
    const corner: Judge = ({ id, genome }) => {
      const fitness = -numbersOf(genome).reduce(
        (sum, x, i) => sum + (x - (i === 0 ? 1 : 0)) ** 2,
        0,
      );
      return { state: "complete", id, fitness: [fitness] };
    };
    const distance = (initial: readonly Genome[]) => {
      const optimizer = createOptimizer("cma_es", {}, { ...vectorProblem, initial });
      const sampled = generations(optimizer, 8, corner)
        .slice(5)
        .flat()
        .filter((candidate) => candidate.operator === "sample")
        .map(corner)
        .map((outcome) => (outcome.state === "complete" ? outcome.fitness[0]! : 0));
      return sampled.reduce((sum, value) => sum + value, 0) / sampled.length;
    };
    expect(distance(vectorProblem.initial)).toBeGreaterThan(distance([]));
  });
});

describe("natural_niches", () => {
  it("keeps specialists that plain selection loses", () => {
    // One individual solves the first items only, the rest the others: coverage needs both.
    const coverage = (alpha: number) => {
      const optimizer = createOptimizer(
        "natural_niches",
        { alpha, archive: 6, mutation: 0.05, batch: 1 },
        vectorProblem,
      );
      const judge: Judge = ({ id, genome }) => {
        const [a, b] = numbersOf(genome);
        const items = Array.from({ length: 20 }, (_, j) =>
          (j < 6 ? a! > 0.9 && b! < 0.5 : b! > 0.05 * j - 0.3) ? 1 : 0,
        );
        const fitness = items.reduce((sum: number, item) => sum + item, 0) / 20;
        return { state: "complete", id, fitness: [fitness], items };
      };
      generations(optimizer, 400, judge);
      return optimizer.status["coverage"]!;
    };
    expect(coverage(1)).toBe(1);
    expect(coverage(0)).toBeLessThan(1);
  });

  it("warns once when the evaluator has no item scores, and searches by fitness", () => {
    const optimizer = createOptimizer("natural_niches", { mutation: 0.05 }, vectorProblem);
    const judge: Judge = (candidate) => {
      const outcome = scored(candidate);
      return outcome.state === "complete"
        ? { state: "complete", id: outcome.id, fitness: outcome.fitness }
        : outcome;
    };
    const warnings: string[] = [];
    for (let g = 0; g < 200; g++) {
      generations(optimizer, 1, judge);
      warnings.push(...optimizer.takeWarnings());
    }
    expect(warnings.filter((line) => line.includes("no scores per item")).length).toBe(1);
    expect(optimizer.status["best"]!).toBeGreaterThan(-0.005);
  });

  it("warns when items are lost", () => {
    const optimizer = createOptimizer("natural_niches", { archive: 2, batch: 1 }, vectorProblem);
    // The seeds solve one item each; a later crowd of children solves many others and drives them out.
    const judge: Judge = ({ id, operator }) => ({
      state: "complete",
      id,
      fitness: [0],
      items: Array.from({ length: 10 }, (_, j) =>
        (operator === "seed" ? j === id : j >= 4) ? 1 : 0,
      ),
    });
    const warnings: string[] = [];
    for (let g = 0; g < 12; g++) {
      generations(optimizer, 1, judge);
      warnings.push(...optimizer.takeWarnings());
    }
    expect(warnings.join("\n")).toMatch(/coverage fell from 0\.\d+ to 0\.\d+/);
  });

  it("refuses scores over other items", () => {
    const optimizer = createOptimizer("natural_niches", {}, vectorProblem);
    generations(optimizer, 1, scored);
    const shorter: Judge = ({ id }) => ({ state: "complete", id, fitness: [0], items: [1, 0] });
    expect(() => generations(optimizer, 1, shorter)).toThrow(/2 item scores, earlier ones have 12/);
  });

  it("breeds from what is left when a seed fails", () => {
    const optimizer = createOptimizer("natural_niches", {}, segmentProblem);
    const judge: Judge = (candidate) =>
      candidate.id === 0 ? { state: "failed", id: 0, reason: "NaN" } : scored(candidate);
    const children = generations(optimizer, 3, judge)
      .flat()
      .filter((candidate) => candidate.operator === "crossover");
    expect(children.length).toBeGreaterThan(0);
    expect(children.every((child) => child.parents.length === 2)).toBe(true);
  });

  it("stores right/wrong scores compactly", () => {
    const optimizer = createOptimizer("natural_niches", {}, vectorProblem);
    const judge: Judge = ({ id }) => ({
      state: "complete",
      id,
      fitness: [0],
      items: Array.from({ length: 1600 }, (_, j) => ((j * 7 + id) % 3 === 0 ? 1 : 0)),
    });
    generations(optimizer, 6, judge);
    expect(JSON.stringify(optimizer.snapshot()).length).toBeLessThan(15 * 600);
  });
});
