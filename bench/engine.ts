import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir, totalmem } from "node:os";
import { join, resolve } from "node:path";
import { env } from "onnxruntime-node";
import { randomStream } from "../src/base/random.ts";
import { type EvaluatorDefinition, loadEvaluator } from "../src/evaluation/evaluator-schema.ts";
import type { ProgramChoice } from "../src/evaluation/executor.ts";
import { openGraph, prepareHost, type SharedSetup } from "../src/evaluation/host-setup.ts";
import type { EvaluationPlan } from "../src/evaluation/plan.ts";
import { createPoolExecutor } from "../src/evaluation/pool-executor.ts";
import { prepareSplit } from "../src/evaluation/prepared-split.ts";
import type { Program } from "../src/evaluation/program.ts";
import { createSession, type Feeds, type ModelSession } from "../src/evaluation/session.ts";
import { weightSourceOf } from "../src/evaluation/shared-weights.ts";
import { createSplitLoader } from "../src/evaluation/split-data.ts";
import { openProgram, openThreadEngine } from "../src/evaluation/thread-engine.ts";
import { writeOnnx } from "../src/formats/onnx/write-onnx.ts";
import { compileRecipe } from "../src/merge/compile.ts";
import { kernelBytesFor, materializeBytes } from "../src/merge/materialize.ts";
import type { Recipe } from "../src/recipes/recipe.ts";
import { dtypeBytes } from "../src/tensors/dtype.ts";
import { createKernels } from "../src/tensors/wasm-kernels.ts";
import {
  encoderShape,
  gpt2Shape,
  parameterCount,
  type StoredDtype,
  type TransformerShape,
  writeTransformer,
} from "./engine-models.ts";

/**
 * What one candidate costs beyond inference, per program: its weights and its minibatches in one thread, against the bare
 * inference of the same minibatches with weights baked into the file, and against the naive way (merge with the same kernels,
 * write the model and flush it, load it, run it, delete it); a fresh session per candidate without a file is the slab's
 * session feed. Everything is measured side by side, round by round; medians over rounds.
 *
 * usage: node scripts/bench.mjs engine [--rounds 5] [--seconds 1] [--only digits,tinylm,encoder,encoder-short,gpt2,memory,workers]
 */

/** A measured minibatch: feeds, and the outputs to compute. */
interface Minibatch {
  readonly feeds: Feeds;
  readonly outputs: readonly string[];
}

interface Family {
  readonly name: string;
  readonly items: string;
  readonly plan: EvaluationPlan;
  /** Models whose task vectors get coefficients. */
  readonly experts: readonly string[];
  readonly batches: (session: ModelSession) => Promise<readonly Minibatch[]>;
  /** The issue's ceilings and floors. */
  readonly target: { readonly ratio: number; readonly naive: number };
  readonly naive: boolean;
}

interface Row {
  readonly family: string;
  readonly items: string;
  readonly parameters: number;
  readonly models: number;
  /** Milliseconds per pass over all items, medians over rounds. */
  readonly milliseconds: Readonly<Record<string, number>>;
  /** Medians over rounds of candidate ÷ bare inference. */
  readonly ratios: Readonly<Record<string, number>>;
  readonly naiveOverBasis: number | undefined;
  readonly target: Family["target"];
}

const rounds = Number(option("rounds") ?? 5);
const secondsPerFigure = Number(option("seconds") ?? 1);
const only = option("only")?.split(",");
const folder = mkdtempSync(join(option("folder") ?? tmpdir(), "mendel-bench-"));
process.env["MENDEL_CACHE"] = join(folder, "cache");

function option(name: string): string | undefined {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? undefined : process.argv[at + 1];
}

function wanted(name: string): boolean {
  return only === undefined || only.includes(name);
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1]!;
}

const choiceOf = (
  program: "slab" | "basis",
  feed: ProgramChoice["feed"] = "inputs",
): ProgramChoice => ({ program, feed, probe: {}, runtime: {} });

function examplePlan(
  example: string,
  experts: readonly string[],
  evaluators: readonly EvaluatorDefinition[],
): EvaluationPlan {
  const at = (model: string): string => resolve("examples", example, "models", model);
  return {
    models: Object.fromEntries(["base", ...experts].map((model) => [model, { path: at(model) }])),
    graph: join(at("base"), "model.onnx"),
    base: "base",
    evaluators,
    freeze: [],
  };
}

