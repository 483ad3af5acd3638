import { basename, dirname, resolve } from "node:path";
import { z } from "zod";
import { MendelError } from "../base/errors.ts";
import { type ConfigProblem, configError, parseWithSchema } from "../base/schema.ts";
import { suggestion } from "../base/suggest.ts";
import { type ParsedYaml, readYaml, withoutLines } from "../base/yaml.ts";
import type { Split } from "./executor.ts";
import { findMetric, metricNamesOf } from "./metrics/index.ts";
import type { Task } from "./metrics/metric.ts";

const tasks = ["classification", "regression", "language-modeling", "agreement", "module"] as const;
/** Named by the file format, not evaluated by this version. */
const plannedTasks = ["generation", "embedding"] as const;

/** Larger minibatches gain nothing on one thread and hold more activations. */
const MAX_BATCH = 65_536;

const fraction = z.number().positive().max(1);
const metricName = z
  .string()
  .regex(/^[A-Za-z][A-Za-z0-9_]*$/, "expected a name of letters, digits and underscores");

/** An evaluator file as a user writes it. */
export const evaluatorSchema = z.strictObject({
  title: z.string().optional(),
  task: z.enum([...tasks, ...plannedTasks]),
  data: z.union([
    z.string().min(1),
    z.strictObject({
      search: z.string().min(1),
      validation: z.string().min(1),
      test: z.string().min(1),
    }),
  ]),
  split: z
    .strictObject({
      search: fraction,
      validation: fraction,
      test: fraction,
      seed: z.int().nonnegative().default(0),
    })
    .optional(),
  inputs: z.record(z.string().min(1), z.string().min(1)),
  target: z.string().min(1).optional(),
  output: z.string().min(1).optional(),
  fitness: z.union([
    metricName,
    z
      .array(z.strictObject({ metric: metricName, weight: z.number().positive().default(1) }))
      .min(1),
  ]),
  metrics: z.array(metricName).optional(),
  batch: z.int().positive().max(MAX_BATCH).default(64),
  limit: z.int().positive().optional(),
  tokenizer: z.string().min(1).optional(),
  max_length: z.int().min(2).optional(),
  add_bos: z.boolean().optional(),
  module: z.string().min(1).optional(),
  teacher: z.string().min(1).optional(),
  direction: z.record(metricName, z.enum(["higher", "lower"])).optional(),
});

export type EvaluatorFile = z.output<typeof evaluatorSchema>;

/** An evaluator with every path absolute and every default filled in: plain data that travels to workers. */
export interface EvaluatorDefinition {
  readonly name: string;
  readonly title: string;
  readonly task: Task;
  /** Where the splits come from. */
  readonly data:
    | { readonly kind: "files"; readonly files: Readonly<Record<Split, string>> }
    | {
        readonly kind: "fractions";
        readonly file: string;
        readonly fractions: Readonly<Record<Split, number>>;
        readonly seed: number;
      };
  /** Graph input ← data field. */
  readonly inputs: Readonly<Record<string, string>>;
  readonly target?: string;
  /** Graph output that is scored; absent: the only one (modules get all). */
  readonly output?: string;
  readonly fitness: readonly { readonly metric: string; readonly weight: number }[];
  /** Recorded metrics, each once; those of `fitness` are among them. */
  readonly metrics: readonly string[];
  /** Metric → which way is better, for every metric above. */
  readonly direction: Readonly<Record<string, "higher" | "lower">>;
  readonly batch: number;
  /** At most so many items per split, the first ones. */
  readonly limit?: number;
  readonly tokenizer?: string;
  readonly maxLength?: number;
  /** true: a beginning-of-sequence token goes in front; false: no special tokens; absent: as the tokenizer says. */
  readonly addBos?: boolean;
  /** Absolute path of a metric module. */
  readonly module?: string;
  /** Model whose outputs are the reference: a name in the experiment, or the absolute path of an ONNX file. */
  readonly teacher?: { readonly kind: "model" | "file"; readonly at: string };
}

