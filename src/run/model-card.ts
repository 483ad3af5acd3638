import { packageVersion } from "../base/package.ts";
import type { TrialDetail } from "../store/queries.ts";
import type { RunRow } from "../store/rows.ts";
import type { PreparedExperiment } from "./prepare.ts";
import type { VerifiedScore } from "./verify-export.ts";

export interface ModelCardFacts {
  readonly run: RunRow;
  readonly trial: TrialDetail;
  readonly prepared: PreparedExperiment;
  readonly verified: readonly VerifiedScore[];
  readonly format: string;
  readonly dtype: string;
}

function scoreRows({ verified }: ModelCardFacts): string[] {
  return verified.map(
    ({ evaluator, metric, split, stored, measured }) =>
      `| ${evaluator} | ${metric} | ${split} | ${stored.toPrecision(6)} | ${measured?.toPrecision(6) ?? "–"} |`,
  );
}

/** The README beside an exported model: what it is made of, how it was found, how well it does, how to make it again. */
export function modelCard(facts: ModelCardFacts): string {
  const { run, trial, prepared, format, dtype } = facts;
  const parents = prepared.experiment.models.map(({ id }) =>
    id === prepared.experiment.base ? `- ${id} (base)` : `- ${id}`,
  );
  return [
    "---",
    "tags: [merge, mendel]",
    "---",
    `# ${run.name}, trial ${trial.number}`,
    "",
    `A merge of ${prepared.experiment.models.length} models, found by mendel ${packageVersion()} with the optimizer ${prepared.optimizer.name}`,
    `(seed ${run.seed}) and the merge method \`${trial.recipe.mergeMethod}\`. Written as ${format}, ${dtype}.`,
    "",
    "## Made from",
    "",
    ...parents,
    "",
    "Exact files and their digests are in the comment of `recipe.yml`; ancestors and genes are in `lineage.json`.",
    "",
    "## Scores",
    "",
    "The search saw the search split only; the trial was chosen on validation; test was looked at once. The last column was",
    "measured on the files in this folder after they were written.",
    "",
    "| evaluator | metric | split | in the search | these files |",
    "|---|---|---|---|---|",
    ...scoreRows(facts),
    "",
    "## Make it again",
    "",
    "```",
    "mendel merge recipe.yml again",
    "```",
    "",
  ].join("\n");
}
