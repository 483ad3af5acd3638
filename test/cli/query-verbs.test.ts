import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { verbs } from "../../src/cli/commands/index.ts";
import { parseRecipe } from "../../src/recipes/parse.ts";
import type { Recipe } from "../../src/recipes/recipe.ts";
import { RunStore } from "../../src/store/run-store.ts";
import { cli, cliJson } from "../support/cli.ts";
import {
  type ExampleRuns,
  exampleFolder,
  exampleRuns,
  newRun,
  removeFolder,
} from "./example-runs.ts";

let example: ExampleRuns;
beforeAll(() => {
  example = exampleRuns();
});
afterAll(() => removeFolder(example));

const at = (...argv: string[]): string[] => [...argv, "--db", example.db];

/** Lines of a table that begin with a name. */
function lineOf(text: string, name: string): string {
  return text.split("\n").find((line) => line.startsWith(name)) ?? `no line begins with ${name}`;
}

describe("list", () => {
  it("shows runs, newest first, with their best trials", async () => {
    const { status, stdout } = await cli(...at("list"));
    expect(status).toBe(0);
    const [head, ...rows] = stdout.trimEnd().split("\n");
    expect(head).toMatch(/^run +state +trials +best +on +trial +age$/);
    expect(rows[0]).toMatch(/^digits-2 +paused +6 +–/);
    expect(rows[1]).toMatch(/^digits-1 +done +11 +0\.7625 +validation +9 /);
  });

  it("gives one object to scripts", async () => {
    const { json } = await cliJson(...at("list"));
    expect(json).toMatchObject({
      schema: "mendel.list/1",
      runs: [
        {
          run: "digits-2",
          state: "paused",
          driven: false,
          reason: "interrupted",
          trials: 6,
          best: null,
        },
        {
          run: "digits-1",
          state: "done",
          reason: "stall",
          trials: 11,
          best: { trial: "digits-1/9", split: "validation", fitness: 0.7625 },
          created: "2026-01-05T12:00:00.500Z",
        },
      ],
    });
  });
});

