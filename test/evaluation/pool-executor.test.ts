import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, it } from "vitest";
import { MendelError } from "../../src/base/errors.ts";
import type { EvaluationResult, Executor } from "../../src/evaluation/executor.ts";
import { createPoolExecutor, type PoolOptions } from "../../src/evaluation/pool-executor.ts";
import {
  choiceOf,
  digitsEvaluator,
  digitsPlan,
  linear,
  moduleEvaluator,
  uniform,
} from "../support/digits-plan.ts";

const plan = digitsPlan([
  digitsEvaluator("rotate"),
  moduleEvaluator("slow", "slow"),
  moduleEvaluator("nosy", "nosy"),
  ...["loops", "waits", "segfaults", "exits", "grows"].map((name) =>
    moduleEvaluator(name, "deadly"),
  ),
]);

let executor: Executor | undefined;
afterEach(async () => {
  await executor?.close();
  executor = undefined;
});

async function open(options: PoolOptions = {}): Promise<Executor> {
  executor = await createPoolExecutor(plan, {
    workers: 2,
    program: choiceOf("inputs"),
    ...options,
  });
  return executor;
}

function evaluate(pool: Executor, evaluator: string): Promise<EvaluationResult> {
  return pool.evaluate({
    id: evaluator,
    recipe: uniform,
    evaluators: [evaluator],
    split: "search",
  });
}

