import type { Candidate, Outcome } from "./optimizer.ts";

/** Outcomes of exactly the pending candidates, in the order of their ids, whatever the order of arrival. */
export function matchOutcomes(
  pending: readonly Candidate[] | undefined,
  outcomes: readonly Outcome[],
  objectives: number,
): readonly Outcome[] {
  if (pending === undefined) throw new Error("tell was called without a preceding ask");
  const byId = new Map(outcomes.map((outcome) => [outcome.id, outcome]));
  if (byId.size !== outcomes.length) throw new Error("an outcome was told twice");
  const matched = pending.map((candidate) => {
    const outcome = byId.get(candidate.id);
    if (outcome === undefined) throw new Error(`no outcome for candidate ${candidate.id}`);
    checkFitness(outcome, objectives);
    return outcome;
  });
  if (matched.length !== outcomes.length) {
    const asked = new Set(pending.map((candidate) => candidate.id));
    const foreign = outcomes.find((outcome) => !asked.has(outcome.id));
    throw new Error(`candidate ${foreign?.id} was not asked for`);
  }
  return matched;
}

function checkFitness(outcome: Outcome, objectives: number): void {
  if (outcome.state === "failed") return;
  if (outcome.fitness.length !== objectives) {
    throw new Error(
      `candidate ${outcome.id}: ${outcome.fitness.length} fitness values for ${objectives} objectives`,
    );
  }
  if (!outcome.fitness.every(Number.isFinite)) {
    throw new Error(
      `candidate ${outcome.id}: fitness [${outcome.fitness.join(", ")}] is not finite`,
    );
  }
}

/** The larger of a running best and the first objective of the outcomes; undefined while everything has failed. */
export function betterOf(
  best: number | undefined,
  outcomes: readonly Outcome[],
): number | undefined {
  let result = best;
  for (const outcome of outcomes) {
    if (outcome.state === "failed") continue;
    const fitness = outcome.fitness[0]!;
    if (result === undefined || fitness > result) result = fitness;
  }
  return result;
}