describe("status", () => {
  it("tells progress, failures by class, and the best beside the baselines", async () => {
    const { status, stdout, stderr } = await cli(...at("status", "digits-1"));
    expect(status).toBe(0);
    expect(stderr).toBe("");
    expect(lineOf(stdout, "state")).toBe("state     done (stall)");
    expect(lineOf(stdout, "progress")).toBe(
      "progress  5 of 20 evaluations, 1 failed, 0 with known scores, generation 2, 1 of 8 since the best last rose",
    );
    expect(lineOf(stdout, "failures")).toBe(
      "failures  timeout 1 (first trial 8: no answer in 60 s)",
    );
    expect(lineOf(stdout, "workers")).toBe("workers   2");
    expect(lineOf(stdout, "best: digits-1/9")).toContain("0.7625");
    expect(lineOf(stdout, "uniform")).toContain("0.5000");
    expect(lineOf(stdout, "lambda=0.3")).toContain("0.5750");
    expect(stdout).not.toContain("lambda=0.5");
  });

  it("means the newest run and says so", async () => {
    const { stdout, stderr } = await cli(...at("status"));
    expect(stderr).toBe("newest run: digits-2\n");
    expect(lineOf(stdout, "run")).toBe("run       digits-2");
    expect((await cli(...at("status", "--quiet"))).stderr).toBe("");
  });

  it("gives one object to scripts", async () => {
    const { json } = await cliJson(...at("status", "digits-1"));
    expect(json).toMatchObject({
      schema: "mendel.status/1",
      run: "digits-1",
      driver: null,
      evaluations: 5,
      failures: 1,
      open: 0,
      evaluationsSinceImprovement: 1,
      secondsLeft: null,
      budget: { evaluations: 20, time: null, stall: 8 },
      failuresByClass: [
        {
          failure: "timeout",
          trials: 1,
          example: { trial: "digits-1/8", message: "no answer in 60 s" },
        },
      ],
      best: { trial: "digits-1/9", fitness: { search: 0.7875, validation: 0.7625, test: 0.7625 } },
      parents: { rotated: { operator: "parent" }, inverted: { operator: "parent" } },
      baselines: { base: {}, uniform: {}, lambda: { label: "lambda=0.3" } },
    });
  });

  it("estimates the time left of a run that is driven, and sees when nobody drives it", async () => {
    const own = exampleFolder();
    let clock = Date.UTC(2026, 0, 5);
    const store = RunStore.open(own.db, {
      now: () => {
        clock += 1000;
        return clock;
      },
    });
    try {
      const run = store.createRun(newRun({ budget: { evaluations: 10 } }));
      const lock = store.lock(run);
      store.beginIncarnation(run.id);
      const trials = [0, 1, 2, 3].map((number) => ({
        number,
        slot: number,
        origin: "search" as const,
        operator: "sample",
        recipe: plainRecipe,
        recipeSha256: String(number),
        parents: [],
        evaluations: [{ evaluator: "inverted", split: "search" as const, evalKey: String(number) }],
      }));
      store.openGeneration(run.id, { gen: 1, snapshot: null, trials });
      for (const trial of [0, 1, 2]) {
        store.recordEvaluation(run.id, {
          trial,
          split: "search",
          evaluators: ["inverted"],
          outcome: {
            state: "done",
            seconds: 1,
            attempts: 1,
            results: [{ evaluator: "inverted", split: "search", metrics: [] }],
          },
          fitness: { state: "scored", values: [0.5], feasible: true },
        });
      }
      // Three results a second apart: 3,600 per hour, and seven are left.
      const driven = await cliJson("status", "--db", own.db);
      expect(driven.json).toMatchObject({
        state: "running",
        driver: { pid: process.pid },
        open: 1,
        evaluationsPerHour: 3600,
        secondsLeft: 7,
      });
      expect((await cli("status", "--db", own.db)).stdout).toContain("about 7.0 s left");
      expect((await cli("list", "--db", own.db)).stdout).toMatch(/running/);
      const asked = await cliJson("stop", "--db", own.db);
      expect(asked.json).toMatchObject({ requested: true, driver: { pid: process.pid } });
      expect(store.stopRequested(run.id)).toBe(true);
      lock.release();
      expect((await cli("status", "--db", own.db)).stdout).toContain(
        "interrupted: no process drives it",
      );
      expect((await cli("list", "--db", own.db)).stdout).toMatch(/interrupted/);
    } finally {
      store.close();
      removeFolder(own);
    }
  });
});

const plainRecipe: Recipe = {
  mergeMethod: "linear",
  body: { kind: "models", models: [] },
  parameters: {},
  seed: 0,
  freeze: [],
  passthrough: {},
};

