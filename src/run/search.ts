import { MendelError } from "../base/errors.ts";
import { createOptimizer } from "../optimizers/index.ts";
import type { Candidate, Optimizer, Outcome } from "../optimizers/optimizer.ts";
import { recipeDigest } from "../recipes/canonical.ts";
import type {
  FitnessOutcome,
  GenerationOpening,
  OpenGeneration,
  TrialOpening,
} from "../store/rows.ts";
import { searchTally } from "../store/trial-rows.ts";
import type { BaselineScores } from "./baseline-phase.ts";
import type { BudgetEnd } from "./budget.ts";
import type { SearchContext } from "./context.ts";
import { evaluationKeys } from "./evaluation-keys.ts";
import { FailureGuard } from "./failure-guard.ts";
import { fitnessOf, itemFitness } from "./objectives.ts";
import type { PreparedExperiment } from "./prepare.ts";
import { scoreTrials, type TrialScores } from "./score-trials.ts";
import { rankingValue } from "./scores.ts";

/** Why the search phase ended. */
export type SearchEnd = BudgetEnd | "optimizer" | "interrupted";

/** What the loop remembers from generation to generation; rebuilt from the store on resume. */
interface Tally {
  /** Search trials that are finished. */
  done: number;
  best: number | undefined;
  /** Position (from 1) of the search trial that first reached `best`. */
  improvedAt: number;
  /** Seconds of real (not cached) evaluations in this incarnation, and how many. */
  seconds: number;
  evaluated: number;
}

/**
 * The search: ask, evaluate, tell, until the budget is spent or the optimizer stops. Continues wherever the store says the
 * run is; an open generation is finished first.
 */
export async function search(
  context: SearchContext,
  baselines: BaselineScores,
): Promise<SearchEnd> {
  const { store, run, prepared, budget, signal } = context;
  const closed = store.lastClosedSnapshot(run.id);
  const optimizer = createOptimizer(
    prepared.optimizer.name,
    prepared.optimizer.settings,
    prepared.problem,
    closed === undefined || closed.gen === 0 ? undefined : closed.snapshot,
  );
  const loop: Loop = {
    context,
    baselines,
    optimizer,
    guard: new FailureGuard(),
    tally: firstTally(context),
  };
  for (let generation = (closed?.gen ?? 0) + 1; optimizer.stop === undefined; generation++) {
    const { done, improvedAt } = loop.tally;
    const end = signal.aborted ? "interrupted" : budget.spent(done, done - improvedAt);
    if (end !== undefined) return end;
    const finished = await oneGeneration(loop, generation);
    if (!finished) return signal.aborted ? "interrupted" : "evaluations";
    for (const message of optimizer.takeWarnings()) warn(context, message);
    report(loop, generation);
  }
  warn(context, `the optimizer has nothing more to propose: ${optimizer.stop}`);
  return "optimizer";
}

/** What one incarnation's loop carries along. */
interface Loop {
  readonly context: SearchContext;
  readonly baselines: BaselineScores;
  readonly optimizer: Optimizer;
  readonly guard: FailureGuard;
  readonly tally: Tally;
}

function firstTally({ store, run, prepared }: SearchContext): Tally {
  const { done, best, bestTrial } = searchTally(store.database, run.id);
  const improvedAt = bestTrial === undefined ? 0 : bestTrial - prepared.baselines.length + 1;
  return { done, best, improvedAt, seconds: 0, evaluated: 0 };
}

function warn(context: SearchContext, message: string): void {
  context.store.logEvent(context.run.id, "warn", "optimizer", { message });
  context.listen({ kind: "warning", message });
}

function report({ context, baselines, optimizer, tally }: Loop, generation: number): void {
  context.listen({
    kind: "generation",
    generation,
    done: tally.done,
    budget: context.budget.limits.evaluations,
    best: tally.best,
    bestParent: baselines.bestParent,
    secondsPerEvaluation: tally.evaluated === 0 ? undefined : tally.seconds / tally.evaluated,
    status: optimizer.status,
  });
}

