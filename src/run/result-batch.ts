import type { EvaluationRecord } from "../store/rows.ts";
import type { RunStore } from "../store/run-store.ts";

/** Longest time a result waits to be written together with others; what a crash can make be done again. */
const DELAY_MS = 100;

/**
 * Writes results in groups: one flush to disk takes as long as many evaluations of a small model. A result is written when
 * it has waited for `DELAY_MS`, or at once when nothing else is under way that it could wait for.
 */
export class ResultBatch {
  readonly #store: RunStore;
  readonly #runId: number;
  #records: EvaluationRecord[] = [];
  #written: Promise<void> | undefined;
  #write: (() => void) | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** Evaluations that have begun and not come back. */
  #underWay = 0;

  constructor(store: RunStore, runId: number) {
    this.#store = store;
    this.#runId = runId;
  }

  /** An evaluation begins; its result will be added or dropped. */
  begin(): void {
    this.#underWay += 1;
  }

  /** An evaluation came back without a result to write. */
  drop(): void {
    this.#underWay -= 1;
    this.#flushIfIdle();
  }

  /** An evaluation came back. @returns when its result is on the disk */
  async add(record: EvaluationRecord): Promise<void> {
    this.#underWay -= 1;
    this.#records.push(record);
    this.#written ??= new Promise((resolve, reject) => {
      this.#write = () => {
        try {
          this.#flush();
          resolve();
        } catch (thrown) {
          reject(thrown);
        }
      };
      this.#timer = setTimeout(this.#write, DELAY_MS);
    });
    const written = this.#written;
    this.#flushIfIdle();
    await written;
  }

  #flushIfIdle(): void {
    if (this.#underWay === 0) this.#write?.();
  }

  #flush(): void {
    clearTimeout(this.#timer);
    const records = this.#records;
    this.#records = [];
    this.#written = undefined;
    this.#write = undefined;
    this.#store.recordEvaluations(this.#runId, records);
  }
}
