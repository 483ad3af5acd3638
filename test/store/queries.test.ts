import { describe, expect, it } from "vitest";
import { type Connection, openReader } from "../../src/store/connection.ts";
import { findRun, findTrial } from "../../src/store/find.ts";
import { lineage } from "../../src/store/lineage.ts";
import {
  artifactsOf,
  baselines,
  bestTrials,
  failuresByClass,
  fitnessSeries,
  itemScores,
  listRuns,
  progress,
  trialDetail,
} from "../../src/store/queries.ts";
import type { FitnessOutcome, RunRow } from "../../src/store/rows.ts";
import type { RunStore } from "../../src/store/run-store.ts";
import {
  baseline,
  bothEvaluators,
  done,
  generation,
  newRun,
  score,
  temporaryStore,
  thrownBy,
  trial,
} from "./store-fixtures.ts";

interface Example {
  readonly store: RunStore;
  readonly run: RunRow;
  readonly reader: Connection;
}

/** Two baselines, then two generations; trial 4 failed, 3 and 6 are equally good. */
function example(): Example {
  let clock = 1_000_000;
  const store = temporaryStore({
    now: () => {
      clock += 1000;
      return clock;
    },
  });
  store.createRun(newRun());
  const run = store.createRun(newRun());
  store.beginIncarnation(run.id);
  generation(store, run, 0, [baseline(0, "rotated"), baseline(1, "uniform")], [0.95, 0.7]);
  generation(
    store,
    run,
    1,
    [trial(2, { slot: 0 }), trial(3, { slot: 1 }), trial(4, { slot: 2 })],
    [0.6, 0.9, undefined],
  );
  generation(
    store,
    run,
    2,
    [
      trial(5, { slot: 0, parents: [2, 3], operator: "crossover" }),
      trial(6, { slot: 1, parents: [3], operator: "mutation" }),
      trial(7, { slot: 2, parents: [5, 6], operator: "crossover", recipeSha256: "same" }),
    ],
    [0.8, 0.9, 0.85],
  );
  return { store, run, reader: store.database };
}

function validate({ store, run }: Example, number: number, value: number): void {
  store.addEvaluations(
    run.id,
    number,
    bothEvaluators.map((evaluator) => ({
      evaluator,
      split: "validation" as const,
      evalKey: `${number}-${evaluator}-validation`,
    })),
  );
  score(store, run, number, value, "validation");
}

describe("findRun", () => {
  it("takes the newest where none is named and suggests names", () => {
    const { reader } = example();
    expect(findRun(reader).name).toBe("digits-2");
    expect(findRun(reader, "digits-1").name).toBe("digits-1");
    expect(thrownBy(() => findRun(reader, "digit-1"))).toMatchObject({
      code: "no-such-run",
      hint: expect.stringContaining('did you mean "digits-1"?'),
    });
    const empty = temporaryStore();
    expect(thrownBy(() => findRun(empty.database))).toMatchObject({ code: "no-such-run" });
  });
});

