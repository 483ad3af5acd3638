import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { randomStream } from "../../src/base/random.ts";
import { openReader, openWriter } from "../../src/store/connection.ts";
import { dumpRun } from "../../src/store/dump.ts";
import {
  newRun,
  score,
  startChild,
  temporaryFolder,
  temporaryStore,
  trial,
} from "./store-fixtures.ts";

const GENERATIONS = 40;

/** What a child said it had stored. */
function acknowledged(lines: readonly string[], verb: string): number[] {
  return lines
    .map((line) => line.split(" "))
    .filter(([word]) => word === verb)
    .map(([, number]) => Number(number));
}

function dump(path: string): string {
  const reader = openReader(path);
  try {
    return dumpRun(reader, "crash-1");
  } finally {
    reader.close();
  }
}

it("kill -9 at any moment loses nothing that was reported, tears no generation, and a resumed run tells the same story", async () => {
  const folder = temporaryFolder();
  const undisturbed = join(folder, "undisturbed.sqlite");
  const calm = startChild("write-generations.mjs", [undisturbed, String(GENERATIONS)]);
  expect(await calm.exited).toBe(0);

  const path = join(folder, "killed.sqlite");
  const random = randomStream(5, "kill");
  const said: string[] = [];
  let kills = 0;
  for (;;) {
    const child = startChild("write-generations.mjs", [path, String(GENERATIONS)]);
    // Sometimes while it starts, mostly after some lines and a moment more, however fast the disk is.
    const afterLines = random.integer(60);
    const starting = random.uniform() < 0.2;
    const moment = random.uniform() * (starting ? 120 : 4);
    const timer = starting
      ? setTimeout(() => child.kill(), moment)
      : setInterval(() => {
          if (child.lines.length >= afterLines) setTimeout(() => child.kill(), moment);
        }, 1);
    const code = await child.exited;
    clearInterval(timer);
    said.push(...child.lines);
    if (code === 0) break;
    kills += 1;
    if (said.length === 0) continue;

    const database = openWriter(path, { resume: true });
    expect(database.pragma("integrity_check", { simple: true })).toBe("ok");
    const column = (sql: string): unknown[] => database.prepare(sql).pluck().all();
    const scored = new Set(
      column("SELECT number FROM trial t JOIN evaluation e USING(trial_id) WHERE state = 'done'"),
    );
    expect(acknowledged(said, "scored").filter((number) => !scored.has(number))).toEqual([]);
    const closed = new Set(column("SELECT gen FROM generation WHERE state = 'closed'"));
    expect(acknowledged(said, "closed").filter((gen) => !closed.has(gen))).toEqual([]);
    const opened = new Set(column("SELECT gen FROM generation"));
    expect(acknowledged(said, "opened").filter((gen) => !opened.has(gen))).toEqual([]);
    const torn = `
      SELECT g.gen FROM generation g JOIN trial t ON t.gen = g.gen
      JOIN recipe r USING(trial_id) JOIN evaluation e USING(trial_id)
      GROUP BY g.gen HAVING count(*) <> 5
      UNION ALL
      SELECT t.gen FROM trial t JOIN evaluation e USING(trial_id)
      WHERE (e.state = 'done') <> EXISTS (SELECT 1 FROM score s JOIN item_score i USING(eval_id, metric) WHERE s.eval_id = e.eval_id)
         OR (e.state = 'done') <> EXISTS (SELECT 1 FROM fitness f WHERE f.trial_id = t.trial_id)`;
    expect(column(torn)).toEqual([]);
    database.close();
  }
  expect(kills).toBeGreaterThan(3);
  // No committed evaluation was made twice.
  const scored = acknowledged(said, "scored");
  expect(new Set(scored).size).toBe(scored.length);
  expect(dump(path)).toBe(dump(undisturbed));
});

it("a limit on the file's size is a resource error, and the run goes on without it", async () => {
  const path = join(temporaryFolder(), "limited.sqlite");
  const limited = startChild("write-generations.mjs", [path, "80"], {
    prefix: ["bash", "-c", 'ulimit -f 400; exec "$@" 2>&1', "limited"],
  });
  expect(await limited.exited).not.toBe(0);
  expect(limited.lines.join("\n")).toContain("code: 'resource'");
  const reached = acknowledged(limited.lines, "scored");
  expect(reached.length).toBeGreaterThan(0);
  const again = startChild("write-generations.mjs", [path, "80"]);
  expect(await again.exited).toBe(0);
  expect(acknowledged(again.lines, "scored").filter((number) => reached.includes(number))).toEqual(
    [],
  );
});

it("a copy whose log is cut anywhere opens at some earlier moment, whole", () => {
  const store = temporaryStore();
  const run = store.createRun(newRun());
  const trials = Array.from({ length: 20 }, (_, i) => trial(i));
  store.openGeneration(run.id, { gen: 0, snapshot: {}, trials });
  for (const { number } of trials) score(store, run, number, number / 20);
  const log = readFileSync(`${store.path}-wal`);
  expect(log.length).toBeGreaterThan(100_000);
  const folder = temporaryFolder();
  const random = randomStream(11, "cut");
  const cuts = [0, 1, 31, 32, 33, log.length - 1, log.length];
  for (let i = 0; i < 40; i++) cuts.push(random.integer(log.length));
  let before = -1;
  for (const [i, cut] of cuts.sort((a, b) => a - b).entries()) {
    const copy = join(folder, `${i}.sqlite`);
    copyFileSync(store.path, copy);
    writeFileSync(`${copy}-wal`, log.subarray(0, cut));
    const database = openWriter(copy, { resume: true });
    expect(database.pragma("integrity_check", { simple: true })).toBe("ok");
    const [finished, fitness] = [
      "SELECT count(*) FROM evaluation WHERE state = 'done'",
      "SELECT count(*) FROM fitness",
    ].map((sql) => database.prepare<[], number>(sql).pluck().get() ?? 0);
    database.close();
    expect(finished).toBe(2 * (fitness ?? 0));
    expect(finished).toBeGreaterThanOrEqual(before);
    before = finished ?? 0;
  }
  expect(before).toBe(40);
});
