import { z } from "zod";
import { MendelError } from "../base/errors.ts";
import type { Genome } from "../base/genome.ts";
import type { Json } from "../base/json.ts";
import { type RandomStream, randomStream } from "../base/random.ts";
import { type Member, NicheArchive, type ScoreRow } from "./niche-archive.ts";
import type {
  Candidate,
  Optimizer,
  OptimizerDefinition,
  OptimizerProblem,
  Outcome,
} from "./optimizer.ts";
import { betterOf, matchOutcomes } from "./outcomes.ts";
import { decodeScores, encodeScores } from "./score-row.ts";
import {
  checkSegments,
  crossSegments,
  modelCount,
  roundToBoundary,
  singleModel,
} from "./segment-genome.ts";
import {
  booleanSetting,
  choiceSetting,
  numberSetting,
  type OptimizerSettings,
} from "./settings.ts";
import { crossVectors, type SlerpAngle } from "./slerp.ts";
import { expectLength, parseSnapshot } from "./snapshot.ts";

/** Largest archive: each replacement compares every pair of member and item. */
const MAX_ARCHIVE = 10_000;
const MAX_BATCH = 10_000;

/** A fall of coverage below its maximum that is worth a word: smaller ones come and go all the time. */
const COVERAGE_LOSS = 0.01;

const ANGLES = ["global", "segment"] as const;

const SavedGenome = z.union([
  z.strictObject({ kind: z.literal("vector"), values: z.array(z.number()) }),
  z.strictObject({
    kind: z.literal("segments"),
    breaks: z.array(z.int().nonnegative()),
    coefficients: z.array(z.array(z.number())),
  }),
]);

const Snapshot = z.strictObject({
  optimizer: z.literal("natural_niches"),
  nextId: z.int().nonnegative(),
  generation: z.int().nonnegative(),
  accepted: z.int().nonnegative(),
  best: z.number().nullable(),
  /** Length of the score rows; null before the first success. */
  items: z.int().positive().nullable(),
  scoredBy: z.enum(["items", "fitness"]).nullable(),
  peakCoverage: z.number(),
  warnedCoverage: z.number(),
  slots: z.array(
    z
      .strictObject({
        id: z.int().nonnegative(),
        genome: SavedGenome,
        scores: z.union([z.string(), z.array(z.number())]),
      })
      .nullable(),
  ),
});

/** Model merging of natural niches: an archive in which models compete for the items they solve. */
export const naturalNiches: OptimizerDefinition = {
  name: "natural_niches",
  title: "Natural niches (M2N2)",
  description:
    "Breeds an archive of merges: parents that solve what others do not, one random split point, spherical interpolation.",
  reference:
    "Abrantes, Lange & Tang 2025, Competition and attraction improve model fusion, arXiv 2508.16204",
  genomes: ["segments", "vector"],
  objectives: 1,
  needsItems: true,
  settings: [
    {
      name: "archive",
      description:
        "individuals kept; 10 to 20 for up to a few thousand evaluations, more for long runs",
      type: "integer",
      default: 15,
      range: [1, MAX_ARCHIVE],
    },
    {
      name: "alpha",
      description:
        "how much an item's worth is split among those who solve it; 0 is a plain genetic algorithm",
      type: "number",
      default: 1,
      range: [0, 4],
    },
    {
      name: "attraction",
      description: "choose the second parent by what it adds to the first",
      type: "boolean",
      default: true,
    },
    {
      name: "crossover",
      description: "mix two parents; without it, children are mutated copies",
      type: "boolean",
      default: true,
    },
    {
      name: "split",
      description:
        "mix the two sides of a random split point in opposite ratios; without it, one ratio for all",
      type: "boolean",
      default: true,
    },
    {
      name: "angle",
      description: "SLERP angle between the whole parents, or of each side of the split on its own",
      type: "choice",
      default: "global",
      choices: ANGLES,
    },
    {
      name: "mutation",
      description:
        "standard deviation of the noise added to every gene of a child; vector genomes only",
      type: "number",
      default: 0,
      range: [0, 1],
    },
    {
      name: "batch",
      description: "children bred from one state of the archive; 1 is the published algorithm",
      type: "integer",
      default: 4,
      range: [1, MAX_BATCH],
    },
    {
      name: "warmup",
      description: "random merges of the seeds before breeding begins",
      type: "integer",
      default: 0,
      range: [0, 1_000_000],
    },
    {
      name: "min_shift",
      description:
        "subtract each item's worst score in the archive, for metrics that use a narrow band",
      type: "boolean",
      default: false,
    },
  ],
  create: (problem, settings, snapshot) =>
    new NaturalNiches(problem, optionsOf(problem, settings), snapshot),
};

