import { z } from "zod";
import type { Json } from "../base/json.ts";
import { randomStream } from "../base/random.ts";
import type {
  Candidate,
  Optimizer,
  OptimizerDefinition,
  OptimizerProblem,
  Outcome,
} from "./optimizer.ts";
import { betterOf, matchOutcomes } from "./outcomes.ts";
import { numberSetting } from "./settings.ts";
import { parseSnapshot } from "./snapshot.ts";

/** Largest number of candidates handed out at once: enough for any machine, small enough to store as one generation. */
const MAX_BATCH = 10_000;

const Snapshot = z.strictObject({
  optimizer: z.literal("random"),
  nextId: z.int().nonnegative(),
  generation: z.int().nonnegative(),
  best: z.number().nullable(),
});

/** Uniform sampling of the unit cube after the problem's known points: the yardstick of every other optimizer. */
export const random: OptimizerDefinition = {
  name: "random",
  title: "Random search",
  description: "The known points first, then independent uniform samples; learns nothing.",
  reference: "Bergstra & Bengio 2012, Random search for hyper-parameter optimization, JMLR 13",
  genomes: ["vector"],
  objectives: Number.MAX_SAFE_INTEGER,
  needsItems: false,
  settings: [
    {
      name: "batch",
      description: "candidates per generation",
      type: "integer",
      default: 8,
      range: [1, MAX_BATCH],
    },
  ],
  create: (problem, settings, snapshot) =>
    new RandomSearch(problem, numberSetting(settings, "batch"), snapshot),
};

class RandomSearch implements Optimizer {
  readonly stop = undefined;
  readonly #problem: OptimizerProblem;
  readonly #batch: number;
  #nextId = 0;
  #generation = 0;
  #best: number | undefined;
  #pending: readonly Candidate[] | undefined;

  constructor(problem: OptimizerProblem, batch: number, snapshot: Json | undefined) {
    this.#problem = problem;
    this.#batch = batch;
    if (snapshot === undefined) return;
    const saved = parseSnapshot("random", Snapshot, snapshot);
    this.#nextId = saved.nextId;
    this.#generation = saved.generation;
    this.#best = saved.best ?? undefined;
  }

  ask(): readonly Candidate[] {
    if (this.#pending !== undefined) throw new Error("ask was called twice without a tell");
    this.#pending = Array.from({ length: this.#batch }, (_, slot) =>
      this.#candidate(this.#nextId + slot),
    );
    return this.#pending;
  }

  #candidate(id: number): Candidate {
    const common = { id, generation: this.#generation, parents: [] };
    const known = this.#problem.initial[id];
    if (known !== undefined) return { ...common, genome: known, operator: "seed" };
    const stream = randomStream(this.#problem.seed, "random", id);
    const values = this.#problem.axes.map(() => stream.uniform());
    return { ...common, genome: { kind: "vector", values }, operator: "sample" };
  }

  tell(outcomes: readonly Outcome[]): void {
    const matched = matchOutcomes(this.#pending, outcomes, this.#problem.objectives);
    this.#best = betterOf(this.#best, matched);
    this.#nextId += matched.length;
    this.#generation += 1;
    this.#pending = undefined;
  }

  snapshot(): Json {
    return {
      optimizer: "random",
      nextId: this.#nextId,
      generation: this.#generation,
      best: this.#best ?? null,
    };
  }

  get status(): Readonly<Record<string, number>> {
    return {
      evaluations: this.#nextId,
      ...(this.#best === undefined ? {} : { best: this.#best }),
    };
  }

  takeWarnings(): readonly string[] {
    return [];
  }
}
