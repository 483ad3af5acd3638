import { MendelError } from "../base/errors.ts";
import { suggestion } from "../base/suggest.ts";
import type { MetricDefinition, Split } from "./rows.ts";

/**
 * The language of `--where`: comparisons joined by "and".
 *
 *     accuracy >= 0.8 and digits-rotated.cross_entropy < 0.4 and fitness@validation > 0.7 and generation <= 20
 *
 * A name is a metric (`evaluator.metric`, or `metric` alone where only one evaluator has it), `fitness`, `generation` or
 * `number`. `@split` picks a split other than the query's. Text is parsed here and never becomes part of a statement.
 */

const operators = {
  ">=": ">=",
  "<=": "<=",
  "!=": "<>",
  "==": "=",
  "=": "=",
  ">": ">",
  "<": "<",
} as const;

export interface Comparison {
  readonly field:
    | { readonly kind: "fitness" | "generation" | "number" }
    | { readonly kind: "metric"; readonly evaluator: string; readonly metric: string };
  /** Undefined: the query's own split. */
  readonly split: Split | undefined;
  readonly operator: keyof typeof operators;
  readonly value: number;
}

/** A piece of a statement and what binds to its question marks. */
export interface SqlFragment {
  readonly sql: string;
  readonly bindings: readonly (string | number)[];
}

const TOKEN =
  /\s*(?:(?<operator>>=|<=|!=|==|=|>|<)|(?<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?![\w.])|(?<and>&&|(?:and|AND|And)(?![\w.@-]))|(?<name>[\p{L}_][\p{L}\p{N}_.:@/-]*))/uy;

/** Longest expression; people write dozens of characters. */
const MAX_LENGTH = 2000;

type Token = { readonly kind: "operator" | "number" | "and" | "name"; readonly text: string };

function tokens(text: string): Token[] {
  if (text.length > MAX_LENGTH) throw fault(text.slice(0, 40), `at most ${MAX_LENGTH} characters`);
  const found: Token[] = [];
  const pattern = new RegExp(TOKEN);
  while (pattern.lastIndex < text.trimEnd().length) {
    const from = pattern.lastIndex;
    const groups = pattern.exec(text)?.groups;
    const entry = Object.entries(groups ?? {}).find(([, value]) => value !== undefined);
    if (entry === undefined)
      throw fault(text, `cannot read ${JSON.stringify(text.slice(from).trim())}`);
    found.push({ kind: entry[0] as Token["kind"], text: entry[1] as string });
  }
  return found;
}

/**
 * Parses an expression.
 *
 * @param metrics what the run records: the names that may be used
 * @throws MendelError `usage` for anything that is not such an expression, with a suggestion for unknown names
 */
export function parseWhere(text: string, metrics: readonly MetricDefinition[]): Comparison[] {
  const list = tokens(text);
  const comparisons: Comparison[] = [];
  for (let i = 0; i < list.length; i += 4) {
    const [name, operator, number, and] = list.slice(i, i + 4);
    if (name?.kind !== "name" || operator?.kind !== "operator" || number?.kind !== "number") {
      const got = [name, operator, number].map((token) => token?.text ?? "nothing").join(" ");
      throw fault(text, `expected a name, a comparison and a number, got ${JSON.stringify(got)}`);
    }
    if (and !== undefined && (and.kind !== "and" || i + 4 >= list.length)) {
      throw fault(
        text,
        `expected "and" and another comparison after ${JSON.stringify(number.text)}`,
      );
    }
    comparisons.push({
      ...parseField(name.text, text, metrics),
      operator: operator.text as keyof typeof operators,
      value: Number(number.text),
    });
  }
  if (comparisons.length === 0) throw fault(text, "it is empty");
  return comparisons;
}

const ownFields = ["fitness", "generation", "number"] as const;
const splits: readonly string[] = ["search", "validation", "test"] satisfies Split[];

function parseField(
  name: string,
  text: string,
  metrics: readonly MetricDefinition[],
): Pick<Comparison, "field" | "split"> {
  // Metrics may hold an "@" of their own ("recall@10"), so only what follows the last one can be a split.
  const at = name.lastIndexOf("@");
  const suffix = at < 0 ? undefined : name.slice(at + 1);
  const split = splits.includes(suffix ?? "") ? (suffix as Split) : undefined;
  const field = split === undefined ? name : name.slice(0, at);
  const own = ownFields.find((known) => known === field);
  if (own !== undefined) return { field: { kind: own }, split };
  const head = name.slice(0, at);
  const unknown = suffix !== undefined && split === undefined;
  if (
    unknown &&
    (ownFields.some((known) => known === head) || metrics.some((m) => isNamed(m, head)))
  ) {
    throw fault(text, `there is no split "${suffix}"`, suggestion(suffix, splits));
  }
  const { evaluator, metric } = findMetric(field, metrics, ownFields);
  return { field: { kind: "metric", evaluator, metric }, split };
}

function isNamed({ evaluator, metric }: MetricDefinition, name: string): boolean {
  return metric === name || `${evaluator}.${metric}` === name;
}

/**
 * The metric a user means by `evaluator.metric`, or by `metric` where one evaluator has it.
 *
 * @param others further names that may be suggested
 * @throws MendelError `usage`
 */
export function findMetric(
  name: string,
  metrics: readonly MetricDefinition[],
  others: readonly string[] = [],
): MetricDefinition {
  const full = metrics.find(({ evaluator, metric }) => `${evaluator}.${metric}` === name);
  if (full !== undefined) return full;
  const short = metrics.filter(({ metric }) => metric === name);
  if (short.length === 1) return short[0] as MetricDefinition;
  if (short.length > 1) {
    const names = short.map(({ evaluator, metric }) => `${evaluator}.${metric}`);
    throw new MendelError("usage", `more than one evaluator has a metric "${name}"`, {
      hint: `say which: ${names.join(", ")}`,
    });
  }
  const known = [...metrics.map(({ evaluator, metric }) => `${evaluator}.${metric}`), ...others];
  throw new MendelError("usage", `this run has no metric "${name}"`, {
    hint: suggestion(name, known),
  });
}

function fault(text: string, problem: string, hint?: string): MendelError {
  return new MendelError("usage", `cannot use the condition ${JSON.stringify(text)}: ${problem}`, {
    hint: hint ?? 'write it like "accuracy >= 0.8 and fitness > 0.5"',
  });
}

/** A condition on a row `t` of table `trial`; scores that are missing or not finite never satisfy one. */
export function comparisonSql(comparison: Comparison, split: Split): SqlFragment {
  const operator = operators[comparison.operator];
  const { field, value } = comparison;
  const on = comparison.split ?? split;
  switch (field.kind) {
    case "generation":
      return { sql: `t.gen ${operator} ?`, bindings: [value] };
    case "number":
      return { sql: `t.number ${operator} ?`, bindings: [value] };
    case "fitness":
      return {
        sql: `EXISTS (SELECT 1 FROM fitness x WHERE x.trial_id = t.trial_id AND x.split = ?
                AND x.kind = 'finite' AND x.value ${operator} ?)`,
        bindings: [on, value],
      };
    case "metric":
      return {
        sql: `EXISTS (SELECT 1 FROM evaluation x JOIN score y ON y.eval_id = x.eval_id
                WHERE x.trial_id = t.trial_id AND x.evaluator = ? AND x.split = ?
                  AND y.metric = ? AND y.kind = 'finite' AND y.value ${operator} ?)`,
        bindings: [field.evaluator, on, field.metric, value],
      };
  }
}