/**
 * Reads an evaluator file; its paths are relative to the folder that holds it. Opens neither data nor modules.
 *
 * @param name what results are filed under; default: the file's name without its ending
 * @throws MendelError `not-found`, `invalid-config`, `unsupported`
 */
export function loadEvaluator(path: string, name?: string): EvaluatorDefinition {
  const file = resolve(path);
  const stem = basename(file).replace(/\.(ya?ml|json)$/, "");
  return resolveEvaluator(readYaml(file), name ?? stem, dirname(file));
}

/** As `loadEvaluator`, for a mapping written inside an experiment; paths are relative to `folder`. */
export function parseEvaluator(value: unknown, name: string, folder: string): EvaluatorDefinition {
  return resolveEvaluator(withoutLines(value, `evaluator "${name}"`), name, folder);
}

function resolveEvaluator(parsed: ParsedYaml, name: string, folder: string): EvaluatorDefinition {
  const given = parseWithSchema(evaluatorSchema, parsed);
  const task = supportedTask(given.task, parsed);
  const fitness =
    typeof given.fitness === "string" ? [{ metric: given.fitness, weight: 1 }] : given.fitness;
  const names = [...new Set([...(given.metrics ?? []), ...fitness.map((term) => term.metric)])];
  const problems = [
    ...dataProblems(given),
    ...(task === "module" ? moduleProblems(given, names) : metricProblems(given, task, fitness)),
    ...taskProblems(given, task),
  ];
  if (problems.length > 0) {
    throw configError(
      parsed.file,
      problems.map((problem) => ({ ...problem, line: parsed.lineOf(problem.path) })),
    );
  }
  const at = (path: string): string => resolve(folder, path);
  return {
    name,
    title: given.title ?? name,
    task,
    data: resolveData(given, at),
    inputs: given.inputs,
    ...(given.target === undefined ? {} : { target: given.target }),
    ...(given.output === undefined ? {} : { output: given.output }),
    fitness,
    metrics: names,
    direction: Object.fromEntries(
      names.map((metric) => [
        metric,
        findBuiltIn(task, metric)?.direction ?? given.direction?.[metric] ?? "higher",
      ]),
    ),
    batch: given.batch,
    ...(given.limit === undefined ? {} : { limit: given.limit }),
    ...(given.tokenizer === undefined ? {} : { tokenizer: at(given.tokenizer) }),
    ...(given.max_length === undefined ? {} : { maxLength: given.max_length }),
    ...(given.add_bos === undefined ? {} : { addBos: given.add_bos }),
    ...(given.module === undefined ? {} : { module: at(given.module) }),
    ...(given.teacher === undefined ? {} : { teacher: teacherOf(given.teacher, at) }),
  };
}

function supportedTask(task: EvaluatorFile["task"], parsed: ParsedYaml): Task {
  const known = tasks.find((candidate) => candidate === task);
  if (known !== undefined) return known;
  const line = parsed.lineOf(["task"]);
  throw new MendelError(
    "unsupported",
    `${parsed.file}: the task "${task}" is not evaluated by this version`,
    {
      hint: `tasks: ${tasks.join(", ")}; a module can score what these do not`,
      where: { file: parsed.file, key: "task", ...(line === undefined ? {} : { line }) },
    },
  );
}

function findBuiltIn(task: Task, metric: string): ReturnType<typeof findMetric> {
  return task === "module" ? undefined : findMetric(metric);
}

/** A name without slash or `.onnx` is a model of the experiment. */
function teacherOf(
  teacher: string,
  at: (path: string) => string,
): NonNullable<EvaluatorDefinition["teacher"]> {
  return /[/\\]|\.onnx$/.test(teacher)
    ? { kind: "file", at: at(teacher) }
    : { kind: "model", at: teacher };
}

