import { setImmediate } from "node:timers/promises";
import type { EvaluationEngine } from "./evaluation-engine.ts";
import type { EvaluationRequest, EvaluationResult, Executor, ProgramChoice } from "./executor.ts";
import { prepareHost } from "./host-setup.ts";
import { type EvaluationPlan, requireEvaluators } from "./plan.ts";
import { chooseProgram } from "./program-choice.ts";
import { openThreadEngine, probePlan } from "./thread-engine.ts";

export interface InlineOptions {
  /** The choice of an earlier start of the same run; absent: probe and choose. */
  readonly program?: ProgramChoice;
}

/**
 * Evaluates in the calling thread, one request after the other: for tests, debugging and single scores. Keeps every promise of
 * `Executor` except those that need a process of their own: a hanging module hangs the caller, a native crash ends it.
 *
 * @throws MendelError when models, data or evaluators do not fit
 */
export async function createInlineExecutor(
  plan: EvaluationPlan,
  options: InlineOptions = {},
): Promise<Executor> {
  const shared = await prepareHost(plan);
  const program = options.program ?? chooseProgram(await probePlan(plan, shared), plan.program);
  return new InlineExecutor(plan, program, await openThreadEngine(plan, shared, program));
}

class InlineExecutor implements Executor {
  readonly slots = 1;
  readonly program: ProgramChoice;
  readonly #plan: EvaluationPlan;
  readonly #engine: EvaluationEngine;
  #closed = false;
  /** Ends when everything submitted so far has. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(plan: EvaluationPlan, program: ProgramChoice, engine: EvaluationEngine) {
    this.#plan = plan;
    this.program = program;
    this.#engine = engine;
  }

  evaluate(request: EvaluationRequest, signal?: AbortSignal): Promise<EvaluationResult> {
    requireEvaluators(this.#plan, request.evaluators, request.split);
    const cancelled = async (): Promise<boolean> => {
      // Lets timers and signals of the caller in between minibatches.
      await setImmediate();
      return this.#closed || signal?.aborted === true;
    };
    const result = this.#last.then(() => this.#engine.evaluate(request, cancelled));
    this.#last = result;
    return result;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#last;
    await this.#engine.release();
  }
}
