import { existsSync, readdirSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { z } from "zod";
import { MendelError } from "../base/errors.ts";
import { packageRoot } from "../base/package.ts";
import { parseWithSchema } from "../base/schema.ts";
import { suggestion } from "../base/suggest.ts";
import { parseDuration, parseSize } from "../base/units.ts";
import { parseYaml, readYaml } from "../base/yaml.ts";

/** "20m" → seconds, "4G" → bytes: written as text or as a plain number. */
const durationSeconds = z
  .union([z.number(), z.string()])
  .transform((value, context) =>
    unitOrIssue(parseDuration(value), value, "a time such as 90s, 20m or 2h", context),
  );
const sizeBytes = z
  .union([z.number(), z.string()])
  .transform((value, context) =>
    unitOrIssue(parseSize(value), value, "a size such as 500M or 4G", context),
  );

function unitOrIssue(
  parsed: number | undefined,
  given: unknown,
  expected: string,
  context: z.core.$RefinementCtx,
): number {
  if (parsed !== undefined && parsed > 0) return parsed;
  context.addIssue({
    code: "custom",
    message: `expected ${expected}, got ${JSON.stringify(given)}`,
  });
  return z.NEVER;
}

const modelSchema = z.union([
  z.string().min(1),
  z.strictObject({
    path: z.string().min(1),
    sha256: z
      .string()
      .regex(/^[0-9a-f]{64}$/, "expected 64 lower-case hex digits")
      .optional(),
    base: z.string().optional(),
  }),
]);

const evaluateSchema = z.union([
  z.string().min(1),
  z.strictObject({
    evaluator: z.union([z.string().min(1), z.record(z.string(), z.unknown())]),
    name: z.string().min(1).optional(),
    weight: z.number().positive().default(1),
  }),
]);

/** The experiment file as a user writes it; everything a search needs to know. */
export const experimentSchema = z.strictObject({
  name: z
    .string()
    .regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/, "expected letters, digits, dots, dashes and underscores")
    .optional(),
  models: z.record(
    z
      .string()
      .regex(
        /^[A-Za-z0-9][A-Za-z0-9._-]*$/,
        "expected a short name: letters, digits, dots, dashes",
      ),
    modelSchema,
  ),
  base: z.string().optional(),
  graph: z.string().optional(),
  space: z.union([z.string().min(1), z.record(z.string(), z.unknown())]),
  evaluate: z.array(evaluateSchema).min(1),
  objective: z.enum(["mean", "worst", "product", "pareto"]).default("mean"),
  constraints: z.array(z.string()).default([]),
  optimizer: z
    .union([z.string().min(1), z.looseObject({ name: z.string().min(1).default("cma_es") })])
    .default("cma_es"),
  budget: z
    .strictObject({
      evaluations: z.int().positive().optional(),
      time: durationSeconds.optional(),
      stall: z.int().positive().optional(),
    })
    .default({ evaluations: 300 }),
  seed: z.union([z.int().nonnegative(), z.string().min(1)]).default(0),
  workers: z.union([z.literal("auto"), z.int().positive()]).default("auto"),
  /** Longest time one evaluation may take before its host is killed. */
  timeout: durationSeconds.default(600),
  memory: sizeBytes.optional(),
  /** How many of the best candidates on search are scored on validation. */
  finalists: z.int().positive().default(10),
  compat: z.literal("mergekit").optional(),
  program: z.enum(["auto", "slab", "basis"]).default("auto"),
});

export type ExperimentFile = z.output<typeof experimentSchema>;

export interface ExperimentModel {
  readonly id: string;
  /** Absolute. */
  readonly path: string;
  readonly sha256?: string;
  /** Model under a LoRA adapter. */
  readonly base?: string;
}

export interface ExperimentEvaluator {
  readonly name: string;
  readonly weight: number;
  /** Absolute path of its file, or the inline mapping with the folder its paths are relative to. */
  readonly source:
    | { readonly kind: "file"; readonly path: string }
    | { readonly kind: "inline"; readonly value: unknown; readonly folder: string };
}