interface NicheOptions {
  readonly archive: number;
  readonly alpha: number;
  readonly attraction: boolean;
  readonly crossover: boolean;
  readonly split: boolean;
  readonly angle: SlerpAngle;
  readonly mutation: number;
  readonly batch: number;
  readonly warmup: number;
  readonly minShift: boolean;
}

function optionsOf(problem: OptimizerProblem, settings: OptimizerSettings): NicheOptions {
  const mutation = numberSetting(settings, "mutation");
  if (mutation > 0 && problem.segments !== undefined) {
    throw new MendelError(
      "invalid-config",
      "optimizer.mutation: merges by segments have no genes to add noise to",
      {
        hint: "leave it out, or search a space of merge parameters",
        where: { key: "optimizer.mutation" },
      },
    );
  }
  if (mutation === 0 && !booleanSetting(settings, "crossover")) {
    throw new MendelError(
      "invalid-config",
      "optimizer.crossover: without crossover and mutation every child is a copy of its parent",
      { hint: "set mutation above 0", where: { key: "optimizer.crossover" } },
    );
  }
  return {
    archive: numberSetting(settings, "archive"),
    alpha: numberSetting(settings, "alpha"),
    attraction: booleanSetting(settings, "attraction"),
    crossover: booleanSetting(settings, "crossover"),
    split: booleanSetting(settings, "split"),
    angle: choiceSetting(settings, "angle", ANGLES),
    mutation,
    batch: numberSetting(settings, "batch"),
    warmup: numberSetting(settings, "warmup"),
    minShift: booleanSetting(settings, "min_shift"),
  };
}

/** An individual a child can be made from. */
type Parent = Pick<Member<Genome>, "id" | "genome">;

class NaturalNiches implements Optimizer {
  readonly stop = undefined;
  readonly #problem: OptimizerProblem;
  readonly #options: NicheOptions;
  readonly #seeds: readonly Genome[];
  readonly #archive: NicheArchive<Genome>;
  #nextId = 0;
  #generation = 0;
  #accepted = 0;
  #best: number | undefined;
  #items: number | undefined;
  #scoredBy: "items" | "fitness" | undefined;
  #peakCoverage = 0;
  /** Coverage at the last warning, so that the next one comes only after a further fall. */
  #warnedCoverage = 1;
  #pending: readonly Candidate[] | undefined;
  #warnings: string[] = [];

  constructor(problem: OptimizerProblem, options: NicheOptions, snapshot: Json | undefined) {
    this.#problem = problem;
    this.#options = options;
    this.#seeds = seedsOf(problem);
    this.#archive = new NicheArchive(options.archive, options);
    if (snapshot !== undefined) this.#restore(snapshot);
  }

  ask(): readonly Candidate[] {
    if (this.#pending !== undefined) throw new Error("ask was called twice without a tell");
    this.#pending = Array.from({ length: this.#batchSize() }, (_, slot) =>
      this.#candidate(this.#nextId + slot),
    );
    return this.#pending;
  }

