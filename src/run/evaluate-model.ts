import { existsSync, readFileSync, statSync } from "node:fs";
import { dirname, extname, join, resolve } from "node:path";
import { MendelError } from "../base/errors.ts";
import { createExecutor } from "../evaluation/create-executor.ts";
import { type EvaluatorDefinition, loadEvaluator } from "../evaluation/evaluator-schema.ts";
import type { EvaluatorResult, Split } from "../evaluation/executor.ts";
import type { EvaluationPlan } from "../evaluation/plan.ts";
import { modelIdOf } from "../merge/plan.ts";
import { layerPathOf } from "../recipes/layer-path.ts";
import { mapModelRefs } from "../recipes/map-model-refs.ts";
import { parseRecipe } from "../recipes/parse.ts";
import type { Recipe } from "../recipes/recipe.ts";
import { openReader } from "../store/connection.ts";
import { findTrial } from "../store/find.ts";
import { recipeOf } from "../store/read-rows.ts";
import { singleModelRecipe } from "./baselines.ts";
import { findNamed, loadExperiment, restoreExperiment } from "./experiment.ts";
import { inspectExperiment } from "./inspect-experiment.ts";
import { placesOf } from "./recipe-models.ts";

export interface EvaluateOptions {
  /** A model (file or folder), a recipe file, or a trial such as "run/best". */
  readonly target: string;
  /** Evaluator names or paths. */
  readonly evaluators: readonly string[];
  /** Take evaluators and graph from this experiment. */
  readonly experiment?: string | undefined;
  readonly split: Split;
  /** ONNX graph for weights that come without one. */
  readonly graph?: string | undefined;
  readonly db: string;
}

export interface EvaluateResult {
  readonly target: string;
  readonly split: Split;
  readonly results: readonly EvaluatorResult[];
  /** Where evaluators came from, when the caller did not name them. */
  readonly note?: string;
}

/** What can be scored: a recipe over models at places, and how to score it unless told otherwise. */
interface Target {
  readonly recipe: Recipe;
  readonly models: EvaluationPlan["models"];
  readonly identities?: Readonly<Record<string, string>>;
  readonly base?: string;
  readonly graph?: string | undefined;
  readonly evaluators?: readonly EvaluatorDefinition[];
  readonly note?: string;
}

/** Name under which a model that is scored as it is stands in its recipe. */
const THE_MODEL = "model";

/** What an exported model remembers of the search it came from. */
interface Provenance {
  readonly experiment?: { readonly file: string; readonly given: unknown };
  readonly run?: string;
}

function provenanceOf(path: string): Provenance | undefined {
  const folder = statSync(path).isDirectory() ? path : dirname(path);
  const file = join(folder, "lineage.json");
  if (!existsSync(file)) return undefined;
  try {
    return JSON.parse(readFileSync(file, "utf8")) as Provenance;
  } catch {
    return undefined;
  }
}

function modelTarget(path: string): Target {
  const recipe = singleModelRecipe(THE_MODEL, { seed: 0, freeze: [] });
  const plain: Target = { recipe, models: { [THE_MODEL]: { path } } };
  const provenance = provenanceOf(path);
  if (provenance?.experiment === undefined) return plain;
  const { given, file } = provenance.experiment;
  const { evaluators, plan, models } = inspectExperiment(restoreExperiment(given, file));
  models.close();
  const graph = plan.models[plan.graph]?.path ?? plan.graph;
  return {
    ...plain,
    graph,
    evaluators,
    note: `evaluators and graph are those of run ${provenance.run ?? "?"}, which made this model`,
  };
}

function recipeTarget(file: string): Target {
  const { recipe } = parseRecipe(readFileSync(file, "utf8"), file);
  const places = placesOf(recipe, dirname(file));
  return {
    recipe: mapModelRefs(recipe, (ref) => ({ model: modelIdOf(ref) })),
    models: Object.fromEntries(
      places.map(({ id, path, base }) => [id, base === undefined ? { path } : { path, base }]),
    ),
    ...(recipe.baseModel === undefined ? {} : { base: modelIdOf(recipe.baseModel) }),
  };
}

