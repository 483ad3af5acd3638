import { parse } from "yaml";
import type { Genome } from "../../base/genome.ts";
import type { Json } from "../../base/json.ts";
import { writeRecipe } from "../../recipes/write.ts";
import type { Connection } from "../../store/connection.ts";
import { inputsOf } from "../../store/inputs.ts";
import { type TrialDetail, trialDetail } from "../../store/queries.ts";
import type { GeneRow, InputFile, RunRow, Split } from "../../store/rows.ts";
import { type Output, printable } from "../output.ts";
import { chosenTrial, readStore } from "../read-store.ts";
import { type TrialScores, trialRef, trialScores } from "../scores-table.ts";
import { formatBytes, formatDuration, formatNumber, formatTable } from "../table.ts";
import type { Verb } from "../verb.ts";

interface Shown {
  readonly run: RunRow;
  readonly trial: TrialDetail;
  readonly inputs: readonly InputFile[];
}

function load(database: Connection, output: Output, reference: string): Shown {
  const { run, trialId } = chosenTrial(database, output, reference);
  return { run, trial: trialDetail(database, run, trialId), inputs: inputsOf(database, run.id) };
}

function memberOf(value: Json | undefined, key: string): Json | undefined {
  return value !== null && typeof value === "object" && !Array.isArray(value)
    ? (Reflect.get(value, key) as Json | undefined)
    : undefined;
}

/** How candidates of the run were executed, as its environment records it. */
function programText({ environment }: RunRow): string {
  const choice = memberOf(environment, "program");
  const program = memberOf(choice, "program");
  if (typeof program !== "string") return "not recorded";
  const feed = memberOf(choice, "feed");
  if (program === "basis") {
    return `basis: sums inside the graph; what is no such sum goes through a slab, fed as ${feed}`;
  }
  return typeof feed === "string" ? `${program}, weights fed as ${feed}` : program;
}

function facts({ run, trial }: Shown): string {
  const made = trial.parents.map((number) => trialRef(run, number)).join(", ");
  const seconds = trial.evaluations.reduce((sum, evaluation) => sum + (evaluation.seconds ?? 0), 0);
  const rows: [string, string][] = [
    ["trial", trial.label === undefined ? trial.ref : `${trial.ref} (baseline ${trial.label})`],
    ["operator", made === "" ? trial.operator : `${trial.operator} of ${made}`],
    ["generation", `${trial.generation}, position ${trial.slot}`],
    ["children", trial.children.length === 0 ? "none" : String(trial.children.length)],
    ["recipe", `sha256 ${trial.recipeSha256}`],
    [
      "weights",
      trial.weightsSha256 === undefined ? "digest not computed" : `sha256 ${trial.weightsSha256}`,
    ],
    ["program", programText(run)],
    ["evaluated", `in ${formatDuration(seconds)}`],
  ];
  return rows.map(([name, text]) => `${name.padEnd(10)} ${printable(text)}`).join("\n");
}

const splits = ["search", "validation", "test"] as const satisfies readonly Split[];

/** One row per metric and split, with standard error, items and time. */
function scoreRows(trial: TrialDetail, scores: TrialScores): string[][] {
  const ofFitness = splits.flatMap((split) => {
    const outcome = trial.fitness[split];
    if (outcome === undefined) return [];
    if (outcome.state === "failed") return [["fitness", split, "failed", "", "", outcome.reason]];
    const remark = outcome.feasible ? "" : "infeasible: a constraint is not met";
    return [
      [
        "fitness",
        split,
        formatNumber(scores.fitness[split]),
        plusMinus(scores.fitnessErrors?.[split]),
        "",
        remark,
      ],
    ];
  });
  const ofMetrics = trial.evaluations.flatMap(
    ({ evaluator, split, result, state, failure, message, cachedFrom }) => {
      if (result === undefined) {
        const why = state === "queued" ? "not evaluated yet" : `${failure}: ${message ?? ""}`;
        return [[evaluator, split, "–", "", "", why]];
      }
      return result.metrics.map(({ metric, standardError, items }) => [
        `${evaluator}.${metric}`,
        split,
        formatNumber(scores.scores[evaluator]?.[metric]?.[split]),
        plusMinus(standardError),
        String(items),
        cachedFrom === undefined ? "" : "scores of an equal evaluation",
      ]);
    },
  );
  return [...ofFitness, ...ofMetrics];
}

function plusMinus(error: number | undefined): string {
  return error === undefined ? "" : `±${error.toFixed(4)}`;
}

function scoresText(trial: TrialDetail, scores: TrialScores): string {
  return formatTable(
    [
      { title: "score" },
      { title: "split" },
      { title: "value", align: "right" },
      { title: "" },
      { title: "items", align: "right" },
      { title: "" },
    ],
    scoreRows(trial, scores),
  );
}

const shortest = (value: number | string): string =>
  typeof value === "number" ? String(Number(value.toPrecision(6))) : value;

