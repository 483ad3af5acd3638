import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, extname, join, relative, resolve } from "node:path";
import { MendelError } from "../base/errors.ts";
import { sha256 } from "../base/hash.ts";
import { packageVersion } from "../base/package.ts";
import { createExecutor } from "../evaluation/create-executor.ts";
import type { EvaluatorResult, Split } from "../evaluation/executor.ts";
import { writeFileAtomically } from "../formats/atomic-file.ts";
import type { OnnxReader } from "../formats/onnx/open-onnx.ts";
import { openOnnx } from "../formats/onnx/open-onnx.ts";
import { compileRecipe } from "../merge/compile.ts";
import { type Coverage, coverageOf } from "../merge/coverage.ts";
import { foldScales } from "../recipes/fold-scales.ts";
import { type LayerPath, layerPathOf } from "../recipes/layer-path.ts";
import { mapModelRefs } from "../recipes/map-model-refs.ts";
import type { Recipe, RecipeDtype } from "../recipes/recipe.ts";
import { writeRecipe } from "../recipes/write.ts";
import { findTrial } from "../store/find.ts";
import { lineage } from "../store/lineage.ts";
import { type TrialDetail, trialDetail } from "../store/queries.ts";
import type { RunRow } from "../store/rows.ts";
import { RunStore } from "../store/run-store.ts";
import { singleModelRecipe } from "./baselines.ts";
import { restoreExperiment } from "./experiment.ts";
import { modelCard } from "./model-card.ts";
import { type PreparedExperiment, prepareExperiment } from "./prepare.ts";
import { type OutputFormat, type WrittenFile, writeModel } from "./write-model.ts";
import { writePath } from "./write-path.ts";

export interface ExportOptions {
  readonly db: string;
  /** "run/best", "run/12", … */
  readonly trial: string;
  /** Folder to write; created. */
  readonly out: string;
  readonly format?: OutputFormat | undefined;
  /** Default float32, in which candidates are computed, so that the scores stay what they were. */
  readonly dtype?: RecipeDtype | undefined;
  readonly shardBytes?: number | undefined;
}

/** One score, as recorded by the search and as measured on the written files. */
export interface VerifiedScore {
  readonly evaluator: string;
  readonly metric: string;
  readonly split: Split;
  readonly stored: number;
  readonly measured: number | undefined;
}

export interface ExportResult {
  readonly trial: string;
  readonly files: readonly WrittenFile[];
  readonly coverage: Coverage;
  readonly verified: readonly VerifiedScore[];
  /** Whether every measured score equals the stored one within `tolerance`. */
  readonly agrees: boolean;
  readonly warnings: readonly string[];
  readonly seconds: number;
  readonly peakRssBytes: number;
}

/** Relative agreement of losses between two ways to run the same float32 weights. */
const TOLERANCE = 1e-5;

function isOnnx(path: string): boolean {
  return extname(path) === ".onnx";
}

/** As asked for; else the format of the base (or the first model): a search over folders ends in a folder. */
function formatOf(
  options: ExportOptions,
  { experiment, models }: PreparedExperiment,
): OutputFormat {
  if (options.format !== undefined) return options.format;
  const reference = experiment.base ?? (experiment.models[0]?.id as string);
  const { format } = models.require(reference);
  return format === "onnx" || format === "hf" ? format : "safetensors";
}

/** Refuses to write over models, or into a folder that holds something else. */
function checkFolder(out: string, prepared: PreparedExperiment): void {
  const inputs = prepared.inputs.map(({ path }) => path);
  if (inputs.some((path) => path === out || path.startsWith(`${out}/`))) {
    throw new MendelError(
      "usage",
      `${out} holds files of the experiment; a model is never written there`,
      {
        hint: "choose another folder",
      },
    );
  }
  if (existsSync(out) && (!statSync(out).isDirectory() || foreignFiles(out).length > 0)) {
    throw new MendelError(
      "usage",
      `${out} exists and holds ${foreignFiles(out).join(", ") || "a file"}`,
      {
        hint: "choose a folder that is empty, absent, or written by mendel export",
      },
    );
  }
}

/** Names in a folder that an earlier export did not write. */
function foreignFiles(folder: string): string[] {
  if (!statSync(folder).isDirectory()) return [];
  const names = readdirSync(folder);
  return names.includes("lineage.json") ? [] : names.slice(0, 3);
}

