import { z } from "zod";
import { MendelError } from "../base/errors.ts";
import type { Genome } from "../base/genome.ts";
import type { Json } from "../base/json.ts";
import {
  type CmaParameters,
  type CmaState,
  cmaParameters,
  cmaStart,
  cmaSteps,
  cmaUpdate,
  defaultPopulation,
  mahalanobis,
} from "./cma-update.ts";
import { nearestValue, type Values, withMargin } from "./margin.ts";
import type {
  Candidate,
  Optimizer,
  OptimizerDefinition,
  OptimizerProblem,
  Outcome,
} from "./optimizer.ts";
import { betterOf, matchOutcomes } from "./outcomes.ts";
import { numberSetting } from "./settings.ts";
import { fromBox, toBox } from "./smooth-bounds.ts";
import { expectLength, parseSnapshot } from "./snapshot.ts";

const MAX_POPULATION = 10_000;
/** Standard deviations above this share of a gene's range search nothing that smaller ones do not. */
const MAX_DEVIATION = 1;
/** Below this share of a gene's range continuous genes have settled: the run begins anew around the best point. */
const SETTLED = 1e-9;

const Vector = z.array(z.number());
const Snapshot = z.strictObject({
  optimizer: z.literal("cma_es_margin"),
  nextId: z.int().nonnegative(),
  generation: z.int().nonnegative(),
  restarts: z.int().nonnegative(),
  best: z.number().nullable(),
  bestValues: Vector.nullable(),
  A: Vector,
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
});

/** CMA-ES for genes of which some take few values: blocks that are in or out, methods, choices. */
export const cmaEsMargin: OptimizerDefinition = {
  name: "cma_es_margin",
  title: "CMA-ES with margin",
  description:
    "CMA-ES that keeps choices and yes-or-no genes from settling too early; for paths through layers.",
  reference:
    "Hamano, Saito, Nomura, Shirakawa 2022, CMA-ES with margin, GECCO, https://arxiv.org/abs/2205.13482",
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
      name: "margin",
      description:
        "least probability per gene and candidate of another value, times genes and population",
      type: "number",
      default: 1,
      range: [0, 100],
    },
  ],
  create: (problem, settings, snapshot) => {
    const n = problem.axes.length;
    const population = numberSetting(settings, "population");
    if (population === 1) {
      throw new MendelError("invalid-config", "population: a generation needs at least 2", {
        where: { key: "optimizer.population" },
      });
    }
    return new CmaEsMargin(
      problem,
      cmaParameters(n, population === 0 ? defaultPopulation(n) : population, "tutorial"),
      numberSetting(settings, "sigma"),
      numberSetting(settings, "margin"),
      snapshot,
    );
  },
};

/** A candidate and its step y: its point is mean + σ·A·y, rounded where values are few. */
interface Proposal {
  readonly candidate: Candidate;
  readonly y: Float64Array;
  readonly injected: boolean;
}

class CmaEsMargin implements Optimizer {
  readonly stop = undefined;
  readonly #problem: OptimizerProblem;
  readonly #p: CmaParameters;
  readonly #sigma: number;
  readonly #alpha: number;
  /** Per axis 0 … levels − 1, or undefined: its coordinate then lies on the smooth box. */
  readonly #values: readonly Values[];
  readonly #warnings: string[] = [];
  #cma: CmaState;
  #A: Float64Array;
  #nextId = 0;
  #generation = 0;
  #restarts = 0;
  #best: number | undefined;
  #bestValues: readonly number[] | undefined;
  #pending: readonly Proposal[] | undefined;

