import { renameSync } from "node:fs";
import { describe, expect, it } from "vitest";
import type { MendelError } from "../../src/base/errors.ts";
import { openReader } from "../../src/store/connection.ts";
import { recentEvents } from "../../src/store/queries.ts";
import type { EvaluationOutcome, EvaluatorRow, MetricRow } from "../../src/store/rows.ts";
import { RunStore } from "../../src/store/run-store.ts";
import {
  baseline,
  bothEvaluators,
  done,
  generation,
  metric,
  newRun,
  recipe,
  score,
  temporaryStore,
  thrownBy,
  trial,
} from "./store-fixtures.ts";

function resultsIn(outcome: EvaluationOutcome): readonly EvaluatorRow[] {
  return outcome.state === "done" ? outcome.results : [];
}

describe("createRun", () => {
  it("numbers the runs of an experiment and keeps what they were given", () => {
    const store = temporaryStore({ now: () => 1_700_000_000_000 });
    const first = store.createRun(newRun({ seed: "9007199254740993" }));
    expect(first).toMatchObject({
      name: "digits-1",
      state: "new",
      createdMs: 1_700_000_000_000,
      seed: "9007199254740993",
      configGiven: "seed: 7\n",
      config: { seed: 7 },
      objectives: ["mean"],
    });
    store.createRun(newRun({ name: "digits-9" }));
    store.createRun(newRun({ name: "digits-last" }));
    store.createRun(newRun({ experiment: "digits-9" }));
    expect(store.createRun(newRun()).name).toBe("digits-10");
    expect(store.run("digits-9-1")?.experiment).toBe("digits-9");
    expect(store.run("none")).toBeUndefined();
  });

  it("refuses names that are taken or that paths and references could not hold", () => {
    const store = temporaryStore();
    store.createRun(newRun({ name: "mine" }));
    expect(thrownBy(() => store.createRun(newRun({ name: "mine" })))).toMatchObject({
      code: "usage",
      hint: expect.stringContaining("mendel resume mine"),
    });
    for (const name of ["", "a/b", "-x", "..", "a b", "x".repeat(101), "a\n"]) {
      expect(thrownBy(() => store.createRun(newRun({ name })))).toMatchObject({ code: "usage" });
    }
    expect(store.database.prepare("SELECT count(*) FROM run").pluck().get()).toBe(1);
  });

  it("compares the files a run began with", () => {
    const store = temporaryStore();
    const file = (role: string, sha256: string) => ({ role, path: `/m/${role}`, sha256, bytes: 4 });
    const run = store.createRun(newRun({ inputs: [file("model:a", "aa"), file("model:b", "bb")] }));
    const moved = { ...file("model:a", "aa"), path: "/elsewhere" };
    expect(store.compareInputs(run.id, [moved, file("model:b", "bb")])).toEqual([]);
    expect(store.compareInputs(run.id, [file("model:a", "a2"), file("data:c", "cc")])).toEqual([
      { role: "model:a", path: "/m/model:a", problem: "changed" },
      { role: "model:b", path: "/m/model:b", problem: "missing" },
      { role: "data:c", path: "/m/data:c", problem: "new" },
    ]);
  });
});

