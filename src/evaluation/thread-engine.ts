import { MendelError } from "../base/errors.ts";
import { suggestion } from "../base/suggest.ts";
import type { FeedKind } from "../graph/weight-feed.ts";
import { inputFeedProblems } from "../graph/weight-feed.ts";
import type { MergeInputs } from "../merge/plan.ts";
import type { Recipe } from "../recipes/recipe.ts";
import { openBasisProgram } from "./basis-program.ts";
import { stackProblem } from "./basis-stack.ts";
import { EvaluationEngine, secondsPerCandidate } from "./evaluation-engine.ts";
import type { ProgramChoice } from "./executor.ts";
import { openGraph, type PlanGraph, type SharedSetup } from "./host-setup.ts";
import { openPathProgram } from "./path-program.ts";
import type { EvaluationPlan } from "./plan.ts";
import type { Program } from "./program.ts";
import { chooseProgram } from "./program-choice.ts";
import { weightSourceOf } from "./shared-weights.ts";
import { graphNames, openSlabProgram } from "./slab-program.ts";
import { createSplitLoader } from "./split-data.ts";

/**
 * An engine for one thread: its own program over the shared weights.
 *
 * @throws MendelError when graph, models and evaluators do not fit together
 */
export async function openThreadEngine(
  plan: EvaluationPlan,
  shared: SharedSetup,
  choice: ProgramChoice,
): Promise<EvaluationEngine> {
  const open = programOpener(plan, shared);
  const program = await open[choice.program](choice.feed);
  const engine = engineFor(plan, shared, open, program, choice.feed);
  await engine.prepare("search");
  return engine;
}

/** The program alone, without evaluators around it: for measurements. */
export function openProgram(
  plan: EvaluationPlan,
  shared: SharedSetup,
  { program, feed }: ProgramChoice,
): Promise<Program> {
  return programOpener(plan, shared)[program](feed);
}

/** Measures the programs and feeds that graph and samples allow. */
export async function probePlan(
  plan: EvaluationPlan,
  shared: SharedSetup,
): Promise<ProgramChoice["probe"]> {
  const open = programOpener(plan, shared);
  const samples = samplesOf(plan, shared.inputs);
  const measure = async (opening: Promise<Program>, feed: FeedKind): Promise<number> => {
    const program = await opening;
    const engine = engineFor(plan, shared, open, program, feed);
    try {
      return await secondsPerCandidate(program, engine, spread(samples, MAX_PROBED));
    } finally {
      await engine.release();
    }
  };
  const inputs = open.inputsPossible() ? await measure(open.slab("inputs"), "inputs") : undefined;
  const session = await measure(open.slab("session"), "session");
  const slab = { ...(inputs === undefined ? {} : { inputs }), session };
  if (plan.program === "slab") return { ...slab, noBasis: "the experiment asks for slabs" };
  if (plan.program === "path") return { ...slab, noBasis: "candidates are walks through blocks" };
  const noBasis = open.basisProblem();
  if (noBasis !== undefined) return { ...slab, noBasis };
  const feed = chooseProgram(slab).feed;
  try {
    return { ...slab, basis: await measure(open.basis(feed), feed) };
  } catch (thrown) {
    // No room for the stack: a reason to go without, not to stop.
    if (thrown instanceof MendelError && thrown.code === "resource") {
      return { ...slab, noBasis: thrown.message };
    }
    throw thrown;
  }
}

/** Structural choices can make many samples; a few of them tell what a candidate costs. */
const MAX_PROBED = 4;

function spread<T>(all: readonly T[], most: number): readonly T[] {
  const step = Math.max(1, all.length / most);
  return Array.from({ length: Math.min(most, all.length) }, (_, i) => all[Math.floor(i * step)]!);
}

interface ProgramOpener {
  slab(feed: FeedKind, inputs?: MergeInputs): Promise<Program>;
  /** @param feed of the slab that serves what is no sum over the stack */
  basis(feed: FeedKind): Promise<Program>;
  /** @param feed of the slab that serves what is no walk through blocks */
  path(feed: FeedKind): Promise<Program>;
  inputsPossible(): boolean;
  basisProblem(): string | undefined;
}

