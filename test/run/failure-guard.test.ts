import { expect, it } from "vitest";
import { FailureGuard } from "../../src/run/failure-guard.ts";
import type { TrialScores } from "../../src/run/score-trials.ts";
import { refusalOf } from "../support/refusal.ts";

const failed: TrialScores = { state: "failed", failure: "metric", message: "no such label" };
const done: TrialScores = { state: "done", results: [], cached: false, seconds: 0 };
const cancelled: TrialScores = { state: "cancelled" };

function guardAfter(...outcomes: readonly [TrialScores, number][]): FailureGuard {
  const guard = new FailureGuard();
  for (const [outcome, times] of outcomes) {
    for (let i = 0; i < times; i++) guard.note(outcome);
  }
  return guard;
}

it("waits for a window of twenty before it judges", () => {
  expect(() => guardAfter([failed, 19]).check()).not.toThrow();
  const error = refusalOf(() => guardAfter([failed, 20]).check());
  expect(error.code).toBe("too-many-failures");
  expect(error.message).toContain("20 of the last 20");
  expect(error.message).toContain("metric: no such label");
  expect(error.hint).toContain("mendel status");
});

it("lets a run go on while more than a tenth of the window succeeds", () => {
  expect(() => guardAfter([failed, 17], [done, 3]).check()).not.toThrow();
  expect(() => guardAfter([failed, 18], [done, 2]).check()).toThrow("18 of the last 20");
});

it("looks at the newest only", () => {
  expect(() => guardAfter([failed, 100], [done, 3]).check()).not.toThrow();
  expect(() => guardAfter([done, 100], [failed, 18]).check()).toThrow("18 of the last 20");
});

it("evaluations that were cancelled say nothing about candidates", () => {
  expect(() => guardAfter([failed, 19], [cancelled, 50]).check()).not.toThrow();
  expect(() => guardAfter([failed, 20], [cancelled, 50]).check()).toThrow("20 of the last 20");
});