describe("findTrial", () => {
  it("knows numbers, the best, the fittest and baselines", () => {
    const all = example();
    const { reader } = all;
    const number = (reference: string): number => findTrial(reader, reference).number;
    expect(findTrial(reader, "digits-2/5")).toMatchObject({
      number: 5,
      ref: "digits-2/5",
      newest: false,
    });
    expect(findTrial(reader, "5")).toMatchObject({ number: 5, ref: "digits-2/5", newest: true });
    expect(number("best")).toBe(3);
    expect(number("digits-2/baseline:uniform")).toBe(1);
    // Validation decides as soon as one search trial has it; baselines do not count.
    validate(all, 0, 0.99);
    expect(number("best")).toBe(3);
    validate(all, 7, 0.5);
    expect(number("best")).toBe(7);
    validate(all, 2, 0.55);
    expect(number("best")).toBe(2);
    // Equal on validation: the better on search, then the lower number.
    validate(all, 5, 0.55);
    expect(number("best")).toBe(5);
    validate(all, 6, 0.55);
    validate(all, 3, 0.55);
    expect(number("best")).toBe(3);
    expect(number("fittest")).toBe(3);
  });

  it("explains what it cannot find", () => {
    const { reader } = example();
    expect(thrownBy(() => findTrial(reader, "digits-2/99"))).toMatchObject({
      code: "no-such-run",
      hint: "its trials are numbered 0 to 7",
    });
    expect(thrownBy(() => findTrial(reader, "baseline:unifrom"))).toMatchObject({
      code: "no-such-run",
      hint: expect.stringContaining('did you mean "uniform"?'),
    });
    expect(thrownBy(() => findTrial(reader, "digits-2/bset"))).toMatchObject({
      code: "usage",
      hint: expect.stringContaining('did you mean "best"?'),
    });
    expect(thrownBy(() => findTrial(reader, "digits-1/best"))).toMatchObject({
      code: "no-such-run",
    });
    for (const bad of [
      "",
      "/",
      "/best",
      "digits-2/",
      "digits-2/1/2",
      "digits-2/-1",
      "digits-2/1e3",
    ]) {
      expect(thrownBy(() => findTrial(reader, bad))).toMatchObject({ code: "usage" });
    }
    expect(thrownBy(() => findTrial(reader, "nope/best"))).toMatchObject({ code: "no-such-run" });
  });
});

describe("bestTrials", () => {
  const numbers = (all: Example, query: Parameters<typeof bestTrials>[2]): number[] =>
    bestTrials(all.reader, all.run, query).map((row) => row.number);

  it("ranks by fitness, by a metric in its own direction, and among baselines", () => {
    const all = example();
    expect(numbers(all, {})).toEqual([3, 6, 7, 5, 2]);
    expect(numbers(all, { top: 2 })).toEqual([3, 6]);
    expect(numbers(all, { metric: "loss" })).toEqual([3, 6, 7, 5, 2]);
    expect(numbers(all, { metric: "rotated.accuracy", top: 1 })).toEqual([3]);
    expect(numbers(all, { origin: "all", top: 2 })).toEqual([0, 3]);
    expect(numbers(all, { origin: "baseline" })).toEqual([0, 1]);
    expect(numbers(all, { split: "validation" })).toEqual([]);
    expect(thrownBy(() => numbers(all, { metric: "rotated.acc" }))).toMatchObject({
      code: "usage",
    });
  });

  it("applies conditions on scores of any split, fitness and generation", () => {
    const all = example();
    validate(all, 5, 0.3);
    validate(all, 7, 0.4);
    const split = "search" as const;
    expect(numbers(all, { split, where: "rotated.accuracy < 0.9" })).toEqual([7, 5, 2]);
    expect(numbers(all, { split, where: "loss >= 0.15 and generation = 2" })).toEqual([7, 5]);
    expect(numbers(all, { split, where: "rotated.accuracy@validation > 0.35" })).toEqual([7]);
    expect(numbers(all, { split, where: "fitness@validation > 0 and number != 7" })).toEqual([5]);
    expect(numbers(all, { split, metric: "loss", where: "fitness >= 0.85" })).toEqual([3, 6, 7]);
    expect(numbers(all, { where: "rotated.accuracy@test > 0" })).toEqual([]);
    expect(numbers(all, {})).toEqual([7, 5]);
  });

  it("shows scores with their errors, parents and digests", () => {
    const all = example();
    validate(all, 7, 0.4);
    all.store.setWeightsDigest(all.run.id, 7, "ww");
    const [row] = bestTrials(all.reader, all.run, { top: 1 });
    expect(row).toMatchObject({
      ref: "digits-2/7",
      generation: 2,
      operator: "crossover",
      parents: [5, 6],
      recipeSha256: "same",
      weightsSha256: "ww",
      fitness: {
        search: { state: "scored", values: [0.85], feasible: true },
        validation: { state: "scored", values: [0.4], feasible: true },
      },
    });
    expect(row?.scores["rotated"]?.["accuracy"]).toEqual({
      search: { kind: "finite", value: 0.85, standardError: 0.01, items: 4 },
      validation: { kind: "finite", value: 0.4, standardError: 0.01, items: 4 },
    });
  });

  it("finds the Pareto front", () => {
    const store = temporaryStore();
    const run = store.createRun(newRun({ objectives: ["rotated", "inverted"] }));
    const values: (readonly [number, number])[] = [
      [0.9, 0.1],
      [0.5, 0.5],
      [0.4, 0.4],
      [0.1, 0.9],
      [0.9, 0.1],
    ];
    store.openGeneration(run.id, { gen: 0, snapshot: {}, trials: values.map((_, i) => trial(i)) });
    values.forEach(([a, b], i) => {
      const fitness: FitnessOutcome = { state: "scored", values: [a, b], feasible: true };
      store.recordEvaluation(run.id, {
        trial: i,
        split: "search",
        evaluators: bothEvaluators,
        outcome: done(a, b),
        fitness,
      });
    });
    const front = (where?: string): number[] =>
      bestTrials(store.database, run, {
        pareto: true,
        ...(where === undefined ? {} : { where }),
      }).map((row) => row.number);
    expect(front()).toEqual([0, 1, 3]);
    expect(front("inverted.accuracy >= 0.3 and rotated.accuracy < 0.5")).toEqual([2, 3]);
  });
});

