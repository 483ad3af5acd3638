import { MendelError } from "../base/errors.ts";
import type { EvaluatorResult, Split } from "../evaluation/executor.ts";
import { recipeDigest } from "../recipes/canonical.ts";
import type { TrialOpening } from "../store/rows.ts";
import { trialRow } from "../store/trial-rows.ts";
import type { Baseline } from "./baselines.ts";
import type { SearchContext } from "./context.ts";
import { evaluationKeys } from "./evaluation-keys.ts";
import { fitnessOf } from "./objectives.ts";
import { scoreTrials, type TrialScores } from "./score-trials.ts";

const allSplits = ["search", "validation", "test"] as const satisfies readonly Split[];
const heldOut = ["validation", "test"] as const satisfies readonly Split[];

/** What the search needs to know about the baselines. */
export interface BaselineScores {
  /** Parents' results by split, for constraints relative to the best parent. */
  readonly parents: Readonly<Record<Split, readonly (readonly EvaluatorResult[])[]>>;
  /** Best fitness of a parent on search. */
  readonly bestParent: number | undefined;
}

function opening(context: SearchContext, baseline: Baseline, number: number): TrialOpening {
  const recipeSha256 = recipeDigest(baseline.recipe);
  const splits = baseline.kind === "lambda" ? (["search"] as const) : allSplits;
  return {
    number,
    slot: number,
    origin: "baseline",
    label: baseline.label,
    operator: baseline.kind,
    recipe: baseline.recipe,
    recipeSha256,
    parents: [],
    evaluations: splits.flatMap((split) => evaluationKeys(context.prepared, recipeSha256, split)),
  };
}

/** Scores some baselines on one split; relative constraints do not apply to them. */
async function score(
  context: SearchContext,
  numbers: readonly number[],
  split: Split,
  onDone: (number: number) => void,
): Promise<TrialScores[]> {
  const { store, run, prepared } = context;
  const trials = numbers.map((number) => trialRow(store.database, run.id, number));
  return scoreTrials(
    {
      store,
      runId: run.id,
      executor: context.executor,
      gate: context.gate,
      fitness: (scores) =>
        scores.state === "done"
          ? fitnessOf(prepared.objective, scores.results, [])
          : { state: "failed", reason: scores.state },
      onDone: (trial) => onDone(trial.number),
    },
    trials,
    split,
  );
}

/** Number of the λ baseline with the best fitness on search; undefined without a base. */
function bestLambda(context: SearchContext): number | undefined {
  const { prepared, store, run } = context;
  let best: { number: number; value: number } | undefined;
  prepared.baselines.forEach(({ kind }, number) => {
    if (kind !== "lambda") return;
    const fitness = trialRow(store.database, run.id, number).fitness.search;
    const value = fitness?.state === "scored" ? fitness.values[0] : undefined;
    if (value !== undefined && (best === undefined || value > best.value)) best = { number, value };
  });
  return best?.number;
}

/**
 * Scores what every candidate is compared with: parents, base and uniform soup on all splits, a sweep of task-arithmetic
 * scalings on search and the best of them on all. Generation 0; does nothing when it is closed already.
 *
 * @returns undefined when the run is stopping
 */
export async function baselinePhase(context: SearchContext): Promise<BaselineScores | undefined> {
  const { store, run, prepared, listen } = context;
  const { baselines } = prepared;
  if (store.lastClosedSnapshot(run.id) === undefined) {
    if (store.openGenerationRows(run.id) === undefined) {
      const trials = baselines.map((baseline, number) => opening(context, baseline, number));
      store.openGeneration(run.id, { gen: 0, snapshot: null, trials });
    }
    const finished = await scoreAll(context, (number, done) => {
      listen({
        kind: "baseline",
        label: baselines[number]?.label ?? "",
        done,
        total: baselines.length,
      });
    });
    if (!finished) return undefined;
    store.closeGeneration(run.id, { gen: 0, snapshot: null });
  }
  return summarize(context);
}

async function scoreAll(
  context: SearchContext,
  onDone: (number: number, done: number) => void,
): Promise<boolean> {
  const { store, run, prepared } = context;
  const all = prepared.baselines.map((_, number) => number);
  let done = 0;
  const onSearch = await score(context, all, "search", (number) => {
    done += 1;
    onDone(number, done);
  });
  if (onSearch.some((scores) => scores.state === "cancelled")) return false;
  refuseWhenAllFailed(context, onSearch);
  const lambda = bestLambda(context);
  const kept = all.filter((n) => prepared.baselines[n]?.kind !== "lambda" || n === lambda);
  if (lambda !== undefined) {
    const { recipeSha256 } = trialRow(store.database, run.id, lambda);
    const evaluations = heldOut.flatMap((split) => evaluationKeys(prepared, recipeSha256, split));
    store.addEvaluations(run.id, lambda, evaluations);
  }
  for (const split of heldOut) {
    const scores = await score(context, kept, split, () => undefined);
    if (scores.some((result) => result.state === "cancelled")) return false;
    refuseWhenAllFailed(context, scores);
  }
  return true;
}

/** Nothing a search does can work when not even the parents can be scored. */
function refuseWhenAllFailed(context: SearchContext, scores: readonly TrialScores[]): void {
  if (scores.some((result) => result.state !== "failed")) return;
  const [first] = scores;
  const detail = first?.state === "failed" ? `${first.failure}: ${first.message}` : "";
  throw new MendelError("too-many-failures", `none of the baselines could be scored; ${detail}`, {
    hint: `check the evaluators with \`mendel validate ${context.prepared.experiment.file}\``,
  });
}

function summarize(context: SearchContext): BaselineScores {
  const { store, run, prepared } = context;
  const numbers = prepared.baselines.flatMap(({ kind }, number) =>
    kind === "parent" ? [number] : [],
  );
  const resultsOn = (split: Split): EvaluatorResult[][] =>
    numbers.map((number) => store.results(run.id, number, split));
  const values = numbers.flatMap((number) => {
    const fitness = trialRow(store.database, run.id, number).fitness.search;
    return fitness?.state === "scored" ? (fitness.values[0] ?? []) : [];
  });
  return {
    parents: {
      search: resultsOn("search"),
      validation: resultsOn("validation"),
      test: resultsOn("test"),
    },
    bestParent: values.length === 0 ? undefined : Math.max(...values),
  };
}