describe("best", () => {
  it("puts the best beside parents, base and soup, with standard errors", async () => {
    const { status, stdout } = await cli(...at("best", "digits-1"));
    expect(status).toBe(0);
    const lines = stdout.trimEnd().split("\n");
    expect(lines[0]).toBe("run digits-1: 2 best, by fitness on validation");
    expect(lines[1]).toMatch(/^model +operator +gen +fitness +rotated +rotated +inverted$/);
    expect(lines[2]).toMatch(/^ +on validation +accuracy +loss ↓ +accuracy$/);
    // √(0.8 · 0.2 / 39) for accuracy; half the root of the sum of both squares for the mean.
    expect(lines[3]).toMatch(
      /^digits-1\/9 +crossover +2 +0\.7625 +±0\.0480 +0\.8000 +±0\.0641 +1\.2000 +±0\.0200 +0\.7250 +±0\.0715$/,
    );
    expect(lines[4]).toMatch(/^digits-1\/7 +sample +1 +0\.7000/);
    expect(lines.slice(5).map((line) => line.split(" ")[0])).toEqual([
      "rotated",
      "inverted",
      "base",
      "uniform",
      "lambda=0.3",
    ]);
  });

  it.each([
    [
      ["--split", "search"],
      ["9", "7", "6", "10"],
    ],
    [
      ["--split", "search", "--top", "2"],
      ["9", "7"],
    ],
    [
      ["--split", "search", "--metric", "rotated.loss"],
      ["9", "10", "7", "6"],
    ],
    [
      ["--split", "search", "--where", "fitness > 0 and generation <= 1"],
      ["7", "6"],
    ],
    [["--split", "search", "--pareto"], ["9"]],
    [["--split", "test"], ["9"]],
  ])("ranks as asked: %j", async (options, expected) => {
    const { json } = await cliJson(...at("best", "digits-1", ...options));
    const trials = json["trials"] as { trial: string }[];
    expect(trials.map(({ trial }) => trial)).toEqual(
      expected.map((number) => `digits-1/${number}`),
    );
  });

  it("says infeasible instead of a penalized number", async () => {
    const { stdout } = await cli(...at("best", "digits-1", "--split", "search"));
    expect(lineOf(stdout, "digits-1/10")).toContain("infeasible");
    const { json } = await cliJson(...at("best", "digits-1", "--split", "search"));
    expect(json["trials"]).toContainEqual(
      expect.objectContaining({ trial: "digits-1/10", infeasible: ["search"] }),
    );
  });

  it("gives one object to scripts", async () => {
    const { json } = await cliJson(...at("best", "digits-1", "--top", "1"));
    expect(json).toMatchObject({
      schema: "mendel.best/1",
      run: "digits-1",
      split: "validation",
      rankedBy: "fitness",
      trials: [
        {
          trial: "digits-1/9",
          operator: "crossover",
          generation: 2,
          parents: ["digits-1/6", "digits-1/7"],
          fitness: { search: 0.7875, validation: 0.7625, test: 0.7625 },
          scores: { rotated: { accuracy: { search: 0.825, validation: 0.8, test: 0.775 } } },
          recipeSha256: expect.stringMatching(/^[0-9a-f]{64}$/),
          weightsSha256: expect.stringMatching(/^[0-9a-f]{64}$/),
        },
      ],
      parents: { rotated: { trial: "digits-1/0" } },
      baselines: { uniform: { trial: "digits-1/3" }, lambda: { trial: "digits-1/4" } },
    });
  });

  it.each([
    [["--metric", "rotated.acuracy"], 'did you mean "rotated.accuracy"?'],
    [["--where", "fitnes < 1"], 'did you mean "fitness"?'],
    [["--split", "tset"], 'did you mean "test"?'],
    [["--top", "0"], "--top expects a whole number from 1"],
    [["--tpo", "3"], "did you mean --top?"],
  ])("refuses %j with a suggestion", async (options, hint) => {
    const { status, stdout, stderr } = await cli(...at("best", "digits-1", ...options));
    expect(status).toBe(2);
    expect(stdout).toBe("");
    expect(stderr).toContain(hint);
  });
});

