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
  const leave = (): void => {
    running -= 1;
    waiting.shift()?.();
  };
  return async (task) => {
    if (running >= room) await new Promise<void>((resolve) => waiting.push(resolve));
    running += 1;
    try {
      return signal.aborted ? undefined : await task();
    } finally {
      leave();
    }
  };
}
