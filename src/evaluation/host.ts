import { fileURLToPath } from "node:url";
import { Piscina } from "piscina";
import { messageOf } from "../base/errors.ts";
import type { EvaluationResult, ProgramChoice } from "./executor.ts";
import {
  fromWire,
  type HostReply,
  type HostRequest,
  toWire,
  type WorkerReply,
  type WorkerTask,
} from "./host-protocol.ts";
import { prepareHost } from "./host-setup.ts";
import type { WorkerSetup } from "./worker.ts";

/**
 * The evaluation host: a child process that owns the worker threads in which models run. The main process kills it when an
 * evaluation takes too long, because native code cannot be interrupted in any other way.
 */

/** How often the host tells how much memory it uses. */
const MEMORY_REPORT_MS = 500;

type EvaluateMessage = Extract<HostRequest, { type: "evaluate" }>;

let evaluate: ((message: EvaluateMessage) => void) | undefined;
let setProgram: ((program: ProgramChoice) => void) | undefined;
let cancel: ((ticket: number) => void) | undefined;

function reply(message: HostReply): void {
  if (process.connected) process.send?.(message);
}

async function start(message: Extract<HostRequest, { type: "start" }>): Promise<void> {
  const { plan, workers } = message;
  const cancelFlags = new Int32Array(new SharedArrayBuffer(4 * workers));
  const setup: WorkerSetup = { plan, shared: await prepareHost(plan), cancelFlags };
  const pool = new Piscina<unknown, WorkerReply<unknown>>({
    filename: fileURLToPath(new URL("./worker.js", import.meta.url)),
    minThreads: workers,
    maxThreads: workers,
    idleTimeout: Number.POSITIVE_INFINITY,
    concurrentTasksPerWorker: 1,
    // Waiting workers keep their event loop, so that a module's stray errors show up where they belong.
    atomics: "disabled",
    workerData: setup,
  });
  // A worker that dies between tasks is replaced; there is nothing else to do.
  pool.on("error", (error: unknown) => console.error(messageOf(error)));
  const ask = async <T>(name: string, task: unknown): Promise<T> => {
    const answer = (await pool.run(task, { name })) as WorkerReply<T>;
    if (answer.ok) return answer.value;
    throw fromWire(answer.error);
  };
  const program = message.program ?? (await probe(ask));
  await Promise.all(Array.from({ length: workers }, () => ask("prepare", program)));
  serve(ask, program, cancelFlags);
  reply({ type: "ready" });
}

/** Measures in one worker; the main process decides, so that its decision is recorded and holds for every host. */
async function probe(ask: <T>(name: string, task: unknown) => Promise<T>): Promise<ProgramChoice> {
  const measured = await ask<ProgramChoice["probe"]>("probe", {});
  const decided = new Promise<ProgramChoice>((resolve) => {
    setProgram = resolve;
  });
  reply({ type: "probed", probe: measured });
  return decided;
}

function serve(
  ask: <T>(name: string, task: unknown) => Promise<T>,
  program: ProgramChoice,
  cancelFlags: Int32Array,
): void {
  const slots: (number | undefined)[] = Array.from(cancelFlags, () => undefined);
  cancel = (ticket) => {
    const slot = slots.indexOf(ticket);
    if (slot >= 0) Atomics.store(cancelFlags, slot, 1);
  };
  evaluate = ({ ticket, request }) => {
    const started = performance.now();
    const slot = slots.indexOf(undefined);
    if (slot < 0) throw new Error("more evaluations than workers");
    slots[slot] = ticket;
    Atomics.store(cancelFlags, slot, 0);
    const task: WorkerTask = { request, program, slot };
    void ask<EvaluationResult>("evaluate", task)
      .catch(
        // The thread died: out of memory, process.exit in a module, an error thrown between its steps.
        (error: unknown): EvaluationResult => ({
          state: "failed",
          failure: "crash",
          message: `the worker ended: ${messageOf(error)}`,
          seconds: (performance.now() - started) / 1000,
          attempts: 1,
        }),
      )
      .then((result) => {
        slots[slot] = undefined;
        reply({ type: "result", ticket, result });
      });
  };
}

process.on("message", (message: HostRequest) => {
  switch (message.type) {
    case "start":
      start(message).catch((error: unknown) => reply({ type: "refused", error: toWire(error) }));
      return;
    case "program":
      setProgram?.(message.program);
      return;
    case "evaluate":
      evaluate?.(message);
      return;
    case "cancel":
      cancel?.(message.ticket);
      return;
  }
});

// Without its parent a host has nobody to report to. `process.exit` would abort inside a native run; this cannot.
process.on("disconnect", () => process.kill(process.pid, "SIGKILL"));
// The main process may have died while this one was still loading, before anybody listened.
if (!process.connected) process.kill(process.pid, "SIGKILL");
// A Ctrl-C in the terminal reaches the whole process group; the main process decides what it means.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => {});
setInterval(() => reply({ type: "memory", rssBytes: process.memoryUsage.rss() }), MEMORY_REPORT_MS);