describe("show", () => {
  it("prints all of a trial, ending with its recipe", async () => {
    const { status, stdout } = await cli(...at("show", "digits-1/best"));
    expect(status).toBe(0);
    expect(lineOf(stdout, "operator")).toBe("operator   crossover of digits-1/6, digits-1/7");
    expect(lineOf(stdout, "children")).toBe("children   1");
    expect(lineOf(stdout, "weights")).toMatch(/sha256 [0-9a-f]{64}$/);
    expect(lineOf(stdout, "program")).toBe("program    slab, weights fed as inputs");
    expect(stdout).toMatch(/^fitness +test +0\.7625 +±/m);
    expect(stdout).toMatch(/^rotated\.accuracy +validation +0\.8000 +±0\.0641 +40$/m);
    expect(stdout).toMatch(/^weight +inverted +head +0\.25$/m);
    expect(stdout).toMatch(/^model +out\/model\.onnx +1\.50 kB/m);
    const yaml = stdout.slice(stdout.indexOf("# digits-1/9"));
    expect(yaml).toContain("# base: models/base.onnx (sha256 ");
    expect(parseRecipe(yaml, "shown").recipe.mergeMethod).toBe("task_arithmetic");
  });

  it("gives all of it to scripts", async () => {
    const { json } = await cliJson(...at("show", "digits-1/9"));
    expect(json).toMatchObject({
      schema: "mendel.show/1",
      run: "digits-1",
      trial: "digits-1/9",
      origin: "search",
      children: ["digits-1/10"],
      axes: ["weight[rotated]", "weight[inverted,head]"],
      genome: { kind: "vector", values: [0.45, 0.25] },
      genes: [
        { name: "weight", model: "rotated", value: 0.45 },
        { name: "weight", model: "inverted", group: "head", value: 0.25 },
      ],
      recipe: { merge_method: "task_arithmetic", base_model: "base", parameters: { lambda: 1 } },
      models: [{ model: "base", path: "models/base.onnx", bytes: 10 }],
      artifacts: [{ kind: "model", path: "out/model.onnx", bytes: 1500 }],
      environment: { program: { program: "slab" } },
    });
    const evaluations = json["evaluations"] as object[];
    expect(evaluations).toHaveLength(6);
    expect(evaluations[0]).toMatchObject({
      evaluator: "rotated",
      split: "search",
      state: "done",
      attempts: 1,
      seconds: 1.5,
      cached: false,
      items: { accuracy: 40, loss: 40 },
    });
  });

  it.each([
    ["digits-1/fittest", "digits-1/9"],
    ["digits-1/baseline:uniform", "digits-1/3"],
    ["baseline:base", "digits-2/2"],
    ["4", "digits-2/4"],
  ])("finds %s", async (reference, trial) => {
    const { json } = await cliJson(...at("show", reference));
    expect(json["trial"]).toBe(trial);
  });

  it("shows what failed", async () => {
    const { stdout } = await cli(...at("show", "digits-1/8"));
    expect(stdout).toMatch(/^fitness +search +failed +timeout$/m);
    expect(stdout).toMatch(/^rotated +search +– +timeout: no answer in 60 s$/m);
  });

  it.each([
    ["digits-1/99", 6, "its trials are numbered 0 to 10"],
    ["digts-1/9", 6, 'did you mean "digits-1"?'],
    ["digits-1/baseline:unifrom", 6, 'did you mean "uniform"?'],
    ["digits-2/best", 6, "no scored trial yet"],
    ["digits-1/bset", 2, 'did you mean "best"?'],
  ])("cannot find %s", async (reference, expected, hint) => {
    const { status, stderr } = await cli(...at("show", reference));
    expect(status).toBe(expected);
    expect(stderr).toContain(hint);
  });
});

