import { statSync } from "node:fs";
import { hostname } from "node:os";
import { resolve } from "node:path";
import { MendelError } from "../base/errors.ts";
import { canonicalJson, type Json } from "../base/json.ts";
import { type Connection, openWriter, type WriterOptions } from "./connection.ts";
import { EventQueue } from "./event-queue.ts";
import { inputsOf } from "./inputs.ts";
import { evaluationsOf, metricsOf, resultsOf, runById, runByName } from "./read-rows.ts";
import type {
  ArtifactRow,
  ClosedSnapshot,
  EvaluationOpening,
  EvaluationRecord,
  EvaluatorRow,
  EventLevel,
  FitnessRecord,
  GenerationOpening,
  InputDifference,
  InputFile,
  NewRun,
  OpenGeneration,
  RecordReport,
  RunRow,
  RunState,
  Split,
  StoredScores,
} from "./rows.ts";
import { acquireRunLock, type RunLock } from "./run-lock.ts";
import { type FailureContext, guarded } from "./store-error.ts";
import {
  insertEvaluations,
  insertGeneration,
  markGenerationClosed,
  newestSnapshot,
  trialIdOf,
  trialsOfGeneration,
} from "./write-generation.ts";
import { insertFitness, insertScores, recordOutcome } from "./write-results.ts";
import { differencesOf, insertRun } from "./write-run.ts";

/** A checkpoint costs two flushes; generations of a small model take less time than that. */
const CHECKPOINT_EVERY_MS = 10_000;

export interface RunStoreOptions extends WriterOptions {
  /** Milliseconds since 1970; for tests. */
  readonly now?: () => number;
}

/**
 * The writer of the run store: everything a search records.
 *
 * Promises: each method is one transaction, on the disk when it returns; after a crash at any moment the database holds
 * exactly what had returned, and perhaps the call in flight, whole. Results are recorded once: the first one stands. Row
 * ids of a generation are given when it opens, so they do not depend on the order in which results arrive.
 *
 * Methods throw MendelError `resource` when the disk is full or fails and `database` when the file is locked or damaged;
 * a plain Error means that the caller broke the order of calls.
 */
export class RunStore {
  readonly path: string;
  readonly database: Connection;
  readonly #now: () => number;
  readonly #inode: number;
  readonly #events: EventQueue;
  #checkpointMs = performance.now();

  private constructor(path: string, database: Connection, now: () => number) {
    this.path = path;
    this.database = database;
    this.#now = now;
    this.#inode = statSync(path).ino;
    this.#events = new EventQueue(database, (write) => this.#transaction(undefined, write));
  }

  /** Opens or creates a database; see `openWriter`. */
  static open(file: string, options: RunStoreOptions = {}): RunStore {
    const path = resolve(file);
    return new RunStore(path, openWriter(path, options), options.now ?? Date.now);
  }

  /** Writes what is queued, folds the log into the file, and closes. Safe to call twice. */
  close(): void {
    if (!this.database.open) return;
    try {
      this.#events.flush();
      try {
        this.database.pragma("optimize");
        this.database.pragma("wal_checkpoint(TRUNCATE)");
      } catch {
        // Everything is in the log already; the next process that opens the database folds it in.
      }
    } finally {
      this.database.close();
    }
  }

  // --- runs -----------------------------------------------------------------------------------------------------------

