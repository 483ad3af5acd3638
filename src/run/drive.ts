import { cpus, release } from "node:os";
import { MendelError, messageOf } from "../base/errors.ts";
import type { Json } from "../base/json.ts";
import { packageVersion } from "../base/package.ts";
import type { Executor, ProgramChoice } from "../evaluation/executor.ts";
import { findRun } from "../store/find.ts";
import type { InputFile, RunRow } from "../store/rows.ts";
import { RunStore } from "../store/run-store.ts";
import { baselinePhase } from "./baseline-phase.ts";
import { Budget, type BudgetLimits } from "./budget.ts";
import type { SearchContext } from "./context.ts";
import type { Listener } from "./events.ts";
import { type Experiment, loadExperiment, restoreExperiment } from "./experiment.ts";
import { finalistPhase } from "./finalist-phase.ts";
import { createGate } from "./gate.ts";
import {
  type PreparedExperiment,
  prepareExperiment,
  startExecutor,
  withProgram,
} from "./prepare.ts";
import { search } from "./search.ts";
import { type RunSummary, summarizeRun } from "./summary.ts";

/** How often a driving process looks for a stop request from another one. */
const STOP_POLL_MS = 300;

interface DriveOptions {
  /** Database file; created when absent. */
  readonly db: string;
  readonly listen?: Listener | undefined;
  /** Aborting saves the run and ends it; what is in flight is finished first. */
  readonly signal?: AbortSignal | undefined;
  readonly workers?: number | "auto" | undefined;
}

export interface StartOptions extends DriveOptions {
  /** Experiment file or its folder. */
  readonly experiment: string;
  /** `a.b=c` changes to the file. */
  readonly set?: readonly string[] | undefined;
  readonly name?: string | undefined;
}

export interface ResumeOptions extends DriveOptions {
  readonly run: string;
  /** New evaluation limit. */
  readonly evaluations?: number | undefined;
}

/** Everything that may change a score besides the inputs; shown by `show`, compared on resume. */
function environmentOf(program: ProgramChoice): Json {
  return {
    node: process.versions.node,
    platform: `${process.platform} ${process.arch} ${release()}`,
    processor: cpus()[0]?.model.trim() ?? "unknown",
    program: JSON.parse(JSON.stringify(program)) as Json,
  };
}

/**
 * Starts a search and drives it to its end, or until it is told to stop.
 *
 * @returns what it came to; `state` is "done", or "paused" when it was interrupted
 * @throws MendelError for everything that is wrong with the experiment, before anything is recorded
 */
export async function startRun(options: StartOptions): Promise<RunSummary> {
  const experiment = loadExperiment(options.experiment, options.set);
  options.listen?.({ kind: "preparing" });
  const prepared = await prepareExperiment(experiment);
  const workers = options.workers ?? experiment.workers;
  return withExecutor(prepared, workers, undefined, async (executor) => {
    const store = RunStore.open(options.db);
    try {
      const run = store.createRun({
        experiment: experiment.name,
        ...(options.name === undefined ? {} : { name: options.name }),
        experimentPath: experiment.file,
        seed: String(experiment.seed),
        configGiven: JSON.stringify(experiment.given),
        config: prepared.resolved,
        codeVersion: packageVersion(),
        environment: environmentOf(executor.program),
        budget: jsonOf(experiment.budget),
        objectives: prepared.objectiveNames,
        axes: prepared.space.axes,
        metrics: prepared.metrics,
        inputs: prepared.inputs,
      });
      const lock = store.lock(run);
      try {
        return await drive(prepared, store, run, executor, options, false);
      } finally {
        lock.release();
      }
    } finally {
      store.close();
    }
  });
}

/**
 * Goes on with a run exactly as if it had never been interrupted.
 *
 * @throws MendelError `no-such-run`; `database` when another process drives it; `mismatch` when an input file is not what it
 *   was
 */
export async function resumeRun(options: ResumeOptions): Promise<RunSummary> {
  const store = RunStore.open(options.db, { resume: true });
  try {
    const run = findRun(store.database, options.run);
    const lock = store.lock(run);
    try {
      return await continueRun(store, run, options);
    } finally {
      lock.release();
    }
  } finally {
    store.close();
  }
}