describe("compare", () => {
  it("says better only for clear differences", async () => {
    const { status, stdout } = await cli(
      ...at("compare", "digits-1/9", "digits-1/baseline:uniform"),
    );
    expect(status).toBe(0);
    // 31 against 20 right answers of 40, none lost: 2 / 2^11.
    expect(stdout).toMatch(
      /^rotated\.accuracy: digits-1\/9 is better than digits-1\/3; difference 0\.2750 ± 0\.0715 \(95 % interval 0\.13\d\d to 0\.4\d\d\d, p = 0\.0010, 40 items\)\.$/m,
    );
    expect(stdout).toMatch(/^models\[rotated\]\.parameters\.weight +0\.45 +0\.15$/m);
    expect(stdout).toContain("settings are the same");
    expect(stdout).toContain("Items count equally here");
  });

  it("prefers the most severe common split and warns about the search split", async () => {
    const { json } = await cliJson(...at("compare", "digits-1/9", "digits-1/7"));
    expect(json).toMatchObject({ schema: "mendel.compare/1", split: "validation" });
    const { stdout } = await cli(...at("compare", "digits-1/9", "digits-1/3", "--split", "search"));
    expect(stdout).toContain("The search chose its candidates by these very items");
  });

  it("stays unclear where the interval holds zero", async () => {
    // 29 + 32 against 27 + 29 right answers: two and three items apart.
    const { json } = await cliJson(
      ...at("compare", "digits-1/9", "digits-1/7", "--split", "validation"),
    );
    const accuracy = (json["tests"] as Record<string, unknown>[]).filter(
      ({ metric }) => metric === "accuracy",
    );
    expect(accuracy).toHaveLength(2);
    for (const test of accuracy) {
      expect(test).toMatchObject({
        first: "digits-1/9",
        second: "digits-1/7",
        tested: true,
        verdict: "unclear",
      });
      const { low, high } = test["interval"] as { low: number; high: number };
      expect(low).toBeLessThanOrEqual(0);
      expect(high).toBeGreaterThan(0);
    }
    const { stdout } = await cli(
      ...at("compare", "digits-1/9", "digits-1/7", "--split", "validation"),
    );
    expect(stdout).toMatch(
      /^rotated\.accuracy: no clear difference between digits-1\/9 and digits-1\/7; /m,
    );
    expect(stdout).not.toMatch(/accuracy: .* is better/);
  });

  it("adds the tests up to one of the fitness", async () => {
    const { json } = await cliJson(...at("compare", "digits-1/9", "digits-1/baseline:uniform"));
    const [fitness] = json["fitness"] as Record<string, number>[];
    // (11 / 40 + 10 / 40) / 2, as the recorded fitness 0.7625 and 0.5.
    expect(fitness).toMatchObject({ first: "digits-1/9", second: "digits-1/3", verdict: "better" });
    expect(fitness?.["difference"]).toBeCloseTo(0.2625, 12);
    const variance = (share: number): number => (share * (1 - share)) / 39;
    expect(fitness?.["standardError"]).toBeCloseTo(
      Math.sqrt(variance(11 / 40) + variance(10 / 40)) / 2,
      12,
    );
    const near = await cliJson(...at("compare", "digits-1/9", "digits-1/7"));
    // Three and two items, all won: one chance in sixteen.
    expect(near.json["fitness"]).toMatchObject([{ verdict: "unclear", method: "exact" }]);
    const [{ pValue }] = near.json["fitness"] as [{ pValue: number }];
    expect(pValue).toBeCloseTo(1 / 16, 12);
    const infeasible = await cliJson(...at("compare", "digits-1/9", "digits-1/10"));
    expect(infeasible.json["fitness"]).toEqual([]);
  });

  it("calls a smaller loss better", async () => {
    const { json } = await cliJson(...at("compare", "digits-1/9", "digits-1/baseline:base"));
    expect(json["tests"]).toContainEqual(
      expect.objectContaining({
        metric: "loss",
        direction: -1,
        verdict: "better",
        unweighted: true,
      }),
    );
  });

  it("compares the first with each of the others, and skips what cannot be paired", async () => {
    const { json } = await cliJson(
      ...at("compare", "digits-1/9", "digits-1/7", "digits-2/0", "--split", "test"),
    );
    const tests = json["tests"] as {
      second: string;
      evaluator: string;
      tested: boolean;
      reason?: string;
    }[];
    expect(tests).toHaveLength(6);
    expect(tests.filter(({ second }) => second === "digits-1/7")[0]).toMatchObject({
      tested: false,
      reason: "digits-1/7 has no score on test",
    });
    const across = tests.filter(({ second }) => second === "digits-2/0");
    expect(across.map(({ evaluator, tested, reason }) => [evaluator, tested, reason])).toEqual([
      ["rotated", false, "the two runs evaluated different data"],
      ["rotated", false, "the two runs evaluated different data"],
      ["inverted", true, undefined],
    ]);
  });

  it("refuses one trial, and the same one twice", async () => {
    const alone = await cli(...at("compare", "digits-1/9"));
    expect([alone.status, alone.stderr]).toEqual([2, expect.stringContaining("needs two trials")]);
    const twice = await cli(...at("compare", "digits-1/9", "digits-1/best"));
    expect([twice.status, twice.stderr]).toEqual([
      2,
      expect.stringContaining("are the same trial"),
    ]);
  });
});

