import type { CmaParameters, CmaState } from "./cma-update.ts";

/** What the stop criteria remember of a run, oldest first. */
export interface CmaHistory {
  /** Best f of each generation, at most as many as stagnation looks at. */
  readonly bests: readonly number[];
  readonly medians: readonly number[];
  /** Largest minus smallest f of the last generation. */
  readonly range: number | undefined;
  /** Generations in a row in which the mean has hardly moved. */
  readonly still: number;
}

/** Standard deviation, as a share of the range, below which merge weights no longer differ in effect. */
const TOL_X = 1e-4;
/** Range of f, in one generation and over the short history, that is rounding noise. */
const TOL_FUN = 1e-11;
const TOL_FUN_HISTORY = 1e-12;
/** Growth of a coordinate's standard deviation that means the start was far too narrow. */
const TOL_FAC_UP_X = 1e3;
const TOL_UP_SIGMA = 1e20;
/** Just below the condition to which a degenerate C is repaired. */
const TOL_CONDITION = 0.999e14;
const TOL_MEAN = 1e-9;

export function emptyHistory(): CmaHistory {
  return { bests: [], medians: [], range: undefined, still: 0 };
}

/** Generations that "no improvement of the best" looks back: 10 + 30n/λ. */
function shortWindow(p: CmaParameters): number {
  return 10 + Math.ceil((30 * p.n) / p.lambda);
}

/** Generations that stagnation looks back: 100 + 100 n^1.5/λ. */
function longWindow(p: CmaParameters): number {
  return Math.floor(100 + (100 * p.n * Math.sqrt(p.n)) / p.lambda);
}

/** The history with one more generation; `values` are the f of its successful candidates, best first, at least one. */
export function recordGeneration(
  history: CmaHistory,
  p: CmaParameters,
  values: readonly number[],
  before: CmaState,
  after: CmaState,
): CmaHistory {
  const keep = Math.max(shortWindow(p), longWindow(p));
  const moved = before.mean.some((m, i) => Math.abs(after.mean[i]! - m) >= TOL_MEAN);
  return {
    bests: [...history.bests, values[0]!].slice(-keep),
    medians: [...history.medians, median(values)].slice(-keep),
    range: values.at(-1)! - values[0]!,
    still: moved ? 0 : history.still + 1,
  };
}

/**
 * Why a run is over, in the form "name: what happened", or undefined. The criteria and defaults are pycma's, except: `tolx` is
 * 1e-4 because finer merge weights make no difference, and nothing stops at one flat generation, because an accuracy
 * over a few hundred items is flat in places.
 */
export function stopReason(
  p: CmaParameters,
  state: CmaState,
  history: CmaHistory,
  sigma0: number,
): string | undefined {
  const { n } = p;
  const deviations = Array.from(
    { length: n },
    (_, i) => state.sigma * Math.sqrt(state.C[i * n + i]!),
  );
  const largestRoot = state.D[n - 1]!;
  const condition = (largestRoot / state.D[0]!) ** 2;
  const maxGenerations = 100 + 150 * Math.floor((n + 3) ** 2 / Math.sqrt(p.lambda));
  const short = history.bests.slice(-shortWindow(p));
  const shortRange = short.length < shortWindow(p) ? Number.POSITIVE_INFINITY : range(short);
  if (state.generation >= maxGenerations) return `maxiter: ${maxGenerations} generations`;
  if (
    deviations.every((deviation) => deviation < TOL_X) &&
    state.pC.every((path) => Math.abs(state.sigma * path) < TOL_X)
  ) {
    return `tolx: every gene varies by less than ${TOL_X} of its range`;
  }
  if (history.range !== undefined && history.range < TOL_FUN && shortRange < TOL_FUN) {
    return `tolfun: all values of ${short.length} generations agree within ${TOL_FUN}`;
  }
  if (shortRange < TOL_FUN_HISTORY) {
    return `tolfunhist: the best value has not changed in ${short.length} generations`;
  }
  if (stagnates(history, p)) return `tolstagnation: no progress in ${longWindow(p)} generations`;
  if (history.still >= 20 + 0.1 * state.generation) {
    return `tolxstagnation: the mean has not moved in ${history.still} generations`;
  }
  if (deviations.some((deviation) => deviation > TOL_FAC_UP_X * sigma0)) {
    return `tolfacupx: a gene varies ${TOL_FAC_UP_X} times more than at the start; sigma was far too small`;
  }
  if (state.sigma > TOL_UP_SIGMA * sigma0 * largestRoot)
    return "tolupsigma: the step size diverges";
  if (condition > TOL_CONDITION) return "tolconditioncov: the covariance matrix is degenerate";
  return withoutEffect(p, state, deviations);
}

/** Medians of the newest 30 % are not better than those of the oldest 30 %, in bests and in medians (Hansen 2009). */
function stagnates(history: CmaHistory, p: CmaParameters): boolean {
  const window = longWindow(p);
  if (history.bests.length < window) return false;
  const part = Math.floor(0.3 * window);
  return [history.bests, history.medians].every((all) => {
    const values = all.slice(-window);
    return median(sortedCopy(values.slice(-part))) >= median(sortedCopy(values.slice(0, part)));
  });
}

/** Steps so small that adding them to the mean is lost in rounding. */
function withoutEffect(
  p: CmaParameters,
  state: CmaState,
  deviations: readonly number[],
): string | undefined {
  const axis = state.generation % p.n;
  const length = 0.1 * state.sigma * state.D[axis]!;
  const unmoved = state.mean.every((m, i) => m === m + length * state.B[axis * p.n + i]!);
  if (unmoved) return `noeffectaxis: a step along axis ${axis} is lost in rounding`;
  const coordinate = state.mean.findIndex((m, i) => m === m + 0.2 * deviations[i]!);
  return coordinate < 0
    ? undefined
    : `noeffectcoord: a step of gene ${coordinate} is lost in rounding`;
}

function range(values: readonly number[]): number {
  return Math.max(...values) - Math.min(...values);
}

function sortedCopy(values: readonly number[]): number[] {
  return [...values].sort((a, b) => a - b);
}

/** Of values in ascending order. */
function median(values: readonly number[]): number {
  const half = Math.floor(values.length / 2);
  return values.length % 2 === 1 ? values[half]! : (values[half - 1]! + values[half]!) / 2;
}
