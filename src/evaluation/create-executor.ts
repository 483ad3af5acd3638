import type { Executor } from "./executor.ts";
import { createInlineExecutor } from "./inline-executor.ts";
import type { EvaluationPlan } from "./plan.ts";
import { createPoolExecutor, type PoolOptions } from "./pool-executor.ts";

export interface ExecutorOptions extends PoolOptions {
  /** `pool` (default): a child process with worker threads; `inline`: the calling thread, without timeouts. */
  readonly kind?: "pool" | "inline";
}

/**
 * Opens everything a plan names and returns what evaluates recipes with it.
 *
 * @throws MendelError when models, graph, data or evaluators do not fit together: nothing was evaluated then
 */
export function createExecutor(
  plan: EvaluationPlan,
  options: ExecutorOptions = {},
): Promise<Executor> {
  const { kind, ...pool } = options;
  if (kind !== "inline") return createPoolExecutor(plan, pool);
  return createInlineExecutor(
    plan,
    options.program === undefined ? {} : { program: options.program },
  );
}
