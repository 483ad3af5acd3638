// The digit experiments of M2N2 (arXiv 2508.16204): networks bred from random weights, and from two specialists.
//   node scripts/bench.mjs optimizers/m2n2-digits [--part scratch|pair|both] [--evaluations 10000] [--seeds 5] [--first-seed 1]
import { parseArgs } from "node:util";
import { randomStream } from "../../src/base/random.ts";
import { createOptimizer } from "../../src/optimizers/index.ts";
import { NicheArchive } from "../../src/optimizers/niche-archive.ts";
import type { OptimizerProblem, SegmentGeometry } from "../../src/optimizers/optimizer.ts";
import type { SegmentGenome } from "../../src/optimizers/segment-genome.ts";
import { crossVectors } from "../../src/optimizers/slerp.ts";
import {
  DigitNetwork,
  type Digits,
  loadDigits,
  loadSpecialist,
  PARAMETERS,
  percent,
} from "./digit-network.ts";

/** Constants of the published experiment. */
const ARCHIVE = 20;
const INIT_DEVIATION = 0.01;
const MUTATION_DEVIATION = 0.01;
const SEEDS_IN_ARCHIVE = 2;
/** Accuracies are reported after these evaluations, and at the end. */
const CHECKPOINTS = [1_000, 5_000, 10_000, 20_000, 50_000];

interface Bench {
  readonly network: DigitNetwork;
  readonly train: Digits;
  readonly test: Digits;
  readonly evaluations: number;
}

/** Accuracy (%) of the individual with the highest training accuracy. */
interface Point {
  readonly evaluations: number;
  readonly train: number;
  readonly test: number;
  readonly coverage: number;
  readonly entropy: number;
}

interface Method {
  readonly name: string;
  readonly alpha: number;
  readonly attraction: boolean;
}

function normalVector(deviation: number, ...key: readonly (string | number)[]): Float32Array {
  const stream = randomStream(0, ...key);
  return Float32Array.from({ length: PARAMETERS }, () => deviation * stream.normal());
}

/** From random weights: split-point crossover, then noise on every weight. */
async function fromScratch(bench: Bench, method: Method, seed: number): Promise<Point[]> {
  const { network, train } = bench;
  const archive = new NicheArchive<Float32Array>(ARCHIVE, { alpha: method.alpha, minShift: false });
  const admit = async (id: number, genome: Float32Array) => {
    archive.admit({ id, genome, scores: await network.correct(genome, train) });
  };
  for (let k = 0; k < SEEDS_IN_ARCHIVE; k++) {
    await admit(k, normalVector(INIT_DEVIATION, "init", seed, k));
  }
  const points: Point[] = [];
  for (let step = 1; step <= bench.evaluations; step++) {
    const stream = randomStream(seed, "scratch", step);
    const [a, b] = archive.parents(stream, method.attraction);
    const child = new Float32Array(PARAMETERS);
    const split = stream.integer(PARAMETERS);
    crossVectors(a!.genome, (b ?? a)!.genome, split, stream.uniform(), "global", child);
    for (let i = 0; i < PARAMETERS; i++) {
      child[i] = child[i]! + MUTATION_DEVIATION * stream.normal();
    }
    await admit(SEEDS_IN_ARCHIVE + step, child);
    if (isCheckpoint(step, bench)) points.push(await pointOf(bench, archive, step));
  }
  return points;
}

function isCheckpoint(step: number, bench: Bench): boolean {
  return CHECKPOINTS.includes(step) || step === bench.evaluations;
}

async function pointOf(
  bench: Bench,
  archive: NicheArchive<Float32Array>,
  evaluations: number,
): Promise<Point> {
  const best = archive.members.reduce((a, b) => (percent(b.scores) > percent(a.scores) ? b : a));
  return {
    evaluations,
    train: percent(best.scores),
    test: percent(await bench.network.correct(best.genome, bench.test)),
    coverage: archive.coverage,
    entropy: archive.entropy,
  };
}

/** From two specialists, with the optimizer as users get it: compact recipes, no mutation. */
async function fromPair(
  bench: Bench,
  models: readonly Float32Array[],
  geometry: SegmentGeometry,
  settings: Readonly<Record<string, number | boolean>>,
  seed: number,
): Promise<Point> {
  const problem: OptimizerProblem = {
    seed,
    axes: [],
    start: [],
    initial: [],
    segments: geometry,
    objectives: 1,
  };
  const optimizer = createOptimizer(
    "natural_niches",
    { archive: ARCHIVE, batch: 1, ...settings },
    problem,
  );
  let best = { train: -1, genome: models[0]! };
  let evaluations = -models.length;
  while (evaluations < bench.evaluations) {
    const [candidate] = optimizer.ask();
    if (candidate?.genome.kind !== "segments") throw new Error("expected segments");
    const genome = materialize(candidate.genome, models);
    const items = Array.from(await bench.network.correct(genome, bench.train));
    const train = percent(items);
    if (train > best.train) best = { train, genome };
    optimizer.tell([{ state: "complete", id: candidate.id, fitness: [train], items }]);
    evaluations += 1;
  }
  const test = percent(await bench.network.correct(best.genome, bench.test));
  const { coverage, entropy } = optimizer.status;
  return { evaluations, train: best.train, test, coverage: coverage!, entropy: entropy! };
}

