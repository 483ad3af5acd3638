import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { resumeRun, startRun } from "../../src/run/drive.ts";
import type { RunEvent } from "../../src/run/events.ts";
import { openReader } from "../../src/store/connection.ts";
import { digitsExperiment, writeExperiment } from "../support/experiment-files.ts";
import { rowsOf, storyOf } from "../support/run-story.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

let folder = "";
let db = "";
beforeEach(() => {
  folder = temporaryFolder();
  db = join(folder, "runs.sqlite");
});

function start(changes: object, options: Partial<Parameters<typeof startRun>[0]> = {}) {
  return startRun({
    db,
    experiment: writeExperiment(folder, digitsExperiment(changes)),
    ...options,
  });
}

/** Fitness on search of every search trial, in order. */
function searchFitness(run: string): readonly unknown[] {
  return rowsOf(
    db,
    `SELECT t.number, t.recipe_sha256, f.value FROM trial t JOIN fitness f USING(trial_id) JOIN run r ON r.run_id = t.run_id
     WHERE r.name = '${run}' AND t.origin = 'search' AND f.split = 'search' ORDER BY t.number`,
  );
}

describe("events", () => {
  it("speak only of what is in the database, and count every trial once", async () => {
    const kinds: RunEvent["kind"][] = [];
    const counted: number[] = [];
    const trials = new Set<number>();
    const listen = (event: RunEvent): void => {
      kinds.push(event.kind);
      if (event.kind !== "trial" && event.kind !== "improved" && event.kind !== "generation")
        return;
      const reader = openReader(db);
      try {
        if (event.kind === "generation") {
          const sql = "SELECT state FROM generation WHERE gen = ?";
          expect(reader.prepare(sql).pluck().get(event.generation)).toBe("closed");
          return;
        }
        const sql = `SELECT count(*) FROM fitness f JOIN trial t USING(trial_id) JOIN evaluation e USING(trial_id)
          WHERE t.number = ? AND e.state = 'done' AND f.split = 'search'`;
        expect(reader.prepare(sql).pluck().get(event.trial)).toBe(2);
        if (event.kind === "trial") {
          counted.push(event.done);
          trials.add(event.trial);
        }
      } finally {
        reader.close();
      }
    };
    await start({}, { listen });
    // Before "started" there is no run to speak of, only what is being read.
    expect(kinds.find((kind) => kind !== "preparing")).toBe("started");
    expect(kinds.at(-1)).toBe("finalists");
    expect(kinds.filter((kind) => kind === "baseline")).toHaveLength(13);
    expect(counted).toEqual(Array.from({ length: 24 }, (_, i) => i + 1));
    expect(trials.size).toBe(24);
  });
});

describe("why a run ends", () => {
  it("a stall", async () => {
    const summary = await start({ budget: { evaluations: 500, stall: 12 }, seed: 3 });
    expect(summary).toMatchObject({ state: "done", reason: "stall" });
    expect(summary.evaluations).toBeLessThan(500);
    const best = rowsOf<{ number: number }>(
      db,
      `SELECT t.number FROM fitness f JOIN trial t USING(trial_id)
       WHERE f.split = 'search' AND t.origin = 'search' ORDER BY f.value DESC, t.number LIMIT 1`,
    )[0];
    // Thirteen baselines come before the search; a generation of six is always finished.
    const since = summary.evaluations - ((best?.number ?? 0) - 13 + 1);
    expect(since).toBeGreaterThanOrEqual(12);
    expect(since).toBeLessThan(12 + 6);
  });

  it("its time, even when not one candidate was looked at", async () => {
    const summary = await start({ budget: { time: 0.001 } });
    expect(summary).toMatchObject({ state: "done", reason: "time", evaluations: 0 });
    expect(summary.best).toBeUndefined();
    expect(summary.parents["rotate"]?.fitness.test).toBeGreaterThan(0);
  });

  it("an abort, which is paid for with nothing", async () => {
    const [calm, stopped] = [join(folder, "calm.sqlite"), db];
    await start({}, { db: calm, name: "s" });
    const controller = new AbortController();
    const summary = await start(
      {},
      {
        db: stopped,
        name: "s",
        signal: controller.signal,
        listen: (event) => {
          if (event.kind === "trial" && event.done === 8) controller.abort();
        },
      },
    );
    expect(summary).toMatchObject({ state: "paused", reason: "interrupted" });
    await resumeRun({ db: stopped, run: "s" });
    expect(storyOf(stopped, "s")).toBe(storyOf(calm, "s"));
  });

  it("an abort before it began", async () => {
    const summary = await start({}, { signal: AbortSignal.abort(), name: "s" });
    expect(summary).toMatchObject({ state: "paused", reason: "interrupted", evaluations: 0 });
    expect(await resumeRun({ db, run: "s" })).toMatchObject({ state: "done", evaluations: 24 });
  });
});

