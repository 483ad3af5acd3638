import { join } from "node:path";
import { describe, expect, it } from "vitest";
import {
  digitsExperiment,
  projectFile,
  writeExperiment,
  writeText,
} from "../support/experiment-files.ts";
import { mendel, mendelJson, mendelOk } from "../support/mendel-process.ts";
import { rowsOf } from "../support/run-story.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

/**
 * A search with one evaluator of its own beside a shipped one. What it does to a candidate depends on the candidate alone, by
 * a digest of the classes it answers, so that every attempt on every machine ends alike; about `share` of them meet it.
 */
function search(folder: string, misdeed: string, share: number, changes: object = {}): string {
  writeText(
    folder,
    "tiny/misdeed.mjs",
    `export async function score({ outputs, items, split }) {
  const { data, dims } = outputs.logits;
  const width = dims[1];
  let digest = 1;
  for (let row = 0; row < dims[0]; row++) {
    const logits = Array.from(data.subarray(row * width, (row + 1) * width));
    digest = Math.imul(digest ^ logits.indexOf(Math.max(...logits)), 0x01000193);
  }
  digest = Math.imul(digest ^ (digest >>> 15), 0x85ebca6b);
  const struck = split === "search" && (digest >>> 0) / 2 ** 32 < ${share};
  if (struck) ${misdeed}
  return { first: items.map((_, row) => 1 / (1 + Math.exp(-data[row * width]))) };
}
`,
  );
  const data = (split: string): string => projectFile(`examples/digits/data/rotate.${split}.npz`);
  return writeExperiment(
    folder,
    digitsExperiment({
      evaluate: [
        "digits-rotate",
        {
          name: "own",
          evaluator: {
            task: "module",
            data: { search: data("search"), validation: data("validation"), test: data("test") },
            inputs: { image: "image" },
            fitness: "first",
            module: "./misdeed.mjs",
            batch: 4096,
          },
        },
      ],
      ...changes,
    }),
  );
}

interface Failed {
  readonly number: number;
  readonly failure: string;
  readonly message: string;
  readonly attempts: number;
}

function failedTrials(db: string): Failed[] {
  return rowsOf<Failed>(
    db,
    `SELECT DISTINCT t.number, e.failure, e.message, e.attempts FROM evaluation e JOIN trial t USING(trial_id)
     WHERE e.state = 'failed' ORDER BY t.number`,
  );
}

interface Case {
  readonly what: string;
  readonly misdeed: string;
  readonly share: number;
  readonly failure: string;
  readonly message: RegExp;
  readonly attempts: number;
  readonly changes?: object;
}

const cases: readonly Case[] = [
  {
    what: "throws",
    misdeed: 'throw new Error("no verdict on this one");',
    share: 0.4,
    failure: "metric",
    message: /^no verdict on this one$/,
    attempts: 1,
  },
  {
    what: "hangs",
    misdeed: "await new Promise(() => {});",
    share: 0.2,
    failure: "timeout",
    message: /^not finished after 1 s$/,
    attempts: 2,
    changes: { timeout: "1s", budget: { evaluations: 6 } },
  },
  {
    what: "aborts its process",
    misdeed: 'process.kill(process.pid, "SIGABRT");',
    share: 0.2,
    failure: "crash",
    message: /signal SIGABRT/,
    attempts: 2,
    changes: { budget: { evaluations: 12 } },
  },
];