function trialTarget(db: string, reference: string): Target {
  const reader = openReader(db);
  try {
    const { run, trialId, ref } = findTrial(reader, reference);
    const experiment = restoreExperiment(JSON.parse(run.configGiven), run.experimentPath);
    const { plan, evaluators, models } = inspectExperiment(experiment);
    models.close();
    const { recipe } = recipeOf(reader, trialId);
    return {
      recipe,
      ...plan,
      evaluators,
      note: `scoring ${ref} with the evaluators of run ${run.name}`,
    };
  } finally {
    reader.close();
  }
}

function targetOf(options: EvaluateOptions): Target {
  const path = resolve(options.target);
  if (!existsSync(path)) return trialTarget(options.db, options.target);
  return /^\.(ya?ml|json)$/.test(extname(path)) ? recipeTarget(path) : modelTarget(path);
}

function namedEvaluator(name: string): EvaluatorDefinition {
  const here = process.cwd();
  return loadEvaluator(findNamed(name, "evaluators", here, "the command line"));
}

/** Graph and evaluators of an experiment file, for targets that have none of their own. */
function experimentParts(file: string): Pick<Target, "graph" | "evaluators"> {
  const { plan, evaluators, models } = inspectExperiment(loadExperiment(file));
  models.close();
  return { graph: plan.models[plan.graph]?.path ?? plan.graph, evaluators };
}

function planOf(options: EvaluateOptions, target: Target): EvaluationPlan {
  const fromFile = options.experiment === undefined ? {} : experimentParts(options.experiment);
  const evaluators =
    options.evaluators.length > 0
      ? options.evaluators.map(namedEvaluator)
      : (fromFile.evaluators ?? target.evaluators);
  if (evaluators === undefined) {
    throw new MendelError("usage", "nothing says how to score this", {
      hint: "name evaluators with --evaluator NAME, or an experiment with --experiment FILE",
    });
  }
  const graph =
    options.graph === undefined ? (target.graph ?? fromFile.graph) : resolve(options.graph);
  return {
    models: target.models,
    graph: graphFor(target, graph),
    ...(target.base === undefined ? {} : { base: target.base }),
    ...(target.identities === undefined ? {} : { identities: target.identities }),
    evaluators,
    freeze: target.recipe.freeze,
    ...(layerPathOf(target.recipe) === undefined ? {} : { program: "path" as const }),
  };
}

/** A model's own graph wins; weights without one use what was named. */
function graphFor({ models }: Target, named: string | undefined): string {
  const paths = Object.values(models).map(({ path }) => path);
  const [only] = paths;
  const own = paths.map((path) => ownGraph(path)).find((path) => path !== undefined);
  const graph =
    paths.length === 1 && only !== undefined ? (ownGraph(only) ?? named) : (named ?? own);
  if (graph !== undefined) return graph;
  throw new MendelError(
    "mismatch",
    `${only ?? "the model"} holds weights without an ONNX graph to run them`,
    {
      hint: "name the ONNX file of a model of the same shape with --graph FILE",
    },
  );
}

function ownGraph(path: string): string | undefined {
  if (extname(path) === ".onnx") return path;
  const inside = join(path, "model.onnx");
  return existsSync(inside) ? inside : undefined;
}

/**
 * Scores a model, a recipe or a trial on one split with the given evaluators, or with those of the search it came from.
 *
 * @throws MendelError when nothing says how to score it, or when it cannot be scored
 */
export async function evaluateModel(options: EvaluateOptions): Promise<EvaluateResult> {
  const target = targetOf(options);
  const plan = planOf(options, target);
  const executor = await createExecutor(plan, { workers: 1 });
  try {
    const outcome = await executor.evaluate({
      id: options.target,
      recipe: target.recipe,
      evaluators: plan.evaluators.map(({ name }) => name),
      split: options.split,
    });
    if (outcome.state === "failed") {
      throw new MendelError("mismatch", `${options.target} cannot be scored: ${outcome.message}`);
    }
    return {
      target: options.target,
      split: options.split,
      results: outcome.results,
      ...(target.note === undefined || options.evaluators.length > 0 ? {} : { note: target.note }),
    };
  } finally {
    await executor.close();
  }
}