/** Minibatches of one split of an evaluator. */
function evaluatorBatches(definition: EvaluatorDefinition, split: "search" | "test") {
  return async ({ signature }: ModelSession): Promise<readonly Minibatch[]> => {
    const rows = await createSplitLoader().load(definition, split);
    const prepared = prepareSplit(definition, split, rows, signature);
    return prepared.batches.map(({ feeds }) => ({ feeds, outputs: prepared.outputs }));
  };
}

function digits(batch: number): Family {
  const experts = ["rotate", "invert", "mirror", "flipfade"];
  const evaluator = { ...loadEvaluator("evaluators/digits-rotate.yml"), limit: 400, batch };
  return {
    name: "digits",
    items: `400 images, minibatches of ${batch}`,
    plan: examplePlan("digits", experts, [evaluator]),
    experts,
    batches: evaluatorBatches(evaluator, "test"),
    target: { ratio: 1.5, naive: 5 },
    naive: true,
  };
}

function tinylm(): Family {
  const experts = ["scripture", "python", "math", "names"];
  const evaluator = { ...loadEvaluator("evaluators/tinylm-scripture.yml"), limit: 64 };
  return {
    name: "tinylm",
    items: `64 texts, minibatches of ${evaluator.batch}`,
    plan: examplePlan("tinylm", experts, [evaluator]),
    experts,
    batches: evaluatorBatches(evaluator, "search"),
    target: { ratio: 1.05, naive: 3 },
    naive: true,
  };
}

interface Generated {
  readonly name: string;
  readonly shape: TransformerShape;
  readonly models: number;
  readonly dtype: StoredDtype;
}

function generate({ name, shape, models, dtype }: Generated): EvaluationPlan {
  const files = writeTransformer(join(folder, name), shape, models, dtype);
  return {
    models: Object.fromEntries(files.models.map((path, k) => [`m${k}`, { path }])),
    graph: files.graph,
    base: "m0",
    evaluators: [],
    freeze: [],
  };
}

function transformer(
  name: string,
  plan: EvaluationPlan,
  shape: TransformerShape,
  items: number,
  tokens: number,
  target: Family["target"],
): Family {
  const stream = randomStream(0, "bench", "tokens");
  const data = BigInt64Array.from({ length: items * tokens }, () =>
    BigInt(stream.integer(shape.vocabulary)),
  );
  const feeds: Feeds = { input_ids: { type: "int64", dims: [items, tokens], data } };
  return {
    name,
    items: `${items} × ${tokens} tokens`,
    plan,
    experts: Object.keys(plan.models).slice(1),
    batches: ({ signature }) => Promise.resolve([{ feeds, outputs: [signature.outputs[0]!.name] }]),
    target,
    naive: true,
  };
}

/** Task arithmetic with coefficients that differ from candidate to candidate. */
function candidates(family: Family): () => Recipe {
  const stream = randomStream(0, "bench", family.name);
  return () => ({
    mergeMethod: "task_arithmetic",
    baseModel: { model: "base" in family.plan.models ? "base" : "m0" },
    body: {
      kind: "models",
      models: family.experts.map((model) => ({
        model: { model },
        parameters: { weight: (0.8 + 0.4 * stream.uniform()) / family.experts.length },
      })),
    },
    parameters: {},
    seed: 0,
    freeze: [],
    passthrough: {},
  });
}

/** Average milliseconds of a call over the given time, at least once. */
async function average(work: () => Promise<unknown>, seconds: number): Promise<number> {
  const begun = performance.now();
  let calls = 0;
  while (calls === 0 || performance.now() - begun < seconds * 1000) {
    await work();
    calls += 1;
  }
  return (performance.now() - begun) / calls;
}

