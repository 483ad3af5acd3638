import { workerData } from "node:worker_threads";
import type { EvaluationEngine } from "./evaluation-engine.ts";
import type { EvaluationResult, ProgramChoice } from "./executor.ts";
import { toWire, type WorkerReply, type WorkerTask } from "./host-protocol.ts";
import type { SharedSetup } from "./host-setup.ts";
import type { EvaluationPlan } from "./plan.ts";
import { openThreadEngine, probePlan } from "./thread-engine.ts";

/** What a worker thread starts with; weights and cancel flags are shared memory. */
export interface WorkerSetup {
  readonly plan: EvaluationPlan;
  readonly shared: SharedSetup;
  /** One flag per worker slot; not 0: stop before the next minibatch. */
  readonly cancelFlags: Int32Array;
}

const setup = workerData as WorkerSetup | null;
let engine: Promise<EvaluationEngine> | undefined;

function requireSetup(): WorkerSetup {
  if (setup === null) throw new Error("the worker was started without its setup");
  return setup;
}

function engineOf(program: ProgramChoice): Promise<EvaluationEngine> {
  const { plan, shared } = requireSetup();
  engine ??= openThreadEngine(plan, shared, program);
  return engine;
}

async function answer<T>(work: () => Promise<T>): Promise<WorkerReply<T>> {
  try {
    return { ok: true, value: await work() };
  } catch (thrown) {
    return { ok: false, error: toWire(thrown) };
  }
}

/** Measures both feeds. */
export function probe(): Promise<WorkerReply<ProgramChoice["probe"]>> {
  return answer(() => {
    const { plan, shared } = requireSetup();
    return probePlan(plan, shared);
  });
}

/** Builds the program and loads the search data. */
export function prepare(program: ProgramChoice): Promise<WorkerReply<true>> {
  return answer(async () => {
    await engineOf(program);
    return true as const;
  });
}

/** Evaluates one recipe; failures of the candidate are results. */
export function evaluate(task: WorkerTask): Promise<WorkerReply<EvaluationResult>> {
  return answer(async () => {
    const { cancelFlags } = requireSetup();
    const cancelled = (): boolean => Atomics.load(cancelFlags, task.slot) !== 0;
    return (await engineOf(task.program)).evaluate(task.request, cancelled);
  });
}
