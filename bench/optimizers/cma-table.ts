// Evaluations that CMA-ES needs to reach 1e-8 on standard functions, beside those of pycma 4.4 on the same functions.
//   node scripts/bench.mjs optimizers/cma-table [--n 2,5,10,20] [--seeds 15] [--profile pycma|tutorial]
import { parseArgs } from "node:util";
import { randomStream } from "../../src/base/random.ts";
import {
  type CmaProfile,
  cmaParameters,
  cmaPoint,
  cmaStart,
  cmaSteps,
  cmaUpdate,
  defaultPopulation,
} from "../../src/optimizers/cma-update.ts";

const TARGET = 1e-8;
/** More than ten times what the slowest cell needs. */
const MAX_EVALUATIONS = 500_000;

type Objective = (x: Float64Array) => number;

interface Problem {
  readonly name: string;
  readonly start: number;
  readonly sigma: number;
  readonly objective: (n: number, seed: number) => Objective;
  /** Median evaluations of pycma 4.4 to 1e-8, 21 seeds, default population, all stop criteria off. */
  readonly reference: Readonly<Record<number, number>>;
}

const sphere: Objective = (x) => x.reduce((sum, v) => sum + v * v, 0);

/** Σ 10^(6i/(n−1)) x_i² */
function ellipsoid(n: number): Objective {
  const scales = Array.from({ length: n }, (_, i) => 10 ** ((6 * i) / (n - 1)));
  return (x) => x.reduce((sum, v, i) => sum + scales[i]! * v * v, 0);
}

/** The ellipsoid in a random orthonormal basis. */
function rotatedEllipsoid(n: number, seed: number): Objective {
  const basis = randomBasis(n, seed);
  const aligned = ellipsoid(n);
  return (x) =>
    aligned(
      Float64Array.from(basis, (axis) => axis.reduce((sum, value, i) => sum + value * x[i]!, 0)),
    );
}

/** Gram–Schmidt on normal vectors. */
function randomBasis(n: number, seed: number): Float64Array[] {
  const stream = randomStream(seed, "rotation");
  const basis: Float64Array[] = [];
  while (basis.length < n) {
    const v = Float64Array.from({ length: n }, () => stream.normal());
    for (const axis of basis) {
      const dot = axis.reduce((sum, value, i) => sum + value * v[i]!, 0);
      for (let i = 0; i < n; i++) v[i] = v[i]! - dot * axis[i]!;
    }
    const length = Math.sqrt(sphere(v));
    basis.push(v.map((value) => value / length));
  }
  return basis;
}

const rosenbrock: Objective = (x) => {
  let sum = 0;
  for (let i = 0; i + 1 < x.length; i++) {
    const bend = x[i + 1]! - x[i]! * x[i]!;
    sum += 100 * bend * bend + (1 - x[i]!) * (1 - x[i]!);
  }
  return sum;
};

const problems: readonly Problem[] = [
  {
    name: "sphere",
    start: 3,
    sigma: 2,
    objective: () => sphere,
    reference: { 2: 238, 5: 730, 10: 1465, 20: 2796, 40: 5234 },
  },
  {
    name: "ellipsoid",
    start: 3,
    sigma: 2,
    objective: ellipsoid,
    reference: { 2: 464, 5: 1532, 10: 4074, 20: 12954, 40: 48672 },
  },
  {
    name: "rotated ellipsoid",
    start: 3,
    sigma: 2,
    objective: rotatedEllipsoid,
    reference: { 2: 462, 5: 1507, 10: 4071, 20: 13069, 40: 48406 },
  },
  {
    name: "Rosenbrock",
    start: 0,
    sigma: 0.1,
    objective: () => rosenbrock,
    reference: { 2: 436, 5: 1660, 10: 4889, 20: 16122, 40: 60721 },
  },
];

/** Index, from 1, of the first sample below the target. */
function evaluationsToTarget(
  problem: Problem,
  n: number,
  seed: number,
  profile: CmaProfile,
): number {
  const objective = problem.objective(n, seed);
  const p = cmaParameters(n, defaultPopulation(n), profile);
  let state = cmaStart(p, new Float64Array(n).fill(problem.start), problem.sigma);
  let evaluations = 0;
  while (evaluations < MAX_EVALUATIONS) {
    const steps = cmaSteps(p, state, seed, "cma-table", problem.name, state.generation);
    const values = steps.map((y) => objective(cmaPoint(state, y)));
    const hit = values.findIndex((f) => f < TARGET);
    if (hit >= 0) return evaluations + hit + 1;
    evaluations += values.length;
    const order = [...values.keys()].sort((a, b) => values[a]! - values[b]! || a - b);
    state = cmaUpdate(
      p,
      state,
      order.map((k) => steps[k]!),
    );
  }
  return Number.POSITIVE_INFINITY;
}

interface Cell {
  readonly function: string;
  readonly n: number;
  readonly median: number;
  readonly quartiles: readonly [number, number];
  readonly pycma: number;
  readonly ratio: number;
  readonly tolerance: number;
  readonly within: boolean;
}

function cell(problem: Problem, n: number, seeds: number, profile: CmaProfile): Cell {
  const counts = Array.from({ length: seeds }, (_, seed) =>
    evaluationsToTarget(problem, n, seed + 1, profile),
  ).sort((a, b) => a - b);
  const at = (share: number) => counts[Math.round(share * (counts.length - 1))]!;
  const pycma = problem.reference[n] ?? Number.NaN;
  const ratio = at(0.5) / pycma;
  const tolerance = n === 2 ? 0.15 : 0.1;
  return {
    function: problem.name,
    n,
    median: at(0.5),
    quartiles: [at(0.25), at(0.75)],
    pycma,
    ratio: Number(ratio.toFixed(3)),
    tolerance,
    within: Math.abs(ratio - 1) <= tolerance,
  };
}

function textTable(cells: readonly Cell[]): string {
  const lines = cells.map((c) =>
    [
      c.function.padEnd(18),
      String(c.n).padStart(3),
      String(c.median).padStart(8),
      `[${c.quartiles.join("–")}]`.padStart(16),
      String(c.pycma).padStart(8),
      c.ratio.toFixed(3).padStart(7),
      c.within ? "" : `  outside ±${100 * c.tolerance} %`,
    ].join(" "),
  );
  const head = "function             n   median        quartiles    pycma   ratio";
  return [head, ...lines].join("\n");
}

const { values: args } = parseArgs({
  options: {
    n: { type: "string", default: "2,5,10,20" },
    seeds: { type: "string", default: "15" },
    profile: { type: "string", default: "pycma" },
  },
});
const profile: CmaProfile = args.profile === "tutorial" ? "tutorial" : "pycma";
const cells = problems.flatMap((problem) =>
  args.n.split(",").map((n) => cell(problem, Number(n), Number(args.seeds), profile)),
);
console.log(JSON.stringify({ bench: "cma-table", target: TARGET, profile, cells }));
console.log(textTable(cells));
process.exitCode = cells.every((c) => c.within) ? 0 : 1;