describe("one trial", () => {
  it("is shown whole", () => {
    const { store, run, reader } = example();
    store.recordArtifact(run.id, {
      trial: 5,
      kind: "recipe",
      path: "r.yml",
      sha256: "aa",
      bytes: 1,
    });
    const { trialId } = findTrial(reader, "digits-2/5");
    const detail = trialDetail(reader, run, trialId);
    expect(detail.genome).toEqual({ kind: "vector", values: [0.005, 0.5] });
    expect(detail.recipe.mergeMethod).toBe("linear");
    expect(detail.children).toEqual([7]);
    expect(detail.artifacts).toMatchObject([{ path: "r.yml", trial: 5 }]);
    expect(artifactsOf(reader, run.id)).toHaveLength(1);
    expect(
      detail.evaluations.map(({ state, attempts, seconds }) => [state, attempts, seconds]),
    ).toEqual([
      ["done", 1, 1],
      ["done", 1, 1],
    ]);
    const of = { evaluator: "rotated", split: "search", metric: "accuracy" } as const;
    expect(itemScores(reader, trialId, of)).toEqual([1, 0, 1, 1]);
    expect(itemScores(reader, trialId, { ...of, metric: "loss" })).toBeUndefined();
    expect(baselines(reader, run).map(({ label }) => label)).toEqual(["rotated", "uniform"]);
  });
});

describe("lineage", () => {
  it("follows ancestors and descendants, each once, with the shortest distance", () => {
    const { run, reader } = example();
    const of = (number: number) => findTrial(reader, `digits-2/${number}`).trialId;
    const up = lineage(reader, run, of(7), { direction: "ancestors" });
    expect(up.nodes.map(({ number, depth }) => [number, depth])).toEqual([
      [7, 0],
      [5, 1],
      [6, 1],
      [2, 2],
      [3, 2],
    ]);
    expect(up.edges).toEqual([
      { child: 5, parent: 2, order: 0 },
      { child: 5, parent: 3, order: 1 },
      { child: 6, parent: 3, order: 0 },
      { child: 7, parent: 5, order: 0 },
      { child: 7, parent: 6, order: 1 },
    ]);
    expect(up.truncated).toBe(false);
    expect(up.nodes[4]).toMatchObject({ ref: "digits-2/3", operator: "sample", fitness: 0.9 });
    const down = lineage(reader, run, of(3), { direction: "descendants" });
    expect(down.nodes.map(({ number }) => number)).toEqual([3, 5, 6, 7]);
  });

  it("stops at its limits and says so", () => {
    const { run, reader } = example();
    const { trialId } = findTrial(reader, "digits-2/7");
    const shallow = lineage(reader, run, trialId, { direction: "ancestors", maxDepth: 1 });
    expect(shallow.nodes.map(({ number }) => number)).toEqual([7, 5, 6]);
    expect(shallow.edges).toHaveLength(2);
    expect(shallow.truncated).toBe(true);
    const few = lineage(reader, run, trialId, { direction: "ancestors", maxNodes: 4 });
    expect(few.nodes).toHaveLength(4);
    expect(few.truncated).toBe(true);
    const exact = lineage(reader, run, trialId, { direction: "ancestors", maxDepth: 2 });
    expect(exact.truncated).toBe(false);
  });

  it("does not explode where every trial has the same two ancestors many times over", () => {
    const store = temporaryStore();
    const run = store.createRun(newRun());
    const trials = Array.from({ length: 120 }, (_, i) =>
      trial(i, { parents: i < 2 ? [] : [i - 1, i - 2], evaluations: [] }),
    );
    store.openGeneration(run.id, { gen: 0, snapshot: {}, trials });
    const { trialId } = findTrial(store.database, "digits-1/119");
    const all = lineage(store.database, run, trialId, { direction: "ancestors" });
    expect(all.nodes).toHaveLength(120);
    expect(all.nodes.at(-1)?.depth).toBe(60);
  });
});

