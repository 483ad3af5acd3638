import type { RandomStream } from "../base/random.ts";

/** Scores of one individual: per item, larger is better. */
export type ScoreRow = ArrayLike<number>;

/** How fitness is shared. */
export interface SharingOptions {
  /** Competition exponent: 0 = every score counts in full (plain genetic algorithm), 1 = an item's worth is split. */
  readonly alpha: number;
  /** Subtract each item's worst score first, for metrics that use only a narrow band of [0, 1]. */
  readonly minShift: boolean;
}

/**
 * What each individual gets of each item: F_ij = s_ij c_j / z_j^α with z_j = Σ_k s_kj and capacity c_j = max_k s_kj (M2N2,
 * arXiv 2508.16204, §3; for right/wrong scores c_j is 1 wherever anyone scores). An item nobody solves pays nothing.
 *
 * For α = 1 the payout Σ_i F_ij of an item is exactly its capacity. Negative scores are shifted up to 0 by the item's worst.
 */
export function resourceShares(rows: readonly ScoreRow[], options: SharingOptions): Float64Array[] {
  const items = rows[0]?.length ?? 0;
  const shares = rows.map(() => new Float64Array(items));
  for (let j = 0; j < items; j++) {
    let lowest = Number.POSITIVE_INFINITY;
    let highest = Number.NEGATIVE_INFINITY;
    for (const row of rows) {
      lowest = Math.min(lowest, row[j]!);
      highest = Math.max(highest, row[j]!);
    }
    const shift = options.minShift ? lowest : Math.min(0, lowest);
    let total = 0;
    for (const row of rows) total += row[j]! - shift;
    if (!(total > 0)) continue;
    const worth = (highest - shift) / (options.alpha === 1 ? total : total ** options.alpha);
    for (let i = 0; i < rows.length; i++) shares[i]![j] = (rows[i]![j]! - shift) * worth;
  }
  return shares;
}

/** f_i = Σ_j F_ij */
export function sharedFitness(shares: readonly Float64Array[]): number[] {
  return shares.map((row) => {
    let sum = 0;
    for (const share of row) sum += share;
    return sum;
  });
}

/** g_i = Σ_j max(0, F_ij − F_aj): how much uncontested resource each individual would add to individual a. */
export function attractionFrom(shares: readonly Float64Array[], a: number): number[] {
  const own = shares[a]!;
  return shares.map((row) => {
    let sum = 0;
    for (let j = 0; j < row.length; j++) sum += Math.max(0, row[j]! - own[j]!);
    return sum;
  });
}

/** Mean over items of the best score anyone has; for right/wrong scores the share of items that someone solves. */
export function coverageOf(rows: readonly ScoreRow[]): number {
  return meanOverItems(rows, (column) => clamp(Math.max(...column)));
}

/** Mean over items of the binary entropy, in bits, of the mean score: how much the individuals disagree. */
export function entropyOf(rows: readonly ScoreRow[]): number {
  return meanOverItems(rows, (column) => {
    const p = clamp(column.reduce((sum, score) => sum + score, 0) / column.length);
    return p === 0 || p === 1 ? 0 : -(p * Math.log2(p) + (1 - p) * Math.log2(1 - p));
  });
}

function meanOverItems(
  rows: readonly ScoreRow[],
  f: (column: readonly number[]) => number,
): number {
  const items = rows[0]?.length ?? 0;
  if (items === 0) return 0;
  let sum = 0;
  for (let j = 0; j < items; j++) sum += f(rows.map((row) => row[j]!));
  return sum / items;
}

function clamp(x: number): number {
  return Math.min(1, Math.max(0, x));
}

/** An individual in the archive. */
export interface Member<G> {
  readonly id: number;
  readonly genome: G;
  readonly scores: ScoreRow;
}

/** What became of a newcomer. */
export type Admission<G> =
  | { readonly kind: "filled"; readonly slot: number }
  | { readonly kind: "replaced"; readonly slot: number; readonly evicted: Member<G> }
  | { readonly kind: "dropped" };