describe("a budget that is extended", () => {
  it("in the middle of a generation goes on with the same candidates as one that was larger from the start", async () => {
    await start({ budget: { evaluations: 30 } }, { name: "large" });
    // 15 is no multiple of the population of 6.
    await start({ budget: { evaluations: 15 } }, { name: "small" });
    expect(searchFitness("small")).toEqual(searchFitness("large").slice(0, 15));
    const summary = await resumeRun({ db, run: "small", evaluations: 30 });
    expect(summary).toMatchObject({ state: "done", reason: "evaluations", evaluations: 30 });
    expect(searchFitness("small")).toEqual(searchFitness("large"));
  });

  it("resuming a finished run without more budget changes nothing", async () => {
    await start({}, { name: "s" });
    const before = storyOf(db, "s");
    await resumeRun({ db, run: "s" });
    expect(storyOf(db, "s")).toBe(before);
  });
});

describe("scores that are known already", () => {
  it("are taken from the database, by other runs too, and tell the same", async () => {
    const first = await start({}, { name: "one" });
    const second = await start({}, { name: "two" });
    expect(first.cacheHits).toBe(0);
    expect(second.cacheHits).toBe(24);
    expect(searchFitness("two")).toEqual(searchFitness("one"));
    expect(second.best?.weightsSha256).toBe(first.best?.weightsSha256);
    expect(second.best?.scores).toEqual(first.best?.scores);
  });

  it("do not depend on the number of workers", async () => {
    const calm = join(folder, "one-worker.sqlite");
    await start({}, { db: calm, name: "s", workers: 1 });
    await start({}, { name: "s", workers: 3 });
    expect(storyOf(db, "s")).toBe(storyOf(calm, "s"));
  });
});

describe("rankings", () => {
  it("a search in which nothing is feasible ends, and says so", async () => {
    const summary = await start({
      constraints: ["digits-rotate.accuracy >= 0.999"],
      budget: { evaluations: 12 },
    });
    expect(summary.state).toBe("done");
    const feasible = rowsOf<{ origin: string; feasible: number }>(
      db,
      `SELECT DISTINCT t.origin, f.feasible FROM fitness f JOIN trial t USING(trial_id)
       WHERE t.origin = 'search' AND f.split = 'search'`,
    );
    expect(feasible).toEqual([{ origin: "search", feasible: 0 }]);
  });

  it("the winner is the best of the finalists on validation, and alone has seen the test split", async () => {
    const summary = await start({ finalists: 4 }, { name: "s" });
    const validated = rowsOf<{ number: number; value: number }>(
      db,
      `SELECT t.number, f.value FROM fitness f JOIN trial t USING(trial_id)
       WHERE f.split = 'validation' AND t.origin = 'search' ORDER BY f.value DESC`,
    );
    expect(validated).toHaveLength(4);
    expect(summary.best?.fitness.validation).toBe(validated[0]?.value);
    const tested = rowsOf<{ ref: string }>(
      db,
      `SELECT 's/' || t.number AS ref FROM fitness f JOIN trial t USING(trial_id)
       WHERE f.split = 'test' AND t.origin = 'search'`,
    );
    expect(tested).toEqual([{ ref: summary.best?.trial }]);
    const top = rowsOf<{ number: number }>(
      db,
      `SELECT min(t.number) AS number FROM fitness f JOIN trial t USING(trial_id)
       WHERE f.split = 'search' AND t.origin = 'search' GROUP BY t.recipe_sha256
       ORDER BY max(f.value) DESC, number LIMIT 4`,
    );
    expect(new Set(validated.map(({ number }) => number))).toEqual(
      new Set(top.map(({ number }) => number)),
    );
  });
});