/** The recipe with models by path, as mergekit reads it. */
function recipeWithPaths(recipe: Recipe, prepared: PreparedExperiment, out: string): Recipe {
  const places = new Map(prepared.experiment.models.map((model) => [model.id, model]));
  const spell = (path: string): string => {
    const near = relative(out, path);
    return near.startsWith("../../..") || near.startsWith("/") ? path : near;
  };
  return mapModelRefs(recipe, (ref) => {
    const model = places.get(ref.model);
    if (model === undefined) return ref;
    const below = model.base === undefined ? undefined : places.get(model.base);
    if (below === undefined) return { model: spell(model.path) };
    return { model: spell(below.path), lora: spell(model.path) };
  });
}

/** What a recipe file says about itself: run, trial, scores, digests, version. */
function recipeComment(run: RunRow, trial: TrialDetail, prepared: PreparedExperiment): string {
  const scores = Object.entries(trial.scores).flatMap(([evaluator, metrics]) =>
    Object.entries(metrics).flatMap(([metric, splits]) =>
      Object.entries(splits).map(
        ([split, score]) => `  ${evaluator} ${metric} ${split}: ${score?.value ?? score?.kind}`,
      ),
    ),
  );
  const digests = prepared.inputs
    .filter(({ role }) => role.startsWith("model:"))
    .map(
      ({ role, path, sha256: digest }) => `  ${role.split(":")[1]}: ${basename(path)} ${digest}`,
    );
  return [
    `Made by mendel ${packageVersion()}, run ${run.name}, trial ${trial.number}.`,
    `recipe sha256 ${trial.recipeSha256}`,
    ...(trial.weightsSha256 === undefined ? [] : [`weights sha256 ${trial.weightsSha256}`]),
    "models:",
    ...digests,
    "scores:",
    ...scores,
  ].join("\n");
}

function writeText(folder: string, name: string, text: string): WrittenFile {
  const path = join(folder, name);
  writeFileAtomically(path, text);
  return { path, bytes: Buffer.byteLength(text), sha256: sha256(text) };
}

/** Ancestors of the trial and what the search was, for people and for `mendel evaluate`. */
function lineageText(store: RunStore, run: RunRow, trial: TrialDetail): string {
  const tree = lineage(store.database, run, trial.trialId, { direction: "ancestors" });
  return `${JSON.stringify(
    {
      run: run.name,
      trial: trial.number,
      mendel: run.codeVersion,
      seed: run.seed,
      experiment: { file: run.experimentPath, given: JSON.parse(run.configGiven) as unknown },
      genes: trial.genes,
      nodes: tree.nodes.map(({ number, ref, operator, fitness, label }) => ({
        number,
        trial: ref,
        operator,
        fitness,
        label,
      })),
      edges: tree.edges,
    },
    null,
    2,
  )}\n`;
}

/**
 * Loads the written weights again and scores them on every split the trial has scores for.
 *
 * @param runs the graph for weights without one; default: the search's
 */
async function verify(
  prepared: PreparedExperiment,
  trial: TrialDetail,
  written: string,
  runs?: string,
): Promise<VerifiedScore[]> {
  const graph = runs ?? prepared.plan.models[prepared.plan.graph]?.path ?? prepared.plan.graph;
  const models = { ...prepared.plan.models, exported: { path: written } };
  const executor = await createExecutor(
    {
      models: agreementModels(prepared, models),
      graph: isOnnx(written) ? written : graph,
      evaluators: prepared.evaluators,
      freeze: [],
    },
    { workers: 1 },
  );
  try {
    const scores: VerifiedScore[] = [];
    for (const split of ["search", "validation", "test"] as const) {
      const evaluators = prepared.evaluators.map(({ name }) => name);
      if (!evaluators.every((name) => hasScores(trial, name, split))) continue;
      const recipe = singleModelRecipe("exported", { seed: 0, freeze: [] });
      const outcome = await executor.evaluate({ id: written, recipe, evaluators, split });
      if (outcome.state === "failed") {
        throw new MendelError(
          "internal",
          `the exported model cannot be scored: ${outcome.message}`,
        );
      }
      scores.push(...compareScores(trial, outcome.results, split));
    }
    return scores;
  } finally {
    await executor.close();
  }
}

/** Only the exported model, and the teachers that agreement evaluators need. */
function agreementModels(
  prepared: PreparedExperiment,
  models: PreparedExperiment["plan"]["models"],
) {
  const teachers = prepared.evaluators.flatMap(({ teacher }) =>
    teacher?.kind === "model" ? [teacher.at] : [],
  );
  const needed = new Set(["exported", ...teachers]);
  for (const id of [...needed]) {
    const base = models[id]?.base;
    if (base !== undefined) needed.add(base);
  }
  return Object.fromEntries(Object.entries(models).filter(([id]) => needed.has(id)));
}

