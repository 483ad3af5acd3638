import { statSync } from "node:fs";
import { hostname } from "node:os";
import { resolve } from "node:path";
import { MendelError } from "../base/errors.ts";
import { digestOf, sha256 } from "../base/hash.ts";
import { canonicalJson, type Json } from "../base/json.ts";
import { encodeFloats, fitnessColumns, metricColumns } from "./codec.ts";
import { type Connection, openWriter, type WriterOptions } from "./connection.ts";
import { EventQueue } from "./event-queue.ts";
import {
  evaluationsOf,
  metricsOf,
  resultsOf,
  runById,
  runByName,
  type TrialColumns,
  trialProgress,
} from "./read-rows.ts";
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
  MetricRow,
  NewRun,
  OpenGeneration,
  RecordReport,
  RunRow,
  RunState,
  Split,
  StoredScores,
  TrialOpening,
} from "./rows.ts";
import { acquireRunLock, type RunLock } from "./run-lock.ts";
import { type FailureContext, guarded } from "./store-error.ts";

/** Optimizer states kept per run: the newest is what resume needs, the others are for inspection. */
const SNAPSHOTS_KEPT = 3;

/** Run names are used in paths, trial references and shell lines. */
const RUN_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;

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
      const name = run.name ?? this.#freeName(run.experiment);
      if (!RUN_NAME.test(name)) {
        throw new MendelError("usage", `"${name}" cannot be the name of a run`, {
          hint: "use letters, digits, dots, dashes and underscores, at most 100",
        });
      }
      if (runByName(this.database, name) !== undefined) {
        throw new MendelError("usage", `there already is a run named "${name}"`, {
          hint: `choose another --name, or go on with \`mendel resume ${name}\``,
        });
      }
      const configJson = canonicalJson(run.config);
      const { lastInsertRowid } = this.database
        .prepare(
          `INSERT INTO run(name, experiment, experiment_path, created_ms, state, seed, config_given, config_json,
             config_sha256, code_version, env_json, budget_json, objectives_json, axes_json)
           VALUES (?, ?, ?, ?, 'new', ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
        )
        .run(
          name,
          run.experiment,
          run.experimentPath,
          this.#now(),
          run.seed,
          run.configGiven,
          configJson,
          sha256(configJson),
          run.codeVersion,
          canonicalJson(run.environment),
          canonicalJson(run.budget),
          canonicalJson(run.objectives),
          canonicalJson(run.axes),
        );
      const id = Number(lastInsertRowid);
      this.#insertMetrics(id, run);
      this.#insertInputs(id, run.inputs);
      return this.#run(id);
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

  #freeName(experiment: string): string {
    const prefix = `${experiment}-`;
    const taken = this.database
      .prepare<[number, string], string>("SELECT name FROM run WHERE substr(name, 1, ?) = ?")
      .pluck()
      .all(prefix.length, prefix)
      .map((name) => name.slice(prefix.length))
      .filter((rest) => /^[1-9]\d{0,8}$/.test(rest))
      .map(Number);
    return `${prefix}${Math.max(0, ...taken) + 1}`;
  }

  #insertMetrics(run: number, { metrics }: NewRun): void {
    const insert = this.database.prepare(
      "INSERT INTO metric(run_id, ord, evaluator, metric, direction) VALUES (?, ?, ?, ?, ?)",
    );
    metrics.forEach(({ evaluator, metric, direction }, ord) => {
      insert.run(run, ord, evaluator, metric, direction);
    });
  }

  #insertInputs(run: number, inputs: readonly InputFile[]): void {
    const insert = this.database.prepare(
      "INSERT INTO input_file(run_id, role, path, sha256, bytes) VALUES (?, ?, ?, ?, ?)",
    );
    for (const { role, path, sha256: digest, bytes } of inputs) {
      insert.run(run, role, path, digest, bytes);
    }
  }

  /**
   * Compares files with what the run began with, by role and content; paths may differ.
   *
   * @returns what is not the same, in the order of roles; empty when a resume is safe
   */
  compareInputs(run: number, inputs: readonly InputFile[]): InputDifference[] {
    const stored = guarded({ path: this.path }, () =>
      this.database
        .prepare<[number], { role: string; path: string; sha256: string }>(
          "SELECT role, path, sha256 FROM input_file WHERE run_id = ? ORDER BY role",
        )
        .all(run),
    );
    const given = new Map(inputs.map((file) => [file.role, file]));
    const differences: InputDifference[] = [];
    for (const { role, path, sha256: digest } of stored) {
      const file = given.get(role);
      given.delete(role);
      if (file === undefined) differences.push({ role, path, problem: "missing" });
      else if (file.sha256 !== digest) {
        differences.push({ role, path: file.path, problem: "changed" });
      }
    }
    for (const { role, path } of given.values()) differences.push({ role, path, problem: "new" });
    return differences;
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
             (SELECT max(finished_ms) FROM evaluation WHERE run_id = incarnation.run_id), 0))
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
          "SELECT sum(ended_ms - started_ms) FROM incarnation WHERE run_id = ? AND ended_ms IS NOT NULL",
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
      const snapshot = canonicalJson(generation.snapshot);
      this.database
        .prepare(
          `INSERT INTO generation(run_id, gen, state, optimizer_json, optimizer_sha256, opened_ms)
           VALUES (?, ?, 'open', ?, ?, ?)`,
        )
        .run(run, generation.gen, snapshot, sha256(snapshot), this.#now());
      for (const trial of generation.trials) this.#insertTrial(run, generation.gen, trial);
    });
  }

  #insertTrial(run: number, gen: number, trial: TrialOpening): void {
    const { lastInsertRowid } = this.database
      .prepare(
        `INSERT INTO trial(run_id, number, gen, slot, origin, label, operator, recipe_sha256)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
      )
      .run(
        run,
        trial.number,
        gen,
        trial.slot,
        trial.origin,
        trial.label ?? null,
        trial.operator,
        trial.recipeSha256,
      );
    const id = Number(lastInsertRowid);
    this.database
      .prepare(
        "INSERT INTO recipe(trial_id, genome_json, genes_json, recipe_json) VALUES (?, ?, ?, ?)",
      )
      .run(
        id,
        trial.genome === undefined ? null : canonicalJson(trial.genome),
        trial.genes === undefined ? null : canonicalJson(trial.genes),
        canonicalJson(trial.recipe),
      );
    const insertParent = this.database.prepare(
      "INSERT INTO parent(child, ord, parent) VALUES (?, ?, ?)",
    );
    trial.parents.forEach((number, ord) => {
      insertParent.run(id, ord, this.#trial(run, number).trial_id);
    });
    this.#insertEvaluations(run, id, trial.evaluations);
  }

  #insertEvaluations(
    run: number,
    trialId: number,
    evaluations: readonly EvaluationOpening[],
  ): void {
    const insert = this.database.prepare(
      `INSERT INTO evaluation(run_id, trial_id, evaluator, split, eval_key, state)
       VALUES (?, ?, ?, ?, ?, 'queued') ON CONFLICT(trial_id, evaluator, split) DO NOTHING`,
    );
    for (const { evaluator, split, evalKey } of evaluations) {
      insert.run(run, trialId, evaluator, split, evalKey);
    }
  }

  /** Queues more evaluations of a trial (finalists on validation and test); those that exist already are left alone. */
  addEvaluations(run: number, trial: number, evaluations: readonly EvaluationOpening[]): void {
    this.#transaction(run, () => {
      this.#insertEvaluations(run, this.#trial(run, trial).trial_id, evaluations);
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
      const waiting = this.database
        .prepare<[number, number], number>(
          `SELECT count(*) FROM trial t JOIN evaluation e ON e.trial_id = t.trial_id
           WHERE t.run_id = ? AND t.gen = ? AND e.split = 'search' AND e.state = 'queued'`,
        )
        .pluck()
        .get(run, gen);
      if (waiting !== 0) {
        throw new Error(`generation ${gen} has ${waiting} search evaluations without a result`);
      }
      const text = canonicalJson(snapshot);
      const { changes } = this.database
        .prepare(
          `UPDATE generation SET state = 'closed', optimizer_json = ?, optimizer_sha256 = ?, closed_ms = ?
           WHERE run_id = ? AND gen = ? AND state = 'open'`,
        )
        .run(text, sha256(text), this.#now(), run, gen);
      if (changes !== 1) throw new Error(`generation ${gen} is not open`);
      this.database
        .prepare(
          `UPDATE generation SET optimizer_json = NULL
           WHERE run_id = ? AND gen <= ? AND optimizer_json IS NOT NULL`,
        )
        .run(run, gen - SNAPSHOTS_KEPT);
    });
    try {
      // Keeps the log short and the file nearly complete, without waiting for readers.
      this.database.pragma("wal_checkpoint(PASSIVE)");
    } catch {
      // The generation is safe in the log; a disk that is full will say so at the next write.
    }
  }

  /** Optimizer state after the last closed generation, verified by digest; undefined before the first. */
  lastClosedSnapshot(run: number): ClosedSnapshot | undefined {
    return guarded({ path: this.path }, () => {
      const row = this.database
        .prepare<[number], SnapshotColumns>(
          `SELECT gen, optimizer_json, optimizer_sha256 FROM generation
           WHERE run_id = ? AND state = 'closed' ORDER BY gen DESC LIMIT 1`,
        )
        .get(run);
      return row === undefined ? undefined : { gen: row.gen, snapshot: this.#snapshot(row) };
    });
  }

  /** The generation that was opened and not closed, with all that is known about its trials; what a resume goes on with. */
  openGenerationRows(run: number): OpenGeneration | undefined {
    return guarded({ path: this.path }, () => {
      const row = this.database
        .prepare<[number], SnapshotColumns>(
          `SELECT gen, optimizer_json, optimizer_sha256 FROM generation
           WHERE run_id = ? AND state = 'open'`,
        )
        .get(run);
      if (row === undefined) return undefined;
      const trials = this.database
        .prepare<[number, number], TrialColumns>(
          "SELECT * FROM trial WHERE run_id = ? AND gen = ? ORDER BY slot",
        )
        .all(run, row.gen)
        .map((trial) => trialProgress(this.database, trial));
      return { gen: row.gen, snapshot: this.#snapshot(row), trials };
    });
  }

  #snapshot({ gen, optimizer_json: text, optimizer_sha256: digest }: SnapshotColumns): Json {
    if (text === null || sha256(text) !== digest) {
      throw new MendelError(
        "database",
        `${this.path}: the optimizer state of generation ${gen} does not match its digest`,
        { where: { file: this.path }, hint: "restore a backup of the database" },
      );
    }
    return JSON.parse(text) as Json;
  }

  // --- results --------------------------------------------------------------------------------------------------------

  /**
   * Records what came back for one trial on one split, with its fitness when given, in one transaction.
   *
   * A second result changes nothing; the report says whether it differs from the first. A "cancelled" failure is no
   * result: the evaluations stay queued.
   */
  recordEvaluation(run: number, record: EvaluationRecord): RecordReport {
    const { outcome } = record;
    if (outcome.state === "failed" && outcome.failure === "cancelled") {
      return { recorded: false, differs: false };
    }
    const report = this.#transaction(run, () => {
      const trialId = this.#trial(run, record.trial).trial_id;
      const reports = record.evaluators.map((evaluator) =>
        this.#recordOne(trialId, evaluator, record),
      );
      if (record.fitness !== undefined) {
        this.#insertFitness(run, trialId, record.split, record.fitness);
      }
      return {
        recorded: reports.some((one) => one.recorded),
        differs: reports.some((one) => one.differs),
      };
    });
    if (report.differs) {
      this.logEvent(run, "warn", "result-differs", { trial: record.trial, split: record.split });
    }
    return report;
  }

  #recordOne(
    trialId: number,
    evaluator: string,
    { split, outcome, evaluators }: EvaluationRecord,
  ): RecordReport {
    const row = this.#evaluation(trialId, evaluator, split);
    if (row.state !== "queued") {
      return { recorded: false, differs: this.#differs(row, evaluator, outcome) };
    }
    this.database
      .prepare(
        `UPDATE evaluation SET state = ?, attempts = attempts + ?, failure = ?, message = ?, seconds = ?, finished_ms = ?
         WHERE eval_id = ?`,
      )
      .run(
        outcome.state,
        outcome.attempts,
        outcome.state === "failed" ? outcome.failure : null,
        outcome.state === "failed" ? outcome.message : null,
        // A request's time is shared by its evaluators, so that sums stay true.
        outcome.seconds / evaluators.length,
        this.#now(),
        row.eval_id,
      );
    if (outcome.state === "done") {
      this.#insertScores(row.eval_id, resultFor(outcome.results, evaluator).metrics);
    }
    return { recorded: true, differs: false };
  }

  #differs(
    row: { readonly eval_id: number; readonly state: string },
    evaluator: string,
    outcome: EvaluationRecord["outcome"],
  ): boolean {
    if (row.state !== outcome.state) return true;
    if (outcome.state === "failed") return false;
    return (
      scoresDigest(metricsOf(this.database, row.eval_id)) !==
      scoresDigest(resultFor(outcome.results, evaluator).metrics)
    );
  }

  #insertScores(evaluation: number, metrics: readonly MetricRow[]): void {
    const insert = this.database.prepare(
      "INSERT INTO score(eval_id, metric, ord, kind, value, n, se) VALUES (?, ?, ?, ?, ?, ?, ?)",
    );
    const insertItems = this.database.prepare(
      `INSERT INTO item_score(eval_id, metric, "values") VALUES (?, ?, ?)`,
    );
    metrics.forEach((metric, ord) => {
      const { kind, value } = metricColumns(metric);
      const error = metric.standardError;
      insert.run(
        evaluation,
        metric.metric,
        ord,
        kind,
        value,
        metric.items,
        error === undefined || !Number.isFinite(error) ? null : error,
      );
      if (metric.itemScores !== undefined) {
        insertItems.run(evaluation, metric.metric, encodeFloats(metric.itemScores));
      }
    });
  }

  /** Records fitness; the first one of a trial and split stands. */
  recordFitness(run: number, records: readonly FitnessRecord[]): void {
    this.#transaction(run, () => {
      for (const { trial, split, fitness } of records) {
        this.#insertFitness(run, this.#trial(run, trial).trial_id, split, fitness);
      }
    });
  }

  #insertFitness(
    run: number,
    trialId: number,
    split: Split,
    fitness: FitnessRecord["fitness"],
  ): void {
    const { kind, value, feasible, reason } = fitnessColumns(fitness);
    const { changes } = this.database
      .prepare(
        `INSERT INTO fitness(trial_id, split, run_id, kind, value, feasible, reason) VALUES (?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT(trial_id, split) DO NOTHING`,
      )
      .run(trialId, split, run, kind, value, feasible, reason);
    if (changes === 0 || kind !== "finite" || fitness.state !== "scored") return;
    const insert = this.database.prepare(
      "INSERT INTO objective(trial_id, split, objective, value) VALUES (?, ?, ?, ?)",
    );
    fitness.values.forEach((objective, index) => {
      insert.run(trialId, split, index, objective);
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
      if (changes === 1) this.#insertScores(to, metricsOf(this.database, from));
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
      resultsOf(this.database, this.#trial(run, trial).trial_id, split),
    );
  }

  /** Evaluations of a trial that are still to be made, in order. */
  queuedEvaluations(run: number, trial: number): EvaluationOpening[] {
    return guarded({ path: this.path }, () =>
      evaluationsOf(this.database, this.#trial(run, trial).trial_id)
        .filter((row) => row.state === "queued")
        .map(({ evaluator, split, evalKey }) => ({ evaluator, split, evalKey })),
    );
  }

  /** SHA-256 of a trial's merged weights, once they have been computed. */
  setWeightsDigest(run: number, trial: number, digest: string): void {
    this.#transaction(run, () => {
      this.database
        .prepare("UPDATE trial SET weights_sha256 = ? WHERE trial_id = ?")
        .run(digest, this.#trial(run, trial).trial_id);
    });
  }

  /** Notes a file that exists and is complete. Writing the same path again replaces the note. */
  recordArtifact(run: number, artifact: Omit<ArtifactRow, "createdMs">): void {
    this.#transaction(run, () => {
      const trialId =
        artifact.trial === undefined ? null : this.#trial(run, artifact.trial).trial_id;
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

  #run(id: number): RunRow {
    const row = runById(this.database, id);
    if (row === undefined) throw new Error(`no run ${id}`);
    return row;
  }

  #trial(run: number, number: number): TrialColumns {
    const row = this.database
      .prepare<[number, number], TrialColumns>(
        "SELECT * FROM trial WHERE run_id = ? AND number = ?",
      )
      .get(run, number);
    if (row === undefined) throw new Error(`run ${run} has no trial ${number}`);
    return row;
  }

  #evaluation(
    trialId: number,
    evaluator: string,
    split: Split,
  ): { readonly eval_id: number; readonly state: string } {
    const row = this.database
      .prepare<[number, string, string], { eval_id: number; state: string }>(
        "SELECT eval_id, state FROM evaluation WHERE trial_id = ? AND evaluator = ? AND split = ?",
      )
      .get(trialId, evaluator, split);
    if (row === undefined) throw new Error(`no evaluation by ${evaluator} on ${split} was opened`);
    return row;
  }
}

interface SnapshotColumns {
  readonly gen: number;
  readonly optimizer_json: string | null;
  readonly optimizer_sha256: string;
}

function resultFor(results: readonly EvaluatorRow[], evaluator: string): EvaluatorRow {
  const result = results.find((candidate) => candidate.evaluator === evaluator);
  if (result === undefined) throw new Error(`the outcome holds no result of ${evaluator}`);
  return result;
}

/** A digest of everything that should be equal when an evaluation is repeated. */
function scoresDigest(metrics: readonly MetricRow[]): string {
  return digestOf(
    metrics.map((metric) => ({
      metric: metric.metric,
      ...metricColumns(metric),
      n: metric.items,
      items: metric.itemScores === undefined ? null : sha256(encodeFloats(metric.itemScores)),
    })),
  );
}