function resolveData(
  given: EvaluatorFile,
  at: (path: string) => string,
): EvaluatorDefinition["data"] {
  if (typeof given.data === "string") {
    if (given.split === undefined) throw new Error("checked in dataProblems");
    const { seed, ...fractions } = given.split;
    return { kind: "fractions", file: at(given.data), fractions, seed };
  }
  const { search, validation, test } = given.data;
  return {
    kind: "files",
    files: { search: at(search), validation: at(validation), test: at(test) },
  };
}

type Problem = Omit<ConfigProblem, "line"> & { readonly path: readonly (string | number)[] };

function problem(key: string, message: string, hint?: string): Problem {
  return { key, path: key === "" ? [] : [key], message, hint };
}

function dataProblems(given: EvaluatorFile): Problem[] {
  if (typeof given.data === "string") {
    if (given.split === undefined) {
      return [
        problem(
          "data",
          "one data file needs `split`",
          "write split: { search: 0.5, validation: 0.2, test: 0.3, seed: 1 }, or name three files",
        ),
      ];
    }
    const total = given.split.search + given.split.validation + given.split.test;
    // Fractions such as 0.7 + 0.2 + 0.1 may exceed 1 by rounding.
    return total > 1 + 1e-9
      ? [problem("split", `the fractions add up to ${total}; at most 1 can be given out`)]
      : [];
  }
  return given.split === undefined
    ? []
    : [problem("split", "`split` cuts one data file, but `data` names three")];
}

function metricProblems(
  given: EvaluatorFile,
  task: Exclude<Task, "module">,
  fitness: readonly { readonly metric: string }[],
): Problem[] {
  const known = metricNamesOf(task);
  const check = (name: string, key: "metrics" | "fitness"): Problem[] => {
    if (known.includes(name)) return [];
    const message =
      findMetric(name) === undefined
        ? `no metric named "${name}"`
        : `the metric "${name}" does not apply to the task ${task}`;
    return [problem(key, message, suggestion(name, known))];
  };
  return [
    ...(given.metrics ?? []).flatMap((name) => check(name, "metrics")),
    ...fitness.flatMap((term) => check(term.metric, "fitness")),
    ...(given.direction === undefined
      ? []
      : [problem("direction", "only metrics of a module need a direction")]),
  ];
}

function moduleProblems(given: EvaluatorFile, names: readonly string[]): Problem[] {
  return Object.keys(given.direction ?? {})
    .filter((name) => !names.includes(name))
    .map((name) =>
      problem("direction", `no metric named "${name}" is recorded`, suggestion(name, names)),
    );
}

/** Keys that a task needs, and keys that would be ignored. */
function taskProblems(given: EvaluatorFile, task: Task): Problem[] {
  const problems: Problem[] = [];
  if (Object.keys(given.inputs).length === 0) {
    problems.push(problem("inputs", "no graph input is mapped", "write inputs: { input: field }"));
  }
  const needsTarget = task === "classification" || task === "regression";
  if (needsTarget && given.target === undefined) {
    problems.push(
      problem("target", `missing; the task ${task} compares outputs with a data field`),
    );
  }
  if (task === "language-modeling" && given.tokenizer === undefined) {
    problems.push(problem("tokenizer", "missing; expected the path of a tokenizer.json"));
  }
  const unused: [keyof EvaluatorFile, boolean, string][] = [
    ["target", !needsTarget && task !== "module", `the task ${task} has no target`],
    ["module", task !== "module", "only the task module has a module"],
    ["teacher", task !== "agreement", "only the task agreement has a teacher"],
    ["max_length", given.tokenizer === undefined, "it counts tokens, but there is no tokenizer"],
    ["add_bos", given.tokenizer === undefined, "it concerns tokens, but there is no tokenizer"],
  ];
  for (const [key, isUnused, why] of unused) {
    if (isUnused && given[key] !== undefined) problems.push(problem(key, why));
  }
  if (task === "agreement" && given.teacher === undefined) {
    problems.push(
      problem("teacher", "missing; expected a model's name or the path of an ONNX file"),
    );
  }
  if (task === "module" && given.module === undefined) {
    problems.push(problem("module", "missing; expected the path of a module, ./my-metric.mjs"));
  }
  return problems;
}