function hasScores(trial: TrialDetail, evaluator: string, split: Split): boolean {
  return Object.values(trial.scores[evaluator] ?? {}).some(
    (bySplit) => bySplit[split] !== undefined,
  );
}

function compareScores(
  trial: TrialDetail,
  results: readonly EvaluatorResult[],
  split: Split,
): VerifiedScore[] {
  return results.flatMap(({ evaluator, metrics }) =>
    metrics.flatMap(({ metric, value }) => {
      const stored = trial.scores[evaluator]?.[metric]?.[split]?.value;
      return stored === undefined ? [] : [{ evaluator, metric, split, stored, measured: value }];
    }),
  );
}

function agree({ stored, measured }: VerifiedScore): boolean {
  return (
    measured !== undefined &&
    Math.abs(measured - stored) <= TOLERANCE * Math.max(1, Math.abs(stored))
  );
}

/** A norm's epsilon sees the size of the hidden state, which folded factors leave out. */
const FOLDED_TOLERANCE = 1e-3;

function nearlyAgree({ stored, measured }: VerifiedScore): boolean {
  return measured !== undefined && Math.abs(measured - stored) <= FOLDED_TOLERANCE;
}

/** The path that opens as the written model: the folder for `hf`, else the weights file. */
function openable(files: readonly WrittenFile[], format: OutputFormat, out: string): string {
  if (format === "hf") return out;
  const ending = format === "onnx" ? ".onnx" : ".safetensors";
  const single = files.find(({ path }) => extname(path) === ending);
  return files.some(({ path }) => path.endsWith(".index.json")) ? out : (single?.path ?? out);
}

/**
 * Writes the model of a trial with everything one needs to trust and repeat it: weights in the wanted format, the recipe for
 * mergekit, a model card, lineage and checksums. The written weights are loaded again and scored; the result says whether
 * they agree with what the search recorded.
 *
 * @throws MendelError `no-such-run`; `mismatch` when an input changed since the run or the format cannot hold the model
 */
export async function exportTrial(options: ExportOptions): Promise<ExportResult> {
  const started = performance.now();
  const out = resolve(options.out);
  const store = RunStore.open(options.db, { resume: true });
  try {
    const { run, trialId } = findTrial(store.database, options.trial);
    const trial = trialDetail(store.database, run, trialId);
    const prepared = await prepareExperiment(
      restoreExperiment(JSON.parse(run.configGiven), run.experimentPath),
    );
    try {
      refuseChanged(store, run, prepared);
      checkFolder(out, prepared);
      const result = await writeAndVerify(options, out, store, run, trial, prepared);
      for (const file of result.files) {
        store.recordArtifact(run.id, { trial: trial.number, kind: "export", ...file });
      }
      return {
        ...result,
        trial: `${run.name}/${trial.number}`,
        seconds: (performance.now() - started) / 1000,
        peakRssBytes: process.resourceUsage().maxRSS * 1024,
      };
    } finally {
      prepared.models.close();
    }
  } finally {
    store.close();
  }
}

function refuseChanged(store: RunStore, run: RunRow, prepared: PreparedExperiment): void {
  const [changed] = store.compareInputs(run.id, prepared.inputs);
  if (changed === undefined) return;
  throw new MendelError(
    "mismatch",
    `${changed.role} (${changed.path}) is not what it was when the run began`,
    {
      hint: "put the original file back: the recipe makes another model from other inputs",
      where: { file: changed.path },
    },
  );
}