  constructor(
    problem: OptimizerProblem,
    p: CmaParameters,
    sigma: number,
    margin: number,
    snapshot: Json | undefined,
  ) {
    this.#problem = problem;
    this.#p = p;
    this.#sigma = sigma;
    this.#alpha = Math.min(0.5, margin / (p.n * p.lambda));
    this.#values = problem.axes.map((_, i) => {
      const levels = problem.levels?.[i];
      return levels === undefined ? undefined : Array.from({ length: levels }, (__, k) => k);
    });
    this.#A = this.#freshSpread();
    this.#cma = cmaStart(p, this.#pointOf(problem.start), sigma);
    if (snapshot === undefined) return;
    const saved = parseSnapshot("cma_es_margin", Snapshot, snapshot);
    for (const vector of [saved.A, saved.cma.mean, saved.cma.D, saved.cma.pC, saved.cma.pSigma]) {
      expectLength("cma_es_margin", "coordinates", vector.length, p.n);
    }
    for (const matrix of [saved.cma.B, saved.cma.C]) {
      expectLength("cma_es_margin", "covariances", matrix.length, p.n * p.n);
    }
    this.#nextId = saved.nextId;
    this.#generation = saved.generation;
    this.#restarts = saved.restarts;
    this.#best = saved.best ?? undefined;
    this.#bestValues = saved.bestValues ?? undefined;
    this.#A = Float64Array.from(saved.A);
    const { mean, C, pSigma, pC, B, D, ...rest } = saved.cma;
    const [m, covariance, ps, pc, b, d] = [mean, C, pSigma, pC, B, D].map((list) =>
      Float64Array.from(list),
    );
    this.#cma = { ...rest, mean: m!, C: covariance!, pSigma: ps!, pC: pc!, B: b!, D: d! };
  }

  /** One value is as wide as its share of [0, 1]: a step size means the same for all genes. */
  #freshSpread(): Float64Array {
    return Float64Array.from(this.#values, (values) => values?.length ?? 1);
  }

  /** Genome coordinates → search coordinates. */
  #pointOf(genome: readonly number[]): Float64Array {
    return Float64Array.from(genome, (u, i) => {
      const values = this.#values[i];
      return values === undefined ? fromBox(u) : u * values.length - 0.5;
    });
  }

  /** Search coordinates → genome coordinates: the middle of the value's part of [0, 1]. */
  #genomeOf(point: Float64Array): Genome {
    const values = Array.from(point, (x, i) => {
      const allowed = this.#values[i];
      return allowed === undefined ? toBox(x) : (nearestValue(allowed, x) + 0.5) / allowed.length;
    });
    return { kind: "vector", values };
  }

  ask(): readonly Candidate[] {
    if (this.#pending !== undefined) throw new Error("ask was called twice without a tell");
    const { seed, initial } = this.#problem;
    const steps = cmaSteps(
      this.#p,
      this.#cma,
      seed,
      "cma-es-margin",
      this.#restarts,
      this.#generation,
    );
    // Known points take the last slots of the first generations: at most a quarter of each, so that it stays a sample.
    const places = Math.max(1, Math.floor(this.#p.lambda / 4));
    const guests = initial.slice(this.#generation * places, (this.#generation + 1) * places);
    this.#pending = steps.map((y, slot): Proposal => {
      const guest = guests[slot - (steps.length - guests.length)];
      const injected = guest !== undefined;
      const step = injected ? this.#stepTo(guest) : y;
      const genome = injected ? guest : this.#genomeOf(this.#point(y));
      const candidate: Candidate = {
        id: this.#nextId + slot,
        generation: this.#generation,
        genome,
        parents: [],
        operator: injected ? "injection" : "sample",
      };
      return { candidate, y: step, injected };
    });
    return this.#pending.map(({ candidate }) => candidate);
  }

  #point(y: Float64Array): Float64Array {
    const { mean, sigma } = this.#cma;
    return mean.map((m, i) => m + sigma * this.#A[i]! * y[i]!);
  }

  /** The step to a known point, clipped to the length of a long sample (Hansen 2011, arXiv 1110.4181). */
  #stepTo(genome: Genome): Float64Array {
    if (genome.kind !== "vector") throw new Error("only vectors can be injected");
    const { mean, sigma } = this.#cma;
    const { n } = this.#p;
    const point = this.#pointOf(genome.values);
    const y = mean.map((m, i) => (point[i]! - m) / (sigma * this.#A[i]!));
    const limit = Math.sqrt(n) + (2 * n) / (n + 2);
    const factor = Math.min(1, limit / mahalanobis(this.#cma, y));
    return y.map((v) => v * factor);
  }

  tell(outcomes: readonly Outcome[]): void {
    const pending = this.#pending ?? [];
    const matched = matchOutcomes(
      this.#pending?.map(({ candidate }) => candidate),
      outcomes,
      1,
    );
    const ranked = pending
      .map((proposal, slot) => {
        const outcome = matched[slot]!;
        return { proposal, f: outcome.state === "complete" ? -outcome.fitness[0]! : undefined };
      })
      .sort((a, b) => {
        if (a.f !== undefined && b.f !== undefined && a.f !== b.f) return a.f - b.f;
        if ((a.f === undefined) !== (b.f === undefined)) return a.f === undefined ? 1 : -1;
        return a.proposal.candidate.id - b.proposal.candidate.id;
      });
    const before = this.#best;
    this.#best = betterOf(before, matched);
    const [first] = ranked;
    if (this.#best !== before && first?.proposal.candidate.genome.kind === "vector") {
      this.#bestValues = first.proposal.candidate.genome.values;
    }
    if (first?.f === undefined) {
      this.#warnings.push(`all ${ranked.length} candidates of a generation failed`);
    } else {
      this.#advance(ranked);
    }
    this.#pending = undefined;
    this.#nextId += matched.length;
    this.#generation += 1;
  }

  #advance(
    ranked: readonly { readonly proposal: Proposal; readonly f: number | undefined }[],
  ): void {
    const p = this.#p;
    // No negative weight for known points, which say nothing about the distribution; no positive one for failures.
    const weights = p.weights.map((weight, k) => {
      const { proposal, f } = ranked[k]!;
      if (weight < 0 && proposal.injected) return 0;
      return weight > 0 && f === undefined ? 0 : weight;
    });
    const updated = cmaUpdate(
      p,
      this.#cma,
      ranked.map(({ proposal }) => proposal.y),
      weights,
    );
    const widest = Math.sqrt(Math.max(...updated.mean.map((_, i) => updated.C[i * p.n + i]!)));
    const sigma = Math.min(updated.sigma, MAX_DEVIATION / widest);
    const deviation = updated.mean.map((_, i) => sigma * Math.sqrt(updated.C[i * p.n + i]!));
    const { mean, A } = withMargin(
      { mean: updated.mean, A: this.#A },
      deviation,
      this.#values,
      this.#alpha,
    );
    this.#cma = { ...updated, sigma, mean };
    this.#A = A;
    if (sigma * widest < SETTLED || updated.D[p.n - 1]! > 1e7 * updated.D[0]!) this.#beginAnew();
  }

  #beginAnew(): void {
    const from = this.#bestValues ?? this.#problem.start;
    this.#restarts += 1;
    this.#A = this.#freshSpread();
    this.#cma = cmaStart(this.#p, this.#pointOf(from), this.#sigma);
    this.#warnings.push(`restart ${this.#restarts} around the best point: the genes had settled`);
  }

  snapshot(): Json {
    const { mean, sigma, C, pSigma, pC, generation, B, D, decomposed } = this.#cma;
    return {
      optimizer: "cma_es_margin",
      nextId: this.#nextId,
      generation: this.#generation,
      restarts: this.#restarts,
      best: this.#best ?? null,
      bestValues: this.#bestValues === undefined ? null : [...this.#bestValues],
      A: Array.from(this.#A),
      cma: {
        mean: Array.from(mean),
        sigma,
        C: Array.from(C),
        pSigma: Array.from(pSigma),
        pC: Array.from(pC),
        generation,
        B: Array.from(B),
        D: Array.from(D),
        decomposed,
      },
    };
  }

  get status(): Readonly<Record<string, number>> {
    return {
      evaluations: this.#nextId,
      ...(this.#best === undefined ? {} : { best: this.#best }),
      sigma: this.#cma.sigma,
      population: this.#p.lambda,
      restarts: this.#restarts,
    };
  }

  takeWarnings(): readonly string[] {
    return this.#warnings.splice(0);
  }
}
