import { statfsSync } from "node:fs";
import { dirname } from "node:path";
import { type ErrorCode, MendelError, messageOf } from "../base/errors.ts";
import type { ProgramChoice } from "../evaluation/executor.ts";
import { type Coverage, coverageOf } from "../merge/coverage.ts";
import { recipeDigest } from "../recipes/canonical.ts";
import { type Experiment, loadExperiment } from "./experiment.ts";
import { type PreparedExperiment, prepareExperiment, startExecutor } from "./prepare.ts";

/** Something that is wrong, or that one should know before starting. */
export interface Problem {
  readonly severity: "error" | "warning";
  readonly code: ErrorCode | "coverage";
  readonly message: string;
  readonly where?: object;
  readonly hint?: string;
}

/** What a search is going to need. */
export interface Forecast {
  /** Resident memory of the whole search, bytes. */
  readonly memoryBytes: number;
  /** Database growth over the budget, bytes. */
  readonly diskBytes: number;
  readonly secondsPerEvaluation: number;
  /** For the whole budget; undefined without an evaluation budget. */
  readonly secondsTotal: number | undefined;
}

export interface ValidationReport {
  readonly ok: boolean;
  readonly problems: readonly Problem[];
  readonly coverage?: Coverage;
  readonly forecast?: Forecast;
  /** How candidates would be run. */
  readonly program?: ProgramChoice;
}

/** Resident memory of the coordinating process and an idle host: Node, ONNX Runtime, SQLite. */
const PROCESS_BYTES = 250e6;
/** Database bytes of one trial besides its item scores: rows, recipe, genome, index entries. */
const TRIAL_BYTES = 6000;

function problemOf(thrown: unknown): Problem {
  if (!(thrown instanceof MendelError)) throw thrown;
  return {
    severity: "error",
    code: thrown.code,
    message: messageOf(thrown),
    ...(thrown.where === undefined ? {} : { where: thrown.where }),
    ...(thrown.hint === undefined ? {} : { hint: thrown.hint }),
  };
}

function weightBytes(prepared: PreparedExperiment): number {
  let bytes = 0;
  for (const id of prepared.models.readers.keys()) bytes += prepared.models.weightBytes(id);
  return bytes;
}

/** Database growth: rows of each trial plus eight bytes per item score. */
function diskForecast(prepared: PreparedExperiment, items: number): number {
  const trials = (prepared.experiment.budget.evaluations ?? 1000) + prepared.baselines.length;
  const metrics = prepared.metrics.length / Math.max(1, prepared.evaluators.length);
  return Math.round(trials * (TRIAL_BYTES + 8 * items * metrics));
}

function diskProblem(experiment: Experiment, needed: number): Problem | undefined {
  const { bavail, bsize } = statfsSync(dirname(experiment.file));
  if (bavail * bsize > 2 * needed) return undefined;
  return {
    severity: "warning",
    code: "resource",
    message: `about ${Math.round(needed / 1e6)} MB of database are expected and ${Math.round((bavail * bsize) / 1e6)} MB are free`,
    hint: "free some space or put the database elsewhere with --db",
  };
}

/** Runs one candidate for real: the uniform soup on the search split, twice, so that warm-up is not counted. */
async function tryOut(prepared: PreparedExperiment, workers: number | "auto") {
  const executor = await startExecutor(prepared, workers, undefined);
  try {
    const soup = prepared.baselines.find(({ kind }) => kind === "uniform") ?? prepared.baselines[0];
    if (soup === undefined) throw new Error("an experiment without baselines");
    const request = {
      id: recipeDigest(soup.recipe),
      recipe: soup.recipe,
      evaluators: prepared.evaluators.map(({ name }) => name),
      split: "search" as const,
    };
    await executor.evaluate(request);
    const result = await executor.evaluate(request);
    if (result.state === "failed") {
      throw new MendelError("mismatch", `the uniform soup cannot be scored: ${result.message}`, {
        hint: "check graph inputs, data fields and labels of the evaluators",
      });
    }
    const items = result.results.reduce((sum, one) => sum + (one.metrics[0]?.items ?? 0), 0);
    return { seconds: result.seconds, items, slots: executor.slots, program: executor.program };
  } finally {
    await executor.close();
  }
}

/**
 * Checks everything that can fail before any work: files, schemas, coverage of every tensor, one real evaluation through
 * the graph; and says what the search will need. What is wrong comes back as problems, not as an exception.
 *
 * Problems of the experiment itself are found from headers, before any weight is read.
 */
export async function validate(
  file: string,
  changes: readonly string[] = [],
  workers?: number | "auto",
): Promise<ValidationReport> {
  let prepared: PreparedExperiment;
  try {
    prepared = await prepareExperiment(loadExperiment(file, changes));
  } catch (thrown) {
    return { ok: false, problems: [problemOf(thrown)] };
  }
  const { experiment, match } = prepared;
  const problems: Problem[] = match.warnings.map((message) => ({
    severity: "warning",
    code: "coverage",
    message,
  }));
  if (prepared.identical.length > 0) {
    problems.push({
      severity: "warning",
      code: "coverage",
      message: `the same in every model, so no gene is spent on it: ${prepared.identical.join(", ")}`,
    });
  }
  const coverage = coverageOf(match);
  try {
    const trial = await tryOut(prepared, workers ?? experiment.workers);
    const diskBytes = diskForecast(prepared, trial.items);
    const low = diskProblem(experiment, diskBytes);
    if (low !== undefined) problems.push(low);
    const { evaluations } = experiment.budget;
    const secondsPerEvaluation = trial.seconds / trial.slots;
    const weights = weightBytes(prepared);
    return {
      ok: true,
      problems,
      coverage,
      forecast: {
        memoryBytes: Math.round(
          PROCESS_BYTES + weights * 2 + trial.slots * (weights / prepared.models.readers.size) * 2,
        ),
        diskBytes,
        secondsPerEvaluation,
        secondsTotal: evaluations === undefined ? undefined : secondsPerEvaluation * evaluations,
      },
      program: trial.program,
    };
  } catch (thrown) {
    return { ok: false, problems: [...problems, problemOf(thrown)], coverage };
  } finally {
    prepared.models.close();
  }
}
