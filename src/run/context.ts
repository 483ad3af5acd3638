import type { Executor } from "../evaluation/executor.ts";
import type { RunRow } from "../store/rows.ts";
import type { RunStore } from "../store/run-store.ts";
import type { Budget } from "./budget.ts";
import type { Listener } from "./events.ts";
import type { Gate } from "./gate.ts";
import type { PreparedExperiment } from "./prepare.ts";

/** Everything one incarnation of a run works with. */
export interface SearchContext {
  readonly prepared: PreparedExperiment;
  readonly store: RunStore;
  readonly run: RunRow;
  readonly executor: Executor;
  readonly gate: Gate;
  readonly budget: Budget;
  readonly listen: Listener;
  /** Aborted when the run is to save and end. */
  readonly signal: AbortSignal;
}