describe("lineage", () => {
  it("draws ancestors with operator, fitness and what each step gained", async () => {
    const { status, stdout } = await cli(...at("lineage", "digits-1/10"));
    expect(status).toBe(0);
    expect(stdout).toBe(
      [
        "digits-1/10  mutation  infeasible",
        "└─ digits-1/9  crossover  0.7875 (+0.0875)",
        "   ├─ digits-1/6  sample  0.6500",
        "   └─ digits-1/7  sample  0.7000",
        "",
      ].join("\n"),
    );
  });

  it("draws descendants, with gains over parents outside the tree", async () => {
    const { stdout } = await cli(...at("lineage", "digits-1/6", "--descendants"));
    expect(stdout).toBe(
      [
        "digits-1/6  sample  0.6500",
        "└─ digits-1/9  crossover  0.7875 (+0.0875)",
        "   └─ digits-1/10  mutation  infeasible",
        "",
      ].join("\n"),
    );
  });

  it("cuts at a depth and says so", async () => {
    const { stdout, stderr } = await cli(...at("lineage", "digits-1/10", "--depth", "1"));
    expect(stdout.trimEnd().split("\n")).toHaveLength(2);
    expect(stderr).toContain("there are more, more than 1 step away");
  });

  it("writes Graphviz and Mermaid", async () => {
    const dot = await cli(...at("lineage", "digits-1/9", "--dot"));
    expect(dot.stdout).toMatch(/^digraph lineage \{\n/);
    expect(dot.stdout).toContain('  t9 [label="digits-1/9\\ncrossover\\n0.7875 (+0.0875)"];');
    expect(dot.stdout).toContain("  t6 -> t9;\n  t7 -> t9;\n}");
    const mermaid = await cli(...at("lineage", "digits-1/9", "--mermaid"));
    expect(mermaid.stdout).toMatch(
      /^flowchart TD\n {2}t9\["digits-1\/9<br\/>crossover<br\/>0\.7875/,
    );
    expect(mermaid.stdout).toContain("  t7 --> t9");
    expect((await cli(...at("lineage", "digits-1/9", "--dot", "--mermaid"))).status).toBe(2);
  });

  it("gives nodes and edges to scripts", async () => {
    const { json } = await cliJson(...at("lineage", "digits-1/9"));
    expect(json).toMatchObject({
      schema: "mendel.lineage/1",
      trial: "digits-1/9",
      direction: "ancestors",
      truncated: false,
      nodes: [
        { trial: "digits-1/9", operator: "crossover", fitness: 0.7875, depth: 0 },
        { trial: "digits-1/6", operator: "sample", fitness: 0.65, gain: null, depth: 1 },
        { trial: "digits-1/7", operator: "sample", fitness: 0.7, depth: 1 },
      ],
      edges: [
        { child: "digits-1/9", parent: "digits-1/6", order: 0 },
        { child: "digits-1/9", parent: "digits-1/7", order: 1 },
      ],
    });
  });
});

describe("stop", () => {
  it("asks nobody when nobody drives the run", async () => {
    const { status, json } = await cliJson(...at("stop", "digits-2"));
    expect(status).toBe(0);
    expect(json).toMatchObject({
      schema: "mendel.stop/1",
      run: "digits-2",
      requested: false,
      driver: null,
    });
    expect((await cli(...at("stop", "digits-1"))).stdout).toBe(
      "run digits-1 is done; there is nothing to stop\n",
    );
    expect((await cli(...at("stop", "digits-2"))).stdout).toContain("mendel resume digits-2");
  });
});

describe("doctor", () => {
  it("looks at the machine and at every page of the database", async () => {
    const { status, json } = await cliJson(...at("doctor"));
    expect(json).toMatchObject({ schema: "mendel.doctor/1", ok: true });
    expect(status).toBe(0);
    const findings = json["findings"] as { name: string; message: string }[];
    expect(findings.map(({ name }) => name)).toEqual(
      expect.arrayContaining([
        "node",
        "better-sqlite3",
        "onnxruntime-node",
        "memory",
        "disk",
        "run database",
      ]),
    );
    expect(findings.at(-1)?.message).toContain("2 runs, 17 trials");
  });

  it("exits with 3 where something is broken", async () => {
    const { status, stdout } = await cli("doctor", "--db", example.folder);
    expect(status).toBe(3);
    expect(stdout).toMatch(/^FAIL +run database +.* is not a file$/m);
  });
});

describe("text from files", () => {
  it("cannot drive the terminal, and numbers that are none stay valid JSON", async () => {
    const own = exampleFolder();
    const store = RunStore.open(own.db);
    try {
      const evil = "ev\u001b[2Jil\u202e";
      const metrics = [{ evaluator: evil, metric: "kl", direction: -1 as const }];
      const run = store.createRun(newRun({ metrics }));
      const evaluations = [{ evaluator: evil, split: "search" as const, evalKey: "k" }];
      const common = { origin: "search" as const, recipe: plainRecipe, parents: [], evaluations };
      store.openGeneration(run.id, {
        gen: 1,
        snapshot: null,
        trials: [0, 1].map((number) => ({
          ...common,
          number,
          slot: number,
          operator: "a\u0007b\nc",
          recipeSha256: String(number),
        })),
      });
      store.recordEvaluation(run.id, {
        trial: 0,
        split: "search",
        evaluators: [evil],
        outcome: {
          state: "done",
          seconds: 1,
          attempts: 1,
          results: [
            {
              evaluator: evil,
              split: "search",
              metrics: [
                {
                  metric: "kl",
                  kind: "pinf",
                  value: undefined,
                  standardError: undefined,
                  items: 3,
                },
              ],
            },
          ],
        },
        fitness: { state: "scored", values: [0.1], feasible: true },
      });
      store.recordEvaluation(run.id, {
        trial: 1,
        split: "search",
        evaluators: [evil],
        outcome: {
          state: "failed",
          failure: "metric",
          message: "\u001b]0;x\u0007",
          seconds: 1,
          attempts: 1,
        },
        fitness: { state: "failed", reason: "metric" },
      });
      for (const argv of [
        ["list"],
        ["status"],
        ["best"],
        ["show", "0"],
        ["show", "1"],
        ["compare", "0", "1", "--split", "search"],
        ["lineage", "0"],
        ["lineage", "0", "--dot"],
      ]) {
        const { status, stdout } = await cli(...argv, "--db", own.db);
        expect(status).toBe(0);
        // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what must not be there
        expect(stdout).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u202e]/);
      }
      expect((await cli("best", "--db", own.db)).stdout).toContain("Infinity");
      const { json } = await cliJson("best", "--db", own.db);
      expect(json["trials"]).toMatchObject([
        { scores: { [evil]: { kl: { search: { value: null, kind: "pinf" } } } } },
      ]);
    } finally {
      store.close();
      removeFolder(own);
    }
  });
});

