import { MendelError } from "../base/errors.ts";
import type { MetricResult } from "./executor.ts";
import { mismatch } from "./graph-inputs.ts";
import { findMetric } from "./metrics/index.ts";
import type { ItemRows, Measure } from "./metrics/metric.ts";
import type { Batch, PreparedSplit, Reference } from "./prepared-split.ts";
import { ScoreBoard } from "./score-board.ts";
import type { Outputs, OutputTensor } from "./session.ts";

/** Collects the scores of a split's minibatches; one per candidate and split. Module evaluators have their own. */
export interface BatchScorer {
  /** @throws MendelError `non-finite` when an output that counts is NaN or infinite, `mismatch` for a wrong shape */
  add(batch: Batch, outputs: Outputs): void;
  results(): readonly MetricResult[];
}

/**
 * @param teacher outputs of the reference model per item, for agreement
 */
export function createScorer(
  prepared: PreparedSplit,
  teacher: readonly ItemRows[] | undefined,
): BatchScorer {
  const { definition, items } = prepared;
  const scored = definition.metrics.map((name) => {
    const metric = findMetric(name);
    if (metric === undefined) throw new Error(`metric ${name} was checked with the evaluator`);
    return { metric, board: new ScoreBoard(metric, items) };
  });
  // Metrics with one measure (nll and perplexity) share the pass over the outputs.
  const boards = new Map<Measure, ScoreBoard[]>();
  for (const { metric, board } of scored) {
    boards.set(metric.measure, [...(boards.get(metric.measure) ?? []), board]);
  }
  return {
    add(batch, outputs) {
      const rows = itemRows(prepared, batch, outputs);
      rows.forEach((row, at) => {
        const item = batch.items[at]!;
        for (const [measure, receivers] of boards) {
          const [sum, weight] = measureItem(prepared, measure, row, item, teacher);
          for (const board of receivers) board.set(item, sum, weight);
        }
      });
    },
    results: () => scored.map(({ board }) => board.result()),
  };
}

/**
 * Cuts a minibatch's output into items: one row per item, one per token that counts, or one of all values.
 *
 * @throws as `BatchScorer.add`
 */
export function itemRows(
  prepared: PreparedSplit,
  batch: Batch,
  outputs: Outputs,
): readonly ItemRows[] {
  const name = prepared.outputs[0]!;
  const output = outputs[name]!;
  const { stride, width } = layoutOf(prepared, output, batch.items.length);
  return Array.from(batch.items, (item, at): ItemRows => {
    const rows = rowCount(prepared.reference, item, stride / width);
    const start = at * stride;
    if (!allFinite(output.data, start, start + rows * width)) {
      throw new MendelError(
        "non-finite",
        `evaluator "${prepared.definition.name}": the output "${name}" of item ${item + 1} is NaN or infinite`,
      );
    }
    return { rows, width, output: output.data, start };
  });
}

/** Elements per item in the output, and per row. */
function layoutOf(
  { definition, reference }: PreparedSplit,
  { dims, data }: OutputTensor,
  items: number,
): { readonly stride: number; readonly width: number } {
  const batch = dims[0] ?? 0;
  const stride = batch === 0 ? 0 : data.length / batch;
  const refuse = (expected: string): MendelError =>
    mismatch(definition, `the output has shape [${dims.join(", ")}], expected ${expected}`);
  if (batch < items) throw refuse(`at least ${items} rows`);
  switch (reference.kind) {
    case "class":
      if (dims.length !== 2 || stride < 2) throw refuse("[items, classes]");
      return { stride, width: stride };
    case "values":
      if (stride !== reference.width) throw refuse(`${reference.width} values per item`);
      return { stride, width: stride };
    case "tokens":
      if (dims.length !== 3) throw refuse("[items, tokens, vocabulary]");
      return { stride, width: dims[2]! };
    case "teacher":
      if (dims.length !== 2 && dims.length !== 3) throw refuse("[items, classes] or one more");
      return { stride, width: dims.at(-1)! };
    case "module":
      throw new Error("modules read outputs themselves");
  }
}

function rowCount(reference: Reference, item: number, available: number): number {
  switch (reference.kind) {
    case "tokens":
      return reference.labels[item]!.length;
    case "teacher":
      return available === 1 ? 1 : (reference.lengths?.[item] ?? available);
    default:
      return 1;
  }
}

/** x − x is 0 for finite x and NaN otherwise, and NaN sticks. */
function allFinite(values: Float32Array, start: number, end: number): boolean {
  let sum = 0;
  for (let i = start; i < end; i++) sum += values[i]! - values[i]!;
  return sum === 0;
}

function measureItem(
  { definition, reference }: PreparedSplit,
  measure: Measure,
  row: ItemRows,
  item: number,
  teacher: readonly ItemRows[] | undefined,
): readonly [sum: number, weight: number] {
  switch (measure.needs) {
    case "labels": {
      const labels = labelsOf(reference, item);
      for (const label of labels) {
        if (label < row.width) continue;
        throw mismatch(definition, `label ${label}, but the output has ${row.width} columns`);
      }
      const { rows, width, output, start } = row;
      return [measure.sum({ rows, width, output, start, labels }), rows];
    }
    case "values": {
      if (reference.kind !== "values") throw new Error("metric and task disagree");
      const view = { ...row, target: reference.targets[item]!, targetMean: reference.mean };
      return [measure.sum(view), measure.weight?.(view) ?? row.rows];
    }
    case "teacher": {
      const expected = teacher?.[item];
      if (expected === undefined) throw new Error("agreement without the teacher's outputs");
      if (expected.rows !== row.rows || expected.width !== row.width) {
        throw mismatch(
          definition,
          `the teacher's output has ${expected.rows} × ${expected.width} numbers, the model's ${row.rows} × ${row.width}`,
        );
      }
      return [measure.sum({ ...row, teacher: expected.output }), row.rows];
    }
  }
}

function labelsOf(reference: Reference, item: number): Int32Array {
  if (reference.kind === "class" || reference.kind === "tokens") return reference.labels[item]!;
  throw new Error("metric and task disagree");
}