async function measure(family: Family): Promise<Row> {
  const shared = await prepareHost(family.plan);
  const next = candidates(family);
  const path = join(folder, `${family.name}-baked.onnx`);
  await writeMerged(family.plan, shared, next(), path);
  const bare = await createSession(path);
  const batches = await family.batches(bare);
  const runBare = async (session: Pick<ModelSession, "run">): Promise<void> => {
    for (const { feeds, outputs } of batches) await session.run(feeds, outputs);
  };
  const runProgram = async (program: Program): Promise<void> => {
    await program.load(next());
    for (const { feeds, outputs } of batches) await program.run(feeds, outputs);
  };
  const programs = {
    basis: await openProgram(family.plan, shared, choiceOf("basis")),
    "slab, inputs": await openProgram(family.plan, shared, choiceOf("slab", "inputs")),
    "slab, session": await openProgram(family.plan, shared, choiceOf("slab", "session")),
  };
  const ways: Record<string, () => Promise<void>> = {
    bare: () => runBare(bare),
    ...Object.fromEntries(
      Object.entries(programs).map(([name, program]) => [name, () => runProgram(program)]),
    ),
  };
  if (family.naive) ways["naive"] = () => naiveRun(family.plan, shared, next(), runBare);
  const times = new Map(Object.keys(ways).map((name) => [name, [] as number[]]));
  for (const work of Object.values(ways)) await average(work, secondsPerFigure / 4);
  for (let round = 0; round < rounds; round++) {
    for (const [name, work] of Object.entries(ways)) {
      times.get(name)!.push(await average(work, secondsPerFigure));
    }
  }
  for (const program of Object.values(programs)) await program.release();
  await bare.release();
  rmSync(path);
  const bareTimes = times.get("bare")!;
  const naiveTimes = times.get("naive");
  const basisTimes = times.get("basis")!;
  const elements = shared.inputs.tensors.reduce(
    (sum, { shape }) => sum + shape.reduce((total, dim) => total * dim, 1),
    0,
  );
  return {
    family: family.name,
    items: family.items,
    parameters: elements,
    models: family.experts.length + 1,
    milliseconds: Object.fromEntries([...times].map(([name, ms]) => [name, median(ms)])),
    ratios: Object.fromEntries(
      [...times].map(([name, ms]) => [name, median(ms.map((one, i) => one / bareTimes[i]!))]),
    ),
    naiveOverBasis: naiveTimes && median(naiveTimes.map((one, i) => one / basisTimes[i]!)),
    target: family.target,
  };
}

/** Writes the model that a recipe makes: the graph with merged weights. */
async function writeMerged(
  plan: EvaluationPlan,
  { inputs, weights }: SharedSetup,
  recipe: Recipe,
  file: string,
): Promise<void> {
  const compiled = compileRecipe({ ...recipe, outDtype: "float32" }, inputs);
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
        if (from + target.length === whole.length) whole = undefined;
      };
      return [name, { dtype, read }] as const;
    }),
  );
  await writeOnnx(reader, file, replace);
  reader.close();
}

async function naiveRun(
  plan: EvaluationPlan,
  shared: SharedSetup,
  recipe: Recipe,
  run: (session: ModelSession) => Promise<void>,
): Promise<void> {
  const file = join(folder, "naive.onnx");
  await writeMerged(plan, shared, recipe, file);
  const session = await createSession(file);
  await run(session);
  await session.release();
  rmSync(file);
}

/** Bytes of this process that no other process or file shares. */
function privateBytes(): number {
  const rollup = readFileSync("/proc/self/smaps_rollup", "utf8");
  return 1024 * Number(/^Anonymous:\s+(\d+)/m.exec(rollup)?.[1]);
}

/** What another worker's session adds, after a candidate has gone through it. */
async function workerMemory(family: Family) {
  const shared = await prepareHost(family.plan);
  const next = candidates(family);
  const candidate = async (): Promise<Program> => {
    const program = await openProgram(family.plan, shared, choiceOf("basis"));
    for (const { feeds, outputs } of await family.batches(program as Program & ModelSession)) {
      await program.load(next());
      await program.run(feeds, outputs);
    }
    return program;
  };
  const first = await candidate();
  globalThis.gc?.();
  const before = privateBytes();
  const second = await candidate();
  globalThis.gc?.();
  const bytes = privateBytes() - before;
  await first.release();
  await second.release();
  const model = 4 * parameterCount(gpt2Shape);
  return { family: family.name, privateBytes: bytes, model, share: bytes / model, target: 0.6 };
}

