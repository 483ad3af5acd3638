import type { Json } from "../base/json.ts";
import type { BudgetLimits } from "./budget.ts";

/** What a run has used. */
export interface Spent {
  /** Finished search evaluations, failures included. */
  readonly evaluations: number;
  /** Search evaluations since the best fitness last rose. */
  readonly sinceImprovement: number;
  readonly seconds: number;
  readonly perHour: number | undefined;
}

/** The limits of a stored budget. */
export function budgetLimits(budget: Json): BudgetLimits {
  const limit = (key: string): number | undefined => {
    const value =
      budget !== null && typeof budget === "object" ? Reflect.get(budget, key) : undefined;
    return typeof value === "number" ? value : undefined;
  };
  return { evaluations: limit("evaluations"), time: limit("time"), stall: limit("stall") };
}

/**
 * Seconds until the first limit of the budget is reached at the present rate, if the best never rises again.
 *
 * @returns undefined when there is no rate to go by and no time limit
 */
export function secondsLeft(limits: BudgetLimits, spent: Spent): number | undefined {
  const at = (evaluations: number | undefined, used: number): number[] =>
    evaluations === undefined || spent.perHour === undefined || spent.perHour <= 0
      ? []
      : [((evaluations - used) / spent.perHour) * 3600];
  const ends = [
    ...at(limits.evaluations, spent.evaluations),
    ...(limits.time === undefined ? [] : [limits.time - spent.seconds]),
  ];
  return ends.length === 0 ? undefined : Math.max(0, Math.min(...ends));
}