describe("generations", () => {
  it("come back as they were opened, with what is known so far", () => {
    const store = temporaryStore();
    const run = store.createRun(newRun());
    generation(store, run, 0, [baseline(0, "uniform")], [0.5], { state: "after 0" });
    const trials = [
      trial(1, { slot: 0, parents: [0] }),
      trial(2, { slot: 1, parents: [1, 0], operator: "crossover" }),
    ];
    store.openGeneration(run.id, { gen: 1, snapshot: { state: "asked 1" }, trials });
    score(store, run, 2, 0.75);
    const open = store.openGenerationRows(run.id);
    expect(open?.gen).toBe(1);
    expect(open?.snapshot).toEqual({ state: "asked 1" });
    expect(open?.trials.map(({ number, parents }) => ({ number, parents }))).toEqual([
      { number: 1, parents: [0] },
      { number: 2, parents: [1, 0] },
    ]);
    const [waiting, scored] = open?.trials ?? [];
    expect(waiting?.genome).toEqual({ kind: "vector", values: [0.001, 0.5] });
    expect(waiting?.recipe).toEqual(recipe);
    expect(waiting?.evaluations.map(({ state, evalKey }) => [state, evalKey])).toEqual([
      ["queued", "1-rotated-search"],
      ["queued", "1-inverted-search"],
    ]);
    expect(waiting?.fitness).toEqual({});
    expect(scored?.fitness).toEqual({
      search: { state: "scored", values: [0.75], feasible: true },
    });
    expect(scored?.evaluations[0]?.result).toEqual(resultsIn(done(0.75))[0]);
    expect(store.lastClosedSnapshot(run.id)).toEqual({ gen: 0, snapshot: { state: "after 0" } });

    expect(() => store.closeGeneration(run.id, { gen: 1, snapshot: {} })).toThrow(
      "2 search evaluations without a result",
    );
    score(store, run, 1, 0.5);
    store.closeGeneration(run.id, { gen: 1, snapshot: { state: "after 1" } });
    expect(store.openGenerationRows(run.id)).toBeUndefined();
    expect(store.lastClosedSnapshot(run.id)).toEqual({ gen: 1, snapshot: { state: "after 1" } });
    expect(() => store.closeGeneration(run.id, { gen: 1, snapshot: {} })).toThrow("is not open");
  });

  it("are opened whole or not at all", () => {
    const store = temporaryStore();
    const run = store.createRun(newRun());
    const bad = [trial(0), trial(1), trial(1, { slot: 2 })];
    expect(() => store.openGeneration(run.id, { gen: 0, snapshot: {}, trials: bad })).toThrow();
    const orphan = [trial(0, { parents: [12] })];
    expect(() => store.openGeneration(run.id, { gen: 0, snapshot: {}, trials: orphan })).toThrow(
      "no trial 12",
    );
    for (const table of ["generation", "trial", "recipe", "evaluation"]) {
      expect(store.database.prepare(`SELECT count(*) FROM ${table}`).pluck().get()).toBe(0);
    }
    expect(() => store.openGeneration(run.id, { gen: 0, snapshot: NaN, trials: [] })).toThrow(
      "not representable",
    );
  });

  it("keep the last three optimizer states, and notice when one was altered", () => {
    const store = temporaryStore();
    const run = store.createRun(newRun());
    for (let gen = 0; gen < 6; gen++) generation(store, run, gen, [], [], { gen });
    const kept = store.database
      .prepare("SELECT gen FROM generation WHERE optimizer_json IS NOT NULL ORDER BY gen")
      .pluck()
      .all();
    expect(kept).toEqual([3, 4, 5]);
    expect(store.lastClosedSnapshot(run.id)).toEqual({ gen: 5, snapshot: { gen: 5 } });
    store.database.exec(`UPDATE generation SET optimizer_json = '{"gen":4}' WHERE gen = 5`);
    expect(thrownBy(() => store.lastClosedSnapshot(run.id))).toMatchObject({ code: "database" });
  });
});

