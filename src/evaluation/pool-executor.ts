import { availableParallelism } from "node:os";
import { MendelError } from "../base/errors.ts";
import type {
  EvaluationRequest,
  EvaluationResult,
  Executor,
  FailureClass,
  ProgramChoice,
} from "./executor.ts";
import { type HostProcess, startHost } from "./host-process.ts";
import type { HostReply } from "./host-protocol.ts";
import { type EvaluationPlan, requireEvaluators } from "./plan.ts";
import { chooseProgram } from "./program-choice.ts";

/** More workers than this gain little on one machine's memory bandwidth. */
const MAX_AUTO_WORKERS = 8;
/** An evaluation that takes its host down (or times out) this often is given up. */
const MAX_STRIKES = 2;
/** Hosts that may die in a row without one evaluation being answered: then it is not the candidates. */
const MAX_DEATHS_IN_A_ROW = 10;
const DEFAULT_TIMEOUT_SECONDS = 600;

export interface PoolOptions {
  /** Default `auto`: one per core, at most 8. */
  readonly workers?: "auto" | number;
  /** Longest time one evaluation may take before its host is killed. Default 600. */
  readonly timeoutSeconds?: number;
  /** Resident memory above which a host is killed and its evaluations are tried again one by one. Default: no limit. */
  readonly memoryBytes?: number;
  /** The choice of an earlier start of the same run; absent: probe and choose. */
  readonly program?: ProgramChoice;
  /** Compiled entry of the host. Default: beside this file in `dist`. */
  readonly hostUrl?: URL;
}

/** Why a host is being killed or has died. */
interface Death {
  readonly failure: Extract<FailureClass, "timeout" | "crash">;
  readonly text: string;
  /** The one evaluation to blame, where that is known. */
  readonly culprit?: Job;
}

interface Job {
  readonly ticket: number;
  readonly request: EvaluationRequest;
  settle(result: EvaluationResult): void;
  fail(error: MendelError): void;
  strikes: number;
  attempts: number;
  firstStart: number | undefined;
  timer: NodeJS.Timeout | undefined;
}

/**
 * Evaluates in a child process with worker threads.
 *
 * A native crash costs the evaluations in flight: they are tried again one by one, and the one that takes the host down
 * again is recorded as failed; likewise one that exceeds its time twice. `evaluate` rejects only when hosts keep dying
 * whatever they are given, or cannot be started again.
 *
 * @throws MendelError when the host cannot start: models, data or evaluators that do not fit
 */
export async function createPoolExecutor(
  plan: EvaluationPlan,
  options: PoolOptions = {},
): Promise<Executor> {
  const pool = new HostPool(plan, options);
  await pool.start();
  return pool;
}

class HostPool implements Executor {
  readonly slots: number;
  readonly #plan: EvaluationPlan;
  readonly #options: PoolOptions;
  readonly #stopping = new AbortController();
  readonly #running = new Map<number, Job>();
  /** Evaluations that were in flight when a host died; each gets a host to itself before anything else runs. */
  readonly #suspects: Job[] = [];
  readonly #queue: Job[] = [];
  #program: ProgramChoice | undefined;
  #host: HostProcess | undefined;
  #starting: Promise<void> | undefined;
  #death: Death | undefined;
  #deathsInARow = 0;
  #nextTicket = 1;
  #broken: MendelError | undefined;

  constructor(plan: EvaluationPlan, options: PoolOptions) {
    this.#plan = plan;
    this.#options = options;
    this.#program = options.program;
    this.slots =
      options.workers === undefined || options.workers === "auto"
        ? Math.min(availableParallelism(), MAX_AUTO_WORKERS)
        : options.workers;
  }