/** @returns false when the generation could not be finished: the budget cut it, or the run is stopping */
async function oneGeneration(loop: Loop, generation: number): Promise<boolean> {
  const { context, optimizer, tally } = loop;
  const { store, run, prepared } = context;
  const snapshot = optimizer.snapshot();
  const candidates = optimizer.ask();
  const trials = candidates.map((candidate, slot) => openingOf(prepared, candidate, slot));
  const open =
    continued(context, generation, trials) ?? opened(context, generation, snapshot, trials);
  const allowed = context.budget.allowed(tally.done, candidates.length);
  const fitness = new Map<number, FitnessOutcome>();
  const scores = await scoreTrials(
    {
      store,
      runId: run.id,
      executor: context.executor,
      gate: context.gate,
      fitness: (result) => fitnessOfScores(loop, result),
      onDone: (trial, result, value) => {
        fitness.set(trial.number, value);
        count(loop, trial.number, result, value);
      },
    },
    open.trials.slice(0, allowed),
    "search",
  );
  loop.guard.check();
  const whole = allowed === candidates.length && scores.every(({ state }) => state !== "cancelled");
  if (!whole) return false;
  optimizer.tell(
    candidates.map((candidate, i) =>
      outcomeOf(
        prepared,
        candidate,
        scores[i] as TrialScores,
        fitness.get(trials[i]?.number ?? -1),
      ),
    ),
  );
  store.closeGeneration(run.id, { gen: generation, snapshot: optimizer.snapshot() });
  return true;
}

function opened(
  { store, run }: SearchContext,
  gen: number,
  snapshot: GenerationOpening["snapshot"],
  trials: readonly TrialOpening[],
): OpenGeneration {
  store.openGeneration(run.id, { gen, snapshot, trials });
  return store.openGenerationRows(run.id) as OpenGeneration;
}

/** The generation that a former incarnation left open, if any: it must be the one that is asked now. */
function continued(
  { store, run }: SearchContext,
  gen: number,
  trials: readonly TrialOpening[],
): OpenGeneration | undefined {
  const open = store.openGenerationRows(run.id);
  if (open === undefined) return undefined;
  const same =
    open.gen === gen &&
    open.trials.length === trials.length &&
    open.trials.every((trial, i) => trial.recipeSha256 === trials[i]?.recipeSha256);
  if (same) return open;
  throw new MendelError("database", `run ${run.name} cannot be continued exactly`, {
    hint: `it was begun by mendel ${run.codeVersion}; resume it with that version, or start a new run`,
  });
}

function openingOf(prepared: PreparedExperiment, candidate: Candidate, slot: number): TrialOpening {
  const recipe = prepared.space.decode(candidate.genome);
  const recipeSha256 = recipeDigest(recipe);
  const offset = prepared.baselines.length;
  return {
    number: offset + candidate.id,
    slot,
    origin: "search",
    operator: candidate.operator,
    genome: candidate.genome,
    genes: prepared.space.genes(candidate.genome),
    recipe,
    recipeSha256,
    parents: candidate.parents.map((parent) => offset + parent),
    evaluations: evaluationKeys(prepared, recipeSha256, "search"),
  };
}

function fitnessOfScores({ context, baselines }: Loop, scores: TrialScores): FitnessOutcome {
  if (scores.state === "done") {
    return fitnessOf(context.prepared.objective, scores.results, baselines.parents.search);
  }
  const reason = scores.state === "failed" ? `${scores.failure}: ${scores.message}` : scores.state;
  return { state: "failed", reason };
}

function outcomeOf(
  prepared: PreparedExperiment,
  { id }: Candidate,
  scores: TrialScores,
  fitness: FitnessOutcome | undefined,
): Outcome {
  if (scores.state !== "done" || fitness?.state !== "scored") {
    return {
      state: "failed",
      id,
      reason: fitness?.state === "failed" ? fitness.reason : scores.state,
    };
  }
  const items = itemFitness(prepared.objective, scores.results, prepared.orientItem);
  return {
    state: "complete",
    id,
    fitness: fitness.values,
    ...(items === undefined ? {} : { items }),
  };
}

/** Counts a finished trial and tells the listener; the trial is in the database already. */
function count(
  { context, tally, guard }: Loop,
  trial: number,
  scores: TrialScores,
  fitness: FitnessOutcome,
): void {
  guard.note(scores);
  tally.done += 1;
  if (scores.state === "done" && !scores.cached) {
    tally.seconds += scores.seconds;
    tally.evaluated += 1;
  }
  context.listen({
    kind: "trial",
    trial,
    done: tally.done,
    budget: context.budget.limits.evaluations,
    state: scores.state === "done" ? (scores.cached ? "cached" : "done") : "failed",
    ...(scores.state === "failed" ? { failure: `${scores.failure}: ${scores.message}` } : {}),
  });
  const value = rankingValue(fitness);
  if (value === undefined || (tally.best !== undefined && value < tally.best)) return;
  const position = trial - context.prepared.baselines.length + 1;
  if (value === tally.best) {
    // Trials of one generation finish in any order; the first of them counts as the improvement.
    tally.improvedAt = Math.min(tally.improvedAt, position);
    return;
  }
  tally.best = value;
  tally.improvedAt = position;
  context.listen({ kind: "improved", trial, fitness: value, done: tally.done });
}
