import { describe, expect, it } from "vitest";
import { createOptimizer } from "../../src/optimizers/index.ts";
import type { OptimizerProblem } from "../../src/optimizers/optimizer.ts";

/** Eight yes-or-no genes of which three must be yes, one gene of five values, two numbers. */
const wanted = [1, 0, 0, 1, 0, 0, 0, 1];
const problem = (seed: number): OptimizerProblem => ({
  seed,
  axes: [...wanted.map((_, i) => `bit ${i}`), "five", "x", "y"],
  start: [...wanted.map(() => 0.1), 0.1, 0.5, 0.5],
  levels: [...wanted.map(() => 2), 5, undefined, undefined],
  initial: [],
  objectives: 1,
});

function fitness(values: readonly number[]): number {
  const bits = wanted.filter((bit, i) => Number(values[i]! > 0.5) !== bit).length;
  const five = Math.floor(values[8]! * 5) - 3;
  return -(bits + five * five + (values[9]! - 0.8) ** 2 + (values[10]! - 0.3) ** 2);
}

describe("CMA-ES with margin on genes of few values", () => {
  it("finds all of them and the numbers beside, from the far side, for every seed", () => {
    for (const seed of [1, 2, 3, 4, 5]) {
      const optimizer = createOptimizer("cma_es_margin", {}, problem(seed));
      let best = Number.NEGATIVE_INFINITY;
      for (let asked = 0; asked < 1500; ) {
        const candidates = optimizer.ask();
        asked += candidates.length;
        optimizer.tell(
          candidates.map(({ id, genome }) => {
            if (genome.kind !== "vector") throw new Error("a vector was expected");
            const value = fitness(genome.values);
            best = Math.max(best, value);
            return { state: "complete", id, fitness: [value] };
          }),
        );
      }
      // One wrong bit costs 1.
      expect(best).toBeGreaterThan(-0.02);
    }
  });

  it("proposes the middle of a value's part, so that equal choices are equal genomes", () => {
    const optimizer = createOptimizer("cma_es_margin", { sigma: 0.5 }, problem(7));
    for (const { genome } of optimizer.ask()) {
      if (genome.kind !== "vector") throw new Error("a vector was expected");
      expect(genome.values.slice(0, 8).every((u) => u === 0.25 || u === 0.75)).toBe(true);
      expect([0.1, 0.3, 0.5, 0.7, 0.9]).toContain(genome.values[8]);
    }
  });
});