/** An experiment with every name resolved to a place, nothing opened yet. */
export interface Experiment {
  readonly name: string;
  /** Absolute path of the experiment file. */
  readonly file: string;
  readonly models: readonly ExperimentModel[];
  readonly base: string | undefined;
  readonly graph: string | undefined;
  readonly space:
    | { readonly kind: "file"; readonly path: string }
    | { readonly kind: "inline"; readonly value: unknown };
  readonly evaluators: readonly ExperimentEvaluator[];
  readonly objective: ExperimentFile["objective"];
  readonly constraints: readonly string[];
  readonly optimizer: {
    readonly name: string;
    readonly settings: Readonly<Record<string, unknown>>;
  };
  readonly budget: ExperimentFile["budget"];
  readonly seed: number | string;
  readonly workers: "auto" | number;
  readonly timeoutSeconds: number;
  readonly memoryBytes: number | undefined;
  readonly finalists: number;
  readonly compat: "mergekit" | undefined;
  /** Which program runs candidates. */
  readonly program: "auto" | "slab" | "basis";
  /** The file as given, after --set, as data: recorded with the run. */
  readonly given: ExperimentFile;
}

/**
 * Reads an experiment file and resolves its names; opens no model and no data.
 *
 * @param path file, or a folder that holds `experiment.yml`
 * @param changes `--set` assignments such as "budget.evaluations=50", applied before the schema
 * @throws MendelError `not-found`, `invalid-config`
 */
export function loadExperiment(path: string, changes: readonly string[] = []): Experiment {
  const file = experimentFileOf(path);
  const parsed = readYaml(file);
  // A file that is no mapping has nothing to change; the schema says what is wrong with it.
  if (parsed.value !== null && typeof parsed.value === "object") {
    for (const change of changes) applyChange(parsed.value, change);
  }
  const given = parseWithSchema(experimentSchema, parsed);
  return resolveExperiment(given, file);
}

/** The experiment of a recorded run: the stored file contents, resolved against where the file was. */
export function restoreExperiment(given: unknown, file: string): Experiment {
  return resolveExperiment(experimentSchema.parse(given), file);
}

function experimentFileOf(path: string): string {
  const candidates = [
    path,
    join(path, "experiment.yml"),
    join(path, "experiment.yaml"),
    join(path, "experiment.json"),
  ];
  const found = candidates
    .slice(path.match(/\.(ya?ml|json)$/) ? 0 : 1)
    .find((candidate) => existsSync(candidate));
  if (found === undefined) {
    throw new MendelError("not-found", `no experiment at ${path}`, {
      hint: "give an experiment file, or a folder that holds experiment.yml; `mendel init` writes one",
      where: { file: path },
    });
  }
  return resolve(found);
}

/** Applies one `a.b.c=value` assignment; the value is read as YAML. */
function applyChange(data: object, change: string): void {
  const split = change.indexOf("=");
  if (split < 1) {
    throw new MendelError("usage", `--set expects key=value, got "${change}"`, {
      hint: "for instance --set budget.evaluations=50",
    });
  }
  const keys = change.slice(0, split).split(".");
  const value = parseYaml(change.slice(split + 1), `--set ${change}`).value;
  let target = data as Record<string, unknown>;
  for (const key of keys.slice(0, -1)) {
    const next = Object.hasOwn(target, key) ? target[key] : undefined;
    if (typeof next === "string" && key === "optimizer") target[key] = { name: next };
    else if (next === null || typeof next !== "object") target[key] = {};
    target = target[key] as Record<string, unknown>;
  }
  const last = keys.at(-1) as string;
  if (last === "__proto__" || keys.includes("__proto__")) {
    throw new MendelError("usage", `--set cannot assign "${change}"`);
  }
  target[last] = value;
}