describe("an evaluator that fails on some candidates", () => {
  it.each(cases)(
    "$what: recorded, ranked last, and the run goes on",
    async ({ misdeed, share, failure, message, attempts, changes }) => {
      const folder = temporaryFolder();
      const db = join(folder, "a.sqlite");
      const file = search(folder, misdeed, share, changes);
      const summary = await mendelJson<{
        state: string;
        evaluations: number;
        failures: number;
        best: { trial: string; fitness: { search: number; test: number } };
      }>(["run", file, "--db", db, "--name", "f"]);
      const budget = (changes as { budget?: { evaluations: number } } | undefined)?.budget;
      expect(summary.state).toBe("done");
      expect(summary.evaluations).toBe(budget?.evaluations ?? 24);

      const failed = failedTrials(db);
      expect(failed.length).toBeGreaterThan(0);
      for (const row of failed) {
        expect(row.failure).toBe(failure);
        expect(row.attempts).toBeGreaterThanOrEqual(attempts);
        expect(row.message).toMatch(message);
      }
      const origins = rowsOf<{ origin: string }>(
        db,
        `SELECT DISTINCT t.number, t.origin FROM evaluation e JOIN trial t USING(trial_id)
         WHERE e.state = 'failed'`,
      );
      const searched = origins.filter(({ origin }) => origin === "search").length;
      expect(searched).toBeGreaterThan(0);
      expect(summary.failures).toBe(searched);
      const status = await mendelJson<{ failuresByClass: { failure: string; trials: number }[] }>([
        ...["status", "f", "--db", db],
      ]);
      expect(status.failuresByClass).toMatchObject([{ failure }]);

      // None of them is ranked, whatever the other evaluator said.
      const ranked = await mendelJson<{ trials: { trial: string; fitness: object }[] }>([
        ...["best", "f", "--db", db, "--top", "100", "--split", "search"],
      ]);
      const names = ranked.trials.map(({ trial }) => trial);
      for (const { number } of failed) expect(names).not.toContain(`f/${number}`);
      expect(summary.best.fitness.test).toBeGreaterThan(0);
    },
  );

  it("returns NaN: kept as a kind, no fitness, never the best", async () => {
    const folder = temporaryFolder();
    const db = join(folder, "a.sqlite");
    const file = search(folder, "return { first: items.map(() => NaN) };", 0.4);
    const summary = await mendelJson<{ best: { trial: string } }>([
      ...["run", file, "--db", db, "--name", "f"],
    ]);
    const kinds = rowsOf<{ number: number; kind: string; value: number | null }>(
      db,
      `SELECT t.number, s.kind, s.value FROM score s JOIN evaluation e USING(eval_id) JOIN trial t USING(trial_id)
       WHERE e.evaluator = 'own' AND s.kind <> 'finite'`,
    );
    expect(kinds.length).toBeGreaterThan(0);
    for (const { number, kind, value } of kinds) {
      expect([kind, value]).toEqual(["nan", null]);
      expect(summary.best.trial).not.toBe(`f/${number}`);
      const shown = await mendel(["show", `f/${number}`, "--db", db]);
      expect(shown.status).toBe(0);
      expect(shown.stdout).toContain("own has no finite fitness");
    }
    expect(
      rowsOf(
        db,
        `SELECT 1 FROM fitness f JOIN trial t USING(trial_id)
         WHERE f.kind = 'finite' AND f.split = 'search' AND t.number IN (${kinds.map(({ number }) => number).join(",")})`,
      ),
    ).toEqual([]);
  });
});

describe("an evaluator that fails on nearly all candidates", () => {
  it("ends the run with its own exit status and the reason", async () => {
    const folder = temporaryFolder();
    const db = join(folder, "a.sqlite");
    // The thirteen baselines pass, so that the search begins.
    const file = search(
      folder,
      'if ((globalThis.calls = (globalThis.calls ?? 0) + 1) > 13) throw new Error("broken");',
      2,
      { budget: { evaluations: 60 }, workers: 1 },
    );
    const ended = await mendel(["run", file, "--db", db, "--name", "f"]);
    expect(ended.stderr).toMatch(/\d+ of the last 20 evaluations failed/);
    expect(ended.status).toBe(5);
    expect(ended.stderr).toContain("broken");
    expect(ended.stderr).not.toContain("    at ");
    const status = await mendelJson<{ state: string; failuresByClass: { failure: string }[] }>([
      ...["status", "f", "--db", db],
    ]);
    expect(status.state).toBe("failed");
    expect(status.failuresByClass.map(({ failure }) => failure)).toEqual(["metric"]);
  });

  it("that no model can be scored with is noticed before the search", async () => {
    const folder = temporaryFolder();
    const db = join(folder, "a.sqlite");
    const file = search(folder, 'throw new Error("broken");', 2);
    const ended = await mendel(["run", file, "--db", db, "--name", "f", "--json"]);
    expect(ended.status).toBe(5);
    expect(JSON.parse(ended.stdout)).toMatchObject({
      schema: "mendel.error/1",
      code: "too-many-failures",
    });
    expect(rowsOf(db, "SELECT 1 FROM trial WHERE origin = 'search'")).toEqual([]);
    const validated = await mendel(["validate", file]);
    expect(validated.status).toBe(3);
    expect(validated.stdout).toContain("broken");
  });
});

it("the story of failures is the same on every machine: workers and attempts change nothing", async () => {
  const folder = temporaryFolder();
  const file = search(folder, 'throw new Error("no verdict");', 0.4);
  const stories: string[] = [];
  for (const workers of ["1", "2"]) {
    const db = join(folder, `${workers}.sqlite`);
    await mendelOk(["run", file, "--db", db, "--name", "f", "--workers", workers, "-q"]);
    stories.push(
      JSON.stringify(
        rowsOf(
          db,
          `SELECT t.number, t.recipe_sha256, e.evaluator, e.split, e.state, e.failure, s.metric, s.value
           FROM evaluation e JOIN trial t USING(trial_id) LEFT JOIN score s USING(eval_id)
           ORDER BY t.number, e.split, e.evaluator, s.metric`,
        ),
      ),
    );
  }
  expect(stories[0]).toBe(stories[1]);
});
