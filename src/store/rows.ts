import type { Genome } from "../base/genome.ts";
import type { Json } from "../base/json.ts";
import type { Recipe } from "../recipes/recipe.ts";

/** Plain data that goes into and comes out of the run store. Times are milliseconds since 1970, UTC. */

export type Split = "search" | "validation" | "test";

export type RunState = "new" | "running" | "paused" | "done" | "failed";

/** What a stored number is; NaN and infinities are never numbers in the store. */
export type ValueKind = "finite" | "nan" | "pinf" | "ninf";

/** A score in its metric's own units and direction. */
export interface MetricRow {
  readonly metric: string;
  readonly kind: ValueKind;
  /** Undefined unless finite. */
  readonly value: number | undefined;
  /** Standard error over items; undefined when it cannot be told. */
  readonly standardError: number | undefined;
  readonly items: number;
  /** Per item, in data order. */
  readonly itemScores?: readonly number[];
}

/** All metrics of one evaluator on one split. */
export interface EvaluatorRow {
  readonly evaluator: string;
  readonly split: Split;
  readonly metrics: readonly MetricRow[];
}

/** What became of one request: every evaluator's metrics, or one failure for all of them. */
export type EvaluationOutcome =
  | {
      readonly state: "done";
      readonly results: readonly EvaluatorRow[];
      readonly seconds: number;
      readonly attempts: number;
    }
  | {
      readonly state: "failed";
      readonly failure: string;
      readonly message: string;
      readonly seconds: number;
      readonly attempts: number;
    };

/** Fitness of a trial on one split; larger is better. */
export type FitnessOutcome =
  | { readonly state: "scored"; readonly values: readonly number[]; readonly feasible: boolean }
  | { readonly state: "failed"; readonly reason: string };

/** A metric that a run records, and which way is better: +1 larger, −1 smaller. */
export interface MetricDefinition {
  readonly evaluator: string;
  readonly metric: string;
  readonly direction: 1 | -1;
}

/** A file a run depends on, by content. */
export interface InputFile {
  /** What it is to the run, unique within it: "model:base", "data:digits.search", … */
  readonly role: string;
  readonly path: string;
  readonly sha256: string;
  readonly bytes: number;
}

export interface NewRun {
  /** Names the run `<experiment>-<n>` unless `name` is given. */
  readonly experiment: string;
  readonly name?: string;
  readonly experimentPath: string;
  readonly seed: string;
  /** The experiment file's text, as written. */
  readonly configGiven: string;
  /** The experiment with everything resolved and defaulted. */
  readonly config: Json;
  readonly codeVersion: string;
  /** Node, ONNX Runtime, CPU, operating system, program choice: what scores may depend on besides the inputs. */
  readonly environment: Json;
  readonly budget: Json;
  /** Names of the objectives; one for all but Pareto runs. */
  readonly objectives: readonly string[];
  /** Axis names of `vector` genomes; empty for others. */
  readonly axes: readonly string[];
  readonly metrics: readonly MetricDefinition[];
  readonly inputs: readonly InputFile[];
}

export interface RunRow {
  readonly id: number;
  readonly name: string;
  readonly experiment: string;
  readonly experimentPath: string;
  readonly createdMs: number;
  readonly state: RunState;
  /** Why it is in that state ("budget", "interrupted", "stall", a message); undefined while new. */
  readonly reason: string | undefined;
  readonly seed: string;
  readonly configGiven: string;
  readonly config: Json;
  readonly configSha256: string;
  readonly codeVersion: string;
  readonly environment: Json;
  readonly budget: Json;
  readonly objectives: readonly string[];
  readonly axes: readonly string[];
}

export type TrialOrigin = "baseline" | "search";

/** A gene's decoded value, for people. */
export interface GeneRow {
  readonly name: string;
  readonly value: number | string;
  readonly model?: string;
  readonly group?: string;
}

/** An evaluation that is to be made. Equal keys promise equal scores. */
export interface EvaluationOpening {
  readonly evaluator: string;
  readonly split: Split;
  readonly evalKey: string;
}

