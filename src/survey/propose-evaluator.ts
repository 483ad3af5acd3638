import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { MendelError, messageOf } from "../base/errors.ts";
import { type EvaluatorDefinition, parseEvaluator } from "../evaluation/evaluator-schema.ts";
import type { Split } from "../evaluation/executor.ts";
import { isTokenInput } from "../evaluation/graph-inputs.ts";
import type { Task } from "../evaluation/metrics/metric.ts";
import { prepareSplit } from "../evaluation/prepared-split.ts";
import type { GraphSignature, GraphValue } from "../evaluation/session.ts";
import { createSplitLoader, splits } from "../evaluation/split-data.ts";
import { type Column, type Dataset, loadDataset } from "../formats/dataset.ts";
import { MAX_CONFIG_BYTES, readModelJson } from "../formats/hf-folder.ts";
import type { OnnxModel, OnnxValue } from "../formats/onnx/onnx-model.ts";
import { elementCount } from "../tensors/shape.ts";
import type { FoundDataSet } from "./find-data-sets.ts";

/** Tasks that can be told from data and graph. */
export const proposedTasks = [
  "classification",
  "regression",
  "language-modeling",
  "agreement",
] as const;
export type ProposedTask = (typeof proposedTasks)[number] & Task;

/** What evaluators are proposed for. */
export interface EvaluatorContext {
  readonly graph: GraphSignature;
  /** Path of a tokenizer.json. */
  readonly tokenizer: string | undefined;
  /** Ids of the models, for a teacher where there are no labels. */
  readonly models: readonly string[];
  /** Only this task. */
  readonly task?: ProposedTask;
  /** Folder the evaluator files will be in. */
  readonly folder: string;
}

/** An evaluator as its file will say it; paths are as they were found. */
export interface EvaluatorProposal {
  readonly name: string;
  readonly task: ProposedTask;
  readonly data: FoundDataSet["data"];
  /** Graph input → data field. */
  readonly inputs: Readonly<Record<string, string>>;
  readonly target?: string;
  readonly output: string;
  readonly fitness: string;
  readonly metrics: readonly string[];
  readonly batch: number;
  readonly limit?: number;
  readonly tokenizer?: string;
  readonly maxLength?: number;
  readonly teacher?: string;
  /** Rows of each split, before `limit`. */
  readonly rows: Readonly<Record<Split, number>>;
  readonly notes: readonly string[];
}

/** How one file is cut when there are no three; seed 1. */
export const splitFractions = { search: 0.5, validation: 0.2, test: 0.3, seed: 1 } as const;

/** More items than this make a search slow and its answer hardly better: text costs far more than images. */
const ITEMS = { text: 256, other: 2000 } as const;
/** Longest text in tokens when neither tokenizer nor configuration says less: a calibration text, not a book. */
const MAX_TOKENS = 512;

const scores: Readonly<
  Record<ProposedTask, { readonly fitness: string; readonly metrics: readonly string[] }>
> = {
  classification: { fitness: "accuracy", metrics: ["accuracy", "cross_entropy"] },
  regression: { fitness: "mse", metrics: ["mse", "mae", "r2"] },
  "language-modeling": { fitness: "nll", metrics: ["nll", "perplexity"] },
  agreement: { fitness: "kl", metrics: ["kl", "top1_agreement"] },
};

const textFields = ["text", "content", "sentence", "document"];
const labelFields = ["label", "labels", "target", "targets", "y", "class"];

/** The graph as an evaluator sees it: inputs that are no weights, and outputs. */
export function signatureOfGraph({ graph }: OnnxModel): GraphSignature {
  const inner = new Set(graph.initializers.map(({ name }) => name));
  return {
    inputs: graph.inputs.filter(({ name }) => !inner.has(name)).map(graphValue),
    outputs: graph.outputs.map(graphValue),
  };
}

function graphValue({ name, dtype, shape }: OnnxValue): GraphValue {
  const type = (dtype ?? "unknown")
    .replace(/^f(\d+)$/, "float$1")
    .replace(/^i(\d+)$/, "int$1")
    .replace(/^u(\d+)$/, "uint$1");
  return { name, type, shape: shape ?? [] };
}

/**
 * The evaluator that fits a data set and a graph, found by trying: every split of the accepted proposal has been turned into
 * batches for the graph, so what is proposed runs.
 *
 * @returns the proposal, or the reason why there is none
 */
