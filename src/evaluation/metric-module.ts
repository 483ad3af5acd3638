import { existsSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { MendelError, messageOf } from "../base/errors.ts";
import { suggestion } from "../base/suggest.ts";
import { elementCount } from "../tensors/shape.ts";
import type { EvaluatorDefinition } from "./evaluator-schema.ts";
import type { MetricResult, Split } from "./executor.ts";
import type { Batch, PreparedSplit } from "./prepared-split.ts";
import { metricResult, ratioMean } from "./score-board.ts";
import type { Outputs } from "./session.ts";

/** Version of what `score` is given and returns; a module may export it to be refused when it no longer fits. */
export const moduleApiVersion = 1;

/** One item's data fields: text, a number, or the numbers of an array field. */
export type ModuleItem = Readonly<Record<string, string | number | readonly number[]>>;

/** What a metric module's `score` is called with, once per minibatch. */
export interface ModuleInput {
  readonly evaluator: string;
  readonly split: Split;
  /** The items, in the order of the outputs' first dimension. */
  readonly items: readonly ModuleItem[];
  /** Graph outputs by name: dimensions and row-major float32 values. The arrays must not be kept. */
  readonly outputs: Outputs;
}

/** Metric name → one number per item. */
export type ModuleScores = Readonly<Record<string, readonly number[]>>;

/** A file that an evaluator names under `module`. */
export interface MetricModule {
  score(input: ModuleInput): unknown;
}

/**
 * Loads a metric module: code of the user's own, run in the evaluation host.
 *
 * @throws MendelError `not-found`, `invalid-file` when it cannot be loaded or does not export `score`
 */
export async function loadMetricModule(path: string): Promise<MetricModule> {
  const where = { file: path };
  if (!existsSync(path))
    throw new MendelError("not-found", `no metric module at ${path}`, { where });
  let module: Readonly<Record<string, unknown>>;
  try {
    module = (await import(pathToFileURL(path).href)) as Readonly<Record<string, unknown>>;
  } catch (cause) {
    throw new MendelError("invalid-file", `${path} cannot be loaded: ${messageOf(cause)}`, {
      cause,
      where,
    });
  }
  const { score, apiVersion } = module;
  if (apiVersion !== undefined && apiVersion !== moduleApiVersion) {
    throw new MendelError(
      "invalid-file",
      `${path} is written for version ${String(apiVersion)} of the module interface; this is ${moduleApiVersion}`,
      { where },
    );
  }
  if (typeof score !== "function") {
    throw new MendelError("invalid-file", `${path} exports no function named score`, {
      hint: "export function score({ outputs, items }) { return { my_metric: items.map(…) }; }",
      where,
    });
  }
  return { score: (input) => score(input) as unknown };
}

/** Collects what a module returns; see `BatchScorer`. */
export interface ModuleScorer {
  /** @throws MendelError `mismatch` for anything that is not one number per item and metric; whatever the module throws */
  add(batch: Batch, outputs: Outputs): Promise<void>;
  results(): readonly MetricResult[];
}

export function createModuleScorer(prepared: PreparedSplit, module: MetricModule): ModuleScorer {
  const { definition, split, items } = prepared;
  const scores = new Map(definition.metrics.map((name) => [name, new Float64Array(items)]));
  const ones = new Float64Array(items).fill(1);
  return {
    async add(batch, outputs) {
      const returned = await module.score({
        evaluator: definition.name,
        split,
        items: Array.from(batch.items, (item) => itemFields(prepared, item)),
        outputs,
      });
      const values = checkScores(definition, returned, batch.items.length);
      for (const [name, all] of scores) {
        // Adding 0 turns −0 into 0: no score distinguishes them.
        batch.items.forEach((item, at) => {
          all[item] = values[name]![at]! + 0;
        });
      }
    },
    results: () =>
      [...scores].map(([name, all]) => {
        const { mean, standardError } = ratioMean(all, ones);
        return metricResult(name, mean, standardError, items, Array.from(all));
      }),
  };
}

function itemFields({ reference }: PreparedSplit, item: number): ModuleItem {
  if (reference.kind !== "module") throw new Error("a module scores items of its own task only");
  return Object.fromEntries(
    [...reference.data.columns].map(([name, column]) => {
      if (column.kind !== "tensor") return [name, column.values[item]!];
      const size = elementCount(column.shape);
      const numbers = Array.from(column.data.subarray(item * size, (item + 1) * size), Number);
      return [name, column.shape.length === 0 ? numbers[0]! : numbers];
    }),
  );
}

function checkScores(
  definition: EvaluatorDefinition,
  returned: unknown,
  items: number,
): ModuleScores {
  const refuse = (what: string, hint?: string): MendelError =>
    new MendelError("mismatch", `the metric module of "${definition.name}" ${what}`, {
      ...(hint === undefined ? {} : { hint }),
    });
  if (returned === null || typeof returned !== "object" || Array.isArray(returned)) {
    throw refuse(`returned ${returned === null ? "null" : typeof returned}, expected an object`);
  }
  const scores = returned as Readonly<Record<string, unknown>>;
  for (const name of Object.keys(scores)) {
    if (!definition.metrics.includes(name)) {
      throw refuse(`returned an unknown metric "${name}"`, suggestion(name, definition.metrics));
    }
  }
  for (const name of definition.metrics) {
    const values = Object.hasOwn(scores, name) ? scores[name] : undefined;
    if (!Array.isArray(values) && !ArrayBuffer.isView(values)) {
      throw refuse(`returned no list for the metric "${name}"`);
    }
    const list = values as ArrayLike<unknown>;
    if (list.length !== items) {
      throw refuse(`returned ${list.length} scores of "${name}" for ${items} items`);
    }
    for (let i = 0; i < items; i++) {
      if (typeof list[i] === "number") continue;
      throw refuse(`returned a ${typeof list[i]} among the scores of "${name}", expected numbers`);
    }
  }
  return scores as ModuleScores;
}
