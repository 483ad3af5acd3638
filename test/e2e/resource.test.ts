import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";
import { describe, expect, it } from "vitest";
import { digitsExperiment, writeExperiment } from "../support/experiment-files.ts";
import { type MendelOptions, mendel, mendelJson, mendelOk } from "../support/mendel-process.ts";
import { rowsOf, storyOf } from "../support/run-story.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const digestOf = (path: string): string =>
  createHash("sha256").update(readFileSync(path)).digest("hex");

/** Runs under a limit on the size of any file it writes, in KiB; Node ignores the signal and gets an error instead. */
function limitedTo(kibibytes: number): MendelOptions {
  return { prefix: ["bash", "-c", `ulimit -f ${kibibytes}; trap '' XFSZ; exec "$@"`, "bash"] };
}

describe("a disk that takes no more", () => {
  it.each([
    ["while the database is made", 48],
    ["in the middle of the search", 900],
  ])("%s: said so, nothing lost, and the run goes on when there is room", async (_when, limit) => {
    const folder = temporaryFolder();
    const [db, calm] = [join(folder, "a.sqlite"), join(folder, "calm.sqlite")];
    const experiment = writeExperiment(
      folder,
      digitsExperiment({ space: "layer-task-arithmetic", budget: { evaluations: 60 } }),
    );
    const start = (path: string): string[] => ["run", experiment, "--db", path, "--name", "r"];
    await mendelOk([...start(calm), "-q"]);

    const full = await mendel(start(db), limitedTo(limit));
    expect(full.status, full.stderr).toBe(4);
    expect(full.stderr).toContain("a.sqlite");
    expect(full.stderr).toMatch(/hint: .*(disk|space|limit)/);
    expect(full.stderr).not.toMatch(/^\s+at |This is a bug/m);

    const begun = (await mendel(["status", "r", "--db", db])).status === 0;
    expect(begun).toBe(limit > 100);
    if (begun) {
      const done = rowsOf<{ n: number }>(
        db,
        "SELECT count(*) AS n FROM evaluation WHERE state = 'done'",
      );
      expect(done[0]?.n).toBeGreaterThan(0);
    }
    await mendelOk(begun ? ["resume", "r", "--db", db, "-q"] : [...start(db), "-q"]);
    expect(storyOf(db, "r")).toBe(storyOf(calm, "r"));
  });

  it("while a model is exported: no half of a file stays", async () => {
    const folder = temporaryFolder();
    const db = join(folder, "a.sqlite");
    const experiment = writeExperiment(folder, digitsExperiment({ budget: { evaluations: 6 } }));
    await mendelOk(["run", experiment, "--db", db, "--name", "r", "-q"]);
    const out = join(folder, "out");
    // The weights take 52 KiB; the database is not written before they are.
    const full = await mendel(["export", "r/best", out, "--db", db], limitedTo(40));
    expect(full.status, full.stderr).toBe(4);
    expect(full.stderr).toContain(out);
    expect(full.stderr).not.toMatch(/^\s+at |This is a bug/m);
    const exported = await mendelJson<{ agrees: boolean }>(["export", "r/best", out, "--db", db]);
    expect(exported.agrees).toBe(true);
  });
});

describe("a database that cannot be used", () => {
  it("of a newer mendel: refused with both versions, not a byte changed", async () => {
    const folder = temporaryFolder();
    const db = join(folder, "a.sqlite");
    const experiment = writeExperiment(folder, digitsExperiment({ budget: { evaluations: 6 } }));
    await mendelOk(["run", experiment, "--db", db, "--name", "r", "-q"]);
    const database = new Database(db);
    const version = database.pragma("user_version", { simple: true }) as number;
    database.pragma(`user_version = ${version + 1}`);
    database.pragma("journal_mode = DELETE");
    database.close();
    const before = digestOf(db);
    for (const args of [
      ["run", experiment],
      ["resume", "r"],
      ["best", "r"],
      ["list"],
      ["stop", "r"],
      ["export", "r/best", join(folder, "out")],
    ]) {
      const { status, stderr } = await mendel([...args, "--db", db]);
      expect(status, `${args[0]}: ${stderr}`).toBe(7);
      expect(stderr).toContain(String(version + 1));
      expect(stderr).not.toMatch(/^\s+at |This is a bug/m);
    }
    expect(digestOf(db)).toBe(before);
  });

  it.each([
    ["a text", "these are not the runs\n".repeat(100)],
    ["cut short", undefined],
  ])("%s: refused, not a byte changed", async (_what, text) => {
    const folder = temporaryFolder();
    const db = join(folder, "a.sqlite");
    const experiment = writeExperiment(folder, digitsExperiment({ budget: { evaluations: 6 } }));
    if (text === undefined) {
      await mendelOk(["run", experiment, "--db", db, "--name", "r", "-q"]);
      writeFileSync(db, readFileSync(db).subarray(0, 20_000));
    } else {
      writeFileSync(db, text);
    }
    const before = digestOf(db);
    for (const args of [["run", experiment], ["resume", "r"], ["list"]]) {
      const { status, stderr } = await mendel([...args, "--db", db]);
      // What can still be read may be shown; writing to it is out of the question.
      if (args[0] !== "list") expect(status, `${args[0]}: ${stderr}`).toBe(7);
      expect(stderr).not.toMatch(/^\s+at |This is a bug/m);
    }
    expect(digestOf(db)).toBe(before);
  });

  it("in a folder that does not exist is made; under a file it is refused", async () => {
    const folder = temporaryFolder();
    const experiment = writeExperiment(folder, digitsExperiment({ budget: { evaluations: 6 } }));
    const deep = join(folder, "some/where/a.sqlite");
    await mendelOk(["run", experiment, "--db", deep, "-q"]);
    const { status, stderr } = await mendel(["run", experiment, "--db", join(deep, "b.sqlite")]);
    expect(status, stderr).toBe(7);
    expect(stderr).not.toMatch(/^\s+at |This is a bug/m);
  });

  it("that is locked by another program is waited for, then refused, naming the file", async () => {
    const folder = temporaryFolder();
    const db = join(folder, "a.sqlite");
    const experiment = writeExperiment(folder, digitsExperiment({ budget: { evaluations: 6 } }));
    await mendelOk(["run", experiment, "--db", db, "--name", "r", "-q"]);
    const holder = new Database(db);
    holder.exec("BEGIN IMMEDIATE");
    const { status, stderr } = await mendel(["resume", "r", "--budget", "+6", "--db", db]);
    holder.exec("ROLLBACK");
    holder.close();
    expect(status, stderr).toBe(7);
    expect(stderr).toContain("is locked");
    await mendelOk(["resume", "r", "--budget", "+6", "--db", db, "-q"]);
    expect(await mendelJson(["status", "r", "--db", db])).toMatchObject({ evaluations: 12 });
  });
});
