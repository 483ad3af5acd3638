import { SingleBar } from "cli-progress";
import type { Listener, RunEvent } from "../run/events.ts";
import type { Output } from "./output.ts";
import { formatDuration, formatNumber } from "./table.ts";

/** What the bar shows besides done/total. */
interface BarFields {
  rate: string;
  best: string;
  parent: string;
  left: string;
}

const barFormat =
  "{bar} {value}/{total} · {rate} · best {best} · best parent {parent} · {left} left";

/** Shows a run's events on stderr: a live bar on a terminal, one line per generation elsewhere. */
export interface Progress {
  readonly listen: Listener;
  stop(): void;
}

export function createProgress(output: Output): Progress {
  if (output.quiet) return { listen: () => undefined, stop: () => undefined };
  return output.interactive ? liveProgress(output) : lineProgress(output);
}

function rateOf(done: number, sinceMs: number): number {
  return done / Math.max(1e-3, (performance.now() - sinceMs) / 1000);
}

/** Sentences that both kinds of progress print. */
function remark(event: RunEvent): string | undefined {
  switch (event.kind) {
    case "preparing":
      return "reading and checking models, data and graph";
    case "started":
      return event.resumed
        ? `resuming run ${event.run}`
        : `run ${event.run}: scoring the baselines first`;
    case "warning":
      return event.message;
    case "finalists":
      return event.done === 0 ? `scoring ${event.total} finalists on validation` : undefined;
    default:
      return undefined;
  }
}

/** Fewest milliseconds between two lines about generations: small models finish hundreds in a minute. */
const LINE_EVERY_MS = 2000;

function lineProgress(output: Output): Progress {
  let lastLine = Number.NEGATIVE_INFINITY;
  const listen: Listener = (event) => {
    const text = remark(event);
    if (text !== undefined) output.note(text);
    if (event.kind === "baseline") {
      output.note(`baseline ${event.done} of ${event.total}: ${event.label}`);
    }
    if (event.kind === "trial" && event.failure !== undefined) {
      output.note(`trial ${event.trial} failed: ${event.failure}`);
    }
    if (event.kind !== "generation" || performance.now() - lastLine < LINE_EVERY_MS) return;
    lastLine = performance.now();
    output.note(generationLine(event, output.verbose));
  };
  return { listen, stop: () => undefined };
}

function generationLine(event: RunEvent & { kind: "generation" }, verbose: boolean): string {
  const total = event.budget === undefined ? "" : ` of ${event.budget}`;
  const facts = Object.entries(event.status)
    .map(([name, value]) => `${name} ${Number(value.toPrecision(4))}`)
    .join(", ");
  return (
    `${event.done}${total} evaluations, generation ${event.generation}: best fitness ${formatNumber(event.best)}, ` +
    `best parent ${formatNumber(event.bestParent)}${verbose && facts !== "" ? `; ${facts}` : ""}`
  );
}

function liveProgress(output: Output): Progress {
  const bar = new SingleBar({
    format: barFormat,
    stream: process.stderr,
    hideCursor: true,
    barsize: 24,
    barCompleteChar: "█",
    barIncompleteChar: "░",
    gracefulExit: false,
  });
  const fields: BarFields = { rate: "…", best: "–", parent: "–", left: "…" };
  let startedMs = performance.now();
  let before = 0;
  let running = false;
  /** The bar is redrawn below the line: cli-progress owns the last line of the terminal. */
  const say = (text: string): void => {
    if (running) process.stderr.write(`\r\u001b[K${text}\n`);
    else output.note(text);
  };
  const begin = (total: number, done: number): void => {
    startedMs = performance.now();
    before = done;
    running = true;
    bar.start(total, done, fields);
  };
  const advance = (done: number, budget: number | undefined): void => {
    if (!running) begin(budget ?? done, done - 1);
    const rate = rateOf(done - before, startedMs);
    fields.rate = `${(rate * 3600).toFixed(0)}/h`;
    if (budget === undefined) bar.setTotal(done);
    else fields.left = formatDuration((budget - done) / Math.max(rate, 1e-9));
    bar.update(done, fields);
  };
  const listen: Listener = (event) => {
    const text = remark(event);
    if (text !== undefined) say(text);
    if (event.kind === "baseline") say(`baseline ${event.done} of ${event.total}: ${event.label}`);
    if (event.kind === "trial") {
      if (event.failure !== undefined) say(`trial ${event.trial} failed: ${event.failure}`);
      advance(event.done, event.budget);
    }
    if (event.kind === "improved") {
      fields.best = formatNumber(event.fitness);
      say(`trial ${event.trial}: best is now ${fields.best}`);
    }
    if (event.kind === "generation") fields.parent = formatNumber(event.bestParent);
  };
  return {
    listen,
    stop: () => {
      if (running) bar.stop();
    },
  };
}