async function writeAndVerify(
  options: ExportOptions,
  out: string,
  store: RunStore,
  run: RunRow,
  trial: TrialDetail,
  prepared: PreparedExperiment,
): Promise<Pick<ExportResult, "files" | "coverage" | "verified" | "agrees" | "warnings">> {
  const { models, match, plan } = prepared;
  const format = formatOf(options, prepared);
  const dtype = options.dtype ?? "float32";
  const recipe: Recipe = { ...trial.recipe, outDtype: dtype };
  const walk = plan.program === "path" ? layerPathOf(recipe) : undefined;
  const asWeights = walk === undefined ? recipe : asPassthrough(recipe, prepared, format);
  const identities = new Map(Object.entries(plan.identities ?? {}));
  const compiled = compileRecipe(asWeights, { ...match.plan, identities });
  mkdirSync(out, { recursive: true });
  const reference = prepared.experiment.base ?? (prepared.experiment.models[0]?.id as string);
  const weights =
    walk !== undefined && format === "onnx"
      ? await writeWalk(prepared, walk, out, dtype)
      : await writeModel({
          compiled,
          source: models,
          format,
          out,
          shardBytes: options.shardBytes,
          graph: format === "onnx" ? graphOf(prepared) : undefined,
          donor: [reference, ...models.readers.keys()]
            .map((id) => models.require(id))
            .find(({ format: kind }) => kind === "hf"),
        });
  const written = openable(weights, format, out);
  const verified =
    walk !== undefined && format !== "onnx"
      ? await verifyWalk(prepared, trial, written, layerPathOf(asPlainWalk(asWeights)) ?? walk)
      : await verify(prepared, trial, written);
  const folded = asWeights !== recipe && walk?.steps.some(({ scale }) => scale !== 1) === true;
  const agrees = verified.every(folded ? nearlyAgree : agree);
  const recipeText = writeRecipe(recipeWithPaths(recipe, prepared, out), {
    comment: recipeComment(run, trial, prepared),
  });
  const files = [
    ...weights,
    writeText(out, "recipe.yml", recipeText),
    ...(asWeights === recipe || format === "onnx"
      ? []
      : [writeText(out, "mergekit.yml", writeRecipe(recipeWithPaths(asWeights, prepared, out)))]),
    writeText(out, "README.md", modelCard({ run, trial, prepared, verified, format, dtype })),
    writeText(out, "lineage.json", lineageText(store, run, trial)),
  ];
  const sums = files
    .map(({ path, sha256: digest }) => `${digest}  ${relative(out, path)}\n`)
    .join("");
  files.push(writeText(out, "SHA256SUMS", sums));
  return { files, coverage: coverageOf(match), verified, agrees, warnings: compiled.warnings };
}

/**
 * The recipe that makes a walk's weights: the walk itself, or for files that hold weights only a `passthrough` recipe with
 * the factors folded in.
 *
 * @throws MendelError `unsupported` when the format cannot express the walk
 */
function asPassthrough(
  recipe: Recipe,
  { match }: PreparedExperiment,
  format: OutputFormat,
): Recipe {
  const folded = foldScales(
    recipe,
    match.plan.tensors.map(({ name }) => name),
  );
  if (typeof folded !== "string") return folded;
  if (format === "onnx") return recipe;
  throw new MendelError("unsupported", `${format} cannot hold this walk: ${folded}`, {
    hint: "export it as onnx, which can",
  });
}

/** The same layers in order, each on its own, all factors left out. */
function asPlainWalk({ body, ...rest }: Recipe): Recipe {
  if (body.kind !== "slices") throw new Error("a walk has slices");
  const slices = body.slices.map(({ sources }) => ({
    sources: sources.map((source) => ({ ...source, parameters: {} })),
    parameters: {},
  }));
  return { ...rest, body: { kind: "slices", slices } };
}

/** @throws MendelError `unsupported` for another element type than the graph's */
function writeWalk(
  prepared: PreparedExperiment,
  path: LayerPath,
  out: string,
  dtype: RecipeDtype,
  share = true,
): Promise<WrittenFile[]> {
  if (dtype !== "float32") {
    throw new MendelError(
      "unsupported",
      `a walk is exported in the graph's own types, not ${dtype}`,
      {
        hint: "leave --dtype out",
      },
    );
  }
  const { plan, models, match } = prepared;
  return writePath({
    path,
    graph: graphOf(prepared).reader,
    graphId: models.readers.has(plan.graph) ? plan.graph : undefined,
    inputs: match.plan,
    source: models,
    out,
    share,
  });
}

/** Scores written weights in a graph of as many layers, which exists for that long only. */
async function verifyWalk(
  prepared: PreparedExperiment,
  trial: TrialDetail,
  written: string,
  path: LayerPath,
): Promise<VerifiedScore[]> {
  const folder = mkdtempSync(join(tmpdir(), "mendel-graph-"));
  try {
    await writeWalk(prepared, path, folder, "float32", false);
    return await verify(prepared, trial, written, join(folder, "model.onnx"));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function graphOf({ plan, models, match }: PreparedExperiment) {
  const id = plan.graph;
  const isModel = models.readers.has(id) && models.require(id).format === "onnx";
  const reader = isModel
    ? (models.require(id) as OnnxReader)
    : openOnnx(plan.models[id]?.path ?? id);
  if (!isModel) {
    return {
      reader,
      nameIn: (tensor: string) => (reader.find(tensor) === undefined ? undefined : tensor),
    };
  }
  const names = new Map(
    match.plan.tensors.map(({ name, sources }) => [name, sources.get(id)?.name]),
  );
  return { reader, nameIn: (tensor: string) => names.get(tensor) };
}
