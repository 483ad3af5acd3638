/** Why a search ended by itself. */
export type BudgetEnd = "evaluations" | "time" | "stall";

export interface BudgetLimits {
  readonly evaluations?: number | undefined;
  readonly time?: number | undefined;
  readonly stall?: number | undefined;
}

/** Keeps count of what a search has used; whichever limit comes first ends it. */
export class Budget {
  readonly limits: BudgetLimits;
  readonly #startedMs: number;
  /** Seconds used by earlier incarnations of the run. */
  readonly #secondsBefore: number;

  constructor(limits: BudgetLimits, secondsBefore: number, nowMs: number = performance.now()) {
    this.limits = limits;
    this.#secondsBefore = secondsBefore;
    this.#startedMs = nowMs;
  }

  seconds(nowMs: number = performance.now()): number {
    return this.#secondsBefore + (nowMs - this.#startedMs) / 1000;
  }

  /** How many of `wanted` further evaluations the evaluation limit still allows. */
  allowed(done: number, wanted: number): number {
    const limit = this.limits.evaluations;
    return limit === undefined ? wanted : Math.max(0, Math.min(wanted, limit - done));
  }

  /**
   * @param done evaluations of the search so far
   * @param sinceImprovement evaluations since the best fitness last rose
   */
  spent(done: number, sinceImprovement: number): BudgetEnd | undefined {
    const { evaluations, time, stall } = this.limits;
    if (evaluations !== undefined && done >= evaluations) return "evaluations";
    if (time !== undefined && this.seconds() >= time) return "time";
    if (stall !== undefined && sinceImprovement >= stall) return "stall";
    return undefined;
  }
}

/**
 * "200" sets the evaluation limit, "+200" extends it.
 *
 * @returns the new limit, or undefined when the text is neither
 */
export function parseBudget(text: string, current: number | undefined): number | undefined {
  const match = /^(\+?)(\d+)$/.exec(text.trim());
  if (match === null) return undefined;
  const number = Number(match[2]);
  const limit = match[1] === "+" ? (current ?? 0) + number : number;
  return limit > 0 && Number.isSafeInteger(limit) ? limit : undefined;
}