/** A trial, as it is when its generation opens. */
export interface TrialOpening {
  /** Unique in the run, counting up from 0 in the order of opening. */
  readonly number: number;
  /** Position in the generation. */
  readonly slot: number;
  readonly origin: TrialOrigin;
  /** Name of a baseline ("uniform", a model's name); undefined for search trials. */
  readonly label?: string | undefined;
  readonly operator: string;
  /** Undefined for baselines that the space cannot express. */
  readonly genome?: Genome | undefined;
  readonly genes?: readonly GeneRow[] | undefined;
  readonly recipe: Recipe;
  readonly recipeSha256: string;
  /** Numbers of the trials it was made from, in the operator's order; all smaller than `number`. */
  readonly parents: readonly number[];
  readonly evaluations: readonly EvaluationOpening[];
}

export interface GenerationOpening {
  readonly gen: number;
  /** Optimizer state from which the generation was asked. */
  readonly snapshot: Json;
  readonly trials: readonly TrialOpening[];
}

export type EvaluationState = "queued" | "done" | "failed";

/** One evaluation as stored. */
export interface EvaluationRow extends EvaluationOpening {
  readonly id: number;
  readonly state: EvaluationState;
  readonly attempts: number;
  readonly failure: string | undefined;
  readonly message: string | undefined;
  /** Evaluation whose scores were reused. */
  readonly cachedFrom: number | undefined;
  readonly seconds: number | undefined;
  readonly finishedMs: number | undefined;
  /** Scores with item scores; undefined unless done. */
  readonly result: EvaluatorRow | undefined;
}

/** A trial of an open generation, with what is already known about it. */
export interface TrialProgress {
  readonly number: number;
  readonly slot: number;
  readonly origin: TrialOrigin;
  readonly label: string | undefined;
  readonly operator: string;
  readonly genome: Genome | undefined;
  readonly recipe: Recipe;
  readonly recipeSha256: string;
  readonly parents: readonly number[];
  readonly evaluations: readonly EvaluationRow[];
  readonly fitness: Partial<Record<Split, FitnessOutcome>>;
}

/** A generation that was opened and not yet closed. */
export interface OpenGeneration {
  readonly gen: number;
  readonly snapshot: Json;
  readonly trials: readonly TrialProgress[];
}

export interface ClosedSnapshot {
  readonly gen: number;
  readonly snapshot: Json;
}

/** Fitness of a trial on one split, to be recorded. */
export interface FitnessRecord {
  readonly trial: number;
  readonly split: Split;
  readonly fitness: FitnessOutcome;
}

/** What came back for one trial on one split. */
export interface EvaluationRecord {
  readonly trial: number;
  readonly split: Split;
  /** Evaluators that were asked for; all of them are recorded. */
  readonly evaluators: readonly string[];
  readonly outcome: EvaluationOutcome;
  /** Recorded in the same transaction when given. */
  readonly fitness?: FitnessOutcome | undefined;
}

/** What recording did. */
export interface RecordReport {
  /** False when there already was a result: the first one stands. */
  readonly recorded: boolean;
  /** True when a later result differs from the stored one: the evaluation is not deterministic. */
  readonly differs: boolean;
}

/** Scores that may stand in for an evaluation with the same key. */
export interface StoredScores {
  readonly evaluation: number;
  readonly result: EvaluatorRow;
}

export interface ArtifactRow {
  /** Trial number; undefined for files of the whole run. */
  readonly trial: number | undefined;
  /** "model", "recipe", "report", … */
  readonly kind: string;
  readonly path: string;
  readonly sha256: string;
  readonly bytes: number;
  readonly createdMs: number;
}

export type EventLevel = "debug" | "info" | "warn" | "error";

export interface EventRow {
  readonly seq: number;
  readonly atMs: number;
  readonly level: EventLevel;
  readonly kind: string;
  readonly body: Json;
}

/** Who drives a run. */
export interface Driver {
  readonly pid: number;
  readonly host: string;
  readonly startedMs: number;
}

/** Inputs that are not what they were when the run began. */
export interface InputDifference {
  readonly role: string;
  readonly path: string;
  readonly problem: "changed" | "missing" | "new";
}