/** Resumes a run whose lock is held. */
async function continueRun(
  store: RunStore,
  run: RunRow,
  options: ResumeOptions,
): Promise<RunSummary> {
  const experiment = restoreExperiment(JSON.parse(run.configGiven), run.experimentPath);
  options.listen?.({ kind: "preparing" });
  const prepared = await prepareExperiment(withBudget(experiment, run, options.evaluations));
  const program = (run.environment as { program?: ProgramChoice }).program;
  const workers = options.workers ?? experiment.workers;
  try {
    refuseChangedInputs(store, run, prepared.inputs);
  } catch (thrown) {
    prepared.models.close();
    throw thrown;
  }
  return withExecutor(prepared, workers, program, async (executor) => {
    if (options.evaluations !== undefined) {
      store.setBudget(run.id, jsonOf(prepared.experiment.budget));
    }
    return drive(prepared, store, run, executor, options, true);
  });
}

/** Starts an evaluation host for a task and ends it, whatever becomes of the task; closes the models, too. */
async function withExecutor<T>(
  prepared: PreparedExperiment,
  workers: number | "auto",
  program: ProgramChoice | undefined,
  task: (executor: Executor) => Promise<T>,
): Promise<T> {
  try {
    const executor = await startExecutor(prepared, workers, program);
    try {
      return await task(executor);
    } finally {
      await executor.close();
    }
  } finally {
    prepared.models.close();
  }
}

function jsonOf(value: object): Json {
  return JSON.parse(JSON.stringify(value)) as Json;
}

function withBudget(
  experiment: Experiment,
  run: RunRow,
  evaluations: number | undefined,
): Experiment {
  const recorded = run.budget as BudgetLimits;
  const budget = { ...recorded, ...(evaluations === undefined ? {} : { evaluations }) };
  return { ...experiment, budget: budget as Experiment["budget"] };
}

function refuseChangedInputs(store: RunStore, run: RunRow, inputs: readonly InputFile[]): void {
  const [first] = store.compareInputs(run.id, inputs);
  if (first === undefined) return;
  const what =
    first.problem === "changed" ? "has changed since the run began" : `is ${first.problem}`;
  throw new MendelError("mismatch", `${first.role} (${first.path}) ${what}`, {
    hint: "put the original file back, or start a new run: scores of different inputs do not mix",
    where: { file: first.path },
  });
}

/** Runs the phases, the run's lock being held, and records how this incarnation ended. */
async function drive(
  prepared: PreparedExperiment,
  store: RunStore,
  run: RunRow,
  executor: Executor,
  options: DriveOptions,
  resumed: boolean,
): Promise<RunSummary> {
  const incarnation = store.beginIncarnation(run.id);
  const stop = new AbortController();
  const abort = (): void => stop.abort();
  options.signal?.addEventListener("abort", abort, { once: true });
  if (options.signal?.aborted === true) abort();
  const poll = setInterval(() => {
    if (store.stopRequested(run.id)) abort();
  }, STOP_POLL_MS);
  poll.unref();
  const listen = options.listen ?? (() => undefined);
  const context: SearchContext = {
    prepared: withProgram(prepared, executor.program),
    store,
    run,
    executor,
    // Twice the slots keep every worker busy while results travel.
    gate: createGate(2 * executor.slots, stop.signal),
    budget: new Budget(prepared.experiment.budget, store.secondsDriven(run.id)),
    listen,
    signal: stop.signal,
  };
  let reason = "failed";
  try {
    listen({
      kind: "started",
      run: run.name,
      resumed,
      budget: prepared.experiment.budget.evaluations,
    });
    reason = await phases(context);
    store.setRunState(run.id, reason === "interrupted" ? "paused" : "done", reason);
  } catch (thrown) {
    store.setRunState(run.id, "failed", messageOf(thrown));
    throw thrown;
  } finally {
    clearInterval(poll);
    options.signal?.removeEventListener("abort", abort);
    store.endIncarnation(incarnation, reason);
  }
  return summarizeRun(store.database, store.run(run.name) as RunRow);
}

/** @returns why the run ended */
async function phases(context: SearchContext): Promise<string> {
  const baselines = await baselinePhase(context);
  if (baselines === undefined) return "interrupted";
  const end = await search(context, baselines);
  if (end === "interrupted") return end;
  return (await finalistPhase(context, baselines)) ? end : "interrupted";
}