describe("recordEvaluation", () => {
  it("keeps the first result and reports whether a second one differs", () => {
    const store = temporaryStore();
    const run = store.createRun(newRun());
    store.openGeneration(run.id, { gen: 0, snapshot: {}, trials: [trial(0), trial(1)] });
    const record = (number: number, outcome: EvaluationOutcome) =>
      store.recordEvaluation(run.id, {
        trial: number,
        split: "search",
        evaluators: bothEvaluators,
        outcome,
      });
    const failure: EvaluationOutcome = {
      state: "failed",
      failure: "crash",
      message: "SIGSEGV",
      seconds: 1,
      attempts: 2,
    };
    expect(record(0, done(0.5))).toEqual({ recorded: true, differs: false });
    expect(record(0, done(0.5))).toEqual({ recorded: false, differs: false });
    expect(record(0, done(0.500001))).toEqual({ recorded: false, differs: true });
    expect(record(0, failure)).toEqual({ recorded: false, differs: true });
    expect(store.results(run.id, 0, "search")).toEqual(resultsIn(done(0.5)));

    expect(record(1, failure)).toEqual({ recorded: true, differs: false });
    expect(record(1, failure)).toEqual({ recorded: false, differs: false });
    expect(record(1, done(0.5))).toEqual({ recorded: false, differs: true });
    expect(store.results(run.id, 1, "search")).toEqual([]);
    const row = store.openGenerationRows(run.id)?.trials[1]?.evaluations[0];
    expect(row).toMatchObject({
      state: "failed",
      failure: "crash",
      message: "SIGSEGV",
      attempts: 2,
    });

    store.flushEvents();
    expect(recentEvents(store.database, run.id).map(({ kind, body }) => [kind, body])).toEqual([
      ["result-differs", { trial: 0, split: "search" }],
      ["result-differs", { trial: 0, split: "search" }],
      ["result-differs", { trial: 1, split: "search" }],
    ]);
  });

  it("leaves a cancelled evaluation queued", () => {
    const store = temporaryStore();
    const run = store.createRun(newRun());
    store.openGeneration(run.id, { gen: 0, snapshot: {}, trials: [trial(0)] });
    const report = store.recordEvaluation(run.id, {
      trial: 0,
      split: "search",
      evaluators: bothEvaluators,
      outcome: { state: "failed", failure: "cancelled", message: "", seconds: 1, attempts: 1 },
    });
    expect(report).toEqual({ recorded: false, differs: false });
    expect(store.queuedEvaluations(run.id, 0)).toHaveLength(2);
  });

  it("never takes NaN or infinity for a number", () => {
    const store = temporaryStore();
    const run = store.createRun(newRun());
    store.openGeneration(run.id, { gen: 0, snapshot: {}, trials: [trial(0)] });
    const odd: MetricRow[] = [
      { metric: "nan", kind: "nan", value: undefined, standardError: undefined, items: 3 },
      { metric: "pinf", kind: "pinf", value: undefined, standardError: Number.NaN, items: 3 },
      { metric: "ninf", kind: "ninf", value: undefined, standardError: undefined, items: 3 },
      // Producers that get the kind wrong must not get a NULL in.
      { metric: "lie", kind: "finite", value: Number.NaN, standardError: undefined, items: 3 },
      { metric: "lie+", kind: "finite", value: Infinity, standardError: undefined, items: 3 },
      { metric: "lie-", kind: "finite", value: -Infinity, standardError: undefined, items: 3 },
      { metric: "none", kind: "finite", value: undefined, standardError: undefined, items: 3 },
      metric("items", 1e308, [Number.NaN, Infinity, -Infinity, -0, 5e-324]),
    ];
    store.recordEvaluation(run.id, {
      trial: 0,
      split: "search",
      evaluators: ["rotated"],
      outcome: {
        state: "done",
        seconds: 1,
        attempts: 1,
        results: [{ evaluator: "rotated", split: "search", metrics: odd }],
      },
    });
    const [result] = store.results(run.id, 0, "search");
    expect(result?.metrics.map(({ kind, value }) => [kind, value])).toEqual([
      ["nan", undefined],
      ["pinf", undefined],
      ["ninf", undefined],
      ["nan", undefined],
      ["pinf", undefined],
      ["ninf", undefined],
      ["nan", undefined],
      ["finite", 1e308],
    ]);
    expect(result?.metrics.at(-1)?.itemScores).toEqual([
      Number.NaN,
      Infinity,
      -Infinity,
      -0,
      5e-324,
    ]);
    const insert =
      "INSERT INTO score(eval_id, metric, ord, kind, value, n) VALUES (2, 'x', 0, 'finite', ?, 1)";
    expect(() => store.database.prepare(insert).run(Number.NaN)).toThrow("CHECK constraint failed");
  });

  it("records a fitness once, and one that is not finite as a failure", () => {
    const store = temporaryStore();
    const run = store.createRun(newRun({ objectives: ["a", "b"] }));
    store.openGeneration(run.id, { gen: 0, snapshot: {}, trials: [trial(0), trial(1), trial(2)] });
    store.recordFitness(run.id, [
      {
        trial: 0,
        split: "search",
        fitness: { state: "scored", values: [0.25, 0.75], feasible: false },
      },
      {
        trial: 1,
        split: "search",
        fitness: { state: "scored", values: [1, Number.NaN], feasible: true },
      },
      {
        trial: 2,
        split: "search",
        fitness: { state: "failed", reason: "rotated has no finite fitness" },
      },
      { trial: 0, split: "search", fitness: { state: "scored", values: [9, 9], feasible: true } },
    ]);
    const fitness = store.openGenerationRows(run.id)?.trials.map((row) => row.fitness.search);
    expect(fitness).toEqual([
      { state: "scored", values: [0.25, 0.75], feasible: false },
      { state: "failed", reason: "the fitness is not finite" },
      { state: "failed", reason: "rotated has no finite fitness" },
    ]);
    const ranking = store.database
      .prepare("SELECT value FROM fitness WHERE kind = 'finite'")
      .pluck();
    expect(ranking.all()).toEqual([0.5]);
  });

  it("shares a request's seconds among its evaluators", () => {
    const store = temporaryStore();
    const run = store.createRun(newRun());
    generation(store, run, 0, [trial(0), trial(1)], [0.1, 0.2]);
    expect(store.database.prepare("SELECT sum(seconds) FROM evaluation").pluck().get()).toBe(4);
  });
});

