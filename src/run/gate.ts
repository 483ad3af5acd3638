/**
 * Runs a task when there is room for it.
 *
 * @returns the task's result, or undefined when the signal was aborted before the task began
 */
export type Gate = <T>(task: () => Promise<T>) => Promise<T | undefined>;

/** A gate for `room` tasks at a time, in order of arrival. What has begun when the signal aborts is finished. */
export function createGate(room: number, signal: AbortSignal): Gate {
  const waiting: (() => void)[] = [];
  let running = 0;
  /** A place is handed over, never freed first: whoever comes in between would make one too many. */
  const leave = (): void => {
    const next = waiting.shift();
    if (next === undefined) running -= 1;
    else next();
  };
  return async (task) => {
    if (running < room) running += 1;
    else await new Promise<void>((resolve) => waiting.push(resolve));
    try {
      return signal.aborted ? undefined : await task();
    } finally {
      leave();
    }
  };
}
