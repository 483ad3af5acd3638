/**
 * Mendel as a library: what the shell can do, a program can. The command line is a thin layer over these functions.
 */

export { type ErrorCode, exitStatusOf, MendelError } from "./base/errors.ts";
export type { Genome } from "./base/genome.ts";
export type { EvaluatorResult, MetricResult, Split } from "./evaluation/executor.ts";
export { mergeMethods } from "./merge/index.ts";
export type { MergeMethod, MethodParameter } from "./merge/method.ts";
export { createOptimizer, optimizers } from "./optimizers/index.ts";
export type {
  Candidate,
  Optimizer,
  OptimizerDefinition,
  OptimizerProblem,
  Outcome,
} from "./optimizers/optimizer.ts";
export { parseRecipe } from "./recipes/parse.ts";
export type { Recipe } from "./recipes/recipe.ts";
export { writeRecipe } from "./recipes/write.ts";
export {
  type EvaluateOptions,
  type EvaluateResult,
  evaluateModel as evaluate,
} from "./run/evaluate-model.ts";
export type { RunEvent } from "./run/events.ts";
export { type ExportOptions, type ExportResult, exportTrial } from "./run/export-trial.ts";
export { type MergeOptions, type MergeResult, mergeModels as merge } from "./run/merge-models.ts";
export { resume, run, type Search } from "./run/search-handle.ts";
export type { ModelScores, RunSummary } from "./run/summary.ts";
export { type ValidationReport, validate } from "./run/validate.ts";
export { openReader as openStore } from "./store/connection.ts";
export { findRun, findTrial } from "./store/find.ts";
export { lineage } from "./store/lineage.ts";
export { baselines, bestTrials, listRuns, progress, trialDetail } from "./store/queries.ts";
