import { digestOf } from "../base/hash.ts";
import type { Json } from "../base/json.ts";
import type { EvaluatorDefinition } from "../evaluation/evaluator-schema.ts";
import type { Executor, ProgramChoice } from "../evaluation/executor.ts";
import { itemFitnessOf } from "../evaluation/item-fitness.ts";
import type { EvaluationPlan } from "../evaluation/plan.ts";
import { createPoolExecutor } from "../evaluation/pool-executor.ts";
import type { OpenModels } from "../formats/open-models.ts";
import { compileRecipe } from "../merge/compile.ts";
import type { MatchReport } from "../merge/matching.ts";
import { kernelBytesFor, weightsDigest } from "../merge/materialize.ts";
import type { OptimizerProblem } from "../optimizers/optimizer.ts";
import type { Recipe } from "../recipes/recipe.ts";
import { buildSpace } from "../spaces/build-space.ts";
import type { Space } from "../spaces/space.ts";
import type { InputFile, MetricDefinition } from "../store/rows.ts";
import { elementCount } from "../tensors/shape.ts";
import { createKernels } from "../tensors/wasm-kernels.ts";
import { type Baseline, baselinesOf } from "./baselines.ts";
import type { Experiment } from "./experiment.ts";
import { floatLoader } from "./float-loader.ts";
import { identicalTensors } from "./identical-tensors.ts";
import {
  checkPins,
  hashInputs,
  modelDigest,
  type ScoreDigests,
  scoreDigests,
} from "./input-digests.ts";
import { type InspectedExperiment, inspectExperiment, maskSeed } from "./inspect-experiment.ts";
import type { Objective } from "./objectives.ts";
import { sampleRecipes } from "./sample-recipes.ts";
import { segmentGeometry } from "./segment-geometry.ts";

/** An experiment with everything opened, matched and checked: what a search works with. */
export interface PreparedExperiment {
  readonly experiment: Experiment;
  readonly models: OpenModels;
  readonly match: MatchReport;
  readonly space: Space;
  /** Tensors that are the same in every model: no gene can change them. */
  readonly identical: readonly string[];
  readonly evaluators: readonly EvaluatorDefinition[];
  readonly plan: EvaluationPlan;
  readonly objective: Objective;
  /** One per number of a fitness. */
  readonly objectiveNames: readonly string[];
  readonly metrics: readonly MetricDefinition[];
  readonly orientItem: (evaluator: string, metric: string, itemScore: number) => number;
  readonly baselines: readonly Baseline[];
  readonly optimizer: Experiment["optimizer"];
  readonly problem: OptimizerProblem;
  readonly inputs: readonly InputFile[];
  readonly digests: ScoreDigests;
  /** The experiment with every name resolved, for the record. */
  readonly resolved: Json;
}

/**
 * Everything a search needs: the inspected experiment, digests of all inputs, and for piecewise genomes the models' Gram
 * matrices. Reads every file once.
 *
 * @throws MendelError as `inspectExperiment`; `mismatch` for a pinned digest that does not hold
 */
export async function prepareExperiment(experiment: Experiment): Promise<PreparedExperiment> {
  const inspected = inspectExperiment(experiment);
  const { models, match, evaluators, plan, objective } = inspected;
  try {
    const identical = identicalTensors(match.plan, models);
    const space = buildSpace(inspected.definition, { ...inspected.spaceContext, identical });
    const inputs = await hashInputs(inspected);
    checkPins(experiment, inputs);
    const identities = Object.fromEntries(
      experiment.models.map(({ id }) => [id, modelDigest(inputs, id)]),
    );
    return {
      experiment,
      models,
      match,
      space,
      identical,
      evaluators,
      plan: { ...plan, identities },
      objective,
      objectiveNames:
        objective.kind === "pareto" ? evaluators.map(({ name }) => name) : [objective.kind],
      metrics: evaluators.flatMap(({ name, metrics, direction }) =>
        metrics.map(
          (metric): MetricDefinition => ({
            evaluator: name,
            metric,
            direction: direction[metric] === "lower" ? -1 : 1,
          }),
        ),
      ),
      orientItem: itemOrientation(evaluators),
      baselines: baselinesOf(
        experiment.models.map(({ id }) => id),
        experiment.base,
        {
          seed: maskSeed(experiment.seed),
          freeze: inspected.definition.freeze,
          ...(experiment.compat === undefined ? {} : { compat: experiment.compat }),
        },
      ),
      optimizer: experiment.optimizer,
      problem: problemOf(inspected, space),
      inputs,
      digests: scoreDigests(inspected, inputs),
      resolved: resolvedOf(inspected),
    };
  } catch (thrown) {
    models.close();
    throw thrown;
  }
}

