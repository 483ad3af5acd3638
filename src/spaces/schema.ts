import { z } from "zod";
import { MendelError } from "../base/errors.ts";
import { type ConfigProblem, configError, formatKey, parseWithSchema } from "../base/schema.ts";
import { type KeyPath, type ParsedYaml, readYaml, withoutLines } from "../base/yaml.ts";
import type { GroupsSpec } from "../recipes/tensor-groups.ts";
import { logitMargin, type Scale } from "./axis-mapping.ts";
import { type LayersDefinition, parseLayersDefinition } from "./layers-definition.ts";

/** What a gene's values are shared by: one per model, one per group, both, or (empty) one for everything. */
export interface GenePer {
  readonly model: boolean;
  readonly group: boolean;
}

/** One entry of `genes`: a fixed value, or what is searched. Members that are absent default to the method's facts. */
export type GeneDefinition =
  | { readonly kind: "value"; readonly value: number }
  | {
      readonly kind: "choices";
      readonly choices: readonly number[];
      readonly start: number | undefined;
      readonly per: GenePer;
    }
  | {
      readonly kind: "range";
      readonly range: readonly [number, number] | undefined;
      readonly scale: Scale | undefined;
      readonly start: number | undefined;
      readonly per: GenePer;
    };

/** A search space as a user writes it: well formed, but not yet held against models and methods. */
export interface SpaceDefinition {
  readonly title: string;
  /** Several make the method a gene too; none for paths. */
  readonly methods: readonly string[];
  readonly groups: GroupsSpec;
  /** In the order written. */
  readonly genes: ReadonlyMap<string, GeneDefinition>;
  /** Glob patterns, or `kind:` and a tensor kind. */
  readonly freeze: readonly string[];
  /** Paths through blocks instead of merged weights: methods, groups and genes are then empty. */
  readonly layers?: LayersDefinition;
  /** Where it came from, for messages about it. */
  readonly source: ParsedYaml;
}

const scalar = z.union([z.number(), z.boolean().transform((value) => (value ? 1 : 0))]);
const oneOrMore = <T extends z.ZodType>(item: T) =>
  z.union([item.transform((value) => [value]), z.array(item)]);

const geneSchema = z.strictObject({
  per: oneOrMore(z.enum(["model", "group"])).optional(),
  range: z.array(z.number()).length(2).optional(),
  choices: z.array(scalar).min(1).optional(),
  value: scalar.optional(),
  start: scalar.optional(),
  scale: z.enum(["linear", "log", "logit"]).optional(),
});

const spaceSchema = z.strictObject({
  title: z.string().min(1).default("Search space"),
  kind: z.literal("parameters").default("parameters"),
  method: z.union([z.string().min(1), z.array(z.string().min(1)).min(1)]),
  groups: z
    .union([
      z.string().min(1),
      z.record(z.string().min(1), z.union([z.string().min(1), z.array(z.string().min(1)).min(1)])),
    ])
    .default("whole"),
  genes: z.record(z.string().min(1), geneSchema).default({}),
  freeze: oneOrMore(z.string().min(1)).default([]),
});

/** A space's file, or an inline mapping of an experiment (`file` names that experiment in messages). */
export type SpaceSource =
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "inline"; readonly value: unknown; readonly file?: string };

/**
 * Reads a search space.
 *
 * @throws MendelError `not-found`, `invalid-config` naming key and line, `unsupported` for the kind `both`
 */
export function loadSpaceDefinition(source: SpaceSource): SpaceDefinition {
  return source.kind === "file"
    ? parseSpaceDefinition(readYaml(source.path))
    : parseSpaceDefinition(withoutLines(source.value, source.file ?? "the inline search space"));
}

/** As `loadSpaceDefinition`, for data that is already parsed. */
export function parseSpaceDefinition(source: ParsedYaml): SpaceDefinition {
  if (kindOf(source) === "layers") {
    const { title, layers } = parseLayersDefinition(source);
    return { title, methods: [], groups: "whole", genes: new Map(), freeze: [], layers, source };
  }
  refuseBoth(source);
  const input = parseWithSchema(spaceSchema, source);
  const problems: ConfigProblem[] = [];
  const problem = (path: KeyPath, message: string, hint?: string): void => {
    problems.push({ key: formatKey(path), line: source.lineOf(path), message, hint });
  };
  const methods = typeof input.method === "string" ? [input.method] : input.method;
  refuseTwice(methods, ["method"], problem);
  refuseTwice(input.freeze, ["freeze"], problem);
  const genes = new Map<string, GeneDefinition>();
  for (const [name, gene] of Object.entries(input.genes)) {
    const report: Report = (key, message, hint) => {
      problem(key === "" ? ["genes", name] : ["genes", name, key], message, hint);
    };
    const definition = geneOf(gene, report);
    if (definition !== undefined) genes.set(name, definition);
  }
  if (problems.length > 0) throw configError(source.file, problems);
  return {
    title: input.title,
    methods,
    groups: input.groups,
    genes,
    freeze: input.freeze,
    source,
  };
}

