import { existsSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { MendelError } from "../base/errors.ts";
import { digestOf } from "../base/hash.ts";
import { suggestion } from "../base/suggest.ts";
import {
  type EvaluatorDefinition,
  loadEvaluator,
  parseEvaluator,
} from "../evaluation/evaluator-schema.ts";
import type { EvaluationPlan } from "../evaluation/plan.ts";
import { type OnnxReader, openOnnx } from "../formats/onnx/open-onnx.ts";
import { OpenModels } from "../formats/open-models.ts";
import { findBlocks } from "../graph/blocks.ts";
import { weightedGraph } from "../graph/weighted-graph.ts";
import { mergeMethods } from "../merge/index.ts";
import { type MatchReport, matchModels, requireMatched } from "../merge/matching.ts";
import { createOptimizer } from "../optimizers/index.ts";
import type { SegmentGeometry } from "../optimizers/optimizer.ts";
import { buildSpace } from "../spaces/build-space.ts";
import { loadSpaceDefinition, type SpaceDefinition } from "../spaces/schema.ts";
import type { MethodFacts, Space, SpaceContext } from "../spaces/space.ts";
import { checkLayerModels } from "./check-layer-models.ts";
import { parseConstraint } from "./constraints.ts";
import type { Experiment, ExperimentEvaluator } from "./experiment.ts";
import type { Objective } from "./objectives.ts";

/** What can be known from headers alone. */
export interface InspectedExperiment {
  readonly experiment: Experiment;
  readonly models: OpenModels;
  readonly definition: SpaceDefinition;
  readonly match: MatchReport;
  readonly spaceContext: SpaceContext;
  readonly space: Space;
  readonly evaluators: readonly EvaluatorDefinition[];
  readonly plan: EvaluationPlan;
  readonly objective: Objective;
}

/**
 * Opens and checks everything about an experiment that needs no weight: files, headers, matching of tensors, search space,
 * evaluators, objective, constraints, optimizer.
 *
 * @throws MendelError naming file, line, key or tensor
 */
export function inspectExperiment(experiment: Experiment): InspectedExperiment {
  checkModelNames(experiment);
  const evaluators = experiment.evaluators.map(loadExperimentEvaluator);
  checkUnique(evaluators, experiment);
  const objective = objectiveOf(experiment, evaluators);
  const definition = loadSpaceDefinition(
    experiment.space.kind === "file"
      ? experiment.space
      : { ...experiment.space, file: `${experiment.file} (space)` },
  );
  const models = OpenModels.open(experiment.models);
  try {
    const base = experiment.base;
    const graph = graphOf(experiment, models);
    const match = matchModels({
      models: models.readers,
      reference: base ?? (experiment.models[0]?.id as string),
      ...(base === undefined ? {} : { base }),
      ...(models.readers.has(graph) ? { graph } : {}),
      freeze: definition.freeze,
    });
    requireMatched(match);
    if (definition.layers !== undefined) checkLayerModels(models.readers);
    const spaceContext: SpaceContext = {
      models: experiment.models.map(({ id }) => id),
      base,
      tensors: match.plan.tensors
        .filter(({ action }) => action === "merge")
        .map(({ name }) => name),
      frozen: match.frozen,
      methods: methodFacts(),
      ...(definition.layers === undefined ? {} : { blocks: blocksOf(graph, models) }),
      seed: maskSeed(experiment.seed),
      ...(experiment.compat === undefined ? {} : { compat: experiment.compat }),
    };
    const space = buildSpace(definition, spaceContext);
    checkOptimizer(experiment, space, objective);
    const plan = evaluationPlanOf(experiment, definition, graph, evaluators);
    return {
      experiment,
      models,
      definition,
      match,
      spaceContext,
      space,
      evaluators,
      plan,
      objective,
    };
  } catch (thrown) {
    models.close();
    throw thrown;
  }
}

/** Creates the optimizer once for its complaints; piecewise genomes get a stand-in for what only weights can tell. */
function checkOptimizer({ optimizer, seed }: Experiment, space: Space, objective: Objective): void {
  createOptimizer(optimizer.name, optimizer.settings, {
    seed: maskSeed(seed),
    axes: space.axes,
    start: space.start,
    ...(space.levels === undefined ? {} : { levels: space.levels }),
    initial: space.initial.map(({ genome }) => genome),
    objectives: objective.kind === "pareto" ? objective.terms.length : 1,
    ...(space.genome === "segments" ? { segments: standInGeometry(space.models.length) } : {}),
  });
}

function standInGeometry(models: number): SegmentGeometry {
  const identity = Array.from({ length: models }, (_, k) =>
    Array.from({ length: models }, (_, l) => (k === l ? 1 : 0)),
  );
  const zero = identity.map((row) => row.map(() => 0));
  return { length: 1, boundaries: [0, 1], gram: [zero, identity] };
}

/** DARE masks of one experiment share one seed, so that candidates differ by their genes alone. */
export function maskSeed(seed: number | string): number {
  return typeof seed === "number" ? seed : Number.parseInt(digestOf(seed).slice(0, 8), 16);
}

/** Names of baselines that are no models: `run/baseline:uniform` must mean one thing. */
const reservedNames: readonly string[] = ["uniform", "lambda"];

function checkModelNames({ models, base, graph, file }: Experiment): void {
  const ids = models.map(({ id }) => id);
  const reserved = ids.find((id) => reservedNames.includes(id));
  if (reserved !== undefined) {
    throw new MendelError("invalid-config", `models: "${reserved}" is the name of a baseline`, {
      hint: "give the model another name",
      where: { file, key: `models.${reserved}` },
    });
  }
  if (base !== undefined && !ids.includes(base)) {
    throw new MendelError("invalid-config", `base: there is no model named "${base}"`, {
      hint: suggestion(base, ids),
      where: { file, key: "base" },
    });
  }
  const experts = ids.filter((id) => id !== base);
  if (experts.length === 0 || ids.length < 2) {
    throw new MendelError(
      "invalid-config",
      `a merge needs at least two models, and ${ids.length} is given`,
      {
        where: { file, key: "models" },
      },
    );
  }
  if (graph !== undefined && !ids.includes(graph) && !existsSync(resolve(dirname(file), graph))) {
    throw new MendelError("invalid-config", `graph: "${graph}" is neither a model nor a file`, {
      hint: suggestion(graph, ids),
      where: { file, key: "graph" },
    });
  }
}

/** The ONNX graph that runs the candidates: as named, else the base's, else that of the first model that has one. */
function graphOf(experiment: Experiment, models: OpenModels): string {
  const { graph, base, file } = experiment;
  const named = graph !== undefined && models.readers.has(graph) ? graph : undefined;
  if (graph !== undefined && named === undefined) return resolve(dirname(file), graph);
  const order =
    named !== undefined
      ? [named]
      : [...(base === undefined ? [] : [base]), ...models.readers.keys()];
  const onnx = order.find((id) => models.require(id).format === "onnx");
  if (onnx !== undefined) return onnx;
  for (const id of order) {
    const beside = join(models.require(id).path, "model.onnx");
    if (models.require(id).format === "hf" && existsSync(beside)) return beside;
  }
  throw new MendelError(
    "invalid-config",
    "no ONNX graph to run the candidates: none of the models is ONNX",
    {
      hint: "export one of the models to ONNX and name it: graph: path/to/model.onnx",
      where: { file, key: "graph" },
    },
  );
}

/** Number of repeated blocks of the graph. @throws MendelError `unsupported` when there are none */
function blocksOf(graph: string, models: OpenModels): number {
  const own = models.readers.has(graph) ? models.require(graph) : undefined;
  const reader = own?.format === "onnx" ? (own as OnnxReader) : openOnnx(graph);
  try {
    return findBlocks(weightedGraph(reader)).blocks.length;
  } finally {
    if (reader !== own) reader.close();
  }
}

function loadExperimentEvaluator({ name, source }: ExperimentEvaluator): EvaluatorDefinition {
  return source.kind === "file"
    ? loadEvaluator(source.path, name)
    : parseEvaluator(source.value, name, source.folder);
}

function checkUnique(evaluators: readonly EvaluatorDefinition[], { file }: Experiment): void {
  const seen = new Set<string>();
  for (const { name } of evaluators) {
    if (seen.has(name)) {
      throw new MendelError("invalid-config", `evaluate: "${name}" is listed twice`, {
        hint: "give one of them another name: { name: other, evaluator: … }",
        where: { file, key: "evaluate" },
      });
    }
    seen.add(name);
  }
}

function objectiveOf(
  experiment: Experiment,
  evaluators: readonly EvaluatorDefinition[],
): Objective {
  const { objective: kind, file } = experiment;
  const terms = evaluators.map((evaluator, i) => ({
    evaluator: evaluator.name,
    weight: experiment.evaluators[i]?.weight ?? 1,
    fitness: evaluator.fitness,
    direction: Object.fromEntries(
      Object.entries(evaluator.direction).map(
        ([metric, better]) => [metric, better === "higher" ? 1 : -1] as const,
      ),
    ),
  }));
  const losses = terms.filter((term) =>
    term.fitness.some(({ metric }) => term.direction[metric] === -1),
  );
  if (kind === "product" && losses.length > 0) {
    throw new MendelError(
      "invalid-config",
      `objective: a product needs fitness that is better when larger; ${losses[0]?.evaluator} uses a loss`,
      {
        hint: "use mean or worst, or an accuracy-like fitness",
        where: { file, key: "objective" },
      },
    );
  }
  const metrics = new Map(evaluators.map((evaluator) => [evaluator.name, evaluator.metrics]));
  const constraints = experiment.constraints.map((text) => parseConstraint(text, metrics, file));
  return { kind, terms, constraints };
}

/** What spaces need to know of the merge methods, as plain data. */
export function methodFacts(): MethodFacts[] {
  return Object.values(mergeMethods).map(({ name, base, inputs, parameters }) => ({
    name,
    base,
    inputs,
    parameters,
  }));
}

function evaluationPlanOf(
  experiment: Experiment,
  definition: SpaceDefinition,
  graph: string,
  evaluators: readonly EvaluatorDefinition[],
): EvaluationPlan {
  return {
    models: Object.fromEntries(
      experiment.models.map(({ id, path, base }) => [
        id,
        base === undefined ? { path } : { path, base },
      ]),
    ),
    graph,
    ...(experiment.base === undefined ? {} : { base: experiment.base }),
    evaluators,
    freeze: definition.freeze,
    ...(definition.layers === undefined ? {} : { program: "path" as const }),
    ...(experiment.compat === undefined ? {} : { compat: experiment.compat }),
  };
}
