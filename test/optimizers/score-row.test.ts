import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MendelError } from "../../src/base/errors.ts";
import { decodeScores, encodeScores } from "../../src/optimizers/score-row.ts";

describe("score rows", () => {
  it("come back exactly, right/wrong or continuous", () => {
    const rows = fc.oneof(
      fc.array(fc.constantFrom(0, 1), { minLength: 1, maxLength: 40 }),
      fc.array(fc.double({ noNaN: true, noDefaultInfinity: true }), {
        minLength: 1,
        maxLength: 40,
      }),
    );
    fc.assert(
      fc.property(rows, (row) => {
        const text = JSON.stringify(encodeScores(row));
        const back = Array.from(decodeScores(JSON.parse(text), row.length));
        // JSON has no negative zero, and a score needs none.
        expect(back).toEqual(row.map((score) => score + 0));
      }),
    );
  });

  it("of right/wrong items take a digit for four", () => {
    expect(encodeScores([1, 0, 1, 0, 1])).toBe("a8");
    expect(encodeScores([1, 0.5])).toEqual([1, 0.5]);
  });

  it.each([["a"], ["a8f"], ["xy"], [[1, 0]]])("refuse the damaged row %j", (encoded) => {
    expect(() => decodeScores(encoded, 5)).toThrow(MendelError);
  });
});
