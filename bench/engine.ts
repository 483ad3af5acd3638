import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { randomStream } from "../src/base/random.ts";
import { loadEvaluator } from "../src/evaluation/evaluator-schema.ts";
import type { ProgramChoice } from "../src/evaluation/executor.ts";
import { openGraph, prepareHost, type SharedSetup } from "../src/evaluation/host-setup.ts";
import { createScorer } from "../src/evaluation/item-scores.ts";
import type { EvaluationPlan } from "../src/evaluation/plan.ts";
import { type PreparedSplit, prepareSplit } from "../src/evaluation/prepared-split.ts";
import {
  createSession,
  type GraphSignature,
  type ModelSession,
} from "../src/evaluation/session.ts";
import { weightSourceOf } from "../src/evaluation/shared-weights.ts";
import { createSplitLoader } from "../src/evaluation/split-data.ts";
import { openThreadEngine } from "../src/evaluation/thread-engine.ts";
import { writeOnnx } from "../src/formats/onnx/write-onnx.ts";
import { compileRecipe } from "../src/merge/compile.ts";
import { kernelBytesFor, materializeBytes } from "../src/merge/materialize.ts";
import type { Recipe } from "../src/recipes/recipe.ts";
import { dtypeBytes } from "../src/tensors/dtype.ts";
import { createKernels } from "../src/tensors/wasm-kernels.ts";

/**
 * What one candidate costs beyond inference: its weights and its scores on the search items of all tasks of a family, in one
 * thread, against the bare inference of the same items with fixed weights, and against the naive way (write the merged model
 * to a file, load it, run and score it, delete it).
 *
 * usage: node scripts/bench.mjs engine [--seconds 3] [--family digits]
 */

interface Family {
  readonly name: string;
  readonly experts: readonly string[];
  /** Model → its place under the family's folder. */
  place(model: string): string;
  readonly evaluators: string;
}

const families: readonly Family[] = [
  {
    name: "digits",
    experts: ["rotate", "invert", "mirror", "flipfade"],
    place: (model) => `models/${model}`,
    evaluators: "digits",
  },
  {
    name: "digits-cnn",
    experts: ["rotate", "invert", "mirror"],
    place: (model) => `models/${model}`,
    evaluators: "digits-cnn",
  },
  {
    name: "tinylm",
    experts: ["scripture", "python", "math", "names"],
    place: (model) => `models/${model}`,
    evaluators: "tinylm",
  },
];

interface Measured {
  readonly family: string;
  readonly items: number;
  /** Milliseconds, medians. */
  readonly inference: number;
  readonly inputs: number;
  readonly session: number;
  readonly naive: number;
  /** Multiples of the bare inference. */
  readonly ratios: { readonly inputs: number; readonly session: number; readonly naive: number };
}

function option(name: string): string | undefined {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? undefined : process.argv[at + 1];
}

const MIN_CALLS = 7;
const secondsPerFigure = Number(option("seconds") ?? 3);
const only = option("family");

/** Median milliseconds of a call, after enough calls that the compiler has seen them all. */
async function median(work: () => Promise<unknown>): Promise<number> {
  const times: number[] = [];
  const begun = performance.now();
  while (times.length < MIN_CALLS || performance.now() - begun < secondsPerFigure * 1000) {
    const started = performance.now();
    await work();
    times.push(performance.now() - started);
  }
  // The first half warms up.
  const warm = times.slice(times.length >> 1).sort((x, y) => x - y);
  return warm[warm.length >> 1]!;
}

function planOf(family: Family): EvaluationPlan {
  const models = ["base", ...family.experts];
  const folder = resolve("examples", family.name);
  return {
    models: Object.fromEntries(
      models.map((model) => [model, { path: join(folder, family.place(model)) }]),
    ),
    graph: "base",
    base: "base",
    evaluators: family.experts.map((task) =>
      loadEvaluator(`evaluators/${family.evaluators}-${task}.yml`),
    ),
    freeze: [],
  };
}

/** Task arithmetic with coefficients that differ from candidate to candidate. */
function candidates(family: Family): () => Recipe {
  const stream = randomStream(0, "bench", family.name);
  return () => ({
    mergeMethod: "task_arithmetic",
    baseModel: { model: "base" },
    body: {
      kind: "models",
      models: family.experts.map((model) => ({
        model: { model },
        parameters: { weight: 0.2 + 0.2 * stream.uniform() },
      })),
    },
    parameters: {},
    seed: 0,
    freeze: [],
    passthrough: {},
  });
}

