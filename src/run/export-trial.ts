import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import { MendelError } from "../base/errors.ts";
import type { OnnxReader } from "../formats/onnx/open-onnx.ts";
import { openOnnx } from "../formats/onnx/open-onnx.ts";
import { compileRecipe } from "../merge/compile.ts";
import { type Coverage, coverageOf } from "../merge/coverage.ts";
import { foldScales } from "../recipes/fold-scales.ts";
import { type LayerPath, layerPathOf } from "../recipes/layer-path.ts";
import type { Recipe, RecipeDtype } from "../recipes/recipe.ts";
import { writeRecipe } from "../recipes/write.ts";
import { findTrial } from "../store/find.ts";
import { type TrialDetail, trialDetail } from "../store/queries.ts";
import type { RunRow } from "../store/rows.ts";
import { RunStore } from "../store/run-store.ts";
import { restoreExperiment } from "./experiment.ts";
import { lineageText, recipeComment, recipeWithPaths, writeText } from "./export-files.ts";
import { modelCard } from "./model-card.ts";
import { type PreparedExperiment, prepareExperiment } from "./prepare.ts";
import { agree, nearlyAgree, openable, type VerifiedScore, verify } from "./verify-export.ts";
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
function checkFolder(out: string, prepared: PreparedExperiment, ref: string): void {
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
  const inside = existsSync(out) ? contentsOf(out) : [];
  if (inside.length === 0 || exportedTrial(out) === ref) return;
  const what = exportedTrial(out) ?? inside.slice(0, 3).join(", ");
  throw new MendelError("usage", `${out} exists and holds ${what}`, {
    hint: "choose a folder that is empty, absent, or an earlier export of the same trial",
  });
}

/** Names in a folder; a file counts as its own content. */
function contentsOf(path: string): string[] {
  return statSync(path).isDirectory() ? readdirSync(path) : ["a file"];
}

/** "run/number" of the trial that an earlier export wrote into a folder. */
function exportedTrial(folder: string): string | undefined {
  const file = join(folder, "lineage.json");
  if (!existsSync(file)) return undefined;
  try {
    const { run, trial } = JSON.parse(readFileSync(file, "utf8")) as { run: string; trial: number };
    return `${run}/${trial}`;
  } catch {
    return undefined;
  }
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
      checkFolder(out, prepared, `${run.name}/${trial.number}`);
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
