import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MendelError } from "../../src/base/errors.ts";
import type { MetricDefinition } from "../../src/store/rows.ts";
import { findMetric, parseWhere } from "../../src/store/where.ts";
import { thrownBy } from "./store-fixtures.ts";

const metrics: MetricDefinition[] = [
  { evaluator: "rotated", metric: "accuracy", direction: 1 },
  { evaluator: "rotated", metric: "loss", direction: -1 },
  { evaluator: "inverted-2", metric: "accuracy", direction: 1 },
  { evaluator: "search", metric: "recall@10", direction: 1 },
];

describe("parseWhere", () => {
  it("reads comparisons joined by and", () => {
    const text =
      "rotated.accuracy >= 0.8 and loss<-1e-3 && fitness@validation!=.5 AND generation = +3";
    expect(parseWhere(text, metrics)).toEqual([
      {
        field: { kind: "metric", evaluator: "rotated", metric: "accuracy" },
        split: undefined,
        operator: ">=",
        value: 0.8,
      },
      {
        field: { kind: "metric", evaluator: "rotated", metric: "loss" },
        split: undefined,
        operator: "<",
        value: -0.001,
      },
      { field: { kind: "fitness" }, split: "validation", operator: "!=", value: 0.5 },
      { field: { kind: "generation" }, split: undefined, operator: "=", value: 3 },
    ]);
  });

  it("tells a metric's own @ from a split", () => {
    const field = { kind: "metric", evaluator: "search", metric: "recall@10" };
    expect(parseWhere("recall@10 > 0", metrics)[0]).toMatchObject({ field, split: undefined });
    expect(parseWhere("recall@10@test > 0", metrics)[0]).toMatchObject({ field, split: "test" });
  });

  it.each([
    ["", "it is empty"],
    ["accuracy", 'expected a name, a comparison and a number, got "accuracy nothing nothing"'],
    ["0.5 < loss", "expected a name, a comparison and a number"],
    ["loss < 0.5 and", 'expected "and" and another comparison'],
    ["loss < 0.5 loss > 0.1", 'expected "and" and another comparison'],
    ["loss < 0.5 or loss > 1", 'expected "and" and another comparison'],
    ["loss < 0.5; DROP TABLE trial", 'cannot read "; DROP TABLE trial"'],
    ["loss < '0.5'", "cannot read"],
    ["loss < 0.5.5", "cannot read"],
    ["loss < 1)", "cannot read"],
    [`loss < 1${" and loss < 1".repeat(500)}`, "at most 2000 characters"],
  ])("refuses %j", (text, problem) => {
    const error = thrownBy(() => parseWhere(text, metrics)) as MendelError;
    expect(error).toBeInstanceOf(MendelError);
    expect(error.code).toBe("usage");
    expect(error.message).toContain(problem);
  });

  it("suggests what was meant", () => {
    expect(thrownBy(() => parseWhere("rotated.acuracy > 1", metrics))).toMatchObject({
      code: "usage",
      hint: expect.stringContaining('did you mean "rotated.accuracy"?'),
    });
    expect(thrownBy(() => parseWhere("fitnes > 1", metrics))).toMatchObject({
      hint: expect.stringContaining('did you mean "fitness"?'),
    });
    expect(thrownBy(() => parseWhere("loss@validaton > 1", metrics))).toMatchObject({
      hint: expect.stringContaining('did you mean "validation"?'),
    });
    expect(thrownBy(() => findMetric("accuracy", metrics))).toMatchObject({
      hint: "say which: rotated.accuracy, inverted-2.accuracy",
    });
  });

  it("either parses or refuses, whatever it is given", () => {
    const piece = fc.oneof(
      fc.constantFrom(
        "loss",
        "fitness",
        "and",
        "&&",
        ">=",
        "<",
        "=",
        "0.5",
        "-1e9",
        "@test",
        "--",
        "'",
        '"',
        "(",
        ";",
      ),
      fc.string({ maxLength: 4 }),
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
        try {
          for (const { value } of parseWhere(pieces.join(" "), metrics)) {
            expect(typeof value).toBe("number");
          }
        } catch (thrown) {
          expect(thrown).toBeInstanceOf(MendelError);
        }
      }),
    );
  });
});
