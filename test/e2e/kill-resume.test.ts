import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { projectFile } from "../support/experiment-files.ts";

/** What scripts/kill-resume.mjs reports. */
interface Report {
  readonly kills: number;
  readonly phases: Readonly<Record<"start" | "baselines" | "search" | "finalists", number>>;
  readonly evaluations: number;
  readonly repeatedEvaluations: number | null;
  readonly mostRepeatedAllowed: number;
  readonly dumpLines: number;
  readonly identical: boolean;
  readonly weightsSha256: Readonly<Record<"undisturbed" | "killed", string | null>>;
  readonly problems: readonly string[];
}

async function killResume(...args: string[]): Promise<Report> {
  const script = projectFile("scripts/kill-resume.mjs");
  const done = promisify(execFile)(process.execPath, [script, ...args]);
  // The report tells more than the exit status.
  const { stdout } = await done.catch((failure: { stdout: string }) => failure);
  return JSON.parse(stdout) as Report;
}

it("a search killed at a dozen moments ends as one that was left alone", async () => {
  const report = await killResume("--kills", "12", "--budget", "60", "--seed", "2");
  expect(report.problems).toEqual([]);
  expect(report.identical).toBe(true);
  expect(report.dumpLines).toBeGreaterThan(500);
  expect(report.weightsSha256.killed).toMatch(/^[0-9a-f]{64}$/);
  expect(report.weightsSha256.killed).toBe(report.weightsSha256.undisturbed);
  expect(report.kills).toBeGreaterThanOrEqual(10);
  expect(report.phases.baselines).toBeGreaterThan(0);
  expect(report.phases.search).toBeGreaterThan(0);
  expect(report.repeatedEvaluations).not.toBeNull();
  expect(report.repeatedEvaluations).toBeLessThanOrEqual(report.mostRepeatedAllowed);
});

it("so does a search that crosses models over, archive and all", async () => {
  const report = await killResume(
    projectFile("examples/digits-scratch/experiment.yml"),
    ...["--kills", "4", "--budget", "60"],
  );
  expect(report.problems).toEqual([]);
  expect(report.identical).toBe(true);
  expect(report.kills).toBeGreaterThanOrEqual(3);
  expect(report.weightsSha256.killed).toBe(report.weightsSha256.undisturbed);
});
