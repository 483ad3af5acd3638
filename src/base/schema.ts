import { z } from "zod";
import { MendelError } from "./errors.ts";
import { closest } from "./suggest.ts";
import type { KeyPath, ParsedYaml } from "./yaml.ts";

/** One thing that is wrong with a configuration. */
export interface ConfigProblem {
  /** Dotted path of the key, "models.base" or "genes[2].range"; empty for the whole file. */
  readonly key: string;
  readonly line: number | undefined;
  /** What was expected and what arrived, without the place. */
  readonly message: string;
  readonly hint: string | undefined;
}

export type SchemaResult<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly problems: readonly ConfigProblem[] };

/**
 * Applies a schema to parsed data.
 *
 * @throws MendelError `invalid-config` that lists every problem in the order of lines; `where` is the first of them
 */
export function parseWithSchema<S extends z.ZodType>(schema: S, parsed: ParsedYaml): z.output<S> {
  const result = checkWithSchema(schema, parsed);
  if (result.ok) return result.value;
  throw configError(parsed.file, result.problems);
}

/** As `parseWithSchema`, with the problems as a value. */
export function checkWithSchema<S extends z.ZodType>(
  schema: S,
  parsed: ParsedYaml,
): SchemaResult<z.output<S>> {
  const result = schema.safeParse(parsed.value);
  if (result.success) return { ok: true, value: result.data };
  const problems = result.error.issues.flatMap((issue) => problemsOf(issue, [], schema, parsed));
  problems.sort((a, b) => (a.line ?? 0) - (b.line ?? 0));
  return { ok: false, problems };
}

/** One error out of a list of problems, for callers that add their own to a schema's. */
export function configError(file: string, problems: readonly ConfigProblem[]): MendelError {
  const [first] = problems;
  if (first === undefined) throw new Error("an error without a problem");
  const lines = problems.map((problem) => formatProblem(problem));
  const message =
    problems.length === 1
      ? `${file}${first.line === undefined ? ": " : ", "}${lines[0]}`
      : `${file} has ${problems.length} problems:\n${lines.map((line) => `  ${line}`).join("\n")}`;
  const hint = problems.find((problem) => problem.hint !== undefined)?.hint;
  return new MendelError("invalid-config", message, {
    ...(hint === undefined ? {} : { hint }),
    where: {
      file,
      ...(first.line === undefined ? {} : { line: first.line }),
      ...(first.key === "" ? {} : { key: first.key }),
    },
  });
}

/** "models.base", "genes[2].range"; keys that are not words are quoted. */
export function formatKey(path: KeyPath): string {
  let text = "";
  for (const step of path) {
    if (typeof step === "number") text += `[${step}]`;
    else if (/^[\w-]+$/.test(step)) text += text === "" ? step : `.${step}`;
    else text += `[${JSON.stringify(step)}]`;
  }
  return text;
}

function formatProblem(problem: ConfigProblem): string {
  const place = [
    problem.line === undefined ? undefined : `line ${problem.line}`,
    problem.key === "" ? undefined : problem.key,
  ].filter((part) => part !== undefined);
  return place.length === 0 ? problem.message : `${place.join(", ")}: ${problem.message}`;
}

type Issue = z.core.$ZodIssue;

function problemsOf(
  issue: Issue,
  prefix: KeyPath,
  schema: z.core.$ZodType,
  parsed: ParsedYaml,
): ConfigProblem[] {
  const path = [
    ...prefix,
    ...issue.path.map((step) => (typeof step === "number" ? step : String(step))),
  ];
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => unknownKey(key, path, schema, parsed));
  }
  if (issue.code === "invalid_union" && issue.errors.length > 0) {
    return unionProblems(issue.errors, path, schema, parsed);
  }
  if (issue.code === "invalid_key" || issue.code === "invalid_element") {
    return issue.issues.flatMap((inner) =>
      problemsOf({ ...inner, path: [] }, path, schema, parsed),
    );
  }
  return [
    {
      key: formatKey(path),
      line: parsed.lineOf(path),
      message: describe(issue, valueAt(parsed.value, path)),
      hint: hintFor(issue, valueAt(parsed.value, path)),
    },
  ];
}

function unknownKey(
  key: string,
  path: KeyPath,
  schema: z.core.$ZodType,
  parsed: ParsedYaml,
): ConfigProblem {
  const known = [...new Set(schemasAt(schema, path).flatMap(keysOf))];
  const near = closest(key, known);
  const list = known.length === 0 ? "no keys are known here" : `known keys: ${known.join(", ")}`;
  const full = [...path, key];
  return {
    key: formatKey(full),
    line: parsed.lineOf(full),
    message: `unknown key "${key}"`,
    hint: near === undefined ? list : `did you mean "${near}"? ${list}`,
  };
}

/**
 * A value that fits none of several forms: when its type fits one form, that form's problems are the ones worth telling;
 * when it fits none, the forms are listed.
 */
function unionProblems(
  branches: readonly (readonly Issue[])[],
  path: KeyPath,
  schema: z.core.$ZodType,
  parsed: ParsedYaml,
): ConfigProblem[] {
  const fits = (issues: readonly Issue[]): boolean =>
    !issues.some((issue) => issue.path.length === 0 && isWrongKind(issue));
  const near = branches
    .filter((issues) => issues.length > 0 && fits(issues))
    .sort((a, b) => weightOf(a) - weightOf(b))[0];
  if (near !== undefined) return near.flatMap((issue) => problemsOf(issue, path, schema, parsed));
  const value = valueAt(parsed.value, path);
  const forms = new Set(branches.flatMap((issues) => issues.map((issue) => expected(issue))));
  return [
    {
      key: formatKey(path),
      line: parsed.lineOf(path),
      message: `expected ${[...forms].join(" or ")}, got ${show(value)}`,
      hint: undefined,
    },
  ];
}