function itemOrientation(
  evaluators: readonly EvaluatorDefinition[],
): PreparedExperiment["orientItem"] {
  const turns = new Map<string, (score: number) => number>();
  for (const evaluator of evaluators) {
    for (const metric of evaluator.metrics) {
      turns.set(`${evaluator.name} ${metric}`, itemFitnessOf(evaluator, metric));
    }
  }
  return (evaluator, metric, score) => turns.get(`${evaluator} ${metric}`)?.(score) ?? score;
}

function problemOf(
  { experiment, models, match, objective }: InspectedExperiment,
  space: Space,
): OptimizerProblem {
  const { evaluations } = experiment.budget;
  const merged = match.plan.tensors.filter(({ action }) => action === "merge");
  const load = floatLoader(models);
  return {
    seed: maskSeed(experiment.seed),
    axes: space.axes,
    start: space.start,
    ...(space.levels === undefined ? {} : { levels: space.levels }),
    initial: space.initial.map(({ genome }) => genome),
    objectives: objective.kind === "pareto" ? objective.terms.length : 1,
    ...(evaluations === undefined ? {} : { budget: evaluations }),
    ...(space.genome !== "segments"
      ? {}
      : {
          segments: segmentGeometry({
            models: space.models,
            tensors: merged.map(({ name, shape }) => ({ name, length: elementCount(shape) })),
            load: (model, tensor, start, out) => {
              const source = merged.find(({ name }) => name === tensor)?.sources.get(model);
              load(model, source?.name ?? tensor, start, out);
            },
          }),
        }),
  };
}

function resolvedOf({ experiment, definition, evaluators, plan }: InspectedExperiment): Json {
  const { given: _given, ...rest } = experiment;
  const space = { ...definition, genes: Object.fromEntries(definition.genes) };
  return JSON.parse(JSON.stringify({ ...rest, graph: plan.graph, space, evaluators })) as Json;
}

/** The same experiment, with the way candidates are run in its evaluation keys. */
export function withProgram(
  prepared: PreparedExperiment,
  choice: ProgramChoice,
): PreparedExperiment {
  const { program, feed, runtime } = choice;
  return {
    ...prepared,
    digests: { ...prepared.digests, program: digestOf([program, feed, runtime]) },
  };
}

/**
 * Starts the evaluation host: reads the weights, prepares data and sessions, runs one batch, and measures how to feed
 * weights unless an earlier start of the run has chosen.
 */
export function startExecutor(
  { experiment, plan, space }: PreparedExperiment,
  workers: number | "auto",
  program: ProgramChoice | undefined,
): Promise<Executor> {
  // Walks need no samples: what is merged among them, the baselines, goes through a slab.
  const like =
    plan.program === "path"
      ? plan
      : { ...plan, samples: sampleRecipes(space), program: experiment.program };
  return createPoolExecutor(like, {
    workers,
    timeoutSeconds: experiment.timeoutSeconds,
    ...(experiment.memoryBytes === undefined ? {} : { memoryBytes: experiment.memoryBytes }),
    ...(program === undefined ? {} : { program }),
  });
}

/** SHA-256 of the weights a recipe makes, the same on every machine. */
export function weightsDigestOf(
  { match, models, plan }: PreparedExperiment,
  recipe: Recipe,
): string {
  const identities = new Map(Object.entries(plan.identities ?? {}));
  const compiled = compileRecipe(recipe, { ...match.plan, identities });
  return weightsDigest(compiled, {
    kernels: createKernels({ bytes: kernelBytesFor(compiled) }),
    source: models,
  });
}