  /** A batch ends with the seeds and with the warm-up: breeding must have seen what came before. */
  #batchSize(): number {
    const phases = [this.#seeds.length, this.#seeds.length + this.#options.warmup];
    const end = phases.find((phase) => this.#nextId < phase) ?? Number.POSITIVE_INFINITY;
    return Math.min(this.#options.batch, end - this.#nextId);
  }

  #candidate(id: number): Candidate {
    const generation = this.#generation;
    const seed = this.#seeds[id];
    if (seed !== undefined) {
      return { id, generation, genome: seed, parents: [], operator: "seed" };
    }
    const stream = randomStream(this.#problem.seed, "natural-niches", id);
    const warming = id < this.#seeds.length + this.#options.warmup;
    return { id, generation, ...(warming ? this.#seedMerge(stream) : this.#child(stream)) };
  }

  /** A merge of two random seeds. */
  #seedMerge(stream: RandomStream): Offspring {
    const a = stream.integer(this.#seeds.length);
    const b = (a + 1 + stream.integer(this.#seeds.length - 1)) % this.#seeds.length;
    return { ...this.#cross(this.#seed(a), this.#seed(b), stream), operator: "warmup" };
  }

  #seed(id: number): Parent {
    return { id, genome: this.#seeds[id]! };
  }

  #child(stream: RandomStream): Offspring {
    const [a, b] = this.#archive.parents(stream, this.#options.attraction);
    if (a === undefined) return this.#seedMerge(stream);
    if (!this.#options.crossover) return this.#copy(a, stream);
    return this.#cross(a, b ?? this.#mateAmongSeeds(a, stream), stream);
  }

  /** A lone survivor breeds with a seed, whether that seed survived or not, rather than with itself. */
  #mateAmongSeeds(a: Parent, stream: RandomStream): Parent {
    const ids = [...this.#seeds.keys()].filter((id) => id !== a.id);
    return this.#seed(ids[stream.integer(ids.length)]!);
  }

  #copy(a: Parent, stream: RandomStream): Offspring {
    return { genome: this.#mutated(a.genome, stream), parents: [a.id], operator: "mutation" };
  }

  #cross(a: Parent, b: Parent, stream: RandomStream): Offspring {
    const { split, angle } = this.#options;
    const position = stream.uniform();
    const ratio = stream.uniform();
    const genome = crossGenomes(
      this.#problem,
      a.genome,
      b.genome,
      split ? position : 0,
      split ? ratio : 1 - ratio,
      angle,
    );
    return { genome: this.#mutated(genome, stream), parents: [a.id, b.id], operator: "crossover" };
  }

  #mutated(genome: Genome, stream: RandomStream): Genome {
    const { mutation } = this.#options;
    if (genome.kind !== "vector" || mutation === 0) return genome;
    return {
      kind: "vector",
      values: genome.values.map((x) => unit(x + mutation * stream.normal())),
    };
  }

  tell(outcomes: readonly Outcome[]): void {
    const matched = matchOutcomes(this.#pending, outcomes, 1);
    const pending = this.#pending ?? [];
    matched.forEach((outcome, slot) => {
      if (outcome.state === "complete") this.#commit(pending[slot]!, outcome);
    });
    this.#best = betterOf(this.#best, matched);
    this.#nextId += matched.length;
    this.#generation += 1;
    this.#pending = undefined;
    this.#watchCoverage();
    if (this.#nextId === this.#seeds.length && this.#archive.members.length === 0) {
      this.#warnings.push(
        `all ${this.#seeds.length} seeds failed; breeding from them all the same`,
      );
    }
  }

  #commit(candidate: Candidate, outcome: Extract<Outcome, { state: "complete" }>): void {
    const scores = this.#scoresOf(outcome);
    const admission = this.#archive.admit({ id: candidate.id, genome: candidate.genome, scores });
    if (admission.kind !== "dropped") this.#accepted += 1;
  }

  /** The outcome's item scores; its fitness as the only item where the evaluator gives none. */
  #scoresOf(outcome: Extract<Outcome, { state: "complete" }>): ScoreRow {
    if (this.#scoredBy === undefined) this.#decideScoring(outcome);
    const scores = this.#scoredBy === "fitness" ? outcome.fitness : outcome.items;
    if (scores === undefined || scores.length !== this.#items) {
      throw new MendelError(
        "mismatch",
        `candidate ${outcome.id} has ${scores?.length ?? 0} item scores, earlier ones have ${this.#items}`,
        { hint: "niches can only be compared on the same items: start a new run for other data" },
      );
    }
    return Float64Array.from(scores, (score) => (Number.isFinite(score) ? score : 0));
  }

  #decideScoring(outcome: Extract<Outcome, { state: "complete" }>): void {
    const items = outcome.items?.length ?? 0;
    this.#scoredBy = items > 0 ? "items" : "fitness";
    this.#items = items > 0 ? items : 1;
    if (items === 0) {
      this.#warnings.push(
        "the evaluator gives no scores per item, so there are no niches to find: only the overall fitness counts",
      );
    }
  }

  #watchCoverage(): void {
    if (this.#scoredBy !== "items") return;
    const coverage = this.#archive.coverage;
    if (coverage >= this.#peakCoverage) {
      this.#peakCoverage = coverage;
      this.#warnedCoverage = coverage;
    } else if (coverage < this.#warnedCoverage - COVERAGE_LOSS) {
      this.#warnedCoverage = coverage;
      this.#warnings.push(
        `coverage fell from ${this.#peakCoverage.toFixed(3)} to ${coverage.toFixed(3)}: items that some model solved are solved by none in the archive; a larger archive keeps more`,
      );
    }
  }

  snapshot(): Json {
    return {
      optimizer: "natural_niches",
      nextId: this.#nextId,
      generation: this.#generation,
      accepted: this.#accepted,
      best: this.#best ?? null,
      items: this.#items ?? null,
      scoredBy: this.#scoredBy ?? null,
      peakCoverage: this.#peakCoverage,
      warnedCoverage: this.#warnedCoverage,
      slots: this.#archive.slots.map((member) =>
        member === undefined
          ? null
          : { id: member.id, genome: member.genome, scores: encodeScores(member.scores) },
      ),
    };
  }

  #restore(snapshot: Json): void {
    const saved = parseSnapshot("natural_niches", Snapshot, snapshot);
    this.#nextId = saved.nextId;
    this.#generation = saved.generation;
    this.#accepted = saved.accepted;
    this.#best = saved.best ?? undefined;
    this.#items = saved.items ?? undefined;
    this.#scoredBy = saved.scoredBy ?? undefined;
    this.#peakCoverage = saved.peakCoverage;
    this.#warnedCoverage = saved.warnedCoverage;
    if (saved.slots.length > this.#archive.capacity) {
      throw new MendelError(
        "invalid-config",
        `optimizer.archive: ${this.#archive.capacity} slots for a saved archive of ${saved.slots.length}`,
        { hint: "an archive can be enlarged, not shrunk", where: { key: "optimizer.archive" } },
      );
    }
    saved.slots.forEach((entry, slot) => {
      if (entry === null) return;
      checkGenome(this.#problem, entry.genome);
      const scores = decodeScores(entry.scores, saved.items ?? 0);
      this.#archive.restore(slot, { ...entry, scores });
    });
  }

  get status(): Readonly<Record<string, number>> {
    return {
      evaluations: this.#nextId,
      ...(this.#best === undefined ? {} : { best: this.#best }),
      archive: this.#archive.members.length,
      accepted: this.#accepted,
      coverage: this.#archive.coverage,
      entropy: this.#archive.entropy,
    };
  }

  takeWarnings(): readonly string[] {
    return this.#warnings.splice(0);
  }
}

type Offspring = Pick<Candidate, "genome" | "parents" | "operator">;

/** The first candidates: the known points; for segments at least each model alone; for vectors at least two points. */
function seedsOf(problem: OptimizerProblem): readonly Genome[] {
  if (problem.segments !== undefined) {
    if (problem.initial.length > 1) return problem.initial;
    const models = modelCount(problem.segments);
    if (models < 2) {
      throw new MendelError("invalid-config", "natural_niches needs at least two models to merge");
    }
    return [
      ...problem.initial,
      ...Array.from({ length: models }, (_, k) => singleModel(k, models)),
    ];
  }
  if (problem.initial.length > 1) return problem.initial;
  const stream = randomStream(problem.seed, "natural-niches", "seeds");
  const sample: Genome = { kind: "vector", values: problem.axes.map(() => stream.uniform()) };
  const first: Genome = problem.initial[0] ?? { kind: "vector", values: problem.start };
  return [first, sample];
}

function checkGenome(problem: OptimizerProblem, genome: Genome): void {
  if (genome.kind === "vector") {
    expectLength("natural_niches", "genes", genome.values.length, problem.axes.length);
  } else if (problem.segments !== undefined) {
    checkSegments(genome, problem.segments);
  } else {
    throw new MendelError("mismatch", "the saved archive holds segments, the space has genes");
  }
}

/** @param position of the split, as a share of the length; 0 leaves one segment with ratio 1 − `ratio` */
function crossGenomes(
  problem: OptimizerProblem,
  a: Genome,
  b: Genome,
  position: number,
  ratio: number,
  angle: SlerpAngle,
): Genome {
  if (a.kind === "segments" && b.kind === "segments" && problem.segments !== undefined) {
    const { length } = problem.segments;
    const index = roundToBoundary(
      problem.segments,
      Math.min(length - 1, Math.floor(position * length)),
    );
    return crossSegments(problem.segments, a, b, index, ratio, angle);
  }
  if (a.kind !== "vector" || b.kind !== "vector") throw new Error("parents of different kinds");
  const values = new Array<number>(a.values.length).fill(0);
  const index = Math.min(values.length - 1, Math.floor(position * values.length));
  crossVectors(a.values, b.values, index, ratio, angle, values);
  return { kind: "vector", values: values.map(unit) };
}

/** Confined to [0, 1]. */
function unit(x: number): number {
  return Math.min(1, Math.max(0, x));
}