/** The process that a module ran in. */
async function hostPid(pool: Executor): Promise<number> {
  const result = await evaluate(pool, "slow");
  if (result.state !== "done") throw new Error(result.message);
  return result.results[0]!.metrics[0]!.value!;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function gone(pid: number, milliseconds: number): Promise<boolean> {
  for (let waited = 0; waited < milliseconds; waited += 50) {
    if (!isAlive(pid)) return true;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return !isAlive(pid);
}

describe("evaluations that hang", () => {
  it.each(["loops", "waits"])("records a module that %s as timed out", async (name) => {
    const pool = await open({ timeoutSeconds: 1 });
    const [bad, ...good] = await Promise.all([
      evaluate(pool, name),
      ...Array.from({ length: 4 }, () => evaluate(pool, "rotate")),
    ]);
    expect(bad).toMatchObject({ state: "failed", failure: "timeout", attempts: 2 });
    for (const result of good) expect(result).toMatchObject({ state: "done" });
    expect(await evaluate(pool, "rotate")).toMatchObject({ state: "done", attempts: 1 });
  });
});

describe("evaluations that take their host down", () => {
  it("records the one that does and finishes the others", async () => {
    const pool = await open();
    const first = await hostPid(pool);
    const names = ["slow", "segfaults", "slow", "rotate", "segfaults", "rotate"];
    const results = await Promise.all(names.map((name) => evaluate(pool, name)));
    results.forEach((result, i) => {
      if (names[i] === "segfaults") {
        expect(result).toMatchObject({ state: "failed", failure: "crash", attempts: 2 });
        expect(result.state === "failed" && result.message).toContain("SIGSEGV");
      } else expect(result).toMatchObject({ state: "done" });
    });
    expect(await hostPid(pool)).not.toBe(first);
  });

  it("survives a module that ends its thread", async () => {
    const pool = await open();
    expect(await evaluate(pool, "exits")).toMatchObject({ state: "failed", failure: "crash" });
    expect(await evaluate(pool, "rotate")).toMatchObject({ state: "done" });
  });

  it("ends a host that uses too much memory", async () => {
    const pool = await open({ memoryBytes: 1.2e9 });
    const result = await evaluate(pool, "grows");
    expect(result).toMatchObject({ state: "failed", failure: "crash", attempts: 2 });
    expect(result.state === "failed" && result.message).toContain("memory");
  });

  it("gives up when hosts keep dying", async () => {
    const pool = await open();
    const results = await Promise.allSettled(
      Array.from({ length: 12 }, () => evaluate(pool, "segfaults")),
    );
    const refused = results.filter(({ status }) => status === "rejected");
    expect(refused.length).toBeGreaterThan(0);
    for (const result of refused) {
      expect(result).toMatchObject({ reason: { code: "too-many-failures" } });
    }
    await expect(evaluate(pool, "rotate")).rejects.toBeInstanceOf(MendelError);
  });
});

describe("the host process", () => {
  it("is gone after closing, also in the middle of an evaluation", async () => {
    const pool = await open();
    const pid = await hostPid(pool);
    void evaluate(pool, "loops");
    const started = performance.now();
    await pool.close();
    expect(performance.now() - started).toBeLessThan(2000);
    expect(isAlive(pid)).toBe(false);
  });

  it("talks as much as it likes and sees nothing of the environment", async () => {
    process.env["MENDEL_TEST_CANARY"] = "secret";
    const pool = await open();
    const result = await evaluate(pool, "nosy");
    delete process.env["MENDEL_TEST_CANARY"];
    expect(result.state === "done" && result.results[0]?.metrics[0]?.value).toBe(0);
  });

  it("does not outlive a killed main process", async () => {
    const child = spawn(
      process.execPath,
      [fileURLToPath(new URL("./children/hold-executor.mjs", import.meta.url))],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    const [line] = await once(child.stdout, "data");
    const pid = Number(String(line).trim());
    expect(isAlive(pid)).toBe(true);
    child.kill("SIGKILL");
    expect(await gone(pid, 2000)).toBe(true);
  });

  it("ignores a Ctrl-C that is meant for the main process", async () => {
    const pool = await open();
    const pid = await hostPid(pool);
    const running = evaluate(pool, "slow");
    process.kill(pid, "SIGINT");
    expect(await running).toMatchObject({ state: "done", attempts: 1 });
  });
});

describe("starting", () => {
  const refusal = (evaluators: Parameters<typeof digitsPlan>[0]): Promise<Executor> =>
    createPoolExecutor(digitsPlan(evaluators), { workers: 1 });

  it.each([
    ["missing", "not-found"],
    ["no-function", "invalid-file"],
    ["future", "invalid-file"],
  ])("refuses the metric module %s before any work", async (module, code) => {
    await expect(refusal([moduleEvaluator("m", module)])).rejects.toMatchObject({ code });
  });

  it("refuses a metric module that does not parse", async () => {
    const folder = mkdtempSync(join(tmpdir(), "mendel-module-"));
    writeFileSync(join(folder, "broken.mjs"), "export function score( {");
    const broken = { ...moduleEvaluator("m", "slow"), module: join(folder, "broken.mjs") };
    await expect(refusal([broken])).rejects.toMatchObject({ code: "invalid-file" });
    rmSync(folder, { recursive: true });
  });

  it("refuses splits that share items", async () => {
    const { data } = digitsEvaluator("rotate");
    if (data.kind !== "files") throw new Error("three files expected");
    const leaky = {
      ...digitsEvaluator("rotate"),
      data: { ...data, files: { ...data.files, test: data.files.search } },
    };
    const error = await refusal([leaky]).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "mismatch" });
    expect((error as Error).message).toContain("80 of 80 test items are also in search");
  });

  it("chooses a feed by measuring and keeps to a choice it is given", async () => {
    const chosen = await createPoolExecutor(plan, { workers: 1 });
    expect(["inputs", "session"]).toContain(chosen.program.feed);
    expect(chosen.program.probe.inputs).toBeGreaterThan(0);
    expect(chosen.program.probe.session).toBeGreaterThan(0);
    expect(chosen.program.runtime).toHaveProperty("onnxruntime");
    await chosen.close();
    const other = chosen.program.feed === "inputs" ? "session" : "inputs";
    const pool = await open({ program: { ...chosen.program, feed: other } });
    expect(pool.program.feed).toBe(other);
    expect(await evaluate(pool, "rotate")).toMatchObject({ state: "done" });
  });
});

it("both feeds agree to rounding", async () => {
  const results = [];
  for (const feed of ["inputs", "session"] as const) {
    const pool = await open({ program: choiceOf(feed) });
    const recipe = linear({ rotate: 0.7, mirror: 0.3 });
    const request = { id: feed, recipe, evaluators: ["rotate"], split: "test" as const };
    const result = await pool.evaluate(request);
    if (result.state !== "done") throw new Error(result.message);
    results.push(result.results[0]!.metrics[1]!.value!);
    await pool.close();
  }
  expect(results[1]).toBeCloseTo(results[0]!, 5);
});