describe("stored scores", () => {
  it("stand in for equal evaluations of any run, failures never", () => {
    const store = temporaryStore();
    const old = store.createRun(newRun());
    generation(store, old, 0, [trial(0), trial(1)], [0.5, undefined]);
    const run = store.createRun(newRun());
    store.openGeneration(run.id, { gen: 0, snapshot: {}, trials: [trial(0), trial(1)] });
    expect(store.findScores("1-rotated-search")).toBeUndefined();
    expect(store.findScores("7-rotated-search")).toBeUndefined();
    const found = store.findScores("0-rotated-search");
    expect(found?.result).toEqual(store.results(old.id, 0, "search")[0]);
    const target = store.openGenerationRows(run.id)?.trials[0]?.evaluations[0];
    expect(store.copyEvaluation(found?.evaluation ?? 0, target?.id ?? 0)).toEqual(found?.result);
    const row = store.openGenerationRows(run.id)?.trials[0]?.evaluations[0];
    expect(row).toMatchObject({
      state: "done",
      cachedFrom: found?.evaluation,
      seconds: 0,
      attempts: 0,
    });
    // Copying again changes nothing, and a source without scores is refused.
    expect(store.copyEvaluation(found?.evaluation ?? 0, target?.id ?? 0)).toEqual(found?.result);
    const failed = store.openGenerationRows(run.id)?.trials[1]?.evaluations[0]?.id ?? 0;
    expect(() => store.copyEvaluation(failed, failed)).toThrow("has no scores to copy");
  });

  it("are added for finalists after their generation closed", () => {
    const store = temporaryStore();
    const run = store.createRun(newRun());
    generation(store, run, 0, [trial(0)], [0.5]);
    const evaluations = bothEvaluators.map((evaluator) => ({
      evaluator,
      split: "validation" as const,
      evalKey: `0-${evaluator}-validation`,
    }));
    store.addEvaluations(run.id, 0, evaluations);
    store.addEvaluations(run.id, 0, evaluations);
    expect(store.queuedEvaluations(run.id, 0)).toEqual(evaluations);
    score(store, run, 0, 0.4, "validation");
    expect(store.queuedEvaluations(run.id, 0)).toEqual([]);
    expect(store.results(run.id, 0, "validation")).toHaveLength(2);
    expect(store.results(run.id, 0, "search")).toHaveLength(2);
  });
});

describe("incarnations", () => {
  it("add up to the time a run was driven, also when one was killed", () => {
    let clock = 1_000_000;
    const store = temporaryStore({ now: () => clock });
    const run = store.createRun(newRun());
    const first = store.beginIncarnation(run.id);
    expect(store.run(run.name)?.state).toBe("running");
    clock += 10_000;
    store.endIncarnation(first, "interrupted");
    clock += 500_000;
    store.beginIncarnation(run.id);
    clock += 4_000;
    generation(store, run, 0, [trial(0)], [0.5]);
    clock += 60_000;
    // Killed: what counts is the time up to its last result.
    store.beginIncarnation(run.id);
    expect(store.secondsDriven(run.id)).toBe(14);
    store.setRunState(run.id, "done", "budget");
    expect(store.run(run.name)).toMatchObject({ state: "done", reason: "budget" });
    store.setBudget(run.id, { evaluations: 500 });
    expect(store.run(run.name)?.budget).toEqual({ evaluations: 500 });
  });
});

