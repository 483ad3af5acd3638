// CMA-ES as an ask/tell optimizer: bounds, injection, failures, plateaus and restarts around the update of cma-update.ts.
import { z } from "zod";
import { MendelError } from "../base/errors.ts";
import type { Genome } from "../base/genome.ts";
import type { Json } from "../base/json.ts";
import { type RandomStream, randomStream } from "../base/random.ts";
import { type CmaHistory, emptyHistory, recordGeneration, stopReason } from "./cma-es-stop.ts";
import {
  type CmaParameters,
  type CmaProfile,
  type CmaState,
  cmaParameters,
  cmaPoint,
  cmaStart,
  cmaSteps,
  cmaUpdate,
  defaultPopulation,
  mahalanobis,
} from "./cma-update.ts";
import type {
  Candidate,
  Optimizer,
  OptimizerDefinition,
  OptimizerProblem,
  Outcome,
} from "./optimizer.ts";
import { betterOf, matchOutcomes } from "./outcomes.ts";
import { choiceSetting, numberSetting } from "./settings.ts";
import { fromBox, toBox } from "./smooth-bounds.ts";
import { expectLength, parseSnapshot } from "./snapshot.ts";

/** Restarts after which IPOP and BIPOP give up (large populations only): 2⁹ times the first one. */
const MAX_RESTARTS = 9;

/** Coordinate standard deviation beyond which sampling the box is no longer a local search. */
const MAX_DEVIATION = 1 / 3;

/** Larger populations than this are a typing mistake; a BIPOP run reaches it only from 20 up. */
const MAX_POPULATION = 10_000;

const RESTARTS = ["none", "ipop", "bipop"] as const;

const Vector = z.array(z.number());

const Snapshot = z.strictObject({
  optimizer: z.literal("cma_es"),
  nextId: z.int().nonnegative(),
  generation: z.int().nonnegative(),
  injected: z.int().nonnegative(),
  restart: z.int().nonnegative(),
  larges: z.int().nonnegative(),
  smallEvaluations: z.int().nonnegative(),
  largeEvaluations: z.int().nonnegative(),
  best: z.number().nullable(),
  stop: z.string().nullable(),
  run: z.strictObject({
    size: z.enum(["small", "large"]),
    lambda: z.int().min(2),
    sigma0: z.number().positive(),
    evaluations: z.int().nonnegative(),
    generationLimit: z.number().nullable(),
    asked: z.int().nonnegative(),
    history: z.strictObject({
      bests: Vector,
      medians: Vector,
      range: z.number().nullable(),
      still: z.int().nonnegative(),
    }),
    cma: z.strictObject({
      mean: Vector,
      sigma: z.number(),
      C: Vector,
      pSigma: Vector,
      pC: Vector,
      generation: z.int().nonnegative(),
      B: Vector,
      D: Vector,
      decomposed: z.int().nonnegative(),
    }),
  }),
});

/** One descent of the search: from a fresh distribution until a stop criterion holds. */
interface Run {
  /** Which of BIPOP's two budgets it is paid from. */
  readonly size: "small" | "large";
  readonly p: CmaParameters;
  readonly sigma0: number;
  readonly cma: CmaState;
  readonly history: CmaHistory;
  readonly evaluations: number;
  /** BIPOP's small runs are cut off when they have used their share. */
  readonly generationLimit: number | undefined;
  /** Generations told, counting those in which everything failed: names the random streams. */
  readonly asked: number;
}

/** Active CMA-ES with smooth bounds, injection of known points and restarts. */
export const cmaEs: OptimizerDefinition = {
  name: "cma_es",
  title: "CMA-ES",
  description:
    "Adapts a normal distribution to the landscape; the first choice for up to about a hundred merge coefficients.",
  reference:
    "Hansen 2016, The CMA evolution strategy: a tutorial, arXiv 1604.00772; Hansen 2009, BIPOP, GECCO workshops",
  genomes: ["vector"],
  objectives: 1,
  needsItems: false,
  settings: [
    {
      name: "sigma",
      description: "initial standard deviation, as a share of each gene's range",
      type: "number",
      default: 0.2,
      range: [1e-6, 1],
    },
    {
      name: "population",
      description: "candidates per generation; 0 means 4 + 3 ln n, rounded down",
      type: "integer",
      default: 0,
      range: [0, MAX_POPULATION],
    },
    {
      name: "restarts",
      description:
        "what to do when a run has converged: end the search, double the population, or alternate large and small",
      type: "choice",
      default: "ipop",
      choices: RESTARTS,
    },
    {
      name: "profile",
      description: "whose constants: pycma's or those of the 2016 tutorial",
      type: "choice",
      default: "pycma",
      choices: ["pycma", "tutorial"],
    },
  ],
  create: (problem, settings, snapshot) => {
    const n = problem.axes.length;
    const population = numberSetting(settings, "population");
    if (population === 1) {
      throw new MendelError(
        "invalid-config",
        "optimizer.population: expected 0 or at least 2, got 1",
        {
          where: { key: "optimizer.population" },
        },
      );
    }
    const options: CmaOptions = {
      sigma: numberSetting(settings, "sigma"),
      population: population === 0 ? defaultPopulation(n) : population,
      restarts: choiceSetting(settings, "restarts", RESTARTS),
      profile: choiceSetting(settings, "profile", ["pycma", "tutorial"]),
    };
    return new CmaEs(problem, options, snapshot);
  },
};

