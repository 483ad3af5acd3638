import { MendelError } from "../base/errors.ts";
import type { Genome } from "../base/genome.ts";
import type { SegmentGeometry } from "./optimizer.ts";
import { type Products, type Shares, type SlerpAngle, splitShares } from "./slerp.ts";

/** Piecewise-constant shares of the seed models over the flat parameter index. */
export type SegmentGenome = Extract<Genome, { kind: "segments" }>;

/** Neighboring segments whose shares differ by less than this are one: float32 weights could not tell them apart. */
const SAME_SHARE = 1e-6;

/** More segments than this slow every merge down without being distinguishable in effect. */
const MAX_SEGMENTS = 4096;

/** The genome that is model k of `count`, everywhere. */
export function singleModel(k: number, count: number): SegmentGenome {
  const coefficients = Array.from({ length: count }, (_, model) => [model === k ? 1 : 0]);
  return { kind: "segments", breaks: [0], coefficients };
}

/** Number of models that are mixed. */
export function modelCount(geometry: SegmentGeometry): number {
  return geometry.gram[0]?.length ?? 0;
}

/**
 * Checks a genome from outside against the geometry: one share per model and segment, breaks ascending from 0, each at an
 * index where prefix Gram sums are known.
 *
 * @throws MendelError `mismatch`
 */
export function checkSegments(genome: SegmentGenome, geometry: SegmentGeometry): void {
  const { breaks, coefficients } = genome;
  const models = modelCount(geometry);
  const complain = (message: string): never => {
    throw new MendelError("mismatch", `a segments genome ${message}`);
  };
  if (coefficients.length !== models) {
    complain(`has shares of ${coefficients.length} models, the space mixes ${models}`);
  }
  if (breaks[0] !== 0) complain(`must begin at 0, it begins at ${breaks[0]}`);
  if (coefficients.some((row) => row.length !== breaks.length || !row.every(Number.isFinite))) {
    complain(`needs ${breaks.length} finite shares per model, one for each segment`);
  }
  breaks.forEach((at, s) => {
    if (s > 0 && at <= breaks[s - 1]!) complain(`has breaks that do not ascend: ${at}`);
    if (geometry.boundaries[boundaryAtOrBefore(geometry, at)] !== at || at >= geometry.length) {
      complain(`breaks at ${at}, which is not one of the space's split points`);
    }
  });
}

/** Index into `boundaries` of the last one at or before a flat index. */
function boundaryAtOrBefore(geometry: SegmentGeometry, index: number): number {
  let low = 0;
  let high = geometry.boundaries.length - 1;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (geometry.boundaries[middle]! <= index) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** A flat index, rounded down to the nearest split point the geometry allows. */
export function roundToBoundary(geometry: SegmentGeometry, index: number): number {
  return geometry.boundaries[boundaryAtOrBefore(geometry, index)]!;
}

/**
 * The child of a and b: SLERP with `ratio` before flat index `split`, with 1 − `ratio` from there on. Angles come from the
 * prefix Gram sums, so that no parameter vector is formed; O(segments·models²).
 *
 * @param split one of the geometry's boundaries, below its length
 */
export function crossSegments(
  geometry: SegmentGeometry,
  a: SegmentGenome,
  b: SegmentGenome,
  split: number,
  ratio: number,
  angle: SlerpAngle,
): SegmentGenome {
  const breaks = unionOf(a.breaks, b.breaks, split);
  const ofA = spread(a, breaks);
  const ofB = spread(b, breaks);
  const shares = splitShares(
    productsOf(geometry, breaks, ofA, ofB, (start) => start < split),
    productsOf(geometry, breaks, ofA, ofB, (start) => start >= split),
    ratio,
    angle,
  );
  const columns = breaks.map((start, s) =>
    mixed(start < split ? shares.left : shares.right, ofA[s]!, ofB[s]!),
  );
  return fromColumns(breaks, columns);
}

/** Ascending union of both genomes' breaks and the split point. */
function unionOf(a: readonly number[], b: readonly number[], split: number): number[] {
  return [...new Set([...a, ...b, split])].sort((x, y) => x - y);
}

/** The shares of every model (one column) at each of the given breaks, a superset of the genome's own. */
function spread(genome: SegmentGenome, breaks: readonly number[]): number[][] {
  let segment = 0;
  return breaks.map((start) => {
    while (segment + 1 < genome.breaks.length && genome.breaks[segment + 1]! <= start) segment++;
    return genome.coefficients.map((row) => row[segment]!);
  });
}

function mixed(shares: Shares, a: readonly number[], b: readonly number[]): number[] {
  return a.map((share, k) => shares[0] * share + shares[1] * b[k]!);
}

/** Inner products over the segments that `belongs` accepts: Σ_s Σ_kl a_k b_l (G_kl(end_s) − G_kl(start_s)). */
function productsOf(
  geometry: SegmentGeometry,
  breaks: readonly number[],
  ofA: readonly number[][],
  ofB: readonly number[][],
  belongs: (start: number) => boolean,
): Products {
  let xy = 0;
  let xx = 0;
  let yy = 0;
  breaks.forEach((start, s) => {
    if (!belongs(start)) return;
    const before = geometry.gram[boundaryAtOrBefore(geometry, start)]!;
    const end = breaks[s + 1] ?? geometry.length;
    const after = geometry.gram[boundaryAtOrBefore(geometry, end)]!;
    const a = ofA[s]!;
    const b = ofB[s]!;
    for (let k = 0; k < a.length; k++) {
      for (let l = 0; l < a.length; l++) {
        const gram = after[k]![l]! - before[k]![l]!;
        xy += a[k]! * b[l]! * gram;
        xx += a[k]! * a[l]! * gram;
        yy += b[k]! * b[l]! * gram;
      }
    }
  });
  return { xy, xx, yy };
}

/** A genome out of one column of shares per segment; indistinguishable neighbors are merged, the left one's shares stay. */
function fromColumns(breaks: readonly number[], columns: readonly number[][]): SegmentGenome {
  const kept = joinBelow(
    breaks.map((start, s) => ({ start, column: columns[s]! })),
    SAME_SHARE,
  );
  const capped = joinToLimit(kept);
  return {
    kind: "segments",
    breaks: capped.map((segment) => segment.start),
    coefficients: columns[0]!.map((_, k) => capped.map((segment) => segment.column[k]!)),
  };
}

interface Segment {
  readonly start: number;
  readonly column: readonly number[];
}

function difference(a: Segment, b: Segment): number {
  return Math.max(...a.column.map((share, k) => Math.abs(share - b.column[k]!)));
}

function joinBelow(segments: readonly Segment[], tolerance: number): Segment[] {
  const kept: Segment[] = [];
  for (const segment of segments) {
    const last = kept.at(-1);
    if (last === undefined || difference(last, segment) >= tolerance) kept.push(segment);
  }
  return kept;
}

/** Joins the most similar neighbors first until few enough are left. */
function joinToLimit(segments: readonly Segment[]): readonly Segment[] {
  const excess = segments.length - MAX_SEGMENTS;
  if (excess <= 0) return segments;
  const gaps = segments.slice(1).map((segment, s) => ({
    start: segment.start,
    gap: difference(segments[s]!, segment),
  }));
  gaps.sort((a, b) => a.gap - b.gap || a.start - b.start);
  const dropped = new Set(gaps.slice(0, excess).map((entry) => entry.start));
  return segments.filter((segment) => !dropped.has(segment.start));
}