describe("events and artifacts", () => {
  it("are written in groups, at the latest when the store closes", () => {
    const store = temporaryStore();
    const run = store.createRun(newRun());
    for (let i = 0; i < 5; i++) store.logEvent(run.id, "info", "step", { i });
    const reader = openReader(store.path);
    expect(recentEvents(reader, run.id)).toEqual([]);
    store.close();
    const events = recentEvents(reader, run.id, { limit: 3 });
    reader.close();
    expect(events.map(({ body }) => body)).toEqual([{ i: 2 }, { i: 3 }, { i: 4 }]);
  });

  it("are written by themselves after a moment", async () => {
    const store = temporaryStore();
    const run = store.createRun(newRun());
    store.logEvent(run.id, "info", "step", {});
    for (let i = 0; i < 200 && recentEvents(store.database, run.id).length === 0; i++) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    expect(recentEvents(store.database, run.id)).toHaveLength(1);
  });

  it("keep one note per path", () => {
    const store = temporaryStore({ now: () => 5 });
    const run = store.createRun(newRun());
    generation(store, run, 0, [trial(0)], [0.5]);
    const artifact = { trial: 0, kind: "recipe", path: "best/recipe.yml", sha256: "aa", bytes: 9 };
    store.recordArtifact(run.id, artifact);
    store.recordArtifact(run.id, { ...artifact, trial: undefined, sha256: "bb" });
    expect(store.database.prepare("SELECT sha256, trial_id FROM artifact").all()).toEqual([
      { sha256: "bb", trial_id: null },
    ]);
  });
});

describe("a disk that fails", () => {
  it("is a resource error that says what is saved; work goes on once there is room", () => {
    const store = temporaryStore();
    const run = store.createRun(newRun());
    generation(store, run, 0, [trial(0), trial(1)], [0.5, 0.6]);
    const pages = store.database.pragma("page_count", { simple: true }) as number;
    store.database.pragma(`max_page_count = ${pages}`);
    const many = Array.from({ length: 200 }, (_, i) => trial(i + 2, { slot: i }));
    const error = thrownBy(() =>
      store.openGeneration(run.id, { gen: 1, snapshot: {}, trials: many }),
    ) as MendelError;
    expect(error.code).toBe("resource");
    expect(error.message).toContain("the disk is full");
    expect(error.message).toContain("4 finished evaluations of run digits-1 are saved");
    expect(error.hint).toContain("mendel resume digits-1");
    expect(store.database.inTransaction).toBe(false);
    expect(store.openGenerationRows(run.id)).toBeUndefined();
    expect(store.database.pragma("integrity_check", { simple: true })).toBe("ok");
    store.database.pragma("max_page_count = 1000000");
    store.openGeneration(run.id, { gen: 1, snapshot: {}, trials: many });
    expect(store.openGenerationRows(run.id)?.trials).toHaveLength(200);
  });

  it("is noticed when the file is taken away under a running search", () => {
    const store = temporaryStore();
    const run = store.createRun(newRun());
    renameSync(store.path, `${store.path}.away`);
    const error = thrownBy(() =>
      store.openGeneration(run.id, { gen: 0, snapshot: {}, trials: [] }),
    );
    expect(error).toMatchObject({
      code: "database",
      message: expect.stringContaining("was deleted"),
    });
    renameSync(`${store.path}.away`, store.path);
    store.openGeneration(run.id, { gen: 0, snapshot: {}, trials: [] });
  });
});

it("opens again where it was closed", () => {
  const store = temporaryStore();
  const run = store.createRun(newRun());
  generation(store, run, 0, [trial(0)], [0.5]);
  store.close();
  store.close();
  const again = RunStore.open(store.path, { resume: true });
  expect(again.run("digits-1")).toEqual(run);
  expect(again.lastClosedSnapshot(run.id)?.gen).toBe(0);
  again.close();
});
