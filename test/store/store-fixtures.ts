import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import type { Json } from "../../src/base/json.ts";
import type { Recipe } from "../../src/recipes/recipe.ts";
import type {
  EvaluationOutcome,
  MetricRow,
  NewRun,
  RunRow,
  Split,
  TrialOpening,
} from "../../src/store/rows.ts";
import { RunStore, type RunStoreOptions } from "../../src/store/run-store.ts";

/** A folder that is removed when the test ends. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "mendel-store-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A new database in a folder of its own, closed when the test ends. */
export function temporaryStore(options: RunStoreOptions = {}): RunStore {
  const store = RunStore.open(join(temporaryFolder(), "mendel.sqlite"), options);
  onTestFinished(() => store.close());
  return store;
}

export function newRun(changes: Partial<NewRun> = {}): NewRun {
  return {
    experiment: "digits",
    experimentPath: "examples/digits/experiment.yml",
    seed: "7",
    configGiven: "seed: 7\n",
    config: { seed: 7 },
    codeVersion: "0.1.0",
    environment: { node: "20" },
    budget: { evaluations: 300 },
    objectives: ["mean"],
    axes: ["weight[rotated]", "weight[inverted]"],
    metrics: [
      { evaluator: "rotated", metric: "accuracy", direction: 1 },
      { evaluator: "rotated", metric: "loss", direction: -1 },
      { evaluator: "inverted", metric: "accuracy", direction: 1 },
    ],
    inputs: [],
    ...changes,
  };
}

export const recipe: Recipe = {
  mergeMethod: "linear",
  body: { kind: "models", models: [] },
  parameters: { weight: 0.5 },
  seed: 7,
  freeze: [],
  passthrough: {},
};

/** A search trial, evaluated by "rotated" and "inverted". */
export function trial(number: number, changes: Partial<TrialOpening> = {}): TrialOpening {
  const split: Split = "search";
  return {
    number,
    slot: number,
    origin: "search",
    operator: "sample",
    genome: { kind: "vector", values: [number / 1000, 0.5] },
    recipe,
    recipeSha256: createHash("sha256").update(String(number)).digest("hex"),
    parents: [],
    evaluations: ["rotated", "inverted"].map((evaluator) => ({
      evaluator,
      split,
      evalKey: `${number}-${evaluator}-${split}`,
    })),
    ...changes,
  };
}

/** A baseline: a trial with a name. */
export function baseline(number: number, label: string): TrialOpening {
  return trial(number, { origin: "baseline", label, operator: "baseline", genome: undefined });
}

export function metric(name: string, value: number, itemScores?: readonly number[]): MetricRow {
  return {
    metric: name,
    kind: "finite",
    value,
    standardError: 0.01,
    items: itemScores?.length ?? 100,
    ...(itemScores === undefined ? {} : { itemScores }),
  };
}

/** Scores of both evaluators. */
export function done(
  rotated: number,
  inverted = rotated,
  split: Split = "search",
): EvaluationOutcome {
  return {
    state: "done",
    seconds: 2,
    attempts: 1,
    results: [
      {
        evaluator: "rotated",
        split,
        metrics: [metric("accuracy", rotated, [1, 0, 1, 1]), metric("loss", 1 - rotated)],
      },
      { evaluator: "inverted", split, metrics: [metric("accuracy", inverted)] },
    ],
  };
}

export const bothEvaluators: readonly string[] = ["rotated", "inverted"];

/** Records both evaluators' scores and their mean as fitness. */
export function score(
  store: RunStore,
  run: RunRow,
  number: number,
  value: number,
  split: Split = "search",
): void {
  store.recordEvaluation(run.id, {
    trial: number,
    split,
    evaluators: bothEvaluators,
    outcome: done(value, value, split),
    fitness: { state: "scored", values: [value], feasible: true },
  });
}

/** A closed generation of scored trials: fitness by position, undefined for a failure. */
export function generation(
  store: RunStore,
  run: RunRow,
  gen: number,
  trials: readonly TrialOpening[],
  fitness: readonly (number | undefined)[],
  snapshot: Json = { gen },
): void {
  store.openGeneration(run.id, { gen, snapshot, trials });
  trials.forEach((opening, i) => {
    const value = fitness[i];
    if (value !== undefined) score(store, run, opening.number, value);
    else {
      store.recordEvaluation(run.id, {
        trial: opening.number,
        split: "search",
        evaluators: bothEvaluators,
        outcome: {
          state: "failed",
          failure: "timeout",
          message: "no answer in 60 s",
          seconds: 60,
          attempts: 2,
        },
        fitness: { state: "failed", reason: "timeout" },
      });
    }
  });
  store.closeGeneration(run.id, { gen, snapshot });
}

export function digestOfFile(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}

/** The last error of a call, for looking at more than one of its properties. */
export function thrownBy(call: () => unknown): unknown {
  try {
    call();
  } catch (thrown) {
    return thrown;
  }
  throw new Error("expected the call to throw");
}

/** A compiled helper process of this folder's `children/`. */
export function startChild(
  script: string,
  args: readonly string[],
  options: { readonly uid?: number; readonly prefix?: readonly string[] } = {},
): {
  readonly lines: string[];
  readonly pid: number;
  kill(): void;
  exited: Promise<number | null>;
  /** Resolves when a line begins with `text`. */
  until(text: string): Promise<string>;
} {
  const path = join(import.meta.dirname, "children", script);
  const command = [...(options.prefix ?? []), process.execPath, path, ...args];
  const child = spawn(command[0] as string, command.slice(1), {
    stdio: ["ignore", "pipe", "inherit"],
    ...(options.uid === undefined ? {} : { uid: options.uid, gid: options.uid }),
  });
  const lines: string[] = [];
  const waiting: { text: string; resolve: (line: string) => void }[] = [];
  let rest = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    const parts = (rest + text).split("\n");
    rest = parts.pop() ?? "";
    for (const line of parts) {
      lines.push(line);
      for (const { text: wanted, resolve } of waiting) if (line.startsWith(wanted)) resolve(line);
    }
  });
  const exited = new Promise<number | null>((resolve) => child.on("close", resolve));
  return {
    lines,
    pid: child.pid ?? 0,
    kill: () => child.kill("SIGKILL"),
    exited,
    until: (text) =>
      new Promise((resolve, reject) => {
        const found = lines.find((line) => line.startsWith(text));
        if (found !== undefined) return resolve(found);
        waiting.push({ text, resolve });
        void exited.then((code) => reject(new Error(`ended with ${code} before "${text}"`)));
      }),
  };
}
