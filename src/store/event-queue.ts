import { canonicalJson, type Json } from "../base/json.ts";
import type { Connection } from "./connection.ts";
import type { EventLevel } from "./rows.ts";

/** A commit costs milliseconds whether it writes one row or a thousand, so events wait for company. */
const FLUSH_MS = 250;
/** Events held while the database cannot be written; beyond this the oldest are dropped. */
const MAX_PENDING = 10_000;

interface PendingEvent {
  readonly run: number;
  readonly atMs: number;
  readonly level: EventLevel;
  readonly kind: string;
  readonly body: Json;
}

/** Events on their way to the database. A failed write keeps them for the next attempt. */
export class EventQueue {
  readonly #database: Connection;
  readonly #transact: (write: () => void) => void;
  #pending: PendingEvent[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(database: Connection, transact: (write: () => void) => void) {
    this.#database = database;
    this.#transact = transact;
  }

  add(event: PendingEvent): void {
    this.#pending.push(event);
    if (this.#pending.length > MAX_PENDING) this.#pending.shift();
    if (this.#timer !== undefined) return;
    this.#timer = setTimeout(() => this.#onTimer(), FLUSH_MS);
    // Events alone are no reason to keep the process alive.
    this.#timer.unref();
  }

  /** Writes all pending events in one transaction; errors are the caller's. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#pending.length === 0) return;
    const events = this.#pending;
    this.#transact(() => {
      const insert = this.#database.prepare(
        "INSERT INTO event(run_id, at_ms, level, kind, body_json) VALUES (?, ?, ?, ?, ?)",
      );
      for (const { run, atMs, level, kind, body } of events) {
        insert.run(run, atMs, level, kind, canonicalJson(body));
      }
    });
    this.#pending = [];
  }

  #onTimer(): void {
    this.#timer = undefined;
    if (!this.#database.open) return;
    try {
      this.flush();
    } catch {
      // Nobody can catch here. The events stay queued, and the next write that matters reports what is wrong.
    }
  }
}