/** Unknown keys weigh more: the form whose keys were used is the form that was meant. */
function weightOf(issues: readonly Issue[]): number {
  return issues.reduce(
    (sum, issue) => sum + (issue.code === "unrecognized_keys" ? 2 * issue.keys.length : 1),
    0,
  );
}

function isWrongKind(issue: Issue): boolean {
  return issue.code === "invalid_type" || issue.code === "invalid_value";
}

function describe(issue: Issue, value: unknown): string {
  if (issue.code === "invalid_type" && value === undefined)
    return `missing; expected ${expected(issue)}`;
  if (issue.code === "custom") return issue.message;
  return `expected ${expected(issue)}, got ${show(value)}`;
}

function expected(issue: Issue): string {
  switch (issue.code) {
    case "invalid_type":
      return kindNames[issue.expected] ?? issue.expected;
    case "invalid_value":
      return issue.values
        .map((value) => (typeof value === "string" ? value : show(value)))
        .join(" | ");
    case "too_small":
      return `${measured(issue.origin)} ${issue.exact ? "exactly" : issue.inclusive === false ? "more than" : "at least"} ${issue.minimum}`;
    case "too_big":
      return `${measured(issue.origin)} ${issue.exact ? "exactly" : issue.inclusive === false ? "less than" : "at most"} ${issue.maximum}`;
    case "not_multiple_of":
      return `a multiple of ${issue.divisor}`;
    default:
      return issue.message;
  }
}

const kindNames: Readonly<Record<string, string>> = {
  string: "text",
  number: "a number",
  int: "a whole number",
  boolean: "true or false",
  object: "a mapping",
  record: "a mapping",
  array: "a list",
  tuple: "a list",
  null: "nothing",
  undefined: "nothing",
};

function measured(origin: string): string {
  if (origin === "string") return "a length of";
  if (origin === "array" || origin === "set" || origin === "object") return "a size of";
  return "a number of";
}

/** A value as it is shown in messages: one short line. */
function show(value: unknown): string {
  if (value === undefined) return "nothing";
  if (Array.isArray(value)) return "a list";
  if (value !== null && typeof value === "object") return "a mapping";
  if (typeof value === "number") return String(value);
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 57)}..."` : text;
}

function hintFor(issue: Issue, value: unknown): string | undefined {
  if (issue.code === "invalid_value" && typeof value === "string") {
    const near = closest(value, issue.values.map(String));
    return near === undefined ? undefined : `did you mean "${near}"?`;
  }
  if (issue.code === "invalid_type" && issue.expected === "boolean" && typeof value === "string") {
    if (/^(yes|on|y)$/i.test(value)) return "write true";
    if (/^(no|off|n)$/i.test(value)) return "write false";
  }
  return undefined;
}

function valueAt(value: unknown, path: KeyPath): unknown {
  let at = value;
  for (const step of path) {
    if (at === null || typeof at !== "object" || !Object.hasOwn(at, step)) return undefined;
    at = (at as Record<string | number, unknown>)[step];
  }
  return at;
}

/** All schemas that may apply at a path, through every wrapper and every form of a union. */
function schemasAt(schema: z.core.$ZodType, path: KeyPath): z.core.$ZodType[] {
  const direct = unwrap(schema);
  const [step, ...rest] = path;
  if (step === undefined) return direct;
  return direct
    .flatMap((candidate) => childrenAt(candidate, step))
    .flatMap((child) => schemasAt(child, rest));
}

function unwrap(schema: z.core.$ZodType): z.core.$ZodType[] {
  if (
    schema instanceof z.ZodOptional ||
    schema instanceof z.ZodNullable ||
    schema instanceof z.ZodDefault ||
    schema instanceof z.ZodPrefault ||
    schema instanceof z.ZodReadonly ||
    schema instanceof z.ZodNonOptional ||
    schema instanceof z.ZodCatch
  ) {
    return unwrap(schema.def.innerType);
  }
  if (schema instanceof z.ZodPipe) return [...unwrap(schema.def.in), ...unwrap(schema.def.out)];
  if (schema instanceof z.ZodLazy) return unwrap(schema.def.getter());
  if (schema instanceof z.ZodUnion) return schema.def.options.flatMap(unwrap);
  if (schema instanceof z.ZodIntersection) {
    return [...unwrap(schema.def.left), ...unwrap(schema.def.right)];
  }
  return [schema];
}

function childrenAt(schema: z.core.$ZodType, step: string | number): z.core.$ZodType[] {
  if (schema instanceof z.ZodObject) {
    const child = Object.hasOwn(schema.def.shape, step) ? schema.def.shape[step] : undefined;
    return child === undefined ? [] : [child];
  }
  if (schema instanceof z.ZodRecord) return [schema.def.valueType];
  if (schema instanceof z.ZodArray) return [schema.def.element];
  if (schema instanceof z.ZodTuple && typeof step === "number") {
    const child = schema.def.items[step] ?? schema.def.rest;
    return child === null || child === undefined ? [] : [child];
  }
  return [];
}

function keysOf(schema: z.core.$ZodType): string[] {
  return schema instanceof z.ZodObject ? Object.keys(schema.def.shape) : [];
}
