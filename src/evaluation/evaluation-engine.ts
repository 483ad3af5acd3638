import { MendelError, messageOf } from "../base/errors.ts";
import type { Recipe } from "../recipes/recipe.ts";
import type { EvaluatorDefinition } from "./evaluator-schema.ts";
import type {
  EvaluationRequest,
  EvaluationResult,
  EvaluatorResult,
  FailureClass,
  MetricResult,
  Split,
} from "./executor.ts";
import { openFixedProgram } from "./fixed-program.ts";
import { createScorer, itemRows } from "./item-scores.ts";
import { createModuleScorer, loadMetricModule, type MetricModule } from "./metric-module.ts";
import type { ItemRows } from "./metrics/metric.ts";
import { type Batch, type PreparedSplit, prepareSplit } from "./prepared-split.ts";
import type { Program } from "./program.ts";
import type { Outputs } from "./session.ts";
import type { SplitLoader } from "./split-data.ts";

/** What one thread evaluates with; the same for workers, the inline executor and model files. */
export interface EngineOptions {
  readonly evaluators: readonly EvaluatorDefinition[];
  readonly program: Program;
  readonly data: SplitLoader;
  /** A program that answers as the named model does, for agreement. */
  openTeacher(model: string): Promise<Program>;
}

/** Asked between minibatches; true ends the evaluation. */
export type CancelCheck = () => boolean | Promise<boolean>;

/** Teacher outputs are kept for the whole search; more than this is a data set that should be cut. */
const MAX_TEACHER_BYTES = 2 ** 30;

/** Everything of one evaluator and split that stays the same from candidate to candidate. */
interface Readied {
  readonly prepared: PreparedSplit;
  readonly module: MetricModule | undefined;
  readonly teacher: readonly ItemRows[] | undefined;
}

/** Evaluates recipes with one program, one at a time. */
export class EvaluationEngine {
  readonly #options: EngineOptions;
  readonly #readied = new Map<string, Promise<Readied>>();

  constructor(options: EngineOptions) {
    this.#options = options;
  }

  /**
   * Loads data, modules and teachers of a split ahead of the first candidate, so that what is wrong with them is said before
   * any work.
   *
   * @throws MendelError
   */
  async prepare(split: Split): Promise<void> {
    for (const definition of this.#options.evaluators) await this.#ready(definition, split);
  }

  /** Never rejects because of the candidate. */
  async evaluate(request: EvaluationRequest, cancelled: CancelCheck): Promise<EvaluationResult> {
    const started = performance.now();
    const seconds = (): number => (performance.now() - started) / 1000;
    const failed = (failure: FailureClass, message: string): EvaluationResult => ({
      state: "failed",
      failure,
      message,
      seconds: seconds(),
      attempts: 1,
    });
    let stage: FailureClass = "merge";
    const enter = (next: FailureClass): void => {
      stage = next;
    };
    try {
      if (await cancelled()) return failed("cancelled", "the evaluation was cancelled");
      await this.#options.program.load(request.recipe);
      const results: EvaluatorResult[] = [];
      for (const name of request.evaluators) {
        const metrics = await this.#score(name, request.split, enter, cancelled);
        if (metrics === undefined) return failed("cancelled", "the evaluation was cancelled");
        results.push({ evaluator: name, split: request.split, metrics });
      }
      return { state: "done", results, seconds: seconds(), attempts: 1 };
    } catch (thrown) {
      const nonFinite = thrown instanceof MendelError && thrown.code === "non-finite";
      return failed(nonFinite ? "non-finite" : stage, messageOf(thrown));
    }
  }

  /** Seconds that the minibatches of all evaluators' search items take, judged by a typical one of each. */
  async timeSearchItems(): Promise<number> {
    let total = 0;
    for (const definition of this.#options.evaluators) {
      const { prepared } = await this.#ready(definition, "search");
      const typical = prepared.batches[Math.floor(prepared.batches.length / 2)]!;
      const run = (): Promise<unknown> =>
        this.#options.program.run(typical.feeds, prepared.outputs);
      total += (await shortest(run)) * prepared.batches.length;
    }
    return total;
  }

  release(): Promise<void> {
    return this.#options.program.release();
  }

  /** @returns undefined when cancelled */
  async #score(
    name: string,
    split: Split,
    enter: (stage: FailureClass) => void,
    cancelled: CancelCheck,
  ): Promise<readonly MetricResult[] | undefined> {
    enter("metric");
    const definition = this.#options.evaluators.find((candidate) => candidate.name === name);
    if (definition === undefined) throw new Error(`no evaluator ${name}`);
    const { prepared, module, teacher } = await this.#ready(definition, split);
    const scorer =
      module === undefined ? createScorer(prepared, teacher) : createModuleScorer(prepared, module);
    for (const batch of prepared.batches) {
      if (await cancelled()) return undefined;
      enter("inference");
      const outputs = await this.#options.program.run(batch.feeds, prepared.outputs);
      enter("metric");
      await scorer.add(batch, outputs);
    }
    return scorer.results();
  }