function materialize(genome: SegmentGenome, models: readonly Float32Array[]): Float32Array {
  const theta = new Float32Array(PARAMETERS);
  genome.breaks.forEach((start, s) => {
    const end = genome.breaks[s + 1] ?? PARAMETERS;
    for (let i = start; i < end; i++) {
      let sum = 0;
      for (let k = 0; k < models.length; k++) sum += genome.coefficients[k]![s]! * models[k]![i]!;
      theta[i] = sum;
    }
  });
  return theta;
}

/** Prefix Gram sums at every index: any element may be a split point, as in the paper. */
function fullGeometry(models: readonly Float32Array[]): SegmentGeometry {
  const sums = models.map(() => models.map(() => 0));
  const gram = [sums.map((row) => [...row])];
  for (let i = 0; i < PARAMETERS; i++) {
    sums.forEach((row, k) => {
      row.forEach((sum, l) => {
        row[l] = sum + models[k]![i]! * models[l]![i]!;
      });
    });
    gram.push(sums.map((row) => [...row]));
  }
  return { length: PARAMETERS, boundaries: Array.from(gram.keys()), gram };
}

/** The best of 1001 interpolation ratios on the training items. */
async function bestSingleRatio(bench: Bench, models: readonly Float32Array[]) {
  let best = { ratio: 0, train: -1, test: 0 };
  for (let step = 0; step <= 1000; step++) {
    const theta = new Float32Array(PARAMETERS);
    crossVectors(models[0]!, models[1]!, PARAMETERS, step / 1000, "global", theta);
    const train = percent(await bench.network.correct(theta, bench.train));
    if (train <= best.train) continue;
    const test = percent(await bench.network.correct(theta, bench.test));
    best = { ratio: step / 1000, train, test };
  }
  return best;
}

function summary(values: readonly number[]): string {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
  return `${mean.toFixed(1)} ± ${Math.sqrt(variance).toFixed(1)}`;
}

function printRow(name: string, points: readonly Point[]): void {
  const { evaluations } = points[0]!;
  console.log(
    [
      name.padEnd(16),
      String(evaluations).padStart(7),
      `train ${summary(points.map((point) => point.train))}`,
      `test ${summary(points.map((point) => point.test))}`,
      `(${points.map((point) => point.test.toFixed(1)).join(", ")})`,
      `coverage ${summary(points.map((point) => 100 * point.coverage))}`,
      `entropy ${(points.reduce((sum, point) => sum + point.entropy, 0) / points.length).toFixed(2)}`,
    ].join("  "),
  );
}

async function scratchPart(bench: Bench, seeds: readonly number[]): Promise<void> {
  const methods: readonly Method[] = [
    { name: "M2N2", alpha: 1, attraction: true },
    { name: "GA", alpha: 0, attraction: false },
  ];
  for (const method of methods) {
    const runs: Point[][] = [];
    for (const seed of seeds) runs.push(await fromScratch(bench, method, seed));
    console.log(JSON.stringify({ bench: "m2n2-digits", part: "scratch", method, runs }));
    runs[0]!.forEach((_, c) => {
      printRow(
        method.name,
        runs.map((points) => points[c]!),
      );
    });
  }
}

async function pairPart(bench: Bench, seeds: readonly number[]): Promise<void> {
  const models = ["seed-0-4", "seed-5-9"].map(loadSpecialist);
  const single = await bestSingleRatio(bench, models);
  console.log(JSON.stringify({ bench: "m2n2-digits", part: "pair", single }));
  console.log(
    `one SLERP ratio   ${single.ratio}  train ${single.train.toFixed(1)}  test ${single.test.toFixed(1)}`,
  );
  const geometry = fullGeometry(models);
  for (const [name, settings] of [
    ["M2N2", {}],
    ["no attraction", { attraction: false }],
    ["no split point", { split: false }],
    ["GA", { alpha: 0, attraction: false }],
  ] as const) {
    const points: Point[] = [];
    for (const seed of seeds) {
      points.push(await fromPair(bench, models, geometry, settings, seed));
    }
    console.log(JSON.stringify({ bench: "m2n2-digits", part: "pair", name, points }));
    printRow(name, points);
  }
}

const { values: args } = parseArgs({
  options: {
    part: { type: "string", default: "both" },
    evaluations: { type: "string", default: "10000" },
    seeds: { type: "string", default: "5" },
    "first-seed": { type: "string", default: "1" },
  },
});
const bench: Bench = {
  network: await DigitNetwork.create(),
  train: await loadDigits("search"),
  test: await loadDigits("validation", "test"),
  evaluations: Number(args.evaluations),
};
const seeds = Array.from({ length: Number(args.seeds) }, (_, k) => Number(args["first-seed"]) + k);
if (args.part !== "pair") await scratchPart(bench, seeds);
if (args.part !== "scratch") await pairPart(bench, seeds);
