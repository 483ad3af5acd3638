import { MendelError } from "../base/errors.ts";
import { elementCount, formatShape } from "../tensors/shape.ts";
import type { EvaluatorDefinition } from "./evaluator-schema.ts";
import type { Split } from "./executor.ts";
import { allocate, convert } from "./feed-numbers.ts";
import { type FeedInput, type InputPlan, mismatch, planInputs } from "./graph-inputs.ts";
import { type DataField, type DataTable, requireField, type SplitRows } from "./rows.ts";
import type { Feeds, FeedTensor, GraphSignature } from "./session.ts";
import { openTokenizer } from "./tokenizer.ts";

/** Items that go through the graph together. */
export interface Batch {
  /** Positions of the items in data order; the graph's rows beyond their number are padding. */
  readonly items: Int32Array;
  readonly feeds: Feeds;
}

/** What outputs are compared with, per item in data order. */
export type Reference =
  | { readonly kind: "class"; readonly labels: Int32Array }
  | { readonly kind: "tokens"; readonly tokens: readonly Int32Array[] }
  | {
      readonly kind: "values";
      readonly width: number;
      readonly values: Float64Array;
      readonly mean: Float64Array;
    }
  | { readonly kind: "teacher"; readonly lengths: Int32Array | undefined }
  | { readonly kind: "module"; readonly table: DataTable; readonly rows: Int32Array };

/** One split of one evaluator, ready to run: everything that does not depend on the candidate. */
export interface PreparedSplit {
  readonly definition: EvaluatorDefinition;
  readonly split: Split;
  readonly items: number;
  readonly batches: readonly Batch[];
  /** Graph outputs to compute. */
  readonly outputs: readonly string[];
  readonly reference: Reference;
}

/**
 * Turns the rows of a split into minibatches for one graph. Texts are tokenized, sorted by length and padded on the right;
 * everything else stays in data order.
 *
 * @throws MendelError `mismatch` where data and graph do not fit: shapes, element types, labels out of range, texts with
 *   nothing to predict
 */
export function prepareSplit(
  definition: EvaluatorDefinition,
  split: Split,
  { table, rows }: SplitRows,
  graph: GraphSignature,
): PreparedSplit {
  const plan = planInputs(
    definition,
    graph,
    (name) => requireField(definition, table, name).kind === "text",
  );
  const outputs = outputsOf(definition, graph);
  const tokens = plan.text && tokenize(definition, table, rows, plan.text);
  const reference = referenceOf(definition, table, rows, graph, outputs, tokens);
  return {
    definition,
    split,
    items: rows.length,
    batches: makeBatches(definition, table, rows, plan, tokens),
    outputs,
    reference,
  };
}

function outputsOf(definition: EvaluatorDefinition, graph: GraphSignature): readonly string[] {
  const names = graph.outputs.map((output) => output.name);
  if (definition.output !== undefined) {
    if (names.includes(definition.output)) return [definition.output];
    throw mismatch(
      definition,
      `the graph has no output "${definition.output}"`,
      `outputs: ${names.join(", ")}`,
    );
  }
  if (definition.task === "module" || names.length === 1) return names;
  throw mismatch(
    definition,
    `the graph has ${names.length} outputs and \`output\` names none`,
    `outputs: ${names.join(", ")}`,
  );
}

interface Tokens {
  readonly perItem: readonly Int32Array[];
  readonly padId: number;
}

function tokenize(
  definition: EvaluatorDefinition,
  table: DataTable,
  rows: Int32Array,
  text: NonNullable<InputPlan["text"]>,
): Tokens {
  const field = requireField(definition, table, text.field);
  if (field.kind !== "text" || definition.tokenizer === undefined) {
    throw new Error("checked in planInputs");
  }
  const tokenizer = openTokenizer(definition.tokenizer, {
    ...(definition.maxLength === undefined ? {} : { maxLength: definition.maxLength }),
    ...(definition.addBos === undefined ? {} : { addBos: definition.addBos }),
  });
  const fewest = definition.task === "language-modeling" ? 2 : 1;
  const perItem = Array.from(rows, (row) => {
    const ids = tokenizer.encode(field.values[row]!);
    if (ids.length >= fewest) return ids;
    throw new MendelError(
      "mismatch",
      `evaluator "${definition.name}": row ${row + 1} has ${ids.length} tokens, too few to score`,
      {
        hint: "remove empty texts, or let the tokenizer put a beginning-of-sequence token in front",
        where: { file: table.file },
      },
    );
  });
  return { perItem, padId: tokenizer.padId };
}