export async function proposeEvaluator(
  set: FoundDataSet,
  context: EvaluatorContext,
): Promise<EvaluatorProposal | string> {
  let sample: Dataset;
  try {
    sample = await loadDataset(set.data.kind === "single" ? set.data.file : set.data.files.search);
  } catch (error) {
    if (error instanceof MendelError) return error.message;
    throw error;
  }
  const drafts = draftsFor(set, sample, context);
  if (typeof drafts === "string") return drafts;
  const wanted = drafts.filter(({ task }) => context.task === undefined || task === context.task);
  if (wanted.length === 0) {
    return `it could be ${drafts.map(({ task }) => task).join(" or ")}, not ${context.task}`;
  }
  const problems: string[] = [];
  for (const draft of wanted) {
    const outcome = await tryOut(draft, context);
    if (typeof outcome !== "string") return { ...draft, ...outcome };
    problems.push(outcome);
  }
  return problems[0] as string;
}

type Draft = Omit<EvaluatorProposal, "rows">;

function draftsFor(
  set: FoundDataSet,
  sample: Dataset,
  { graph, tokenizer, models }: EvaluatorContext,
): Draft[] | string {
  const label = fieldNamed(sample, labelFields);
  const text = textInput(sample, graph, label);
  const numbers = text === undefined ? numberInputs(sample, graph, label) : undefined;
  const fields = [...sample.columns].map(([name, column]) => fieldText(name, column)).join(", ");
  if (text === undefined && numbers === undefined) {
    const inputs = graph.inputs
      .map(({ name, shape }) => `${name} [${shape.join(", ")}]`)
      .join(", ");
    return `its fields (${fields}) do not fill the graph's inputs (${inputs})`;
  }
  if (text !== undefined && tokenizer === undefined) {
    return "it holds text, and no tokenizer.json was found beside the models";
  }
  const common = {
    name: set.name,
    data: set.data,
    notes: set.notes,
    inputs: text ?? numbers ?? {},
    batch: text === undefined ? 128 : 16,
    ...(text === undefined || tokenizer === undefined ? {} : textSettings(tokenizer)),
  };
  const draft = (task: ProposedTask, ranks: readonly number[], rest: object): Draft[] => {
    const width = task === "regression" ? widthOf(sample, label) : undefined;
    const output = outputFor(graph, ranks, width);
    return output === undefined ? [] : [{ ...common, task, output, ...scores[task], ...rest }];
  };
  const teacher =
    models.find((id) => id === set.name) ?? models.find((id) => set.name.includes(id));
  const drafts = [
    ...(label !== undefined && isClass(sample, label)
      ? draft("classification", [2], { target: label })
      : []),
    ...(label !== undefined && text === undefined
      ? draft("regression", [1, 2], { target: label })
      : []),
    ...(text !== undefined ? draft("language-modeling", [3], {}) : []),
    ...(teacher !== undefined ? draft("agreement", [2, 3], { teacher }) : []),
  ];
  if (drafts.length > 0) return drafts;
  return label === undefined
    ? `no field says what is right (fields: ${fields}), and no model is called like it to be the teacher`
    : `the graph's outputs (${graph.outputs.map(({ name, shape }) => `${name} [${shape.join(", ")}]`).join(", ")}) do not fit a task with the field "${label}"`;
}

/** A field as messages describe it: "image [64]", "text". */
function fieldText(name: string, column: Column): string {
  return column.kind === "tensor" && column.shape.length > 0
    ? `${name} [${column.shape.join(", ")}]`
    : name;
}

function fieldNamed(data: Dataset, names: readonly string[]): string | undefined {
  const fields = [...data.columns.keys()];
  return names
    .map((name) => fields.find((field) => field.toLowerCase() === name))
    .find((field) => field !== undefined);
}

/** The input for token ids and the field with text for it. */
function textInput(
  data: Dataset,
  graph: GraphSignature,
  label: string | undefined,
): Record<string, string> | undefined {
  const open = graph.inputs.filter(({ name }) => !isTokenInput(name));
  const [input] = open;
  const takesTokens =
    input !== undefined &&
    open.length === 1 &&
    /^int(32|64)$/.test(input.type) &&
    input.shape.length === 2;
  if (!takesTokens) return undefined;
  const texts = [...data.columns].filter(
    ([name, column]) => name !== label && column.kind === "text",
  );
  const named = fieldNamed(data, textFields);
  const field =
    named !== undefined && data.columns.get(named)?.kind === "text"
      ? named
      : texts.length === 1
        ? texts[0]?.[0]
        : undefined;
  return field === undefined ? undefined : { [input.name]: field };
}