/** Resident memory over many candidates in one process. */
async function steadyMemory(family: Family, count: number) {
  const shared = await prepareHost(family.plan);
  const engine = await openThreadEngine(family.plan, shared, choiceOf("basis"));
  const next = candidates(family);
  const evaluators = family.plan.evaluators.map(({ name }) => name);
  let early = 0;
  let late = 0;
  for (let i = 1; i <= count; i++) {
    const request = { id: String(i), recipe: next(), evaluators, split: "search" as const };
    const result = await engine.evaluate(request, () => false);
    if (result.state !== "done") throw new Error(result.message);
    if (i === 100) early = process.memoryUsage.rss();
    if (i > count - 100) late = Math.max(late, process.memoryUsage.rss());
  }
  await engine.release();
  return { family: family.name, candidates: count, early, late, growth: late / early, target: 1.1 };
}

/** Candidates per second of one and of two workers. */
async function scaling(family: Family, count: number) {
  const rates: number[] = [];
  for (const workers of [1, 2]) {
    const pool = await createPoolExecutor(family.plan, { workers, program: choiceOf("basis") });
    const next = candidates(family);
    const evaluators = family.plan.evaluators.map(({ name }) => name);
    const evaluate = (): Promise<unknown> =>
      pool.evaluate({ id: "scaling", recipe: next(), evaluators, split: "search" });
    await Promise.all([evaluate(), evaluate()]);
    const begun = performance.now();
    await Promise.all(Array.from({ length: count }, evaluate));
    rates.push((1000 * count) / (performance.now() - begun));
    await pool.close();
  }
  const [one, two] = rates as [number, number];
  return { family: family.name, one, two, gain: two / one, target: 1.7 };
}

function machine() {
  const [cpu] = cpus();
  return {
    node: process.version,
    onnxruntime: env.versions.node,
    platform: `${process.platform} ${process.arch}`,
    cpu: cpu?.model,
    cores: cpus().length,
    memoryBytes: totalmem(),
  };
}

const rows: Row[] = [];
const more: object[] = [];
// First, before anything else leaves memory behind.
if (wanted("memory")) more.push(await steadyMemory(digits(64), 2000));
const report = (row: Row): void => {
  rows.push(row);
  console.error(
    `${row.family}, ${row.items}: ${Object.entries(row.milliseconds)
      .map(([name, ms]) => `${name} ${ms.toFixed(2)} ms (${row.ratios[name]!.toFixed(2)})`)
      .join(", ")}`,
  );
};
if (wanted("digits")) for (const batch of [64, 400]) report(await measure(digits(batch)));
if (wanted("tinylm")) report(await measure(tinylm()));
if (wanted("encoder") || wanted("encoder-short")) {
  const plan = generate({ name: "encoder", shape: encoderShape, models: 3, dtype: "f32" });
  const sized = (name: string, items: number, tokens: number, target: Family["target"]): Family =>
    transformer(name, plan, encoderShape, items, tokens, target);
  if (wanted("encoder"))
    report(await measure(sized("encoder", 8, 64, { ratio: 1.15, naive: 1.8 })));
  if (wanted("encoder-short")) {
    report(await measure(sized("encoder-short", 2, 16, { ratio: 2.2, naive: 6 })));
  }
}
if (wanted("gpt2") || wanted("memory")) {
  const plan = generate({ name: "gpt2", shape: gpt2Shape, models: 8, dtype: "bf16" });
  const family = transformer("gpt2", plan, gpt2Shape, 8, 64, { ratio: 1.25, naive: 2 });
  if (wanted("memory")) more.push(await workerMemory(family));
  if (wanted("gpt2")) report(await measure(family));
}
if (wanted("workers")) more.push(await scaling(tinylm(), 24));
rmSync(folder, { recursive: true });

const { version } = JSON.parse(readFileSync("package.json", "utf8")) as { version: string };
const result = { bench: "engine", version, machine: machine(), rounds, rows, more };
console.log(JSON.stringify(result, null, 1));
const out = option("out");
if (out !== undefined) writeFileSync(out, JSON.stringify(result, null, 1));
console.table(
  rows.map(({ family, items, milliseconds, ratios, naiveOverBasis, target }) => ({
    model: family,
    items,
    "bare ms": milliseconds["bare"]!.toFixed(2),
    "basis ÷ bare": `${ratios["basis"]!.toFixed(2)} (≤ ${target.ratio})`,
    "slab ÷ bare": ratios["slab, inputs"]!.toFixed(2),
    "fresh session ÷ bare": ratios["slab, session"]!.toFixed(2),
    "naive ÷ basis": `${naiveOverBasis?.toFixed(1) ?? "–"} (≥ ${target.naive})`,
  })),
);
console.table(more);
