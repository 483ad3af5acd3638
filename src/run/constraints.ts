import { MendelError } from "../base/errors.ts";
import { suggestion } from "../base/suggest.ts";
import type { EvaluatorResult } from "../evaluation/executor.ts";
import { metricValue } from "./scores.ts";

/** A bound on a metric: absolute, or relative to the best parent. */
export interface Constraint {
  readonly text: string;
  readonly evaluator: string;
  readonly metric: string;
  readonly relation: ">=" | "<=";
  /** Bound, or the offset from the best parent's value. */
  readonly bound: number;
  readonly relativeToParent: boolean;
}

const pattern =
  /^\s*([A-Za-z0-9._-]+)\.([A-Za-z0-9_]+)\s*(>=|<=)\s*(?:(parent)\s*(?:([+-])\s*([0-9.eE+-]+))?|([+-]?[0-9.eE+-]+))\s*$/;

/**
 * Parses "evaluator.metric >= 0.8" or "evaluator.metric >= parent - 0.01".
 *
 * @param metrics metrics by evaluator, to refuse names that do not exist
 * @throws MendelError `invalid-config`
 */
export function parseConstraint(
  text: string,
  metrics: ReadonlyMap<string, readonly string[]>,
  file: string,
): Constraint {
  const where = { file, key: "constraints" };
  const match = pattern.exec(text);
  if (match === null) {
    throw new MendelError("invalid-config", `cannot read the constraint "${text}"`, {
      hint: 'write "evaluator.metric >= 0.8" or "evaluator.metric >= parent - 0.01"',
      where,
    });
  }
  const [, evaluator = "", metric = "", relation, parent, sign, offset, bound] = match;
  const known = metrics.get(evaluator);
  if (known === undefined) {
    throw new MendelError(
      "invalid-config",
      `constraint "${text}": no evaluator named "${evaluator}"`,
      {
        hint: suggestion(evaluator, metrics.keys()),
        where,
      },
    );
  }
  if (!known.includes(metric)) {
    throw new MendelError(
      "invalid-config",
      `constraint "${text}": ${evaluator} has no metric "${metric}"`,
      {
        hint: suggestion(metric, known),
        where,
      },
    );
  }
  const number =
    parent === undefined ? Number(bound) : offset === undefined ? 0 : Number(`${sign}${offset}`);
  if (!Number.isFinite(number)) {
    throw new MendelError(
      "invalid-config",
      `constraint "${text}": "${bound ?? offset}" is not a number`,
      { where },
    );
  }
  return {
    text,
    evaluator,
    metric,
    relation: relation as ">=" | "<=",
    bound: number,
    relativeToParent: parent !== undefined,
  };
}

/** By how much a constraint is broken: 0 when it holds, 1 when the metric is missing. */
export function violation(
  constraint: Constraint,
  results: readonly EvaluatorResult[],
  parents: readonly (readonly EvaluatorResult[])[],
): number {
  const value = metricValue(results, constraint.evaluator, constraint.metric);
  if (value === undefined) return 1;
  const atLeast = constraint.relation === ">=";
  let bound = constraint.bound;
  if (constraint.relativeToParent) {
    const values = parents
      .map((parent) => metricValue(parent, constraint.evaluator, constraint.metric))
      .filter((parentValue) => parentValue !== undefined);
    if (values.length === 0) return 0;
    bound += atLeast ? Math.max(...values) : Math.min(...values);
  }
  return Math.max(0, atLeast ? bound - value : value - bound);
}