type Report = (key: string, message: string, hint?: string) => void;

/** Checks what can be said about a gene without knowing the method. */
function geneOf(gene: z.output<typeof geneSchema>, report: Report): GeneDefinition | undefined {
  const given = (["range", "choices", "value"] as const).filter((key) => gene[key] !== undefined);
  if (given.length > 1) {
    report("", `expected one of range, choices and value, got ${given.join(" and ")}`);
    return undefined;
  }
  if (new Set(gene.per).size !== (gene.per?.length ?? 0)) report("per", "the same word twice");
  if (gene.scale !== undefined && given[0] !== undefined && given[0] !== "range") {
    report("scale", `a scale goes with a range, not with ${given[0]}`);
  }
  const per: GenePer = {
    model: gene.per?.includes("model") ?? false,
    group: gene.per?.includes("group") ?? false,
  };
  const { value, choices, range, scale, start } = gene;
  if (value !== undefined) {
    if (gene.per !== undefined) report("per", "a fixed value is the same everywhere");
    if (start !== undefined) report("start", "a fixed value has no start");
    return { kind: "value", value };
  }
  if (choices !== undefined) {
    const again = choices.find((choice, i) => choices.indexOf(choice) !== i);
    if (again !== undefined) report("choices", `the choice ${again} is given twice`);
    if (start !== undefined && !choices.includes(start)) {
      report("start", `the start ${start} is not one of the choices ${choices.join(", ")}`);
    }
    return { kind: "choices", choices, start, per };
  }
  const [low, high] = range ?? [];
  if (low === undefined || high === undefined) {
    return { kind: "range", range: undefined, scale, start, per };
  }
  checkRange([low, high], scale, start, report);
  return { kind: "range", range: [low, high], scale, start, per };
}

/**
 * What makes a range unusable: empty or reversed, outside of its scale's domain, or a start outside of it.
 * Used for a user's range here, and for a range or start completed from a method's facts later.
 */
export function checkRange(
  [low, high]: readonly [number, number],
  scale: Scale | undefined,
  start: number | undefined,
  report: Report,
): void {
  if (low === high) {
    report("range", `the range [${low}, ${high}] is empty`, `a fixed value is { value: ${low} }`);
  } else if (low > high) {
    report("range", `the range [${low}, ${high}] is reversed`, `write [${high}, ${low}]`);
  } else if (scale === "log" && low <= 0) {
    report("range", `a log scale needs a range above 0, got [${low}, ${high}]`);
  } else if (scale === "logit" && (low < 0 || high > 1)) {
    report("range", `a logit scale needs a range within [0, 1], got [${low}, ${high}]`);
  } else if (scale === "logit" && (high <= logitMargin || low >= 1 - logitMargin)) {
    report("range", `[${low}, ${high}] is too near an end of [0, 1] for a logit scale`, "use log");
  } else if (start !== undefined && (start < low || start > high)) {
    report("start", `the start ${start} is outside its range [${low}, ${high}]`);
  }
}

function refuseTwice(
  items: readonly string[],
  path: KeyPath,
  problem: (path: KeyPath, message: string) => void,
): void {
  const again = items.findIndex((item, i) => items.indexOf(item) !== i);
  if (again >= 0) problem([...path, again], `"${items[again]}" is given twice`);
}

function kindOf({ value }: ParsedYaml): unknown {
  return value !== null && typeof value === "object" && "kind" in value ? value.kind : undefined;
}

function refuseBoth(source: ParsedYaml): void {
  if (kindOf(source) !== "both") return;
  const line = source.lineOf(["kind"]);
  throw new MendelError("unsupported", `${source.file}: spaces of kind "both" are not supported`, {
    hint: "search parameters first and layers of the winner and its parents after that, each with a space of its own",
    where: { file: source.file, key: "kind", ...(line === undefined ? {} : { line }) },
  });
}
