import { MendelError } from "../base/errors.ts";
import { suggestion } from "../base/suggest.ts";
import type { FeedKind } from "../graph/weight-feed.ts";
import { inputFeedProblems } from "../graph/weight-feed.ts";
import type { MergeInputs } from "../merge/plan.ts";
import type { Recipe } from "../recipes/recipe.ts";
import { EvaluationEngine, probeFeeds } from "./evaluation-engine.ts";
import type { ProgramChoice } from "./executor.ts";
import { openGraph, type SharedSetup } from "./host-setup.ts";
import type { EvaluationPlan } from "./plan.ts";
import type { Program } from "./program.ts";
import { weightSourceOf } from "./shared-weights.ts";
import { openSlabProgram } from "./slab-program.ts";
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
  const engine = engineFor(plan, shared, open, await open(choice.feed), choice.feed);
  await engine.prepare("search");
  return engine;
}

/** Measures the feeds that the graph allows, with the first model's own weights. */
export function probePlan(
  plan: EvaluationPlan,
  shared: SharedSetup,
): Promise<ProgramChoice["probe"]> {
  const open = programOpener(plan, shared);
  const sample = singleModel(Object.keys(plan.models)[0]!);
  const { reader } = openGraph(plan);
  const names = shared.inputs.tensors
    .map((tensor) => tensor.name)
    .filter((name) => reader.find(name));
  const inputsPossible = inputFeedProblems(reader, names).length === 0;
  reader.close();
  return probeFeeds(
    (feed) => (feed === "inputs" && !inputsPossible ? Promise.resolve(undefined) : open(feed)),
    (program, feed) => engineFor(plan, shared, open, program, feed),
    (program) => program.load(sample),
  );
}

type ProgramOpener = (feed: FeedKind, inputs?: MergeInputs) => Promise<Program>;

function programOpener(plan: EvaluationPlan, shared: SharedSetup): ProgramOpener {
  const source = weightSourceOf(shared.weights);
  return async (feed, inputs = shared.inputs) => {
    const { reader, modelId } = openGraph(plan);
    try {
      return await openSlabProgram({
        graph: reader,
        graphId: modelId,
        inputs,
        source,
        feed,
      });
    } finally {
      reader.close();
    }
  };
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
      const teacher = await open(feed, wholly(model, shared.inputs));
      await teacher.load(singleModel(model));
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

/** The recipe that gives one model back bit for bit. */
function singleModel(model: string): Recipe {
  return {
    mergeMethod: "linear",
    body: { kind: "models", models: [{ model: { model }, parameters: { weight: 1 } }] },
    parameters: {},
    seed: 0,
    freeze: [],
    passthrough: {},
  };
}