function genesText(genes: readonly GeneRow[]): string {
  return formatTable(
    [{ title: "gene" }, { title: "model" }, { title: "group" }, { title: "value", align: "right" }],
    genes.map(({ name, model, group, value }) => [name, model ?? "", group ?? "", shortest(value)]),
  );
}

/** The optimizer's own coordinates. */
function genomeText(genome: Genome, axes: readonly string[]): string {
  if (genome.kind === "vector") {
    return formatTable(
      [{ title: "axis" }, { title: "coordinate", align: "right" }],
      genome.values.map((value, i) => [axes[i] ?? String(i), shortest(value)]),
    );
  }
  return formatTable(
    [
      { title: "from parameter", align: "right" },
      ...genome.coefficients.map((_, k) => ({ title: `share ${k + 1}`, align: "right" as const })),
    ],
    genome.breaks.map((start, s) => [
      String(start),
      ...genome.coefficients.map((shares) => shortest(shares[s] ?? Number.NaN)),
    ]),
  );
}

/** Genes where the space decoded some, else (or under --verbose as well) the genome itself. */
function genomeTexts({ run, trial }: Shown, verbose: boolean): string[] {
  const { genes = [], genome } = trial;
  const texts = genes.length === 0 ? [] : [genesText(genes)];
  if (genome !== undefined && (verbose || genes.length === 0))
    texts.push(genomeText(genome, run.axes));
  return texts;
}

/** Paths and digests of the models that the recipe calls by short names. */
function modelFiles({
  inputs,
}: Shown): { model: string; path: string; sha256: string; bytes: number }[] {
  return inputs.flatMap(({ role, path, sha256, bytes }) => {
    const model = /^model:([^:]+)/.exec(role)?.[1];
    return model === undefined ? [] : [{ model, path, sha256, bytes }];
  });
}

function recipeText(shown: Shown): string {
  const { run, trial } = shown;
  const files = modelFiles(shown).map(
    ({ model, path, sha256 }) => `${model}: ${path} (sha256 ${sha256})`,
  );
  const comment = [
    `${trial.ref}, recipe ${trial.recipeSha256}, mendel ${run.codeVersion}`,
    ...files,
  ];
  return writeRecipe(trial.recipe, {
    comment: comment.map((line) => line.replace(/\s/g, " ")).join("\n"),
  });
}

function artifactsText(trial: TrialDetail): string {
  return formatTable(
    [
      { title: "artifact" },
      { title: "path" },
      { title: "size", align: "right" },
      { title: "sha256" },
    ],
    trial.artifacts.map(({ kind, path, bytes, sha256 }) => [
      kind,
      path,
      formatBytes(bytes),
      sha256,
    ]),
  );
}

function showObject(shown: Shown): object {
  const { run, trial } = shown;
  const recipeYaml = writeRecipe(trial.recipe);
  return {
    run: run.name,
    ...trialScores(run, trial),
    origin: trial.origin,
    number: trial.number,
    slot: trial.slot,
    children: trial.children.map((number) => trialRef(run, number)),
    axes: run.axes,
    genome: trial.genome ?? null,
    genes: trial.genes ?? [],
    recipe: parse(recipeYaml) as unknown,
    recipeYaml,
    models: modelFiles(shown),
    evaluations: trial.evaluations.map((evaluation) => ({
      evaluator: evaluation.evaluator,
      split: evaluation.split,
      state: evaluation.state,
      attempts: evaluation.attempts,
      seconds: evaluation.seconds ?? null,
      cached: evaluation.cachedFrom !== undefined,
      failure: evaluation.failure ?? null,
      message: evaluation.message ?? null,
      finished:
        evaluation.finishedMs === undefined ? null : new Date(evaluation.finishedMs).toISOString(),
      items: Object.fromEntries(
        (evaluation.result?.metrics ?? []).map(({ metric, items }) => [metric, items]),
      ),
    })),
    artifacts: trial.artifacts.map(({ kind, path, sha256, bytes, createdMs }) => ({
      kind,
      path,
      sha256,
      bytes,
      created: new Date(createdMs).toISOString(),
    })),
    environment: run.environment,
    codeVersion: run.codeVersion,
  };
}

export const show: Verb = {
  examples: ["show best", "show digits-1/baseline:uniform --json"],
  configure: (command) => {
    command.argument(
      "<trial>",
      "run/12, run/best, run/fittest or run/baseline:NAME; without run/ of the newest run",
    );
  },
  async run({ output, db, args }) {
    const shown = readStore(db, (database) => load(database, output, args[0] as string));
    const { run, trial } = shown;
    const texts = [
      facts(shown),
      scoresText(trial, trialScores(run, trial)),
      ...genomeTexts(shown, output.verbose),
      ...(trial.artifacts.length === 0 ? [] : [artifactsText(trial)]),
      printable(recipeText(shown)).trimEnd(),
    ];
    output.print(texts.join("\n\n"));
    if (output.json) output.emit("show", showObject(shown));
    return 0;
  },
};
