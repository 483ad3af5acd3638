import { MendelError } from "../base/errors.ts";
import {
  countSharedRows,
  type Dataset,
  loadDataset,
  requireColumn,
  selectRows,
  splitDataset,
} from "../formats/dataset.ts";
import type { EvaluatorDefinition } from "./evaluator-schema.ts";
import type { Split } from "./executor.ts";

export const splits: readonly Split[] = ["search", "validation", "test"];

/** Loads splits of evaluators; a file that several of them name is read once. */
export interface SplitLoader {
  /**
   * One split, cut to the evaluator's `limit`.
   *
   * @throws MendelError `mismatch` when it is empty or lacks a field; what `loadDataset` throws
   */
  load(definition: EvaluatorDefinition, split: Split): Promise<Dataset>;
  /**
   * Checks that all three splits hold rows and that no row (by its inputs) is in two of them: a search would otherwise be
   * judged on what it was fitted to.
   *
   * @throws MendelError `mismatch`
   */
  check(definition: EvaluatorDefinition): Promise<void>;
}

export function createSplitLoader(): SplitLoader {
  const files = new Map<string, Promise<Dataset>>();
  const read = (path: string): Promise<Dataset> => {
    const known = files.get(path) ?? loadDataset(path);
    files.set(path, known);
    return known;
  };
  const whole = async ({ data }: EvaluatorDefinition, split: Split): Promise<Dataset> => {
    if (data.kind === "files") return read(data.files[split]);
    return splitDataset(await read(data.file), { ...data.fractions, seed: data.seed })[split];
  };
  return {
    async load(definition, split) {
      const dataset = await whole(definition, split);
      checkRows(definition, split, dataset);
      const { limit } = definition;
      return limit === undefined || limit >= dataset.rows
        ? dataset
        : selectRows(
            dataset,
            Int32Array.from({ length: limit }, (_, row) => row),
          );
    },
    async check(definition) {
      const all = await Promise.all(splits.map((split) => whole(definition, split)));
      all.forEach((dataset, at) => {
        checkRows(definition, splits[at]!, dataset);
        for (let before = 0; before < at; before++) {
          checkDisjoint(definition, [before, at], [all[before]!, dataset]);
        }
      });
    },
  };
}

function checkRows(definition: EvaluatorDefinition, split: Split, dataset: Dataset): void {
  if (dataset.rows === 0) {
    throw new MendelError(
      "mismatch",
      `evaluator "${definition.name}": the ${split} split is empty`,
      { where: { file: dataset.path } },
    );
  }
  for (const field of Object.values(definition.inputs)) requireColumn(dataset, field);
  if (definition.target !== undefined) requireColumn(dataset, definition.target);
}

function checkDisjoint(
  definition: EvaluatorDefinition,
  [first, second]: readonly [number, number],
  [a, b]: readonly [Dataset, Dataset],
): void {
  const shared = countSharedRows(a, b, Object.values(definition.inputs));
  if (shared === 0) return;
  throw new MendelError(
    "mismatch",
    `evaluator "${definition.name}": ${shared} of ${b.rows} ${splits[second]} items are also in ${splits[first]}`,
    {
      hint: "splits must be disjoint, or scores on held-out items mean nothing",
      where: { file: b.path },
    },
  );
}
