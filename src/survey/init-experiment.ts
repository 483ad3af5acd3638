import { existsSync, mkdirSync, rmSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { MendelError } from "../base/errors.ts";
import { parseDuration } from "../base/units.ts";
import { writeFileAtomically } from "../formats/atomic-file.ts";
import { openOnnx } from "../formats/onnx/open-onnx.ts";
import { optimizerNamed } from "../optimizers/index.ts";
import { findNamed, loadExperiment } from "../run/experiment.ts";
import { inspectExperiment } from "../run/inspect-experiment.ts";
import { loadSpaceDefinition } from "../spaces/schema.ts";
import { type ChosenModels, chooseModels } from "./choose-models.ts";
import { type ExperimentParts, evaluatorText, experimentText } from "./experiment-text.ts";
import { dataSetsAt, type FoundDataSet, findDataSets } from "./find-data-sets.ts";
import { type FoundModels, findModels, type LeftOut, modelAt } from "./find-models.ts";
import { uniqueNames } from "./model-names.ts";
import {
  type EvaluatorProposal,
  type ProposedTask,
  proposeEvaluator,
  signatureOfGraph,
} from "./propose-evaluator.ts";

/** What the user has decided; everything else is decided by what is found. */
export interface InitOptions {
  /** Folder to look into. */
  readonly folder: string;
  /** Models by id; when given, no others are taken. */
  readonly models?: ReadonlyMap<string, string>;
  /** Id of the base; null for none. */
  readonly base?: string | null;
  /** Id of a model, or path of an ONNX file. */
  readonly graph?: string;
  /** Data files and folders; when given, no others are taken. */
  readonly data?: readonly string[];
  readonly task?: ProposedTask;
  readonly space?: string;
  readonly optimizer?: string;
  /** "300" evaluations, or a time such as "20m". */
  readonly budget?: string;
  /** Experiment file to write, or the folder for it; default: the folder that was looked into. */
  readonly out?: string;
}

/** An experiment that is ready to be written. */
export interface InitProposal extends ExperimentParts {
  /** Experiment file, absolute. */
  readonly file: string;
  /** Models and data that were found and are not used. */
  readonly leftOut: readonly LeftOut[];
}

export interface InitFile {
  readonly path: string;
  readonly bytes: number;
}

/** Evaluations of a first search: some minutes for small models, and enough for a few dozen coefficients. */
const DEFAULT_EVALUATIONS = 300;

/** What there is, before anything is decided: for callers that ask the user. @throws MendelError `not-found` */
export function survey(options: InitOptions): {
  readonly models: FoundModels;
  readonly data: readonly FoundDataSet[];
} {
  const { folder, models, data } = options;
  if (statSync(folder, { throwIfNoEntry: false })?.isDirectory() !== true) {
    throw new MendelError("not-found", `there is no folder ${folder}`, { where: { file: folder } });
  }
  return {
    models: models === undefined ? findModels(folder) : namedModels(models),
    data: data === undefined ? findDataSets(folder) : dataSetsAt(data),
  };
}

function namedModels(models: ReadonlyMap<string, string>): FoundModels {
  const found = [...models].map(([id, path]) => modelAt(id, path));
  return { models: found, graphs: [], tokenizers: [], leftOut: [] };
}

/** The models of a survey that are merged. */
export function surveyedModels(found: FoundModels, options: InitOptions): ChosenModels {
  const { base, graph, models } = options;
  return chooseModels(found, {
    named: models !== undefined,
    ...(base === undefined ? {} : { base }),
    ...(graph === undefined ? {} : { graph: graph.endsWith(".onnx") ? resolve(graph) : graph }),
  });
}

/**
 * Decides on an experiment from what is in a folder: models that fit together, their base and graph, an evaluator per data
 * set, a search space for them. Every evaluator has been tried on the graph with all its data.
 *
 * @throws MendelError `not-found` for fewer than two models, no graph, or no data that fits; `usage` for wishes that cannot
 *   be met
 */
export async function proposeExperiment(options: InitOptions): Promise<InitProposal> {
  const found = survey(options);
  const chosen = surveyedModels(found.models, options);
  const file = experimentFile(options);
  const graph = openOnnx(chosen.graph);
  const leftOut: LeftOut[] = [...chosen.leftOut];
  const evaluators: EvaluatorProposal[] = [];
  try {
    for (const set of found.data) {
      const outcome = await proposeEvaluator(set, {
        graph: signatureOfGraph(graph.graph),
        tokenizer: chosen.tokenizer,
        models: chosen.models.map(({ id }) => id),
        folder: join(dirname(file), "evaluators"),
        ...(options.task === undefined ? {} : { task: options.task }),
      });
      if (typeof outcome === "string") leftOut.push(leftOutData(set, outcome));
      else evaluators.push(outcome);
    }
  } finally {
    graph.close();
  }
  if (evaluators.length === 0) throw noData(found.data, leftOut);
  const names = uniqueNames(evaluators.map(({ name }) => name));
  return {
    ...searchOf(options, chosen, file),
    chosen,
    evaluators: evaluators.map((evaluator, i) => ({ ...evaluator, name: names[i] as string })),
    file,
    leftOut,
  };
}

function experimentFile({ folder, out }: InitOptions): string {
  const target = out ?? folder;
  return resolve(/\.ya?ml$/.test(target) ? target : join(target, "experiment.yml"));
}

/**
 * Refuses early what `writeExperiment` would refuse in the end, before anybody has answered questions.
 *
 * @throws MendelError `usage` when the experiment file exists
 */
export function requireFreeTarget(options: InitOptions): void {
  const file = experimentFile(options);
  if (existsSync(file)) throw wouldOverwrite([file]);
}

function wouldOverwrite(files: readonly string[]): MendelError {
  return new MendelError("usage", `${files.join(", ")} would be overwritten`, {
    hint: "use --force to overwrite, or --out for another folder",
    where: { file: files[0] as string },
  });
}

function leftOutData({ data }: FoundDataSet, reason: string): LeftOut {
  return { path: data.kind === "single" ? data.file : data.files.search, reason };
}

function noData(sets: readonly FoundDataSet[], leftOut: readonly LeftOut[]): MendelError {
  const reasons = leftOut.slice(0, 5).map(({ path, reason }) => `\n  ${path}: ${reason}`);
  const message =
    sets.length === 0
      ? "no data to judge candidates by was found"
      : `no data that candidates can be judged by were found${reasons.join("")}`;
  return new MendelError("not-found", message, {
    hint: "data are .npz, .jsonl, .csv or .tsv: one file, or three with search, validation and test in their names; name them with --data FILE",
  });
}

function searchOf(
  { space: wishedSpace, optimizer: wishedOptimizer, budget }: InitOptions,
  { base }: ChosenModels,
  file: string,
): Pick<ExperimentParts, "space" | "spaceTitle" | "optimizer" | "budget"> {
  const space = wishedSpace ?? (base === undefined ? "layer-linear" : "layer-task-arithmetic");
  const path = findNamed(space, "search-spaces", dirname(file), file);
  const { title, methods } = loadSpaceDefinition({ kind: "file", path });
  const optimizer = wishedOptimizer ?? (methods.includes("segments") ? "natural_niches" : "cma_es");
  optimizerNamed(optimizer);
  return {
    space,
    spaceTitle: `${title.slice(0, 1).toLowerCase()}${title.slice(1)}`,
    optimizer,
    budget: budgetOf(budget),
  };
}

function budgetOf(text: string | undefined): ExperimentParts["budget"] {
  if (text === undefined) return { evaluations: DEFAULT_EVALUATIONS };
  if (/^\d{1,9}$/.test(text) && Number(text) > 0) return { evaluations: Number(text) };
  if (/[smhd]$/.test(text) && (parseDuration(text) ?? 0) > 0) return { time: text };
  throw new MendelError("usage", `--budget expects evaluations or a time, got "${text}"`, {
    hint: "for instance --budget 300 or --budget 20m",
  });
}

/**
 * Writes the experiment and its evaluators, then loads them again and checks what headers tell. Nothing that exists is
 * overwritten unless `force`.
 *
 * @throws MendelError `usage` for files that exist; what the check throws, with the new files removed
 */
export function writeExperiment(
  proposal: InitProposal,
  { force = false }: { readonly force?: boolean } = {},
): readonly InitFile[] {
  const texts = new Map([[proposal.file, experimentText(proposal.file, proposal)]]);
  for (const evaluator of proposal.evaluators) {
    const path = join(dirname(proposal.file), "evaluators", `${evaluator.name}.yml`);
    texts.set(path, evaluatorText(path, evaluator));
  }
  const existing = [...texts.keys()].filter((path) => existsSync(path));
  if (existing.length > 0 && !force) throw wouldOverwrite(existing);
  const files: InitFile[] = [];
  for (const [path, text] of texts) {
    mkdirSync(dirname(path), { recursive: true });
    writeFileAtomically(path, text);
    files.push({ path, bytes: Buffer.byteLength(text) });
  }
  try {
    inspectExperiment(loadExperiment(proposal.file)).models.close();
  } catch (thrown) {
    for (const path of texts.keys()) if (!existing.includes(path)) rmSync(path, { force: true });
    throw thrown;
  }
  return files;
}