describe("every verb that reads", () => {
  const reading = [
    ["list"],
    ["status"],
    ["best"],
    ["show", "best"],
    ["compare", "1", "2"],
    ["lineage", "best"],
    ["stop"],
  ];

  it.each(reading)("%s: no database is exit 6, and none is made", async (...argv) => {
    const missing = `${example.folder}/missing.sqlite`;
    const { status, stderr } = await cli(...argv, "--db", missing);
    expect(status).toBe(6);
    expect(stderr).toContain("there are no runs yet");
    expect((await cli(...argv, "--db", missing)).status).toBe(6);
  });

  it.each(reading)("%s: a database without runs", async (...argv) => {
    const own = exampleFolder();
    try {
      RunStore.open(own.db).close();
      const { status, stderr } = await cli(...argv, "--db", own.db);
      expect(status).toBe(argv[0] === "list" ? 0 : 6);
      expect(stderr).toContain("there are no runs yet");
    } finally {
      removeFolder(own);
    }
  });

  it.each(reading)("%s: a file that is no database is exit 7", async (...argv) => {
    const { status, json } = await cliJson(...argv, "--db", import.meta.filename);
    expect(status).toBe(7);
    expect(json).toMatchObject({ schema: "mendel.error/1", code: "database" });
  });

  it.each(reading)("%s: unknown flags are refused", async (...argv) => {
    const { status, stderr } = await cli(...argv, "--jsno", "--db", example.db);
    expect(status).toBe(2);
    expect(stderr).toContain("did you mean --json?");
  });

  it.each(Object.keys(verbs))("%s: help ends with two examples", async (verb) => {
    const { status, stdout } = await cli(verb, "--help");
    expect(status).toBe(0);
    const examples = stdout.slice(stdout.indexOf("\nExamples:\n")).match(/^ {2}\$ mendel /gm) ?? [];
    expect(examples.length).toBeGreaterThanOrEqual(2);
  });
});