function programOpener(plan: EvaluationPlan, shared: SharedSetup): ProgramOpener {
  const source = weightSourceOf(shared.weights);
  const { inputs } = shared;
  const withGraph = async <T>(use: (graph: PlanGraph) => T | Promise<T>): Promise<T> => {
    const graph = openGraph(plan);
    try {
      return await use(graph);
    } finally {
      graph.reader.close();
    }
  };
  const slab: ProgramOpener["slab"] = (feed, own = inputs) =>
    withGraph(({ reader, modelId }) =>
      openSlabProgram({ graph: reader, graphId: modelId, inputs: own, source, feed }),
    );
  const samples = samplesOf(plan, inputs);
  return {
    slab,
    basis: (feed) =>
      withGraph(({ reader, modelId }) =>
        openBasisProgram({
          graph: reader,
          inputs,
          source,
          sourceDigest: shared.digest,
          names: graphNames({ graph: reader, graphId: modelId, inputs }),
          samples,
          fallback: () => slab(feed),
        }),
      ),
    path: (feed) => {
      const { reader, modelId } = openGraph(plan);
      return openPathProgram({
        graph: reader,
        inputs,
        source,
        names: graphNames({ graph: reader, graphId: modelId, inputs }),
        owner: plan.base ?? Object.keys(plan.models)[0]!,
        fallback: () => slab(feed),
      });
    },
    inputsPossible() {
      const { reader } = openGraph(plan);
      try {
        const names = inputs.tensors
          .map((tensor) => tensor.name)
          .filter((name) => reader.find(name));
        return inputFeedProblems(reader, names).length === 0;
      } finally {
        reader.close();
      }
    },
    basisProblem() {
      const { reader, modelId } = openGraph(plan);
      try {
        const names = graphNames({ graph: reader, graphId: modelId, inputs });
        return stackProblem({ graph: reader, inputs, names, samples });
      } finally {
        reader.close();
      }
    },
  };
}

/** The plan's samples, or without any the mean of all models (of the first one, where they have different tensors). */
function samplesOf(plan: EvaluationPlan, inputs: MergeInputs): readonly Recipe[] {
  if (plan.samples !== undefined && plan.samples.length > 0) return plan.samples;
  const models = Object.keys(plan.models);
  const shared = inputs.tensors.every(
    ({ action, sources }) => action === "copy" || models.every((model) => sources.has(model)),
  );
  return [meanOf(shared ? models : models.slice(0, 1))];
}

function engineFor(
  plan: EvaluationPlan,
  shared: SharedSetup,
  open: ProgramOpener,
  program: Program,
  feed: FeedKind,
): EvaluationEngine {
  return new EvaluationEngine({
    evaluators: plan.evaluators,
    program,
    data: createSplitLoader(),
    async openTeacher(model) {
      if (!Object.hasOwn(plan.models, model)) {
        throw new MendelError("invalid-config", `no model "${model}" that could be the teacher`, {
          hint: suggestion(model, Object.keys(plan.models)),
        });
      }
      const teacher = await open.slab(feed, wholly(model, shared.inputs));
      await teacher.load(meanOf([model]));
      return teacher;
    },
  });
}

/** The same tensors with one model as the donor of all that it has: what is frozen for candidates is not for a teacher. */
function wholly(model: string, inputs: MergeInputs): MergeInputs {
  return {
    ...inputs,
    tensors: inputs.tensors.map((tensor) =>
      tensor.sources.has(model) ? { ...tensor, copyFrom: model } : tensor,
    ),
  };
}

/** Equal shares; one model alone comes back bit for bit. */
function meanOf(models: readonly string[]): Recipe {
  return {
    mergeMethod: "linear",
    body: {
      kind: "models",
      models: models.map((model) => ({ model: { model }, parameters: { weight: 1 } })),
    },
    parameters: {},
    seed: 0,
    freeze: [],
    passthrough: {},
  };
}
