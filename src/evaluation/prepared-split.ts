import { MendelError } from "../base/errors.ts";
import { type Column, type Dataset, numbersOf, requireColumn } from "../formats/dataset.ts";
import type { NpyData } from "../formats/npy.ts";
import { elementCount, formatShape, type Shape } from "../tensors/shape.ts";
import type { EvaluatorDefinition } from "./evaluator-schema.ts";
import type { Split } from "./executor.ts";
import { allocate, convert } from "./feed-numbers.ts";
import { type FeedInput, type InputPlan, mismatch, planInputs } from "./graph-inputs.ts";
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
  | { readonly kind: "class"; readonly labels: readonly Int32Array[] }
  /** Tokens to predict: all but the first, which is predicted by nothing. */
  | { readonly kind: "tokens"; readonly labels: readonly Int32Array[] }
  | {
      readonly kind: "values";
      readonly width: number;
      readonly targets: readonly Float64Array[];
      readonly mean: Float64Array;
    }
  | { readonly kind: "teacher"; readonly lengths: Int32Array | undefined }
  | { readonly kind: "module"; readonly data: Dataset };

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
  data: Dataset,
  graph: GraphSignature,
): PreparedSplit {
  const plan = planInputs(
    definition,
    graph,
    (name) => definition.tokenizer !== undefined && requireColumn(data, name).kind === "text",
  );
  const outputs = outputsOf(definition, graph);
  const tokens = plan.text && tokenize(definition, data, plan.text);
  return {
    definition,
    split,
    items: data.rows,
    batches: makeBatches(definition, data, plan, tokens),
    outputs,
    reference: referenceOf(definition, data, graph, outputs, tokens),
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
  data: Dataset,
  text: NonNullable<InputPlan["text"]>,
): Tokens {
  const column = requireColumn(data, text.field);
  if (column.kind !== "text" || definition.tokenizer === undefined) {
    throw new Error("checked in planInputs");
  }
  const tokenizer = openTokenizer(definition.tokenizer, {
    ...(definition.maxLength === undefined ? {} : { maxLength: definition.maxLength }),
    ...(definition.addBos === undefined ? {} : { addBos: definition.addBos }),
  });
  const fewest = definition.task === "language-modeling" ? 2 : 1;
  const perItem = column.values.map((value, row) => {
    const ids = tokenizer.encode(value);
    if (ids.length >= fewest) return ids;
    throw new MendelError(
      "mismatch",
      `evaluator "${definition.name}": item ${row + 1} has ${ids.length} tokens, too few to score`,
      {
        hint: "remove empty texts, or let the tokenizer put a beginning-of-sequence token in front",
        where: { file: data.path },
      },
    );
  });
  return { perItem, padId: tokenizer.padId };
}

function makeBatches(
  definition: EvaluatorDefinition,
  data: Dataset,
  plan: InputPlan,
  tokens: Tokens | undefined,
): readonly Batch[] {
  const order = Array.from({ length: data.rows }, (_, item) => item);
  if (tokens !== undefined) {
    // Array.prototype.sort is stable: equal lengths stay in data order.
    order.sort((a, b) => tokens.perItem[a]!.length - tokens.perItem[b]!.length);
  }
  const size = plan.fixedBatch ?? definition.batch;
  const numbers = plan.numbers.map(({ input, field }) => ({
    input,
    values: inputNumbers(definition, data, field, input),
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
          numbers.map(({ input, values }) => [
            input.name,
            gather(definition, input, values, filled),
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

/** A numeric input's values, row-major. */
interface InputNumbers {
  readonly itemShape: Shape;
  readonly data: NpyData;
}

function inputNumbers(
  definition: EvaluatorDefinition,
  data: Dataset,
  name: string,
  input: FeedInput,
): InputNumbers {
  const column = requireColumn(data, name);
  const numbers = columnNumbers(definition, data, name, column);
  const { itemShape } = numbers;
  const want = input.shape.slice(1);
  const fits = (have: readonly number[]): boolean =>
    have.length === want.length &&
    have.every((dim, i) => typeof want[i] !== "number" || want[i] === dim);
  if (fits(itemShape)) return numbers;
  // A plain number and a list of one number are the same item.
  if (itemShape.length === 0 && fits([1])) return { ...numbers, itemShape: [1] };
  if (itemShape.length === 1 && itemShape[0] === 1 && fits([])) {
    return { ...numbers, itemShape: [] };
  }
  throw new MendelError(
    "mismatch",
    `evaluator "${definition.name}": field "${name}" holds items of shape ${formatShape(itemShape)}, ` +
      `but the graph input "${input.name}" takes [${want.join(", ")}]`,
    { where: { file: data.path } },
  );
}

function columnNumbers(
  definition: EvaluatorDefinition,
  data: Dataset,
  name: string,
  column: Column,
): InputNumbers {
  if (column.kind === "tensor") return { itemShape: column.shape, data: column.data };
  if (column.kind === "number") return { itemShape: [], data: column.values };
  try {
    return { itemShape: [], data: numbersOf(data, name) };
  } catch (cause) {
    throw new MendelError(
      "mismatch",
      `evaluator "${definition.name}": the field "${name}" holds text, and there is no tokenizer`,
      { cause, hint: "write tokenizer: path/to/tokenizer.json", where: { file: data.path } },
    );
  }
}

function gather(
  definition: EvaluatorDefinition,
  input: FeedInput,
  { itemShape, data }: InputNumbers,
  items: readonly number[],
): FeedTensor {
  const size = elementCount(itemShape);
  const target = allocate(input.type, items.length * size);
  items.forEach((item, at) => {
    const source = data.subarray(item * size, (item + 1) * size);
    if (!convert(input.type, source, target, at * size)) {
      throw mismatch(
        definition,
        `item ${item + 1} holds numbers that the graph input "${input.name}" (${input.type}) cannot take`,
        "integer inputs take whole numbers in range, float inputs take finite numbers",
      );
    }
  });
  return { type: input.type, dims: [items.length, ...itemShape], data: target };
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
  data: Dataset,
  graph: GraphSignature,
  outputs: readonly string[],
  tokens: Tokens | undefined,
): Reference {
  switch (definition.task) {
    case "classification":
      return {
        kind: "class",
        labels: classLabels(definition, data, lastDimension(graph, outputs[0]!)),
      };
    case "regression":
      return valueReference(definition, data);
    case "language-modeling":
      if (tokens === undefined) {
        throw mismatch(definition, "a language model is scored on text, and no input takes any");
      }
      checkVocabulary(definition, tokens, lastDimension(graph, outputs[0]!));
      return { kind: "tokens", labels: tokens.perItem.map((ids) => ids.subarray(1)) };
    case "agreement":
      return {
        kind: "teacher",
        lengths: tokens && Int32Array.from(tokens.perItem, (ids) => ids.length),
      };
    case "module":
      return { kind: "module", data };
  }
}

/** Width of an output where the graph states it. */
function lastDimension(graph: GraphSignature, output: string): number | undefined {
  const dim = graph.outputs.find((candidate) => candidate.name === output)?.shape.at(-1);
  return typeof dim === "number" && dim > 0 ? dim : undefined;
}

function classLabels(
  definition: EvaluatorDefinition,
  data: Dataset,
  classes: number | undefined,
): readonly Int32Array[] {
  return Array.from(numbersOf(data, definition.target!), (label, item) => {
    if (Number.isInteger(label) && label >= 0 && label < (classes ?? 2 ** 31)) {
      return Int32Array.of(label);
    }
    const range = classes === undefined ? "from 0 on" : `from 0 to ${classes - 1}`;
    throw new MendelError(
      "mismatch",
      `evaluator "${definition.name}": item ${item + 1} has label ${label}, expected a whole number ${range}`,
      {
        hint: "the graph's output has one column per class, counted from 0",
        where: { file: data.path },
      },
    );
  });
}

function valueReference(definition: EvaluatorDefinition, data: Dataset): Reference {
  const name = definition.target!;
  const column = requireColumn(data, name);
  const width = column.kind === "tensor" ? elementCount(column.shape) : 1;
  const values =
    column.kind === "tensor"
      ? Float64Array.from(column.data as Iterable<number | bigint>, Number)
      : numbersOf(data, name);
  const bad = values.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) {
    const item = Math.floor(bad / width) + 1;
    throw mismatch(definition, `the target of item ${item} is ${values[bad]}, expected a number`);
  }
  const mean = new Float64Array(width);
  values.forEach((value, at) => {
    mean[at % width]! += value / data.rows;
  });
  const targets = Array.from({ length: data.rows }, (_, item) =>
    values.subarray(item * width, (item + 1) * width),
  );
  return { kind: "values", width, targets, mean };
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