  #ready(definition: EvaluatorDefinition, split: Split): Promise<Readied> {
    const key = `${split} ${definition.name}`;
    const known = this.#readied.get(key);
    if (known !== undefined) return known;
    const fresh = this.#makeReady(definition, split);
    this.#readied.set(key, fresh);
    return fresh;
  }

  async #makeReady(definition: EvaluatorDefinition, split: Split): Promise<Readied> {
    const rows = await this.#options.data.load(definition, split);
    const prepared = prepareSplit(definition, split, rows, this.#options.program.signature);
    return {
      prepared,
      module:
        definition.module === undefined ? undefined : await loadMetricModule(definition.module),
      teacher: definition.teacher === undefined ? undefined : await this.#teach(prepared),
    };
  }

  /** Outputs of the teacher on every item, in data order. */
  async #teach(prepared: PreparedSplit): Promise<readonly ItemRows[]> {
    const { teacher } = prepared.definition;
    if (teacher === undefined) throw new Error("no teacher");
    const program =
      teacher.kind === "file"
        ? await openFixedProgram(teacher.at)
        : await this.#options.openTeacher(teacher.at);
    const answers: ItemRows[] = new Array(prepared.items);
    let bytes = 0;
    try {
      for (const batch of prepared.batches) {
        const outputs = await program.run(batch.feeds, prepared.outputs);
        for (const [item, rows] of ownedRows(prepared, batch, outputs)) {
          bytes += rows.output.byteLength;
          if (bytes > MAX_TEACHER_BYTES) throw tooMuchToTeach(prepared.definition);
          answers[item] = rows;
        }
      }
    } finally {
      await program.release();
    }
    return answers;
  }
}

/** Rows of a batch that outlive it. */
function ownedRows(
  prepared: PreparedSplit,
  batch: Batch,
  outputs: Outputs,
): readonly (readonly [item: number, rows: ItemRows])[] {
  return itemRows(prepared, batch, outputs).map((rows, at) => [
    batch.items[at]!,
    {
      ...rows,
      output: rows.output.slice(rows.start, rows.start + rows.rows * rows.width),
      start: 0,
    },
  ]);
}

function tooMuchToTeach(definition: EvaluatorDefinition): MendelError {
  return new MendelError(
    "resource",
    `evaluator "${definition.name}": the teacher's outputs take more than ${MAX_TEACHER_BYTES} bytes`,
    { hint: "set `limit` or a smaller `max_length`" },
  );
}

/** Repetitions of a measurement: enough to leave compilation and a busy machine behind, without holding up the start. */
const MAX_REPEATS = 8;
const MAX_REPEAT_SECONDS = 0.1;

/** Seconds of the fastest of several calls, the first of which does not count. */
async function shortest(work: () => Promise<unknown>): Promise<number> {
  await work();
  let best = Number.POSITIVE_INFINITY;
  let spent = 0;
  for (let i = 0; i < MAX_REPEATS && spent < MAX_REPEAT_SECONDS; i++) {
    const started = performance.now();
    await work();
    const seconds = (performance.now() - started) / 1000;
    best = Math.min(best, seconds);
    spent += seconds;
  }
  return best;
}

/**
 * Seconds that one candidate costs, loading its weights and running the search items: the mean over samples.
 *
 * @param engine an engine around the program
 */
export async function secondsPerCandidate(
  program: Program,
  engine: EvaluationEngine,
  samples: readonly Recipe[],
): Promise<number> {
  let total = 0;
  for (const sample of samples) {
    total += await shortest(() => program.load(sample));
    total += await engine.timeSearchItems();
  }
  return total / samples.length;
}