/** The search items of all evaluators, to be run through sessions that hold their weights. */
async function searchItems(plan: EvaluationPlan, signature: GraphSignature) {
  const data = createSplitLoader();
  const prepared: PreparedSplit[] = [];
  for (const definition of plan.evaluators) {
    const rows = await data.load(definition, "search");
    prepared.push(prepareSplit(definition, "search", rows, signature));
  }
  return {
    count: prepared.reduce((sum, { items }) => sum + items, 0),
    run: async (session: ModelSession): Promise<void> => {
      for (const { batches, outputs } of prepared) {
        for (const { feeds } of batches) await session.run(feeds, outputs);
      }
    },
    score: async (session: ModelSession): Promise<void> => {
      for (const split of prepared) {
        const scorer = createScorer(split, undefined);
        for (const batch of split.batches) {
          scorer.add(batch, await session.run(batch.feeds, split.outputs));
        }
        scorer.results();
      }
    },
  };
}

async function measure(family: Family): Promise<Measured> {
  const plan = planOf(family);
  const shared = await prepareHost(plan);
  const next = candidates(family);
  const graph = openGraph(plan).reader;
  const bare = await createSession(graph.path);
  const items = await searchItems(plan, bare.signature);
  const evaluators = plan.evaluators.map(({ name }) => name);
  const engines = [];
  for (const feed of ["inputs", "session"] as const) {
    const choice: ProgramChoice = { program: "slab", feed, probe: {}, runtime: {} };
    engines.push(await openThreadEngine(plan, shared, choice));
  }
  const folder = mkdtempSync(join(tmpdir(), "mendel-bench-"));
  const inference = await median(() => items.run(bare));
  const candidate: number[] = [];
  for (const engine of engines) {
    const request = { id: "bench", evaluators, split: "search" as const };
    candidate.push(
      await median(async () => {
        const result = await engine.evaluate({ ...request, recipe: next() }, () => false);
        if (result.state !== "done") throw new Error(result.message);
      }),
    );
  }
  const naive = await median(() =>
    naiveRun(plan, shared, next(), join(folder, "model.onnx"), items.score),
  );
  rmSync(folder, { recursive: true });
  for (const engine of engines) await engine.release();
  await bare.release();
  graph.close();
  const [inputs, session] = candidate as [number, number];
  return {
    family: family.name,
    items: items.count,
    inference,
    inputs,
    session,
    naive,
    ratios: {
      inputs: inputs / inference,
      session: session / inference,
      naive: naive / inference,
    },
  };
}

/** Merge, write a model file, load it, run and score it, delete it. */
async function naiveRun(
  plan: EvaluationPlan,
  { inputs, weights }: SharedSetup,
  recipe: Recipe,
  file: string,
  score: (session: ModelSession) => Promise<void>,
): Promise<void> {
  const compiled = compileRecipe(recipe, inputs);
  const kernels = createKernels({ bytes: kernelBytesFor(compiled) });
  const source = weightSourceOf(weights);
  const { reader } = openGraph(plan);
  const replace = new Map(
    compiled.tensors.map(({ name, dtype, length }, index) => {
      const make = (): Uint8Array => {
        const bytes = new Uint8Array(length * dtypeBytes[dtype]);
        materializeBytes(compiled, index, {
          kernels,
          source,
          write: (start, block) => bytes.set(block, start * dtypeBytes[dtype]),
        });
        return bytes;
      };
      let whole: Uint8Array | undefined;
      const read = (start: number, target: Uint8Array): void => {
        whole ??= make();
        const from = start * dtypeBytes[dtype];
        target.set(whole.subarray(from, from + target.length));
      };
      return [name, { dtype, read }] as const;
    }),
  );
  await writeOnnx(reader, file, replace);
  reader.close();
  const session = await createSession(file);
  await score(session);
  await session.release();
  rmSync(file);
}

const results: Measured[] = [];
for (const family of families) {
  if (only === undefined || family.name === only) results.push(await measure(family));
}
const { version } = JSON.parse(readFileSync("package.json", "utf8")) as { version: string };
console.log(
  JSON.stringify(
    { bench: "engine", version, node: process.version, secondsPerFigure, results },
    null,
    1,
  ),
);
console.table(
  results.map(({ family, items, ratios, ...times }) => ({
    family,
    items,
    ...Object.fromEntries(Object.entries(times).map(([key, ms]) => [`${key} ms`, ms.toFixed(2)])),
    ...Object.fromEntries(Object.entries(ratios).map(([key, x]) => [`${key} ×`, x.toFixed(2)])),
  })),
);