function resolveExperiment(given: ExperimentFile, file: string): Experiment {
  const folder = dirname(file);
  const models = Object.entries(given.models).map(([id, value]): ExperimentModel => {
    const entry = typeof value === "string" ? { path: value } : value;
    return {
      id,
      path: resolve(folder, entry.path),
      ...(entry.sha256 === undefined ? {} : { sha256: entry.sha256 }),
      ...(entry.base === undefined ? {} : { base: entry.base }),
    };
  });
  const optimizer =
    typeof given.optimizer === "string" ? { name: given.optimizer } : given.optimizer;
  const { name, ...settings } = optimizer;
  return {
    name: given.name ?? nameOf(file),
    file,
    models,
    base: given.base,
    graph: given.graph,
    space:
      typeof given.space === "string"
        ? { kind: "file", path: findNamed(given.space, "search-spaces", folder, file) }
        : { kind: "inline", value: given.space },
    evaluators: given.evaluate.map((entry) => resolveEvaluator(entry, folder, file)),
    objective: given.objective,
    constraints: given.constraints,
    optimizer: { name, settings },
    budget: given.budget,
    seed: given.seed,
    workers: given.workers,
    timeoutSeconds: given.timeout,
    memoryBytes: given.memory,
    finalists: given.finalists,
    compat: given.compat,
    program: given.program,
    given,
  };
}

/** "examples/digits/experiment.yml" → "digits"; "my-search.yml" → "my-search". */
function nameOf(file: string): string {
  const stem = basename(file).replace(/\.(ya?ml|json)$/, "");
  const name = stem === "experiment" ? basename(dirname(file)) : stem;
  return name.replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[^A-Za-z0-9]+/, "") || "run";
}

function resolveEvaluator(
  entry: ExperimentFile["evaluate"][number],
  folder: string,
  file: string,
): ExperimentEvaluator {
  const { evaluator, weight, name } =
    typeof entry === "string" ? { evaluator: entry, weight: 1, name: undefined } : entry;
  if (typeof evaluator !== "string") {
    if (name === undefined) {
      throw new MendelError("invalid-config", "an inline evaluator needs a name", {
        hint: "write - { name: my-task, evaluator: { … } }",
        where: { file, key: "evaluate" },
      });
    }
    return { name, weight, source: { kind: "inline", value: evaluator, folder } };
  }
  const path = findNamed(evaluator, "evaluators", folder, file);
  return {
    name: name ?? basename(path).replace(/\.(ya?ml|json)$/, ""),
    weight,
    source: { kind: "file", path },
  };
}

/**
 * Finds a space or evaluator: a path (with a slash or an ending) relative to the experiment, else a name in a folder
 * `kind` beside the experiment, in the working directory or in the package.
 */
export function findNamed(
  name: string,
  kind: "search-spaces" | "evaluators",
  folder: string,
  file: string,
): string {
  if (/[/\\]|\.(ya?ml|json)$/.test(name)) {
    const path = resolve(folder, name);
    if (existsSync(path)) return path;
    throw new MendelError("not-found", `no file at ${path}`, {
      hint: "relative paths are relative to the file that holds them",
      where: { file },
    });
  }
  const folders = [join(folder, kind), resolve(kind), join(packageRoot(), kind)];
  for (const place of folders) {
    for (const ending of ["yml", "yaml", "json"]) {
      const path = join(place, `${name}.${ending}`);
      if (existsSync(path)) return path;
    }
  }
  throw new MendelError(
    "not-found",
    `no ${kind === "evaluators" ? "evaluator" : "search space"} named "${name}"`,
    {
      hint: namedHint(name, folders),
      where: { file },
    },
  );
}

function namedHint(name: string, folders: readonly string[]): string {
  const known = [...new Set(folders)].flatMap((place) =>
    existsSync(place)
      ? readdirSync(place)
          .filter((entry) => /\.(ya?ml|json)$/.test(entry))
          .map((entry) => entry.replace(/\.(ya?ml|json)$/, ""))
      : [],
  );
  return `${suggestion(name, new Set(known))}; or give a path`;
}