/** A numeric field for every input: of the same name, else the only one that fits the only input. */
function numberInputs(
  data: Dataset,
  graph: GraphSignature,
  label: string | undefined,
): Record<string, string> | undefined {
  const fields = [...data.columns].filter(([name]) => name !== label);
  const mapped: Record<string, string> = {};
  for (const input of graph.inputs) {
    const fitting = fields.filter(([, column]) => fits(column, input));
    const same = fitting.find(([name]) => name.toLowerCase() === input.name.toLowerCase());
    const field =
      same ?? (graph.inputs.length === 1 && fitting.length === 1 ? fitting[0] : undefined);
    if (field === undefined) return undefined;
    mapped[input.name] = field[0];
  }
  return graph.inputs.length === 0 ? undefined : mapped;
}

function fits(column: Column, { shape }: GraphValue): boolean {
  const want = shape.slice(1);
  const have = column.kind === "tensor" ? column.shape : [];
  if (elementCount(have) === 1 && want.every((dim) => dim === 1)) return true;
  return (
    have.length === want.length &&
    have.every((dim, i) => typeof want[i] !== "number" || want[i] === dim)
  );
}

/** Whether a field holds one whole number from 0 a row. */
function isClass(data: Dataset, name: string): boolean {
  const column = data.columns.get(name);
  if (column === undefined) return false;
  if (column.kind === "text") return column.values.every((cell) => /^\s*\d+\s*$/.test(cell));
  const values = column.kind === "number" ? column.values : column.data;
  if (column.kind === "tensor" && elementCount(column.shape) !== 1) return false;
  for (const value of values) if (!Number.isInteger(Number(value)) || value < 0) return false;
  return true;
}

/** Numbers a row of a field. */
function widthOf(data: Dataset, name: string | undefined): number {
  const column = name === undefined ? undefined : data.columns.get(name);
  return column?.kind === "tensor" ? elementCount(column.shape) : 1;
}

/**
 * The output called logits, else the first, of one of the wanted ranks; a graph may leave ranks and sizes open.
 *
 * @param width numbers an item, where that is settled
 */
function outputFor(
  graph: GraphSignature,
  ranks: readonly number[],
  width: number | undefined,
): string | undefined {
  const able = graph.outputs.filter(({ type, shape }) => {
    const item = shape.slice(1);
    const settled = item.every((dim) => typeof dim === "number");
    return (
      type.startsWith("float") &&
      (shape.length === 0 || ranks.includes(shape.length)) &&
      (width === undefined || !settled || elementCount(item) === width)
    );
  });
  return (able.find(({ name }) => name === "logits") ?? able[0])?.name;
}

function textSettings(tokenizer: string): {
  readonly tokenizer: string;
  readonly maxLength: number;
} {
  const folder = dirname(tokenizer);
  const limitIn = (file: string, keys: readonly string[]): number[] => {
    if (!existsSync(join(folder, file))) return [];
    const json = readModelJson(join(folder, file), MAX_CONFIG_BYTES);
    return keys.flatMap((key) => {
      const value = json[key];
      return typeof value === "number" && Number.isInteger(value) && value >= 2 ? [value] : [];
    });
  };
  const limits = [
    ...limitIn("tokenizer_config.json", ["model_max_length"]),
    ...limitIn("config.json", ["max_position_embeddings", "n_positions"]),
  ];
  return { tokenizer, maxLength: Math.min(MAX_TOKENS, ...limits) };
}

/** The keys of the evaluator's file, with paths as they were found. */
export function evaluatorValue(proposal: Draft): Record<string, unknown> {
  const { data, maxLength, name: _name, notes: _notes, ...rest } = proposal;
  const { rows: _rows, ...keys } = rest as typeof rest & { rows?: unknown };
  return {
    ...keys,
    ...(maxLength === undefined ? {} : { max_length: maxLength }),
    ...(data.kind === "files" ? { data: data.files } : { data: data.file, split: splitFractions }),
  };
}

/** Prepares every split for the graph. @returns what the run of it showed, or why it cannot run */
async function tryOut(
  draft: Draft,
  { graph, folder }: EvaluatorContext,
): Promise<Pick<EvaluatorProposal, "rows" | "limit"> | string> {
  try {
    const loader = createSplitLoader();
    const all: EvaluatorDefinition = parseEvaluator(evaluatorValue(draft), draft.name, folder);
    await loader.check(all);
    const rows: Record<string, number> = {};
    for (const split of splits) rows[split] = (await loader.load(all, split)).rows;
    const most = draft.tokenizer === undefined ? ITEMS.other : ITEMS.text;
    const limit = (rows["search"] ?? 0) > most ? { limit: most } : {};
    const definition = { ...all, ...limit };
    for (const split of splits) {
      prepareSplit(definition, split, await loader.load(definition, split), graph);
    }
    return { rows: rows as Record<Split, number>, ...limit };
  } catch (error) {
    if (error instanceof MendelError) return messageOf(error);
    throw error;
  }
}