  get program(): ProgramChoice {
    if (this.#program === undefined) throw new Error("the executor has not started");
    return this.#program;
  }

  async start(): Promise<void> {
    let started: HostProcess | undefined;
    const host = await startHost({
      hostUrl: this.#options.hostUrl ?? defaultHostUrl(),
      plan: this.#plan,
      workers: this.slots,
      program: this.#program,
      decide: (probe) => chooseProgram(probe, this.#plan.program),
      onMessage: (message) => {
        if (started !== undefined) this.#onMessage(started, message);
      },
      signal: this.#stopping.signal,
    });
    started = host;
    this.#program = host.program;
    this.#host = host;
    this.#death = undefined;
    void host.exited.then(({ text }) => this.#onExit(host, text));
  }

  evaluate(request: EvaluationRequest, signal?: AbortSignal): Promise<EvaluationResult> {
    requireEvaluators(this.#plan, request.evaluators, request.split);
    if (this.#stopping.signal.aborted || signal?.aborted) return Promise.resolve(cancelled());
    if (this.#broken !== undefined) return Promise.reject(this.#broken);
    return new Promise((resolve, reject) => {
      const onAbort = (): void => this.#cancel(job);
      const job: Job = {
        ticket: this.#nextTicket++,
        request,
        settle: (result) => {
          signal?.removeEventListener("abort", onAbort);
          resolve(result);
        },
        fail: (error) => {
          signal?.removeEventListener("abort", onAbort);
          reject(error);
        },
        strikes: 0,
        attempts: 0,
        firstStart: undefined,
        timer: undefined,
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#queue.push(job);
      this.#dispatch();
    });
  }

  async close(): Promise<void> {
    this.#stopping.abort();
    for (const job of this.#takeAll()) job.settle(cancelled());
    // The host keeps nothing that is not recorded here, so it need not be asked.
    this.#host?.kill();
    await this.#starting?.catch(() => {});
    await this.#host?.exited;
  }

  #dispatch(): void {
    const host = this.#host;
    if (host === undefined || this.#death !== undefined) return;
    if (this.#suspects.length > 0) {
      if (this.#running.size === 0) this.#send(host, this.#suspects.shift()!);
      return;
    }
    while (this.#running.size < this.slots && this.#queue.length > 0) {
      this.#send(host, this.#queue.shift()!);
    }
  }

  #send(host: HostProcess, job: Job): void {
    job.attempts += 1;
    job.firstStart ??= performance.now();
    const seconds = this.#options.timeoutSeconds ?? DEFAULT_TIMEOUT_SECONDS;
    job.timer = setTimeout(
      () =>
        this.#kill(host, {
          failure: "timeout",
          text: `not finished after ${seconds} s`,
          culprit: job,
        }),
      seconds * 1000,
    );
    this.#running.set(job.ticket, job);
    host.send({ type: "evaluate", ticket: job.ticket, request: job.request });
  }

  #cancel(job: Job): void {
    for (const waiting of [this.#queue, this.#suspects]) {
      const at = waiting.indexOf(job);
      if (at >= 0) {
        waiting.splice(at, 1);
        job.settle(cancelled());
        return;
      }
    }
    if (this.#running.has(job.ticket)) this.#host?.send({ type: "cancel", ticket: job.ticket });
  }

  #onMessage(host: HostProcess, message: HostReply): void {
    if (host !== this.#host) return;
    if (message.type === "memory") {
      const limit = this.#options.memoryBytes;
      if (limit !== undefined && message.rssBytes > limit && this.#running.size > 0) {
        const text = `the host used ${message.rssBytes} bytes of memory, ${limit} are allowed`;
        this.#kill(host, { failure: "crash", text });
      }
      return;
    }
    if (message.type !== "result") return;
    const job = this.#running.get(message.ticket);
    if (job === undefined) return;
    this.#retire(job);
    this.#deathsInARow = 0;
    job.settle({ ...message.result, attempts: job.attempts });
    this.#dispatch();
  }

  #kill(host: HostProcess, death: Death): void {
    // The first reason stands: what times out while the host is dying is not to blame.
    if (host !== this.#host || this.#death !== undefined) return;
    this.#death = death;
    host.kill();
  }

  #retire(job: Job): void {
    clearTimeout(job.timer);
    this.#running.delete(job.ticket);
  }

  #onExit(host: HostProcess, text: string): void {
    if (host !== this.#host) return;
    this.#host = undefined;
    if (this.#stopping.signal.aborted) return;
    const death = this.#death ?? { failure: "crash", text: `the evaluation host died: ${text}` };
    const inFlight = [...this.#running.values()];
    for (const job of inFlight) this.#retire(job);
    this.#deathsInARow += 1;
    if (this.#deathsInARow >= MAX_DEATHS_IN_A_ROW) {
      this.#giveUp(death, inFlight);
      return;
    }
    this.#requeue(death, inFlight);
    this.#starting = this.start()
      .then(() => this.#dispatch())
      .catch((error: unknown) => this.#breakDown(error as MendelError))
      .finally(() => {
        this.#starting = undefined;
      });
  }

  /** After a timeout the culprit is known and the others go on as before; after a crash each of them is tried alone. */
  #requeue(death: Death, inFlight: readonly Job[]): void {
    const again: Job[] = [];
    for (const job of inFlight) {
      const blamed = death.culprit === undefined || death.culprit === job;
      if (blamed) job.strikes += 1;
      if (blamed && job.strikes >= MAX_STRIKES) job.settle(failed(job, death));
      else if (death.culprit === undefined) this.#suspects.push(job);
      else again.push(job);
    }
    this.#queue.unshift(...again);
  }

  #giveUp(death: Death, inFlight: readonly Job[]): void {
    for (const job of inFlight) job.settle(failed(job, death));
    this.#breakDown(
      new MendelError(
        "too-many-failures",
        `${MAX_DEATHS_IN_A_ROW} evaluation hosts in a row ended without an answer: ${death.text}`,
        { hint: "`mendel validate` runs one batch of every evaluator and says what fails" },
      ),
    );
  }

  #breakDown(error: MendelError): void {
    this.#broken = error;
    for (const job of this.#takeAll()) job.fail(error);
  }

  #takeAll(): readonly Job[] {
    const all = [...this.#running.values(), ...this.#suspects.splice(0), ...this.#queue.splice(0)];
    for (const job of all) this.#retire(job);
    return all;
  }
}

function failed(job: Job, death: Death): EvaluationResult {
  return {
    state: "failed",
    failure: death.failure,
    message: death.text,
    seconds: job.firstStart === undefined ? 0 : (performance.now() - job.firstStart) / 1000,
    attempts: job.attempts,
  };
}

function cancelled(): EvaluationResult {
  return {
    state: "failed",
    failure: "cancelled",
    message: "the evaluation was cancelled",
    seconds: 0,
    attempts: 0,
  };
}

/** Hosts always run compiled code: beside this file when it is compiled itself, else in `dist` of the same checkout. */
function defaultHostUrl(): URL {
  return import.meta.url.endsWith(".ts")
    ? new URL("../../dist/evaluation/host.js", import.meta.url)
    : new URL("./host.js", import.meta.url);
}
