import { rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, it } from "vitest";
import { digitsExperiment, writeExperiment, writeText } from "../support/experiment-files.ts";
import { mendel, mendelJson, mendelOk, startMendel } from "../support/mendel-process.ts";
import { rowsOf, storyOf } from "../support/run-story.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

/**
 * A search whose evaluations take a tenth of a second each, so that there is something to interrupt; while there is a file
 * named `hold` beside the experiment, they do not end.
 */
function slowSearch(folder: string): string {
  writeText(
    folder,
    "slow/slow.mjs",
    `import { existsSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
const hold = new URL("./hold", import.meta.url);
export async function score({ outputs, items }) {
  do await setTimeout(100); while (existsSync(hold));
  const { data, dims } = outputs.logits;
  return { first: items.map((_, row) => 1 / (1 + Math.exp(-data[row * dims[1]]))) };
}
`,
  );
  const data = (split: string): string =>
    join(import.meta.dirname, `../../examples/digits/data/rotate.${split}.npz`);
  const slow = {
    task: "module",
    data: { search: data("search"), validation: data("validation"), test: data("test") },
    inputs: { image: "image" },
    fitness: "first",
    module: "./slow.mjs",
    batch: 4096,
  };
  return writeExperiment(
    folder,
    digitsExperiment({
      evaluate: ["digits-rotate", { name: "slow", evaluator: slow }],
      budget: { evaluations: 24 },
      finalists: 3,
    }),
    "slow",
  );
}

it("Ctrl-C saves and says how to go on; the resumed run equals an undisturbed one", async () => {
  const folder = temporaryFolder();
  const experiment = slowSearch(folder);
  const [db, calm] = [join(folder, "a.sqlite"), join(folder, "calm.sqlite")];
  const undisturbed = mendelOk(["run", experiment, "--db", calm, "--name", "s", "-q"]);

  const run = startMendel(["run", experiment, "--db", db, "--name", "s"]);
  await run.saw("generation 1:");
  // The whole process group gets it, as from a terminal.
  run.killGroup("SIGINT");
  const ended = await run.ended;
  expect(ended.status).toBe(130);
  expect(ended.stderr).toContain("press Ctrl-C again to stop at once");
  expect(ended.stderr).toContain(`mendel resume s --db ${db}`);
  expect(await run.survivors()).toEqual([]);
  const status = await mendelJson(["status", "s", "--db", db]);
  expect(status).toMatchObject({ state: "paused", reason: "interrupted", driver: null });

  const command = /mendel (resume \S+ --db \S+)/.exec(ended.stderr)?.[1]?.split(" ") ?? [];
  await mendelOk([...command, "-q"]);
  await undisturbed;
  expect(storyOf(db, "s")).toBe(storyOf(calm, "s"));
});

it("a second Ctrl-C waits for nothing, and nothing that was recorded is lost", async () => {
  const folder = temporaryFolder();
  const experiment = slowSearch(folder);
  const db = join(folder, "a.sqlite");
  const count = (): number =>
    rowsOf<{ n: number }>(db, "SELECT count(*) AS n FROM evaluation WHERE state = 'done'")[0]?.n ??
    0;
  const run = startMendel(["run", experiment, "--db", db, "--name", "s"]);
  await run.saw("generation 1:");
  const hold = writeText(folder, "slow/hold", "");
  const recorded = count();
  run.killGroup("SIGINT");
  await run.saw("press Ctrl-C again");
  // Evaluations are in flight that never end, so it is still there.
  expect(await mendelJson(["status", "s", "--db", db])).toMatchObject({ driver: { pid: run.pid } });
  run.killGroup("SIGINT");
  expect((await run.ended).status).toBe(130);
  expect(await run.survivors()).toEqual([]);
  expect(recorded).toBeGreaterThan(0);
  expect(count()).toBeGreaterThanOrEqual(recorded);
  rmSync(hold);
  await mendelOk(["resume", "s", "--db", db, "-q"]);
  expect(await mendelJson(["status", "s", "--db", db])).toMatchObject({
    state: "done",
    evaluations: 24,
  });
});

it("SIGTERM is as good as Ctrl-C", async () => {
  const folder = temporaryFolder();
  const db = join(folder, "a.sqlite");
  const run = startMendel(["run", slowSearch(folder), "--db", db, "--name", "s"]);
  await run.saw("baseline 13 of 13");
  run.kill("SIGTERM");
  expect((await run.ended).status).toBe(130);
  expect(await run.survivors()).toEqual([]);
});

it("mendel stop ends a run from another process; a second driver is refused and told who drives", async () => {
  const folder = temporaryFolder();
  const experiment = slowSearch(folder);
  const db = join(folder, "a.sqlite");
  const run = startMendel(["run", experiment, "--db", db, "--name", "s", "--budget", "500"]);
  await run.saw("baseline 13 of 13");

  const second = await mendel(["resume", "s", "--db", db]);
  expect(second.status).toBe(7);
  expect(second.stderr).toContain(`run s is being driven by process ${run.pid} on `);
  expect(second.stderr).toContain("mendel stop s");
  expect(second.stderr).not.toContain("    at ");

  expect(await mendelJson(["status", "s", "--db", db])).toMatchObject({
    state: "running",
    driver: { pid: run.pid },
  });
  const stopped = await mendelOk(["stop", "--db", db]);
  expect(stopped.stdout).toContain(`asked process ${run.pid}`);
  expect(stopped.stderr).toContain("newest run: s");
  const ended = await run.ended;
  expect(ended.status).toBe(130);
  expect(ended.stderr).toContain("mendel resume s");

  const again = await mendelOk(["stop", "s", "--db", db]);
  expect(again.stdout).toContain("nothing drives run s");
  // An old request does not stop the next incarnation.
  const resumed = startMendel(["resume", "s", "--db", db]);
  await resumed.saw(/generation \d+:/);
  await sleep(700);
  resumed.kill("SIGINT");
  expect((await resumed.ended).status).toBe(130);
});

it("a reader that closes stdout or stderr early does not end in a stack trace", async () => {
  const folder = temporaryFolder();
  const db = join(folder, "a.sqlite");
  await mendelOk(["run", slowSearch(folder), "--db", db, "--name", "s", "--budget", "6", "-q"]);
  const cut = await mendel(["show", "s/best", "--db", db, "--json"], {
    prefix: ["bash", "-c", 'set -o pipefail; "$@" | head -c 1 >/dev/null', "bash"],
  });
  expect(cut.stderr).toBe("");
});