function makeBatches(
  definition: EvaluatorDefinition,
  table: DataTable,
  rows: Int32Array,
  plan: InputPlan,
  tokens: Tokens | undefined,
): readonly Batch[] {
  const order = Array.from(rows, (_, item) => item);
  if (tokens !== undefined) {
    // Array.prototype.sort is stable: equal lengths stay in data order.
    order.sort((a, b) => tokens.perItem[a]!.length - tokens.perItem[b]!.length);
  }
  const size = plan.fixedBatch ?? definition.batch;
  const numbers = plan.numbers.map(({ input, field }) => ({
    input,
    field: numericField(definition, table, field, input),
  }));
  const batches: Batch[] = [];
  for (let start = 0; start < order.length; start += size) {
    const items = order.slice(start, start + size);
    // A graph with a fixed batch size gets its last item again until it is full.
    const filled = plan.fixedBatch === undefined ? items : fillUp(items, size);
    batches.push({
      items: Int32Array.from(items),
      feeds: {
        ...Object.fromEntries(
          numbers.map(({ input, field }) => [
            input.name,
            gather(
              definition,
              input,
              field,
              filled.map((item) => rows[item]!),
            ),
          ]),
        ),
        ...(tokens === undefined ? {} : tokenFeeds(plan, tokens, filled)),
      },
    });
  }
  return batches;
}

function fillUp(items: readonly number[], size: number): readonly number[] {
  return Array.from({ length: size }, (_, i) => items[Math.min(i, items.length - 1)]!);
}

type NumericField = Extract<DataField, { kind: "numbers" }>;

function numericField(
  definition: EvaluatorDefinition,
  table: DataTable,
  name: string,
  input: FeedInput,
): NumericField {
  const field = requireField(definition, table, name);
  if (field.kind !== "numbers") throw new Error("checked in planInputs");
  const want = input.shape.slice(1);
  const fits = (have: readonly number[]): boolean =>
    have.length === want.length &&
    have.every((dim, i) => typeof want[i] !== "number" || want[i] === dim);
  const { itemShape } = field;
  if (fits(itemShape)) return field;
  // A plain number and a list of one number are the same item.
  if (itemShape.length === 0 && fits([1])) return { ...field, itemShape: [1] };
  if (itemShape.length === 1 && itemShape[0] === 1 && fits([])) return { ...field, itemShape: [] };
  throw new MendelError(
    "mismatch",
    `evaluator "${definition.name}": field "${name}" holds items of shape ${formatShape(itemShape)}, ` +
      `but the graph input "${input.name}" takes [${want.join(", ")}]`,
    { where: { file: table.file } },
  );
}

function gather(
  definition: EvaluatorDefinition,
  input: FeedInput,
  field: NumericField,
  rows: readonly number[],
): FeedTensor {
  const size = elementCount(field.itemShape);
  const data = allocate(input.type, rows.length * size);
  rows.forEach((row, at) => {
    const source = field.values.subarray(row * size, (row + 1) * size);
    if (!convert(input.type, source, data, at * size)) {
      throw mismatch(
        definition,
        `row ${row + 1} holds numbers that the graph input "${input.name}" (${input.type}) cannot take`,
        "integer inputs take whole numbers in range, float inputs take finite numbers",
      );
    }
  });
  return { type: input.type, dims: [rows.length, ...field.itemShape], data };
}

function tokenFeeds(plan: InputPlan, tokens: Tokens, items: readonly number[]): Feeds {
  const length = Math.max(...items.map((item) => tokens.perItem[item]!.length));
  const dims = [items.length, length];
  const build = (input: FeedInput, value: (ids: Int32Array, at: number) => number): FeedTensor => {
    const data = allocate(input.type, items.length * length);
    items.forEach((item, row) => {
      const ids = tokens.perItem[item]!;
      for (let at = 0; at < length; at++) {
        const entry = value(ids, at);
        data[row * length + at] = data instanceof BigInt64Array ? BigInt(entry) : entry;
      }
    });
    return { type: input.type, dims, data };
  };
  const entryOf: Readonly<Record<string, (ids: Int32Array, at: number) => number>> = {
    attention_mask: (ids, at) => (at < ids.length ? 1 : 0),
    token_type_ids: () => 0,
    position_ids: (_, at) => at,
  };
  const text = plan.text!.input;
  return {
    [text.name]: build(text, (ids, at) => ids[at] ?? tokens.padId),
    ...Object.fromEntries(
      plan.derived.map((input) => [input.name, build(input, entryOf[input.name]!)]),
    ),
  };
}