interface CmaOptions {
  readonly sigma: number;
  readonly population: number;
  readonly restarts: (typeof RESTARTS)[number];
  readonly profile: CmaProfile;
}

/** A proposed step of the pending generation. */
interface Proposal {
  readonly candidate: Candidate;
  readonly y: Float64Array;
  /** A foreign point, not a sample of the distribution. */
  readonly injected: boolean;
}

class CmaEs implements Optimizer {
  readonly #problem: OptimizerProblem;
  readonly #options: CmaOptions;
  #nextId = 0;
  #generation = 0;
  /** How many of the problem's initial genomes have been proposed. */
  #injected = 0;
  #restart = 0;
  #larges = 0;
  #smallEvaluations = 0;
  #largeEvaluations = 0;
  #best: number | undefined;
  #stop: string | undefined;
  #run: Run;
  #pending: readonly Proposal[] | undefined;
  #warnings: string[] = [];

  constructor(problem: OptimizerProblem, options: CmaOptions, snapshot: Json | undefined) {
    this.#problem = problem;
    this.#options = options;
    if (snapshot === undefined) {
      const start = Float64Array.from(problem.start, fromBox);
      this.#run = this.#freshRun("small", options.population, options.sigma, start);
      return;
    }
    const saved = parseSnapshot("cma_es", Snapshot, snapshot);
    this.#nextId = saved.nextId;
    this.#generation = saved.generation;
    this.#injected = saved.injected;
    this.#restart = saved.restart;
    this.#larges = saved.larges;
    this.#smallEvaluations = saved.smallEvaluations;
    this.#largeEvaluations = saved.largeEvaluations;
    this.#best = saved.best ?? undefined;
    this.#stop = saved.stop ?? undefined;
    this.#run = restoredRun(saved.run, problem.axes.length, options.profile);
  }

