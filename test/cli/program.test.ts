import { describe, expect, it } from "vitest";
import { verbs } from "../../src/cli/commands/index.ts";
import { cli, cliJson } from "../support/cli.ts";

describe("the command line", () => {
  it.each([[[]], [["--help"]], [["help"]]])("lists every verb for %j", async (argv) => {
    const { status, stdout } = await cli(...argv);
    expect(status).toBe(0);
    for (const [verb, { summary }] of Object.entries(verbs)) {
      expect(stdout).toMatch(
        new RegExp(`^ +${verb} +${summary.split(" ").slice(0, 3).join(" ")}`, "m"),
      );
    }
  });

  it("tells its version", async () => {
    expect((await cli("--version")).stdout).toMatch(/^\d+\.\d+\.\d+/);
  });

  it.each([
    [["bset"], 'unknown verb "bset"', 'did you mean "best"?'],
    [["help", "bset"], 'unknown verb "bset"', 'did you mean "best"?'],
    [["constructor"], 'unknown verb "constructor"', "known: "],
    [["lineage"], "missing required argument 'trial'", "see mendel lineage --help"],
    [["list", "extra"], "too many arguments", "see mendel list --help"],
    [["best", "--tpo", "3"], "unknown option '--tpo'", "did you mean --top?"],
    [["best", "--top"], "argument missing", "see mendel best --help"],
    [["--jsno"], "unknown option '--jsno'", "--help"],
  ])("refuses %j", async (argv, message, hint) => {
    const { status, stdout, stderr } = await cli(...argv);
    expect(status).toBe(2);
    expect(stdout).toBe("");
    expect(stderr).toMatch(/^error: /);
    expect(stderr).toContain(message);
    expect(stderr).toContain(hint);
  });

  it("reports errors as one object under --json", async () => {
    const { status, json } = await cliJson("best", "--tpo");
    expect(status).toBe(2);
    expect(json).toEqual({
      schema: "mendel.error/1",
      code: "usage",
      message: "unknown option '--tpo'",
      hint: expect.stringContaining("--top"),
    });
  });

  it("takes common options before the verb", async () => {
    const { status, json } = await cliJson("--quiet", "--db", "/nowhere/mendel.sqlite", "list");
    expect(status).toBe(6);
    expect(json).toMatchObject({ code: "no-such-run", where: { file: "/nowhere/mendel.sqlite" } });
  });
});
