import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { digitsExperiment, projectFile, writeExperiment } from "../support/experiment-files.ts";
import { type Ended, mendel } from "../support/mendel-process.ts";

const hex = expect.stringMatching(/^[0-9a-f]{64}$/);
const number = expect.any(Number);
const bySplit = { search: number, validation: number, test: number };
const metrics = { accuracy: bySplit, cross_entropy: bySplit };
const scores = { "digits-rotate": metrics, "digits-invert": metrics };
const ref = expect.stringMatching(/^j\/\d+$/);
const scored = { trial: ref, fitness: bySplit, scores, recipeSha256: hex };
const files = expect.arrayContaining([{ path: expect.any(String), bytes: number, sha256: hex }]);

const folder = mkdtempSync(join(tmpdir(), "mendel-json-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const db = join(folder, "a.sqlite");
const experiment = writeExperiment(folder, digitsExperiment());

/** The search that all tests look at, made by the first of them. */
let search: Promise<Ended> | undefined;
function searched(): Promise<Ended> {
  search ??= mendel(["run", experiment, "--db", db, "--name", "j", "--json"]);
  return search;
}

/** Runs a verb with --json; stdout must be one object with the verb's schema and nothing else. */
async function objectOf(verb: string, ...args: readonly string[]) {
  await searched();
  const ended = await mendel([verb, ...args, "--db", db, "--json"]);
  expect(ended.status, ended.stderr).toBe(0);
  return parsed(verb, ended);
}

function parsed(verb: string, { stdout }: Ended): Record<string, unknown> {
  const object = JSON.parse(stdout) as Record<string, unknown>;
  expect(object["schema"]).toBe(`mendel.${verb}/1`);
  // NaN and infinities have a spelling of their own; `undefined` has none.
  expect(stdout).not.toMatch(/NaN|Infinity|undefined/);
  return object;
}

describe("--json", () => {
  it("run: the summary on stdout, progress on stderr", async () => {
    const ended = await searched();
    expect(ended.status).toBe(0);
    expect(ended.stderr).toMatch(/^run j: scoring the baselines first$/m);
    expect(ended.stderr).toMatch(/^6 of 24 evaluations, generation 1: /m);
    expect(parsed("run", ended)).toMatchObject({
      run: "j",
      state: "done",
      evaluations: 24,
      failures: 0,
      cacheHits: number,
      seconds: number,
      best: { ...scored, weightsSha256: hex },
      parents: { rotate: scored, invert: scored, mirror: scored, flipfade: scored },
      baselines: { base: scored, uniform: scored, lambda: scored },
      seed: "7",
    });
  });

  it("resume: the same of a run that is done already", async () => {
    const before = parsed("run", await searched());
    const { schema: _schema, seconds: _seconds, evaluationsPerHour: _rate, ...same } = before;
    expect(await objectOf("resume", "j")).toMatchObject(same);
  });

  it("best", async () => {
    const best = (await objectOf("best", "j", "--top", "2")) as { trials: object[] };
    expect(best).toMatchObject({ run: "j", split: "validation", rankedBy: "fitness" });
    expect(best.trials).toHaveLength(2);
    expect(best.trials[0]).toMatchObject({
      ...scored,
      parents: expect.any(Array),
      operator: expect.any(String),
      generation: number,
    });
    // Only the winner has seen the test split.
    expect(best.trials[1]).toMatchObject({ fitness: { search: number, validation: number } });
    expect(best.trials[1]).not.toHaveProperty("fitness.test");
  });

  it("show", async () => {
    const genes = expect.arrayContaining([
      expect.objectContaining({ name: "weight", value: number, model: "rotate" }),
    ]);
    expect(await objectOf("show", "j/best")).toMatchObject({
      ...scored,
      run: "j",
      origin: "search",
      genome: { kind: "vector", values: expect.arrayContaining([number]) },
      genes,
      recipe: { merge_method: "task_arithmetic" },
      recipeYaml: expect.stringContaining("merge_method: task_arithmetic"),
      evaluations: expect.arrayContaining([
        expect.objectContaining({ evaluator: "digits-rotate", split: "test", state: "done" }),
      ]),
      environment: { node: process.versions.node },
    });
    expect(await objectOf("show", "j/baseline:uniform")).toMatchObject({
      label: "uniform",
      origin: "baseline",
      genome: null,
      recipe: { merge_method: "linear" },
    });
  });

  it("compare", async () => {
    expect(await objectOf("compare", "j/best", "j/baseline:uniform", "j/0")).toMatchObject({
      split: "test",
      trials: [scored, scored, scored],
      tests: expect.arrayContaining([
        expect.objectContaining({ tested: true, pValue: number, verdict: expect.any(String) }),
      ]),
    });
  });

  it("lineage", async () => {
    const tree = await objectOf("lineage", "j/best");
    expect(tree).toMatchObject({
      nodes: expect.arrayContaining([
        expect.objectContaining({ trial: ref, operator: expect.any(String), fitness: number }),
      ]),
      edges: expect.any(Array),
    });
    for (const edge of tree["edges"] as object[]) {
      expect(edge).toEqual({ child: ref, parent: ref, order: number });
    }
  });

  it("list and status", async () => {
    expect(await objectOf("list")).toMatchObject({
      runs: [{ run: "j", state: "done", driven: false, trials: number, best: { trial: ref } }],
    });
    expect(await objectOf("status")).toMatchObject({
      run: "j",
      state: "done",
      driver: null,
      evaluations: 24,
      failures: 0,
      failuresByClass: [],
      budget: { evaluations: 24, time: null, stall: null },
      best: { trial: ref },
    });
  });

  it("stop, with nothing to stop", async () => {
    expect(await objectOf("stop", "j")).toMatchObject({ run: "j", requested: false, driver: null });
  });

  it("export and merge", async () => {
    const out = join(folder, "out");
    expect(await objectOf("export", "j/best", out)).toMatchObject({
      trial: ref,
      files,
      coverage: { merged: 8, copied: 0, refused: [] },
      verified: expect.arrayContaining([
        expect.objectContaining({ evaluator: "digits-rotate", stored: number, measured: number }),
      ]),
      agrees: true,
      seconds: number,
      peakRssBytes: number,
    });
    expect(await objectOf("merge", join(out, "recipe.yml"), join(folder, "merged"))).toMatchObject({
      files,
      coverage: { merged: 8, copied: 0, refused: [] },
      seconds: number,
      peakRssBytes: number,
    });
  });

  it("evaluate", async () => {
    const metric = { value: number, kind: "finite", items: number, standardError: number };
    expect(await objectOf("evaluate", "j/best", "--split", "validation")).toMatchObject({
      target: "j/best",
      split: "validation",
      scores: { "digits-rotate": { accuracy: metric, cross_entropy: metric } },
    });
  });

  it("validate, and run --dry-run", async () => {
    const report = {
      ok: true,
      problems: expect.any(Array),
      coverage: { merged: 8, copied: 0, refused: [] },
      forecast: { memoryBytes: number, diskBytes: number, secondsPerEvaluation: number },
    };
    await searched();
    const validated = await mendel(["validate", experiment, "--json"]);
    expect(validated.status).toBe(0);
    expect(parsed("validate", validated)).toMatchObject(report);
    const dry = await mendel(["run", experiment, "--dry-run", "--json", "--db", db]);
    expect(dry.status).toBe(0);
    expect(parsed("validate", dry)).toMatchObject(report);
  });

  it("validate of something broken: problems, not an error", async () => {
    const broken = writeExperiment(folder, digitsExperiment({ base: "bass" }), "broken");
    const ended = await mendel(["validate", broken, "--json"]);
    expect(ended.status).toBe(3);
    expect(parsed("validate", ended)).toMatchObject({
      ok: false,
      problems: [
        {
          severity: "error",
          code: "invalid-config",
          message: expect.stringContaining("bass"),
          where: { file: broken, key: "base" },
          hint: expect.stringContaining("did you mean"),
        },
      ],
    });
  });

  it("inspect and doctor", async () => {
    const models = projectFile("examples/digits/models");
    const [base, rotate] = [
      join(models, "base/model.onnx"),
      join(models, "rotate/model.safetensors"),
    ];
    expect(await objectOf("inspect", base, rotate)).toMatchObject({
      models: [
        { format: "onnx", total: { tensors: 8 } },
        { format: "safetensors", total: { tensors: 8 } },
      ],
      match: { fits: true },
    });
    await objectOf("doctor");
  });
});

describe("errors under --json", () => {
  it.each<[string, readonly string[], number, object]>([
    ["a misspelt verb", ["rnu"], 2, { code: "usage" }],
    ["a misspelt flag", ["run", "x", "--sede", "1"], 2, { code: "usage" }],
    [
      "an experiment that is not there",
      ["run", "nowhere.yml"],
      3,
      { code: "not-found", where: { file: "nowhere.yml" } },
    ],
    [
      "a run that is not there",
      ["status", "jj"],
      6,
      { code: "no-such-run", hint: expect.stringContaining('did you mean "j"?') },
    ],
    ["a trial that is not there", ["show", "j/999"], 6, { code: "no-such-run" }],
    [
      "a condition that does not parse",
      ["best", "j", "--where", "fitness >"],
      2,
      { code: "usage" },
    ],
  ])("%s", async (_what, args, status, object) => {
    await searched();
    const ended = await mendel([...args, "--db", db, "--json"]);
    expect(ended.status).toBe(status);
    expect(parsed("error", ended)).toMatchObject({ message: expect.any(String), ...object });
    expect(ended.stderr).toBe("");
  });

  it("an unknown key, with its line", async () => {
    const broken = writeExperiment(folder, digitsExperiment({ sede: 1 }), "unknown");
    const ended = await mendel(["run", broken, "--db", db, "--json"]);
    expect(ended.status).toBe(3);
    expect(parsed("error", ended)).toMatchObject({
      code: "invalid-config",
      hint: expect.stringContaining('did you mean "seed"?'),
      where: { file: broken, line: number, key: "sede" },
    });
  });
});

describe("for people", () => {
  it("results go to stdout, remarks to stderr, and --quiet leaves the results alone", async () => {
    await searched();
    const [loud, quiet] = [
      await mendel(["best", "--db", db]),
      await mendel(["best", "--db", db, "-q"]),
    ];
    expect(loud.stderr).toContain("newest run: j");
    expect(quiet.stderr).toBe("");
    expect(quiet.stdout).toBe(loud.stdout);
    // No terminal, no colors.
    expect(loud.stdout).not.toContain("\u001b");
  });

  it("a run prints parents, baselines and winner on all splits, and what to type next", async () => {
    const ended = await mendel(["run", experiment, "--db", db, "--name", "people", "-q"]);
    expect(ended.stderr).toBe("");
    for (const text of ["search", "validation", "test", "rotate", "uniform", "best (people/"]) {
      expect(ended.stdout).toContain(text);
    }
    const commands = [...ended.stdout.matchAll(/^ {2}mendel (.*)$/gm)].map(
      (match) => match[1] ?? "",
    );
    expect(commands.length).toBeGreaterThanOrEqual(3);
    for (const command of commands) {
      const { status, stderr } = await mendel(command.split(" "), { cwd: folder });
      expect(status, `${command}: ${stderr}`).toBe(0);
    }
    // All of it came from the scores that the first run had stored.
    expect(ended.stdout).toContain("24 answered from the store");
  });
});
