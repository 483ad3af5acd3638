import { z } from "zod";
import { type ConfigProblem, configError, formatKey, parseWithSchema } from "../base/schema.ts";
import type { KeyPath, ParsedYaml } from "../base/yaml.ts";

/** A number of steps: as such, or as a multiple of the first model's number of blocks. */
export type LengthLimit =
  | { readonly kind: "steps"; readonly steps: number }
  | { readonly kind: "times"; readonly times: number };

/** A space of paths through the blocks of models, as a user writes it. */
export interface LayersDefinition {
  /** Whose blocks may be walked; the first one owns embedding and head. Absent: all, the base first. */
  readonly from: readonly string[] | undefined;
  /** How often the list of blocks is laid out. */
  readonly repeats: number;
  /** `layer`: blocks of one depth side by side; `model`: all blocks of one model after another, as in the paper. */
  readonly order: "layer" | "model";
  /** `include`: one yes or no per slot; `choose`: at each depth, which model's block, or none. */
  readonly genes: "include" | "choose";
  /** Where the search begins: at the first model's own path, or with no preference. */
  readonly start: "own" | "even";
  readonly scale:
    | { readonly per: "none" }
    | {
        /** One factor per step, per pair of neighboring blocks, or per pair as a sum of `rank` products. */
        readonly per: "step" | "pair";
        readonly rank: number | undefined;
        readonly range: readonly [number, number];
        readonly start: number;
      };
  readonly shortest: LengthLimit | undefined;
  readonly longest: LengthLimit | undefined;
  /** `fixed`: every path begins with the first model's first block and ends with its last. */
  readonly ends: "fixed" | "free";
}

/** What a path may at most be: far beyond what anyone walks, small enough that a genome stays a genome. */
const MAX_REPEATS = 16;
const MAX_RANK = 64;

const limitSchema = z.union([
  z
    .int()
    .positive()
    .transform((steps): LengthLimit => ({ kind: "steps", steps })),
  z
    .string()
    .regex(/^\d+(\.\d+)?x$/, "expected a number of steps, or a multiple such as 1.5x")
    .transform((text): LengthLimit => ({ kind: "times", times: Number(text.slice(0, -1)) })),
]);

const scaleSchema = z.strictObject({
  per: z.enum(["none", "step", "pair"]).default("step"),
  rank: z.int().positive().max(MAX_RANK).optional(),
  range: z.array(z.number()).length(2).default([0.5, 1.5]),
  start: z.number().default(1),
});

const layersSchema = z.strictObject({
  title: z.string().min(1).default("Layer space"),
  kind: z.literal("layers"),
  from: z.array(z.string().min(1)).min(1).optional(),
  repeats: z.int().positive().max(MAX_REPEATS).default(1),
  order: z.enum(["layer", "model"]).default("layer"),
  genes: z.enum(["include", "choose"]).default("include"),
  include: z.strictObject({ start: z.enum(["own", "even"]).default("own") }).prefault({}),
  scale: z
    .union([z.literal("none").transform(() => ({ per: "none" as const })), scaleSchema])
    .default({ per: "none" }),
  length: z.strictObject({ min: limitSchema.optional(), max: limitSchema.optional() }).prefault({}),
  ends: z.enum(["fixed", "free"]).default("fixed"),
});

/**
 * Reads the keys of a space of kind `layers`.
 *
 * @throws MendelError `invalid-config` naming every key and line that is wrong
 */
export function parseLayersDefinition(source: ParsedYaml): {
  readonly title: string;
  readonly layers: LayersDefinition;
} {
  const input = parseWithSchema(layersSchema, source);
  const problems: ConfigProblem[] = [];
  const problem = (path: KeyPath, message: string, hint?: string): void => {
    problems.push({ key: formatKey(path), line: source.lineOf(path), message, hint });
  };
  const again = input.from?.findIndex((name, i) => input.from?.indexOf(name) !== i) ?? -1;
  if (again >= 0) problem(["from", again], `"${input.from?.[again]}" is given twice`);
  if (input.genes === "choose" && input.order === "model") {
    problem(["order"], "a choice at each depth has the order of layers", "leave it out");
  }
  const scale = scaleOf(input.scale, problem);
  if (problems.length > 0) throw configError(source.file, problems);
  return {
    title: input.title,
    layers: {
      from: input.from,
      repeats: input.repeats,
      order: input.order,
      genes: input.genes,
      start: input.include.start,
      scale,
      shortest: input.length.min,
      longest: input.length.max,
      ends: input.ends,
    },
  };
}

function scaleOf(
  scale: z.output<typeof layersSchema>["scale"],
  problem: (path: KeyPath, message: string, hint?: string) => void,
): LayersDefinition["scale"] {
  if (scale.per === "none" || !("range" in scale)) return { per: "none" };
  const { per, rank, range, start } = scale;
  const [low, high] = range as [number, number];
  if (!(low > 0)) {
    problem(
      ["scale", "range"],
      `a scale is above 0, got [${low}, ${high}]`,
      "leave blocks out instead",
    );
  }
  if (low >= high) problem(["scale", "range"], `the range [${low}, ${high}] is empty or reversed`);
  else if (start < low || start > high) {
    problem(["scale", "start"], `the start ${start} is outside its range [${low}, ${high}]`);
  }
  if (rank !== undefined && per !== "pair") {
    problem(["scale", "rank"], "a rank goes with scales per pair");
  }
  return { per, rank, range: [low, high], start };
}