function referenceOf(
  definition: EvaluatorDefinition,
  table: DataTable,
  rows: Int32Array,
  graph: GraphSignature,
  outputs: readonly string[],
  tokens: Tokens | undefined,
): Reference {
  switch (definition.task) {
    case "classification":
      return {
        kind: "class",
        labels: classLabels(definition, table, rows, lastDimension(graph, outputs[0]!)),
      };
    case "regression":
      return valueReference(definition, table, rows);
    case "language-modeling":
      if (tokens === undefined) {
        throw mismatch(definition, "a language model is scored on text, and no input takes any");
      }
      checkVocabulary(definition, tokens, lastDimension(graph, outputs[0]!));
      return { kind: "tokens", tokens: tokens.perItem };
    case "agreement":
      return {
        kind: "teacher",
        lengths: tokens && Int32Array.from(tokens.perItem, (ids) => ids.length),
      };
    case "module":
      return { kind: "module", table, rows };
  }
}

/** Width of an output where the graph states it. */
function lastDimension(graph: GraphSignature, output: string): number | undefined {
  const dim = graph.outputs.find((candidate) => candidate.name === output)?.shape.at(-1);
  return typeof dim === "number" && dim > 0 ? dim : undefined;
}

function classLabels(
  definition: EvaluatorDefinition,
  table: DataTable,
  rows: Int32Array,
  classes: number | undefined,
): Int32Array {
  const name = definition.target!;
  const field = requireField(definition, table, name);
  if (field.kind === "text" || elementCount(field.itemShape) !== 1) {
    throw new MendelError(
      "mismatch",
      `evaluator "${definition.name}": the target "${name}" must hold one class number per item`,
      {
        hint: "classes are counted from 0, in the order of the outputs",
        where: { file: table.file },
      },
    );
  }
  return Int32Array.from(rows, (row) => {
    const label = Number(field.values[row]!);
    if (Number.isInteger(label) && label >= 0 && label < (classes ?? 2 ** 31)) return label;
    throw new MendelError(
      "mismatch",
      `evaluator "${definition.name}": row ${row + 1} has label ${label}, expected a whole number ` +
        (classes === undefined ? "from 0 on" : `from 0 to ${classes - 1}`),
      {
        hint: "the graph's output has one column per class, counted from 0",
        where: { file: table.file },
      },
    );
  });
}

function valueReference(
  definition: EvaluatorDefinition,
  table: DataTable,
  rows: Int32Array,
): Reference {
  const field = requireField(definition, table, definition.target!);
  if (field.kind === "text") {
    throw mismatch(definition, `the target "${definition.target}" holds text, expected numbers`);
  }
  const width = elementCount(field.itemShape);
  const values = new Float64Array(rows.length * width);
  const mean = new Float64Array(width);
  rows.forEach((row, item) => {
    for (let column = 0; column < width; column++) {
      const value = Number(field.values[row * width + column]!);
      if (!Number.isFinite(value)) {
        throw mismatch(
          definition,
          `row ${row + 1} of the target is ${value}, expected a finite number`,
        );
      }
      values[item * width + column] = value;
      mean[column]! += value;
    }
  });
  for (let column = 0; column < width; column++) mean[column]! /= rows.length;
  return { kind: "values", width, values, mean };
}

function checkVocabulary(
  definition: EvaluatorDefinition,
  tokens: Tokens,
  vocabulary: number | undefined,
): void {
  if (vocabulary === undefined) return;
  for (const ids of tokens.perItem) {
    const foreign = ids.find((id) => id >= vocabulary);
    if (foreign === undefined) continue;
    throw mismatch(
      definition,
      `the tokenizer gives token ${foreign}, but the model knows ${vocabulary} tokens`,
      "the tokenizer belongs to another model",
    );
  }
}
