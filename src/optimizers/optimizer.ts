import type { Genome } from "../base/genome.ts";
import type { Json } from "../base/json.ts";

/** A proposal. Ids count up from 0 in the order of asking and never depend on timing or on the number of workers. */
export interface Candidate {
  readonly id: number;
  readonly generation: number;
  readonly genome: Genome;
  /** Ids of the candidates it was made from, in the operator's order; empty for samples. */
  readonly parents: readonly number[];
  /** How it was made: "sample", "seed", "crossover", "injection", … */
  readonly operator: string;
}

/** What became of a candidate. Larger fitness is better. */
export type Outcome =
  | {
      readonly state: "complete";
      readonly id: number;
      /** One number per objective; most optimizers take exactly one. Finite. */
      readonly fitness: readonly number[];
      /** Per calibration item, larger is better, in [0, 1] where the metric allows; for niches. */
      readonly items?: readonly number[];
    }
  | { readonly state: "failed"; readonly id: number; readonly reason: string };

/** Numbers about the merged models' flat parameter vectors that `segments` genomes need for SLERP angles. */
export interface SegmentGeometry {
  /** Number of merged elements. */
  readonly length: number;
  /** Ascending flat indices at which prefix Gram sums are known; split points are drawn from these. First 0, last `length`. */
  readonly boundaries: readonly number[];
  /** gram[b][k][l] = Σ_{i < boundaries[b]} θ_k[i]·θ_l[i]. */
  readonly gram: readonly (readonly (readonly number[])[])[];
}

/** What an optimizer is told about the problem: numbers only. */
export interface OptimizerProblem {
  readonly seed: number;
  /** Axis names, for messages; the dimension of `vector` genomes. */
  readonly axes: readonly string[];
  /** Where to begin, in [0, 1] per axis. */
  readonly start: readonly number[];
  /** Known good or extreme points (uniform soup, parents), in order of interest. */
  readonly initial: readonly Genome[];
  /** Per axis, how many values it takes (equal parts of [0, 1]); undefined for a continuous one. Absent: all continuous. */
  readonly levels?: readonly (number | undefined)[];
  readonly segments?: SegmentGeometry;
  /** Number of objectives. */
  readonly objectives: number;
  /** Total number of candidates the budget allows, when known. */
  readonly budget?: number;
}

/**
 * An ask/tell optimizer.
 *
 * Promises: `ask` returns a generation (or a batch) of at least one candidate and may be called again only after `tell`
 * received exactly the asked ids, in any order. Everything is a function of problem, settings and told outcomes:
 * `create(problem, settings, snapshot())` taken between a `tell` and the next `ask` continues exactly as the original,
 * so that ask() proposes the same candidates. No hidden randomness, no clock. A failed outcome ranks below every
 * complete one and never enters an archive.
 */
export interface Optimizer {
  ask(): readonly Candidate[];
  tell(outcomes: readonly Outcome[]): void;
  /** Why it has nothing more to propose, else undefined. */
  readonly stop: string | undefined;
  /** Plain JSON; finite numbers only. */
  snapshot(): Json;
  /** Short facts for progress and events ("sigma", "coverage", "restarts"), finite numbers. */
  readonly status: Readonly<Record<string, number>>;
  /** Things a user should know, since the last call ("coverage fell from 0.97 to 0.90"). */
  takeWarnings(): readonly string[];
}

/** One setting of an optimizer, said once. */
export interface OptimizerSetting {
  readonly name: string;
  readonly description: string;
  readonly type: "number" | "integer" | "boolean" | "choice";
  readonly default: number | boolean | string;
  readonly range?: readonly [number, number];
  readonly choices?: readonly string[];
}

export interface OptimizerDefinition {
  /** Registered name, for instance "cma_es". */
  readonly name: string;
  readonly title: string;
  readonly description: string;
  readonly reference: string;
  readonly genomes: readonly Genome["kind"][];
  /** Largest number of objectives it can rank. */
  readonly objectives: number;
  /** Whether `items` of outcomes are needed. */
  readonly needsItems: boolean;
  readonly settings: readonly OptimizerSetting[];
  /**
   * @param settings complete and validated against `settings` above
   * @param snapshot continue from there instead of beginning
   */
  create(
    problem: OptimizerProblem,
    settings: Readonly<Record<string, number | boolean | string>>,
    snapshot?: Json,
  ): Optimizer;
}
