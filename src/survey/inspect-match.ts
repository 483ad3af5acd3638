import { type Coverage, coverageOf } from "../merge/coverage.ts";
import { type MatchReport, matchModels } from "../merge/matching.ts";
import type { ModelReader } from "../tensors/model-reader.ts";
import { sameShape } from "../tensors/shape.ts";

/** How two models correspond, counted over the tensors of the merge they would enter. */
export interface PairSummary {
  readonly models: readonly [string, string];
  /** Tensors that both have, in one shape. */
  readonly shared: number;
  /** Tensors that both have, in different shapes. */
  readonly differing: number;
  readonly onlyFirst: number;
  readonly onlySecond: number;
  /** Shared tensors that are stored in different types. */
  readonly otherDtype: number;
}

/** A tensor that a model calls differently from the reference. */
export interface Renaming {
  readonly model: string;
  /** Name in that model. */
  readonly tensor: string;
  /** Name in the reference, and in the output. */
  readonly output: string;
  readonly reason: string;
}

/** How several models would be merged, told from their headers. */
export interface MatchInspection {
  /** The model whose names and tensors a merge would have. */
  readonly reference: string;
  /** Nothing is refused. */
  readonly fits: boolean;
  readonly coverage: Coverage;
  /** What to do about the first refusal. */
  readonly hint: string | undefined;
  readonly copied: readonly { readonly tensor: string; readonly reason: string }[];
  readonly renamed: readonly Renaming[];
  readonly unused: readonly {
    readonly model: string;
    readonly tensor: string;
    readonly reason: string;
  }[];
  /** Every two models, in the order given. */
  readonly pairs: readonly PairSummary[];
  readonly warnings: readonly string[];
}

/** Matches open models as a merge of all of them would; headers only, apart from small integer tensors. */
export function inspectMatch(
  models: ReadonlyMap<string, ModelReader>,
  reference: string,
  freeze: readonly string[] = [],
): MatchInspection {
  // As in an experiment: the reference's graph if it has one, else the first that there is.
  const graph = [reference, ...models.keys()].find((id) => models.get(id)?.format === "onnx");
  const report = matchModels({
    models,
    reference,
    freeze,
    ...(graph === undefined ? {} : { graph }),
  });
  const coverage = coverageOf(report);
  return {
    reference,
    fits: report.refused.length === 0,
    coverage,
    hint: report.refused[0]?.hint,
    copied: report.plan.tensors
      .filter(({ action }) => action === "copy")
      .map(({ name, reason }) => ({ tensor: name, reason })),
    renamed: report.fates.flatMap(({ model, tensor, fate, output, reason }) =>
      fate === "merged" && output !== undefined && output !== tensor
        ? [{ model, tensor, output, reason }]
        : [],
    ),
    unused: report.fates
      .filter(({ fate }) => fate === "unused")
      .map(({ model, tensor, reason }) => ({ model, tensor, reason })),
    pairs: pairsOf([...models.keys()]).map((pair) => summarize(pair, report)),
    warnings: report.warnings,
  };
}

function pairsOf(names: readonly string[]): [string, string][] {
  return names.flatMap((a, i) => names.slice(i + 1).map((b): [string, string] => [a, b]));
}

function summarize(models: [string, string], { plan }: MatchReport): PairSummary {
  let [shared, differing, onlyFirst, onlySecond, otherDtype] = [0, 0, 0, 0, 0];
  for (const { sources } of plan.tensors) {
    const [a, b] = [sources.get(models[0]), sources.get(models[1])];
    if (a === undefined && b === undefined) continue;
    if (b === undefined) onlyFirst += 1;
    else if (a === undefined) onlySecond += 1;
    else if (!sameShape(a.shape, b.shape)) differing += 1;
    else {
      shared += 1;
      if (a.dtype !== b.dtype) otherDtype += 1;
    }
  }
  return { models, shared, differing, onlyFirst, onlySecond, otherDtype };
}