describe("a run as a whole", () => {
  it("is listed with its state and best trial, newest first", () => {
    const all = example();
    const [newest, oldest] = listRuns(all.reader);
    expect(newest).toMatchObject({
      name: "digits-2",
      state: "running",
      trials: 8,
      best: { number: 3, split: "search", fitness: 0.9 },
    });
    expect(newest?.lastMs).toBeGreaterThan(newest?.createdMs ?? 0);
    expect(oldest).toMatchObject({ name: "digits-1", state: "new", trials: 0, best: undefined });
    expect(oldest?.lastMs).toBeUndefined();
    validate(all, 5, 0.3);
    expect(listRuns(all.reader)[0]?.best).toEqual({ number: 5, split: "validation", fitness: 0.3 });
  });

  it("tells how far it is, how fast, and what failed", () => {
    const { store, run, reader } = example();
    const open = [trial(8, { slot: 0 }), trial(9, { slot: 1, evaluations: [] })];
    store.openGeneration(run.id, { gen: 3, snapshot: {}, trials: open });
    const now = progress(reader, run.id);
    expect(now).toMatchObject({ trials: 8, done: 5, failed: 1, cached: 0, generation: 3 });
    // The clock of this store ticks once a second and is read once per evaluator and once per opening.
    expect(now.trialsPerHour).toBeGreaterThan(1000);
    expect(now.trialsPerHour).toBeLessThan(2500);
    expect(now.seconds).toBeGreaterThan(10);
    const source = store.findScores("2-rotated-search")?.evaluation ?? 0;
    const target = store.openGenerationRows(run.id)?.trials[0]?.evaluations[0]?.id ?? 0;
    store.copyEvaluation(source, target);
    expect(progress(reader, run.id).cached).toBe(1);
    store.recordFitness(run.id, [
      {
        trial: 9,
        split: "search",
        fitness: { state: "failed", reason: "rotated has no finite fitness" },
      },
    ]);
    expect(failuresByClass(reader, run.id)).toEqual([
      {
        failure: "non-finite",
        trials: 1,
        example: { number: 9, message: "rotated has no finite fitness" },
      },
      { failure: "timeout", trials: 1, example: { number: 4, message: "no answer in 60 s" } },
    ]);
  });

  it("gives its history", () => {
    const { run, reader } = example();
    const series = fitnessSeries(reader, run.id, "search");
    expect(series.map(({ number, fitness }) => [number, fitness])).toEqual([
      [0, 0.95],
      [1, 0.7],
      [2, 0.6],
      [3, 0.9],
      [4, undefined],
      [5, 0.8],
      [6, 0.9],
      [7, 0.85],
    ]);
    expect(series[0]).toMatchObject({ origin: "baseline", generation: 0, feasible: true });
  });
});

it("queries work on a read-only connection while the writer goes on", () => {
  const { store, run } = example();
  const reader = openReader(store.path);
  expect(() => reader.prepare("DELETE FROM trial").run()).toThrow("readonly");
  const before = progress(reader, run.id).trials;
  generation(store, run, 3, [trial(8)], [0.99]);
  expect(progress(reader, run.id).trials).toBe(before + 1);
  expect(findTrial(reader, "best").number).toBe(8);
  reader.close();
});
