import { type ResumeOptions, resumeRun, type StartOptions, startRun } from "./drive.ts";
import type { RunEvent } from "./events.ts";
import type { RunSummary } from "./summary.ts";

/**
 * A search in progress: iterate over it for its events, await `result` for what it came to.
 *
 * ```ts
 * const search = run({ experiment: "experiment.yml", db: "runs/mendel.sqlite" });
 * for await (const event of search) if (event.kind === "improved") console.log(event.fitness);
 * const summary = await search.result;
 * ```
 *
 * The search goes on whether or not anybody listens. Events that nobody has taken are kept.
 */
export interface Search extends AsyncIterable<RunEvent> {
  /** @throws as `startRun` and `resumeRun` */
  readonly result: Promise<RunSummary>;
}

/** Starts a search. Abort `options.signal` to save and end it. */
export function run(options: Omit<StartOptions, "listen">): Search {
  return observe((listen) => startRun({ ...options, listen }));
}

/** Goes on with a search. */
export function resume(options: Omit<ResumeOptions, "listen">): Search {
  return observe((listen) => resumeRun({ ...options, listen }));
}

function observe(start: (listen: (event: RunEvent) => void) => Promise<RunSummary>): Search {
  const events: RunEvent[] = [];
  let wake: (() => void) | undefined;
  let over = false;
  const result = start((event) => {
    events.push(event);
    wake?.();
  });
  const end = (): void => {
    over = true;
    wake?.();
  };
  result.then(end, end);
  async function* iterate(): AsyncGenerator<RunEvent> {
    for (let next = 0; ; next++) {
      while (next >= events.length) {
        if (over) return;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      yield events[next] as RunEvent;
    }
  }
  return { result, [Symbol.asyncIterator]: iterate };
}
