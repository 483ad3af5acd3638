import type { Output } from "./output.ts";

/** Exit status of a process that the user interrupted (128 + SIGINT). */
const INTERRUPTED = 130;

/**
 * First Ctrl-C (or SIGTERM, SIGHUP): the signal aborts, so that the run saves and ends. Second: the process ends at once;
 * nothing that was recorded is lost, because recording is transactional.
 */
export function interruptSignal(output: Output): { signal: AbortSignal; release: () => void } {
  const controller = new AbortController();
  const onSignal = (): void => {
    if (controller.signal.aborted) process.exit(INTERRUPTED);
    output.note(
      "\nfinishing evaluations in flight, then saving; press Ctrl-C again to stop at once",
    );
    controller.abort();
  };
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const name of signals) process.on(name, onSignal);
  return {
    signal: controller.signal,
    release: () => {
      for (const name of signals) process.off(name, onSignal);
    },
  };
}
