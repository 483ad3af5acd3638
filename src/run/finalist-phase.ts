import type { Split } from "../evaluation/executor.ts";
import type { TrialProgress } from "../store/rows.ts";
import { topOnSearch, trialRow } from "../store/trial-rows.ts";
import type { BaselineScores } from "./baseline-phase.ts";
import type { SearchContext } from "./context.ts";
import { evaluationKeys } from "./evaluation-keys.ts";
import { fitnessOf } from "./objectives.ts";
import { weightsDigestOf } from "./prepare.ts";
import { scoreTrials } from "./score-trials.ts";
import { rankingValue } from "./scores.ts";

/** Scores trials on a held-out split; @returns false when the run is stopping. */
async function scoreOn(
  context: SearchContext,
  baselines: BaselineScores,
  numbers: readonly number[],
  split: Split,
  onDone: () => void,
): Promise<boolean> {
  const { store, run, prepared } = context;
  const trials = numbers.map((number): TrialProgress => {
    const { recipeSha256 } = trialRow(store.database, run.id, number);
    store.addEvaluations(run.id, number, evaluationKeys(prepared, recipeSha256, split));
    return trialRow(store.database, run.id, number);
  });
  const scores = await scoreTrials(
    {
      store,
      runId: run.id,
      executor: context.executor,
      gate: context.gate,
      fitness: (result) =>
        result.state === "done"
          ? fitnessOf(prepared.objective, result.results, baselines.parents[split])
          : { state: "failed", reason: result.state },
      onDone,
    },
    trials,
    split,
  );
  return scores.every((result) => result.state !== "cancelled");
}

/** The finalist with the best fitness on validation; the better one on search where they tie. */
function winnerOf(context: SearchContext, finalists: readonly number[]): number | undefined {
  let best: { number: number; value: number } | undefined;
  for (const number of finalists) {
    const { fitness } = trialRow(context.store.database, context.run.id, number);
    const value = rankingValue(fitness.validation);
    if (value !== undefined && (best === undefined || value > best.value)) best = { number, value };
  }
  return best?.number;
}

/**
 * Chooses the winner honestly: the best candidates on search are scored on validation, the best of them there is the
 * winner, and only the winner sees the test split. Its merged weights get their digest.
 *
 * @returns false when the run is stopping
 */
export async function finalistPhase(
  context: SearchContext,
  baselines: BaselineScores,
): Promise<boolean> {
  const { store, run, prepared, listen } = context;
  const finalists = topOnSearch(store.database, run.id, prepared.experiment.finalists);
  let done = 0;
  listen({ kind: "finalists", done, total: finalists.length });
  const scored = await scoreOn(context, baselines, finalists, "validation", () => {
    done += 1;
    listen({ kind: "finalists", done, total: finalists.length });
  });
  if (!scored) return false;
  const winner = winnerOf(context, finalists);
  if (winner === undefined) return true;
  if (!(await scoreOn(context, baselines, [winner], "test", () => undefined))) return false;
  const { recipe } = trialRow(store.database, run.id, winner);
  store.setWeightsDigest(run.id, winner, weightsDigestOf(prepared, recipe));
  return true;
}