/**
 * The archive of M2N2: a fixed number of slots whose occupants compete for the items they solve. Genomes are opaque: recipes'
 * segments, vectors, or whole networks.
 */
export class NicheArchive<G> {
  readonly capacity: number;
  readonly #options: SharingOptions;
  readonly #slots: (Member<G> | undefined)[];

  constructor(capacity: number, options: SharingOptions) {
    this.capacity = capacity;
    this.#options = options;
    this.#slots = Array.from({ length: capacity }, () => undefined);
  }

  /** Occupants in the order of their slots. */
  get members(): readonly Member<G>[] {
    return this.#slots.filter((member) => member !== undefined);
  }

  /** All slots, for snapshots. */
  get slots(): readonly (Member<G> | undefined)[] {
    return this.#slots;
  }

  /** Puts a member where it was when the archive was saved. */
  restore(slot: number, member: Member<G>): void {
    this.#slots[slot] = member;
  }

  get coverage(): number {
    return coverageOf(this.members.map((member) => member.scores));
  }

  get entropy(): number {
    return entropyOf(this.members.map((member) => member.scores));
  }

  /**
   * Admits a newcomer: into the first empty slot, else in place of the one with the least shared fitness, the newcomer itself
   * being one of the competitors. The first of equals loses, so a twin replaces the older copy.
   */
  admit(newcomer: Member<G>): Admission<G> {
    const empty = this.#slots.indexOf(undefined);
    if (empty >= 0) {
      this.#slots[empty] = newcomer;
      return { kind: "filled", slot: empty };
    }
    const rows = [...this.members, newcomer].map((member) => member.scores);
    const slot = firstSmallest(sharedFitness(resourceShares(rows, this.#options)));
    const evicted = this.#slots[slot];
    if (evicted === undefined) return { kind: "dropped" };
    this.#slots[slot] = newcomer;
    return { kind: "replaced", slot, evicted };
  }

  /**
   * Two parents, in the crossover's order: the first by shared fitness, the second by attraction to the first (without
   * attraction: by shared fitness again, possibly the same). Where nobody scores, everyone is as likely; where nobody adds
   * anything to the first, the second is drawn by shared fitness among the others. The second is undefined when there
   * is nobody else; both are when the archive is empty.
   */
  parents(
    stream: RandomStream,
    attraction: boolean,
  ): readonly [Member<G> | undefined, Member<G> | undefined] {
    const members = this.members;
    if (members.length === 0) return [undefined, undefined];
    const shares = resourceShares(
      members.map((member) => member.scores),
      this.#options,
    );
    const fitness = sharedFitness(shares);
    const first = drawn(stream, fitness) ?? stream.integer(members.length);
    if (!attraction) {
      return [members[first], members[drawn(stream, fitness) ?? stream.integer(members.length)]];
    }
    if (members.length === 1) return [members[first], undefined];
    const others = fitness.map((value, i) => (i === first ? 0 : value));
    const second =
      drawn(stream, attractionFrom(shares, first)) ??
      drawn(stream, others) ??
      (first + 1 + stream.integer(members.length - 1)) % members.length;
    return [members[first], members[second]];
  }
}

/** An index with probability in proportion to its weight; undefined when all are zero. */
function drawn(stream: RandomStream, weights: readonly number[]): number | undefined {
  let total = 0;
  for (const weight of weights) total += weight;
  if (!(total > 0)) return undefined;
  let rest = stream.uniform() * total;
  let last: number | undefined;
  for (let i = 0; i < weights.length; i++) {
    if (weights[i]! <= 0) continue;
    last = i;
    rest -= weights[i]!;
    if (rest < 0) return i;
  }
  return last;
}

function firstSmallest(values: readonly number[]): number {
  let smallest = 0;
  values.forEach((value, i) => {
    if (value < values[smallest]!) smallest = i;
  });
  return smallest;
}
