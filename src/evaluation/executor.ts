import type { Recipe } from "../recipes/recipe.ts";

export type Split = "search" | "validation" | "test";

/** One metric of one evaluator on one split. `kind` says what `value` cannot: NaN and infinities are never numbers here. */
export interface MetricResult {
  readonly metric: string;
  readonly kind: "finite" | "nan" | "pinf" | "ninf";
  /** In the metric's own units and direction; undefined unless finite. */
  readonly value: number | undefined;
  /** Standard error of `value` over items; undefined when it cannot be told. */
  readonly standardError: number | undefined;
  /** Number of items. */
  readonly items: number;
  /** Per item, in data order, in the metric's own units; absent for metrics that are not means of items. */
  readonly itemScores?: readonly number[];
}

export interface EvaluatorResult {
  readonly evaluator: string;
  readonly split: Split;
  readonly metrics: readonly MetricResult[];
}

/** Classes of failed evaluations; they are recorded, counted and shown under these names. */
export type FailureClass =
  | "merge" // the recipe cannot be materialized
  | "non-finite" // merged weights or model outputs are NaN or infinite
  | "metric" // a metric or module threw, or returned something unusable
  | "inference" // ONNX Runtime refused
  | "timeout" // the evaluation did not finish in time and its host was killed
  | "crash" // the host died
  | "cancelled"; // the run is stopping

export interface EvaluationRequest {
  /** Opaque to the executor; echoed in log lines. */
  readonly id: string;
  readonly recipe: Recipe;
  /** Evaluator names × one split. */
  readonly evaluators: readonly string[];
  readonly split: Split;
}

export type EvaluationResult =
  | {
      readonly state: "done";
      readonly results: readonly EvaluatorResult[];
      readonly seconds: number;
      readonly attempts: number;
    }
  | {
      readonly state: "failed";
      readonly failure: FailureClass;
      readonly message: string;
      readonly seconds: number;
      readonly attempts: number;
    };

/** How candidates are run; recorded with the run, because it is part of what scores mean. */
export interface ProgramChoice {
  /**
   * `slab`: kernels compute the weights; `basis`: the graph sums them; `path`: a walk through blocks of whole models. What the
   * last two cannot do goes through a slab.
   */
  readonly program: "slab" | "basis" | "path";
  /** Into a slab's graph: merged weights as inputs, or as in-memory external data of a fresh session. */
  readonly feed: "inputs" | "session";
  /** What the start-up probe measured, seconds per candidate; or why there is no basis. */
  readonly probe: {
    readonly inputs?: number;
    readonly session?: number;
    readonly basis?: number;
    readonly noBasis?: string;
  };
  /** ONNX Runtime version and session options. */
  readonly runtime: Readonly<Record<string, string | number | boolean>>;
}

/**
 * Turns recipes into scores.
 *
 * Promises: `evaluate` never rejects because of a candidate; a failure is a result. Scores do not depend on the number of
 * workers nor on the order of requests. Up to `slots` requests run at once; more may be submitted and wait.
 */
export interface Executor {
  readonly slots: number;
  readonly program: ProgramChoice;
  evaluate(request: EvaluationRequest, signal?: AbortSignal): Promise<EvaluationResult>;
  /** Stops accepting, abandons what waits, ends processes. Safe to call twice. */
  close(): Promise<void>;
}
