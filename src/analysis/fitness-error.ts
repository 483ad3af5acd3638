import type { Json } from "../base/json.ts";
import type { ScoreTable } from "../store/queries.ts";
import type { RunRow, Split } from "../store/rows.ts";

/** How a recorded run folds scores into fitness, as far as its record tells. */
export interface FitnessRule {
  readonly objective: "mean" | "worst" | "product";
  readonly terms: readonly {
    readonly evaluator: string;
    readonly weight: number;
    readonly metrics: readonly { readonly metric: string; readonly weight: number }[];
    /** Metrics where smaller is better. */
    readonly lower: readonly string[];
  }[];
}

function member(value: Json | undefined, key: string): Json | undefined {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return undefined;
  return (value as { readonly [name: string]: Json })[key];
}

function list(value: Json | undefined): readonly Json[] {
  return Array.isArray(value) ? (value as readonly Json[]) : [];
}

/** Weights of the evaluators, in their order, out of the experiment as it was given. */
function evaluatorWeights(configGiven: string): number[] {
  try {
    const given = JSON.parse(configGiven) as Json;
    return list(member(given, "evaluate")).map((entry) => {
      const weight = member(entry, "weight");
      return typeof weight === "number" ? weight : 1;
    });
  } catch {
    // Runs of library users may carry any text; without weights there is no rule.
    return [];
  }
}

/** The rule of a run; undefined for Pareto runs and for records of another form. */
export function fitnessRule(run: RunRow): FitnessRule | undefined {
  const objective = member(run.config, "objective");
  if (objective !== "mean" && objective !== "worst" && objective !== "product") return undefined;
  const weights = evaluatorWeights(run.configGiven);
  const evaluators = list(member(run.config, "evaluators"));
  if (evaluators.length === 0 || weights.length !== evaluators.length) return undefined;
  const terms = evaluators.map((definition, i) => ({
    evaluator: String(member(definition, "name")),
    weight: weights[i] as number,
    metrics: list(member(definition, "fitness")).map((part) => ({
      metric: String(member(part, "metric")),
      weight: Number(member(part, "weight") ?? 1),
    })),
    lower: Object.entries((member(definition, "direction") ?? {}) as Record<string, Json>)
      .filter(([, direction]) => direction === "lower")
      .map(([metric]) => metric),
  }));
  return { objective, terms };
}

interface Estimate {
  readonly value: number;
  readonly error: number;
  readonly weight: number;
}

/** Fitness of one evaluator. Its metrics look at the same items, so their errors are added: an upper bound. */
function termEstimate(
  term: FitnessRule["terms"][number],
  scores: ScoreTable,
  split: Split,
): Estimate | undefined {
  let [value, error, total] = [0, 0, 0];
  for (const { metric, weight } of term.metrics) {
    const score = scores[term.evaluator]?.[metric]?.[split];
    if (score?.value === undefined || score.standardError === undefined) return undefined;
    value += weight * score.value * (term.lower.includes(metric) ? -1 : 1);
    error += weight * score.standardError;
    total += weight;
  }
  return total > 0
    ? { value: value / total, error: error / total, weight: term.weight }
    : undefined;
}

/** Value and error of the fold; evaluators look at items of their own, so their errors add up in squares. */
function fold(objective: FitnessRule["objective"], terms: readonly Estimate[]): Estimate {
  const total = terms.reduce((sum, { weight }) => sum + weight, 0);
  const shares = terms.map(({ weight }) => weight / total);
  const sum = (of: (term: Estimate, share: number) => number): number =>
    terms.reduce((subtotal, term, i) => subtotal + of(term, shares[i] as number), 0);
  if (objective === "worst") {
    return terms.reduce((worst, term) => (term.value < worst.value ? term : worst));
  }
  if (objective === "mean") {
    const value = sum((term, share) => share * term.value);
    return { value, error: Math.sqrt(sum((term, share) => (share * term.error) ** 2)), weight: 1 };
  }
  // First order: the relative error of a weighted geometric mean.
  const value = Math.exp(sum((term, share) => share * Math.log(Math.max(term.value, 1e-12))));
  const relative = Math.sqrt(sum((term, share) => ((share * term.error) / term.value) ** 2));
  return { value, error: value * relative, weight: 1 };
}

/**
 * Standard error of a trial's fitness on one split, from the standard errors of its scores.
 *
 * @param fitness the recorded fitness; an error is told only when the rule reproduces it, so a number that was folded in
 * another way, or lowered by a constraint, never gets an error that is not its own
 */
export function fitnessError(
  rule: FitnessRule | undefined,
  scores: ScoreTable,
  split: Split,
  fitness: number,
): number | undefined {
  if (rule === undefined) return undefined;
  const estimates = rule.terms.map((term) => termEstimate(term, scores, split));
  const known = estimates.filter((estimate) => estimate !== undefined);
  if (known.length === 0 || known.length < estimates.length) return undefined;
  const { value, error } = fold(rule.objective, known);
  const same = Math.abs(value - fitness) <= 1e-9 * Math.max(1, Math.abs(fitness));
  return same && Number.isFinite(error) ? error : undefined;
}
