import { existsSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { MendelError } from "../base/errors.ts";
import { digestOf, sha256OfFile } from "../base/hash.ts";
import type { Json } from "../base/json.ts";
import { suggestion } from "../base/suggest.ts";
import {
  type EvaluatorDefinition,
  loadEvaluator,
  parseEvaluator,
} from "../evaluation/evaluator-schema.ts";
import type { Executor, ProgramChoice } from "../evaluation/executor.ts";
import { itemFitnessOf } from "../evaluation/item-fitness.ts";
import type { EvaluationPlan } from "../evaluation/plan.ts";
import { createPoolExecutor } from "../evaluation/pool-executor.ts";
import { compileRecipe } from "../merge/compile.ts";
import { mergeMethods } from "../merge/index.ts";
import { type MatchReport, matchModels } from "../merge/matching.ts";
import { kernelBytesFor, weightsDigest } from "../merge/materialize.ts";
import { createOptimizer } from "../optimizers/index.ts";
import type { OptimizerProblem, SegmentGeometry } from "../optimizers/optimizer.ts";
import type { Recipe } from "../recipes/recipe.ts";
import { buildSpace } from "../spaces/build-space.ts";
import { loadSpaceDefinition, type SpaceDefinition } from "../spaces/schema.ts";
import type { MethodFacts, Space } from "../spaces/space.ts";
import type { InputFile, MetricDefinition } from "../store/rows.ts";
import type { ModelReader } from "../tensors/model-reader.ts";
import { elementCount } from "../tensors/shape.ts";
import { createKernels } from "../tensors/wasm-kernels.ts";
import { type Baseline, baselinesOf } from "./baselines.ts";
import { parseConstraint } from "./constraints.ts";
import type { Experiment, ExperimentEvaluator } from "./experiment.ts";
import { floatLoader } from "./float-loader.ts";
import type { Objective } from "./objectives.ts";
import { OpenModels } from "./open-models.ts";
import { segmentGeometry } from "./segment-geometry.ts";

/** Digests that go into evaluation keys: equal digests promise equal scores. */
export interface ScoreDigests {
  readonly models: string;
  /** By evaluator: its definition and the contents of its data. */
  readonly evaluators: Readonly<Record<string, string>>;
  /** How candidates are run; empty until an executor has chosen. */
  readonly program: string;
}

/** An experiment with everything opened, matched and checked: what a search works with. */
export interface PreparedExperiment {
  readonly experiment: Experiment;
  readonly models: OpenModels;
  readonly match: MatchReport;
  readonly space: Space;
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

/** What can be known from headers alone. */
export interface InspectedExperiment {
  readonly experiment: Experiment;
  readonly models: OpenModels;
  readonly definition: SpaceDefinition;
  readonly match: MatchReport;
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
      freeze: definition.freeze,
    });
    const space = buildSpace(definition, {
      models: experiment.models.map(({ id }) => id),
      base,
      tensors: match.plan.tensors.filter(({ action }) => action === "merge").map(({ name }) => name),
      methods: methodFacts(),
      seed: maskSeed(experiment.seed),
    });
    checkOptimizer(experiment, space, objective);
    const plan = evaluationPlanOf(experiment, definition, graph, evaluators);
    return { experiment, models, definition, match, space, evaluators, plan, objective };
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
    initial: space.initial.map(({ genome }) => genome),
    objectives: objective.kind === "pareto" ? objective.terms.length : 1,
    ...(space.genome === "segments" ? { segments: standInGeometry(space.initial.length) } : {}),
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
function maskSeed(seed: number | string): number {
  return typeof seed === "number" ? seed : Number.parseInt(digestOf(seed).slice(0, 8), 16);
}

function checkModelNames({ models, base, graph, file }: Experiment): void {
  const ids = models.map(({ id }) => id);
  if (base !== undefined && !ids.includes(base)) {
    throw new MendelError("invalid-config", `base: there is no model named "${base}"`, {
      hint: suggestion(base, ids),
      where: { file, key: "base" },
    });
  }
  const experts = ids.filter((id) => id !== base);
  if (experts.length === 0 || ids.length < 2) {
    throw new MendelError("invalid-config", `a merge needs at least two models, and ${ids.length} is given`, {
      where: { file, key: "models" },
    });
  }
  if (graph !== undefined && !ids.includes(graph) && !existsSync(join(dirname(file), graph))) {
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
  if (graph !== undefined && named === undefined) return join(dirname(file), graph);
  const order = named !== undefined ? [named] : [...(base === undefined ? [] : [base]), ...models.readers.keys()];
  const onnx = order.find((id) => models.require(id).format === "onnx");
  if (onnx !== undefined) return onnx;
  for (const id of order) {
    const beside = join(models.require(id).path, "model.onnx");
    if (models.require(id).format === "hf" && existsSync(beside)) return beside;
  }
  throw new MendelError("invalid-config", "no ONNX graph to run the candidates: none of the models is ONNX", {
    hint: "export one of the models to ONNX and name it: graph: path/to/model.onnx",
    where: { file, key: "graph" },
  });
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

function objectiveOf(experiment: Experiment, evaluators: readonly EvaluatorDefinition[]): Objective {
  const { objective: kind, file } = experiment;
  const terms = evaluators.map((evaluator, i) => ({
    evaluator: evaluator.name,
    weight: experiment.evaluators[i]?.weight ?? 1,
    fitness: evaluator.fitness,
    direction: Object.fromEntries(
      Object.entries(evaluator.direction).map(([metric, better]) => [metric, better === "higher" ? 1 : -1] as const),
    ),
  }));
  const losses = terms.filter((term) => term.fitness.some(({ metric }) => term.direction[metric] === -1));
  if (kind === "product" && losses.length > 0) {
    throw new MendelError("invalid-config", `objective: a product needs fitness that is better when larger; ${losses[0]?.evaluator} uses a loss`, {
      hint: "use mean or worst, or an accuracy-like fitness",
      where: { file, key: "objective" },
    });
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
      experiment.models.map(({ id, path, base }) => [id, base === undefined ? { path } : { path, base }]),
    ),
    graph,
    ...(experiment.base === undefined ? {} : { base: experiment.base }),
    evaluators,
    freeze: definition.freeze,
    ...(experiment.compat === undefined ? {} : { compat: experiment.compat }),
  };
}

/**
 * Everything a search needs: the inspected experiment, digests of all inputs, and for piecewise genomes the models' Gram
 * matrices. Reads every file once.
 *
 * @throws MendelError as `inspectExperiment`; `mismatch` for a pinned digest that does not hold
 */
export async function prepareExperiment(experiment: Experiment): Promise<PreparedExperiment> {
  const inspected = inspectExperiment(experiment);
  const { models, match, space, evaluators, plan, objective } = inspected;
  try {
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
      evaluators,
      plan: { ...plan, identities },
      objective,
      objectiveNames:
        objective.kind === "pareto" ? evaluators.map(({ name }) => name) : [objective.kind],
      metrics: evaluators.flatMap(({ name, metrics, direction }) =>
        metrics.map((metric): MetricDefinition => ({
          evaluator: name,
          metric,
          direction: direction[metric] === "lower" ? -1 : 1,
        })),
      ),
      orientItem: itemOrientation(evaluators),
      baselines: baselinesOf(experiment.models.map(({ id }) => id), experiment.base, {
        seed: maskSeed(experiment.seed),
        freeze: inspected.definition.freeze,
        ...(experiment.compat === undefined ? {} : { compat: experiment.compat }),
      }),
      optimizer: experiment.optimizer,
      problem: problemOf(inspected),
      inputs,
      digests: scoreDigests(inspected, inputs),
      resolved: resolvedOf(inspected),
    };
  } catch (thrown) {
    models.close();
    throw thrown;
  }
}

function itemOrientation(evaluators: readonly EvaluatorDefinition[]): PreparedExperiment["orientItem"] {
  const turns = new Map<string, (score: number) => number>();
  for (const evaluator of evaluators) {
    for (const metric of evaluator.metrics) {
      turns.set(`${evaluator.name} ${metric}`, itemFitnessOf(evaluator, metric));
    }
  }
  return (evaluator, metric, score) => turns.get(`${evaluator} ${metric}`)?.(score) ?? score;
}

function problemOf({ experiment, models, match, space, objective }: InspectedExperiment): OptimizerProblem {
  const { evaluations } = experiment.budget;
  const experts = experiment.models.map(({ id }) => id).filter((id) => id !== experiment.base);
  const merged = match.plan.tensors.filter(({ action }) => action === "merge");
  const load = floatLoader(models);
  return {
    seed: maskSeed(experiment.seed),
    axes: space.axes,
    start: space.start,
    initial: space.initial.map(({ genome }) => genome),
    objectives: objective.kind === "pareto" ? objective.terms.length : 1,
    ...(evaluations === undefined ? {} : { budget: evaluations }),
    ...(space.genome !== "segments"
      ? {}
      : {
          segments: segmentGeometry({
            models: experts,
            tensors: merged.map(({ name, shape }) => ({ name, length: elementCount(shape) })),
            load: (model, tensor, start, out) => {
              const source = merged.find(({ name }) => name === tensor)?.sources.get(model);
              load(model, source?.name ?? tensor, start, out);
            },
          }),
        }),
  };
}

/** Digests of the model files, the graph and the data, by role. */
async function hashInputs({ experiment, models, evaluators, plan }: InspectedExperiment): Promise<InputFile[]> {
  const files: { role: string; path: string }[] = [];
  for (const { id } of experiment.models) {
    modelFiles(models.require(id)).forEach((path, i) => files.push({ role: `model:${id}:${i}`, path }));
  }
  if (!models.readers.has(plan.graph)) files.push({ role: "graph", path: plan.graph });
  for (const evaluator of evaluators) {
    for (const [part, path] of evaluatorFiles(evaluator)) {
      files.push({ role: `evaluator:${evaluator.name}:${part}`, path });
    }
  }
  const known = new Map<string, string>();
  const inputs: InputFile[] = [];
  for (const { role, path } of files) {
    const sha256 = known.get(path) ?? (await sha256OfFile(path));
    known.set(path, sha256);
    inputs.push({ role, path, sha256, bytes: statSync(path).size });
  }
  return inputs;
}

function modelFiles(reader: ModelReader): readonly string[] {
  return reader.files;
}

/** Files whose contents decide an evaluator's scores. */
function evaluatorFiles(evaluator: EvaluatorDefinition): [string, string][] {
  const { data, tokenizer, module, teacher } = evaluator;
  return [
    ...(data.kind === "files"
      ? (Object.entries(data.files) as [string, string][])
      : [["data", data.file] as [string, string]]),
    ...(tokenizer === undefined ? [] : [["tokenizer", tokenizer] as [string, string]]),
    ...(module === undefined ? [] : [["module", module] as [string, string]]),
    ...(teacher?.kind === "file" ? [["teacher", teacher.at] as [string, string]] : []),
  ];
}

function modelDigest(inputs: readonly InputFile[], id: string): string {
  return digestOf(inputs.filter(({ role }) => role.startsWith(`model:${id}:`)).map(({ sha256 }) => sha256));
}

function checkPins(experiment: Experiment, inputs: readonly InputFile[]): void {
  for (const { id, path, sha256 } of experiment.models) {
    if (sha256 === undefined) continue;
    const digests = inputs.filter(({ role }) => role.startsWith(`model:${id}:`)).map((file) => file.sha256);
    if (digests.includes(sha256)) continue;
    throw new MendelError("mismatch", `model ${id} is pinned to sha256 ${sha256}, but ${path} has ${digests.join(", ")}`, {
      hint: "the file is not the one the experiment was written for",
      where: { file: path },
    });
  }
}

function scoreDigests({ experiment, evaluators }: InspectedExperiment, inputs: readonly InputFile[]): ScoreDigests {
  const models = experiment.models.map(({ id }) => [id, modelDigest(inputs, id)]);
  const graph = inputs.filter(({ role }) => role === "graph").map(({ sha256 }) => sha256);
  return {
    models: digestOf([models, graph, experiment.graph ?? null]),
    evaluators: Object.fromEntries(
      evaluators.map((evaluator) => {
        const { title: _title, data: _data, tokenizer: _tokenizer, module: _module, ...rules } = evaluator;
        const contents = inputs
          .filter(({ role }) => role.startsWith(`evaluator:${evaluator.name}:`))
          .map(({ role, sha256 }) => [role, sha256]);
        return [evaluator.name, digestOf([rules, contents])];
      }),
    ),
    program: "",
  };
}

function resolvedOf({ experiment, definition, evaluators, plan }: InspectedExperiment): Json {
  const { given: _given, ...rest } = experiment;
  const space = { ...definition, genes: Object.fromEntries(definition.genes) };
  return JSON.parse(JSON.stringify({ ...rest, graph: plan.graph, space, evaluators })) as Json;
}

/** The same experiment, with the way candidates are run in its evaluation keys. */
export function withProgram(prepared: PreparedExperiment, choice: ProgramChoice): PreparedExperiment {
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
  { experiment, plan }: PreparedExperiment,
  workers: number | "auto",
  program: ProgramChoice | undefined,
): Promise<Executor> {
  return createPoolExecutor(plan, {
    workers,
    timeoutSeconds: experiment.timeoutSeconds,
    ...(experiment.memoryBytes === undefined ? {} : { memoryBytes: experiment.memoryBytes }),
    ...(program === undefined ? {} : { program }),
  });
}

/** SHA-256 of the weights a recipe makes, the same on every machine. */
export function weightsDigestOf({ match, models, plan }: PreparedExperiment, recipe: Recipe): string {
  const identities = new Map(Object.entries(plan.identities ?? {}));
  const compiled = compileRecipe(recipe, { ...match.plan, identities });
  return weightsDigest(compiled, {
    kernels: createKernels({ bytes: kernelBytesFor(compiled) }),
    source: models,
  });
}