  #freshRun(
    size: Run["size"],
    lambda: number,
    sigma: number,
    mean: Float64Array,
    generationLimit?: number,
  ): Run {
    const p = cmaParameters(mean.length, lambda, this.#options.profile);
    const cma = cmaStart(p, mean, sigma);
    const counters = { evaluations: 0, asked: 0, history: emptyHistory() };
    return { size, p, sigma0: sigma, cma, generationLimit, ...counters };
  }

  get stop(): string | undefined {
    return this.#stop;
  }

  ask(): readonly Candidate[] {
    if (this.#pending !== undefined) throw new Error("ask was called twice without a tell");
    if (this.#stop !== undefined) throw new Error("ask was called after the search had stopped");
    const { p, cma, asked } = this.#run;
    const steps = cmaSteps(p, cma, this.#problem.seed, "cma-es", this.#restart, asked);
    const guests = this.#guests();
    this.#pending = steps.map((y, slot) => {
      const guest = guests[slot - (steps.length - guests.length)];
      return guest === undefined ? this.#sample(slot, y) : this.#injection(slot, guest);
    });
    return this.#pending.map((proposal) => proposal.candidate);
  }

  /** Known points that take the last slots of this generation: at most a quarter of it, so that it stays a sample. */
  #guests(): readonly Genome[] {
    if (this.#restart > 0) return [];
    const places = Math.max(1, Math.floor(this.#run.p.lambda / 4));
    return this.#problem.initial.slice(this.#injected, this.#injected + places);
  }

  #sample(slot: number, y: Float64Array): Proposal {
    const values = Array.from(cmaPoint(this.#run.cma, y), toBox);
    const candidate = this.#candidate(slot, { kind: "vector", values }, "sample");
    return { candidate, y, injected: false };
  }

  /** The candidate is the known point itself; its step is clipped to the length of a long sample. */
  #injection(slot: number, genome: Genome): Proposal {
    if (genome.kind !== "vector") throw new Error("only vectors can be injected");
    const { cma, p } = this.#run;
    const y = cma.mean.map((m, i) => (fromBox(genome.values[i]!) - m) / cma.sigma);
    const limit = Math.sqrt(p.n) + (2 * p.n) / (p.n + 2); // Hansen 2011, Injecting external solutions, arXiv 1110.4181
    const factor = Math.min(1, limit / mahalanobis(cma, y));
    const candidate = this.#candidate(slot, genome, "injection");
    return { candidate, y: y.map((v) => v * factor), injected: true };
  }

  #candidate(slot: number, genome: Genome, operator: string): Candidate {
    return { id: this.#nextId + slot, generation: this.#generation, genome, parents: [], operator };
  }

  tell(outcomes: readonly Outcome[]): void {
    const pending = this.#pending;
    const matched = matchOutcomes(
      pending?.map((proposal) => proposal.candidate),
      outcomes,
      1,
    );
    this.#best = betterOf(this.#best, matched);
    const ranked = rank(pending ?? [], matched);
    this.#advance(ranked);
    this.#pending = undefined;
    this.#nextId += matched.length;
    this.#generation += 1;
    this.#injected += ranked.filter((entry) => entry.proposal.injected).length;
    const reason = this.#converged();
    if (reason !== undefined) this.#conclude(reason);
  }

  /** Updates the distribution; a generation in which everything failed teaches nothing and is sampled anew. */
  #advance(ranked: readonly Ranked[]): void {
    const { p, cma, history } = this.#run;
    const values = ranked.map((entry) => entry.f).filter((f) => f !== undefined);
    const counted = {
      ...this.#run,
      asked: this.#run.asked + 1,
      evaluations: this.#run.evaluations + ranked.length,
    };
    if (values.length === 0) {
      this.#warnings.push(
        `all ${ranked.length} candidates of generation ${this.#generation} failed`,
      );
      this.#run = counted;
      return;
    }
    const steps = ranked.map((entry) => entry.proposal.y);
    const updated = cmaUpdate(p, cma, steps, rankWeights(p, ranked));
    const next = { ...updated, sigma: this.#boundedSigma(updated, values) };
    this.#run = { ...counted, cma: next, history: recordGeneration(history, p, values, cma, next) };
  }

  /** σ after two corrections: a plateau widens the search (Hansen's flat fitness rule), the box limits it. */
  #boundedSigma(cma: CmaState, values: readonly number[]): number {
    const { p } = this.#run;
    const flat = values.length === p.lambda && values[0] === values[Math.ceil(0.7 * p.lambda) - 1];
    const sigma = flat ? cma.sigma * Math.exp(0.2 + p.cSigma / p.dSigma) : cma.sigma;
    let widest = 0;
    for (let i = 0; i < p.n; i++) widest = Math.max(widest, cma.C[i * p.n + i]!);
    return Math.min(sigma, Math.max(MAX_DEVIATION, this.#options.sigma) / Math.sqrt(widest));
  }

  #converged(): string | undefined {
    const { p, cma, history, sigma0, generationLimit } = this.#run;
    if (generationLimit !== undefined && this.#run.asked >= generationLimit) {
      return "maxiter: the small run has used its share";
    }
    return stopReason(p, cma, history, sigma0);
  }

  /** Ends the run; starts the next one where the settings say so. */
  #conclude(reason: string): void {
    const { restarts } = this.#options;
    if (this.#run.size === "small") this.#smallEvaluations += this.#run.evaluations;
    else this.#largeEvaluations += this.#run.evaluations;
    if (restarts === "none") {
      this.#stop = reason;
      return;
    }
    const small = restarts === "bipop" && this.#smallEvaluations < this.#largeEvaluations;
    if (!small && this.#larges >= MAX_RESTARTS) {
      this.#stop = `${reason}; ${MAX_RESTARTS} restarts are used up`;
      return;
    }
    this.#restart += 1;
    this.#run = small ? this.#smallRun() : this.#largeRun();
    this.#warnings.push(
      `restart ${this.#restart} with population ${this.#run.p.lambda}, because ${reason}`,
    );
  }

  /** IPOP (Auger & Hansen 2005): twice the population, anywhere in the box. */
  #largeRun(): Run {
    this.#larges += 1;
    const lambda = this.#options.population * 2 ** this.#larges;
    return this.#freshRun("large", lambda, this.#options.sigma, this.#anywhere().mean);
  }

  /** BIPOP (Hansen 2009): a random smaller population and step size, for half of what the large runs have cost. */
  #smallRun(): Run {
    const { mean, stream } = this.#anywhere();
    const u = stream.uniform();
    const lambda = Math.floor(this.#options.population * (2 ** this.#larges) ** (u * u));
    const sigma = this.#options.sigma * 0.01 ** stream.uniform();
    const limit = Math.max(1, Math.floor((0.5 * this.#largeEvaluations) / lambda));
    return this.#freshRun("small", lambda, sigma, mean, limit);
  }

  #anywhere(): { readonly mean: Float64Array; readonly stream: RandomStream } {
    const stream = randomStream(this.#problem.seed, "cma-es", this.#restart, "start");
    return { mean: Float64Array.from(this.#problem.axes, () => stream.uniform()), stream };
  }

  snapshot(): Json {
    const { size, p, sigma0, cma, history, evaluations, generationLimit, asked } = this.#run;
    return {
      optimizer: "cma_es",
      nextId: this.#nextId,
      generation: this.#generation,
      injected: this.#injected,
      restart: this.#restart,
      larges: this.#larges,
      smallEvaluations: this.#smallEvaluations,
      largeEvaluations: this.#largeEvaluations,
      best: this.#best ?? null,
      stop: this.#stop ?? null,
      run: {
        size,
        lambda: p.lambda,
        sigma0,
        evaluations,
        generationLimit: generationLimit ?? null,
        asked,
        history: { ...history, range: history.range ?? null },
        cma: {
          mean: Array.from(cma.mean),
          sigma: cma.sigma,
          C: Array.from(cma.C),
          pSigma: Array.from(cma.pSigma),
          pC: Array.from(cma.pC),
          generation: cma.generation,
          B: Array.from(cma.B),
          D: Array.from(cma.D),
          decomposed: cma.decomposed,
        },
      },
    };
  }

  get status(): Readonly<Record<string, number>> {
    const { p, cma } = this.#run;
    const ratio = cma.D[p.n - 1]! / cma.D[0]!;
    return {
      evaluations: this.#nextId,
      ...(this.#best === undefined ? {} : { best: this.#best }),
      sigma: cma.sigma,
      condition: ratio * ratio,
      population: p.lambda,
      restarts: this.#restart,
    };
  }

  takeWarnings(): readonly string[] {
    return this.#warnings.splice(0);
  }
}

/** A proposal with f = −fitness; undefined when it failed. */
interface Ranked {
  readonly proposal: Proposal;
  readonly f: number | undefined;
}

/** Best first; ties by id, because samples are exchangeable; failures last. `outcomes` are in the proposals' order. */
function rank(proposals: readonly Proposal[], outcomes: readonly Outcome[]): Ranked[] {
  const entries = proposals.map((proposal, slot): Ranked => {
    const outcome = outcomes[slot]!;
    return { proposal, f: outcome.state === "complete" ? -outcome.fitness[0]! : undefined };
  });
  return entries.sort((a, b) => {
    if (a.f !== undefined && b.f !== undefined && a.f !== b.f) return a.f < b.f ? -1 : 1;
    if ((a.f === undefined) !== (b.f === undefined)) return a.f === undefined ? 1 : -1;
    return a.proposal.candidate.id - b.proposal.candidate.id;
  });
}

/** No negative weight for foreign points, which say nothing about the distribution; no positive one for failures. */
function rankWeights(p: CmaParameters, ranked: readonly Ranked[]): Float64Array {
  return p.weights.map((weight, k) => {
    const { proposal, f } = ranked[k]!;
    if (weight < 0 && proposal.injected) return 0;
    return weight > 0 && f === undefined ? 0 : weight;
  });
}

function restoredRun(saved: z.output<typeof Snapshot>["run"], n: number, profile: CmaProfile): Run {
  const { cma, lambda, history, generationLimit, ...rest } = saved;
  for (const vector of [cma.mean, cma.pSigma, cma.pC, cma.D]) {
    expectLength("cma_es", "coordinates", vector.length, n);
  }
  for (const matrix of [cma.C, cma.B]) expectLength("cma_es", "covariances", matrix.length, n * n);
  return {
    ...rest,
    p: cmaParameters(n, lambda, profile),
    history: { ...history, range: history.range ?? undefined },
    generationLimit: generationLimit ?? undefined,
    cma: {
      ...cma,
      mean: Float64Array.from(cma.mean),
      C: Float64Array.from(cma.C),
      pSigma: Float64Array.from(cma.pSigma),
      pC: Float64Array.from(cma.pC),
      B: Float64Array.from(cma.B),
      D: Float64Array.from(cma.D),
    },
  };
}