  /**
   * Adds a run in state "new".
   *
   * @throws MendelError `usage` for a name that is taken or unusable
   */
  createRun(run: NewRun): RunRow {
    return this.#transaction(undefined, () => {
      const id = insertRun(this.database, run, this.#now());
      return runById(this.database, id) as RunRow;
    });
  }

  /** The run of that name, or undefined. */
  run(name: string): RunRow | undefined {
    return guarded({ path: this.path }, () => runByName(this.database, name));
  }

  setRunState(run: number, state: RunState, reason?: string): void {
    this.#transaction(run, () => {
      this.database
        .prepare("UPDATE run SET state = ?, reason = ? WHERE run_id = ?")
        .run(state, reason ?? null, run);
    });
  }

  /** A changed budget (`resume --budget +200`). */
  setBudget(run: number, budget: Json): void {
    this.#transaction(run, () => {
      this.database
        .prepare("UPDATE run SET budget_json = ? WHERE run_id = ?")
        .run(canonicalJson(budget), run);
    });
  }

  /**
   * Compares files with what the run began with, by role and content; paths may differ.
   *
   * @returns what is not the same, in the order of roles; empty when a resume is safe
   */
  compareInputs(run: number, inputs: readonly InputFile[]): InputDifference[] {
    return differencesOf(inputsOf(this.database, run), inputs);
  }

  // --- who drives it --------------------------------------------------------------------------------------------------

  /** The right to drive a run; see `acquireRunLock`. Take it before `beginIncarnation`, release it last. */
  lock(run: RunRow): RunLock {
    return acquireRunLock(this.path, run);
  }

  /**
   * Notes that this process drives the run from now on, forgets old stop requests, and marks the run as running. The
   * caller holds the run's lock, so whoever began earlier and did not end was killed.
   *
   * @returns the incarnation's id
   */
  beginIncarnation(run: number): number {
    return this.#transaction(run, () => {
      this.database
        .prepare(
          `UPDATE incarnation SET end_reason = 'killed', ended_ms = max(started_ms, coalesce(
             (SELECT max(finished_ms) FROM evaluation
              WHERE run_id = incarnation.run_id AND finished_ms IS NOT NULL), 0))
           WHERE run_id = ? AND ended_ms IS NULL`,
        )
        .run(run);
      this.database.prepare("DELETE FROM stop_request WHERE run_id = ?").run(run);
      this.database
        .prepare("UPDATE run SET state = 'running', reason = NULL WHERE run_id = ?")
        .run(run);
      const { lastInsertRowid } = this.database
        .prepare("INSERT INTO incarnation(run_id, host, pid, started_ms) VALUES (?, ?, ?, ?)")
        .run(run, hostname(), process.pid, this.#now());
      return Number(lastInsertRowid);
    });
  }

  endIncarnation(incarnation: number, reason: string): void {
    this.#events.flush();
    this.#transaction(undefined, () => {
      this.database
        .prepare("UPDATE incarnation SET ended_ms = ?, end_reason = ? WHERE incarnation_id = ?")
        .run(this.#now(), reason, incarnation);
    });
  }

  /** Seconds that finished incarnations drove the run; what a time budget has already spent when it is resumed. */
  secondsDriven(run: number): number {
    return guarded({ path: this.path }, () => {
      const ms = this.database
        .prepare<[number], number | null>(
          `SELECT sum(max(0, ended_ms - started_ms)) FROM incarnation
           WHERE run_id = ? AND ended_ms IS NOT NULL`,
        )
        .pluck()
        .get(run);
      return (ms ?? 0) / 1000;
    });
  }

  /** Asks whoever drives the run to save and end. */
  requestStop(run: number): void {
    this.#transaction(run, () => {
      this.database
        .prepare(
          "INSERT OR REPLACE INTO stop_request(run_id, at_ms, host, pid) VALUES (?, ?, ?, ?)",
        )
        .run(run, this.#now(), hostname(), process.pid);
    });
  }

  /** Whether somebody asked since the incarnation began. Costs microseconds; poll it between evaluations. */
  stopRequested(run: number): boolean {
    return guarded(
      { path: this.path },
      () =>
        this.database.prepare("SELECT 1 FROM stop_request WHERE run_id = ?").get(run) !== undefined,
    );
  }

  // --- generations ----------------------------------------------------------------------------------------------------

  /** Records a whole generation as planned: its trials, parents and queued evaluations, in the given order. */
  openGeneration(run: number, generation: GenerationOpening): void {
    this.#checkFile();
    this.#transaction(run, () => {
      insertGeneration(this.database, run, generation, this.#now());
    });
  }

  /** Queues more evaluations of a trial (finalists on validation and test); those that exist already are left alone. */
  addEvaluations(run: number, trial: number, evaluations: readonly EvaluationOpening[]): void {
    this.#transaction(run, () => {
      insertEvaluations(this.database, run, trialIdOf(this.database, run, trial), evaluations);
    });
  }

  /**
   * Ends a generation with the optimizer state after `tell`.
   *
   * @throws Error when one of its search evaluations is still queued
   */
  closeGeneration(run: number, { gen, snapshot }: ClosedSnapshot): void {
    this.#checkFile();
    this.#transaction(run, () => {
      markGenerationClosed(this.database, run, { gen, snapshot }, this.#now());
    });
    const now = performance.now();
    if (now - this.#checkpointMs < CHECKPOINT_EVERY_MS) return;
    this.#checkpointMs = now;
    try {
      // Keeps the log short and the file nearly complete, without waiting for readers.
      this.database.pragma("wal_checkpoint(PASSIVE)");
    } catch {
      // The generation is safe in the log; a disk that is full will say so at the next write.
    }
  }

  /** Optimizer state after the last closed generation, verified by digest; undefined before the first. */
  lastClosedSnapshot(run: number): ClosedSnapshot | undefined {
    return guarded({ path: this.path }, () => newestSnapshot(this.database, run, "closed"));
  }

  /** The generation that was opened and not closed, with all that is known about its trials; what a resume goes on with. */
  openGenerationRows(run: number): OpenGeneration | undefined {
    return guarded({ path: this.path }, () => {
      const open = newestSnapshot(this.database, run, "open");
      return open === undefined
        ? undefined
        : { ...open, trials: trialsOfGeneration(this.database, run, open.gen) };
    });
  }

  // --- results --------------------------------------------------------------------------------------------------------

  /**
   * Records what came back for trials, each on one split, with its fitness when given: all of them in one transaction,
   * because a commit takes longer than many an evaluation.
   *
   * A second result changes nothing; the report says whether it differs from the first. A "cancelled" failure is no
   * result: the evaluations stay queued.
   *
   * @returns one report per record, in order
   */
  recordEvaluations(run: number, records: readonly EvaluationRecord[]): RecordReport[] {
    const reports = this.#transaction(run, () =>
      records.map((record) => this.#record(run, record)),
    );
    reports.forEach((report, i) => {
      const { trial, split } = records[i] as EvaluationRecord;
      if (report.differs) this.logEvent(run, "warn", "result-differs", { trial, split });
    });
    return reports;
  }

  /** As `recordEvaluations`, for one. */
  recordEvaluation(run: number, record: EvaluationRecord): RecordReport {
    return this.recordEvaluations(run, [record])[0] as RecordReport;
  }

  #record(run: number, record: EvaluationRecord): RecordReport {
    const { outcome } = record;
    if (outcome.state === "failed" && outcome.failure === "cancelled") {
      return { recorded: false, differs: false };
    }
    const trialId = trialIdOf(this.database, run, record.trial);
    const reports = record.evaluators.map((evaluator) =>
      recordOutcome(this.database, trialId, evaluator, record, this.#now()),
    );
    if (record.fitness !== undefined) {
      insertFitness(this.database, run, trialId, record.split, record.fitness);
    }
    return {
      recorded: reports.some((one) => one.recorded),
      differs: reports.some((one) => one.differs),
    };
  }

  /** Records fitness; the first one of a trial and split stands. */
  recordFitness(run: number, records: readonly FitnessRecord[]): void {
    this.#transaction(run, () => {
      for (const { trial, split, fitness } of records) {
        insertFitness(this.database, run, trialIdOf(this.database, run, trial), split, fitness);
      }
    });
  }

  /** Finished scores under a key, from any run; failures are never reused. */
  findScores(evalKey: string): StoredScores | undefined {
    return guarded({ path: this.path }, () => {
      const row = this.database
        .prepare<[string], { eval_id: number; evaluator: string; split: Split }>(
          `SELECT eval_id, evaluator, split FROM evaluation
           WHERE eval_key = ? AND state = 'done' ORDER BY eval_id LIMIT 1`,
        )
        .get(evalKey);
      if (row === undefined) return undefined;
      const { evaluator, split } = row;
      const metrics = metricsOf(this.database, row.eval_id);
      return { evaluation: row.eval_id, result: { evaluator, split, metrics } };
    });
  }

  /**
   * Finishes a queued evaluation with stored scores; one that is finished already is left alone.
   *
   * @param from `evaluation` of `findScores`
   * @param to id of the queued evaluation
   * @returns the scores under the evaluation's own evaluator name and split
   */
  copyEvaluation(from: number, to: number): EvaluatorRow {
    return this.#transaction(undefined, () => {
      const { changes } = this.database
        .prepare(
          `UPDATE evaluation SET state = 'done', cached_from = ?, seconds = 0, finished_ms = ?
           WHERE eval_id = ? AND state = 'queued'
             AND EXISTS (SELECT 1 FROM evaluation WHERE eval_id = ? AND state = 'done')`,
        )
        .run(from, this.#now(), to, from);
      if (changes === 1) insertScores(this.database, to, metricsOf(this.database, from));
      const row = this.database
        .prepare<[number], { evaluator: string; split: Split }>(
          "SELECT evaluator, split FROM evaluation WHERE eval_id = ? AND state = 'done'",
        )
        .get(to);
      if (row === undefined) throw new Error(`evaluation ${from} has no scores to copy to ${to}`);
      return { ...row, metrics: metricsOf(this.database, to) };
    });
  }

  /** Finished results of a trial on one split, with item scores, in the order the evaluators were opened. */
  results(run: number, trial: number, split: Split): EvaluatorRow[] {
    return guarded({ path: this.path }, () =>
      resultsOf(this.database, trialIdOf(this.database, run, trial), split),
    );
  }

  /** Evaluations of a trial that are still to be made, in order. */
  queuedEvaluations(run: number, trial: number): EvaluationOpening[] {
    return guarded({ path: this.path }, () =>
      evaluationsOf(this.database, trialIdOf(this.database, run, trial))
        .filter((row) => row.state === "queued")
        .map(({ evaluator, split, evalKey }) => ({ evaluator, split, evalKey })),
    );
  }

  /** SHA-256 of a trial's merged weights, once they have been computed. */
  setWeightsDigest(run: number, trial: number, digest: string): void {
    this.#transaction(run, () => {
      this.database
        .prepare("UPDATE trial SET weights_sha256 = ? WHERE trial_id = ?")
        .run(digest, trialIdOf(this.database, run, trial));
    });
  }

  /** Notes a file that exists and is complete. Writing the same path again replaces the note. */
  recordArtifact(run: number, artifact: Omit<ArtifactRow, "createdMs">): void {
    this.#transaction(run, () => {
      const trialId =
        artifact.trial === undefined ? null : trialIdOf(this.database, run, artifact.trial);
      this.database
        .prepare(
          `INSERT INTO artifact(run_id, trial_id, kind, path, sha256, bytes, created_ms) VALUES (?, ?, ?, ?, ?, ?, ?)
           ON CONFLICT(run_id, path) DO UPDATE SET trial_id = excluded.trial_id, kind = excluded.kind,
             sha256 = excluded.sha256, bytes = excluded.bytes, created_ms = excluded.created_ms`,
        )
        .run(
          run,
          trialId,
          artifact.kind,
          artifact.path,
          artifact.sha256,
          artifact.bytes,
          this.#now(),
        );
    });
  }

  /** Queues an event; events reach the disk within 250 ms, and before anything that ends the run. */
  logEvent(run: number, level: EventLevel, kind: string, body: Json = {}): void {
    this.#events.add({ run, atMs: this.#now(), level, kind, body });
  }

  /** Writes queued events now. */
  flushEvents(): void {
    this.#events.flush();
  }

  // --- inside ---------------------------------------------------------------------------------------------------------

  #transaction<T>(run: number | undefined, work: () => T): T {
    try {
      return this.database.transaction(work).immediate();
    } catch (thrown) {
      return guarded(this.#failureContext(run), () => {
        throw thrown;
      });
    }
  }

  /** What is safe when a write fails; reading still works on a full disk. */
  #failureContext(run: number | undefined): FailureContext {
    const context: FailureContext = { path: this.path };
    if (run === undefined) return context;
    try {
      const row = this.database
        .prepare<[number, number], { name: string; finished: number; writers: string | null }>(
          `SELECT name, (SELECT count(*) FROM evaluation WHERE run_id = run.run_id AND finished_ms IS NOT NULL) AS finished,
             (SELECT group_concat('process ' || pid || ' on ' || host, ' or ') FROM incarnation
              WHERE ended_ms IS NULL AND pid <> ?) AS writers
           FROM run WHERE run_id = ?`,
        )
        .get(process.pid, run);
      if (row === undefined) return context;
      return {
        ...context,
        run: row.name,
        saved: `${row.finished} finished evaluations of run ${row.name} are saved.`,
        ...(row.writers === null ? {} : { writers: row.writers }),
      };
    } catch {
      // The failure being reported matters more than what cannot be read now.
      return context;
    }
  }

  /** A database that was deleted or replaced under a running search would take results to the grave with it. */
  #checkFile(): void {
    const now = statSync(this.path, { throwIfNoEntry: false });
    if (now?.ino === this.#inode) return;
    throw new MendelError(
      "database",
      `${this.path} was ${now === undefined ? "deleted" : "replaced"} while the run was using it`,
      {
        where: { file: this.path },
        hint: "put the file back, then `mendel resume`; results since then are lost",
      },
    );
  }
}
