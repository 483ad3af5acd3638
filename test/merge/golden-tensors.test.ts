import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { mergeMethods } from "../../src/merge/index.ts";
import type { MergeMethod } from "../../src/merge/method.ts";
import { parametersOf, runMethod } from "../support/run-method.ts";

type Nested = number | string | readonly Nested[];
type Outcome = Nested | { readonly error: string };

interface Vector {
  readonly name: string;
  readonly method: string;
  readonly inputs: readonly Nested[];
  readonly base_index: number | null;
  readonly parameters: Readonly<Record<string, number | boolean | readonly number[]>>;
  readonly expected_float32: Outcome;
  readonly expected_float64: Outcome;
}

const file = join(import.meta.dirname, "../golden/mergekit/tensors.json");
const { vectors } = JSON.parse(readFileSync(file, "utf8")) as { vectors: readonly Vector[] };
const methods: Readonly<Record<string, MergeMethod>> = mergeMethods;

function flat(value: Nested): number[] {
  if (Array.isArray(value)) return value.flatMap((part: Nested) => flat(part));
  return [Number(value)];
}

function shapeOf(value: Nested): number[] {
  if (!Array.isArray(value)) return [];
  const [first] = value as readonly Nested[];
  return [value.length, ...(first === undefined ? [] : shapeOf(first))];
}

function isResult(outcome: Outcome): outcome is Nested {
  return Array.isArray(outcome) || typeof outcome === "number";
}

const tolerance = (value: number): number => 2e-6 + 1e-5 * Math.abs(value);

/** Results on which the reference's two precisions disagree say nothing; ours must follow the float64 ones of the others. */
const wellConditioned = vectors.filter(({ expected_float32: single, expected_float64: double }) => {
  if (!isResult(single) || !isResult(double)) return false;
  const rough = flat(single);
  return flat(double).every(
    (value, i) => !(Math.abs((rough[i] as number) - value) > tolerance(value)),
  );
});

describe("the reference's single tensors", () => {
  it("are all here", () => {
    expect(vectors.length).toBe(107);
    expect(vectors.length - wellConditioned.length).toBeLessThanOrEqual(6);
  });

  it.each(wellConditioned.map((vector) => [vector.method, vector.name, vector] as const))(
    "%s %s",
    (name, _, vector) => {
      const method = methods[name] as MergeMethod;
      const values = Object.fromEntries(
        Object.entries(vector.parameters).map(([key, value]) => [
          key,
          typeof value === "boolean" ? Number(value) : value,
        ]),
      );
      const run = {
        inputs: vector.inputs.map(flat),
        shape: shapeOf(vector.inputs[0] as Nested),
        ...(vector.base_index === null ? {} : { baseIndex: vector.base_index }),
        values,
        compat: true,
      };
      if (vector.name === "zero-sum") {
        // The reference divides by zero; here the recipe is refused before any weight is read.
        expect(method.check?.(parametersOf(method, run))).toMatch(/zero/);
        return;
      }
      const expected = flat(vector.expected_float64 as Nested);
      const got = runMethod(method, run);
      expect(got.length).toBe(expected.length);
      for (const [i, value] of expected.entries()) {
        const off = Math.abs((got[i] as number) - value);
        expect(off, `element ${i}`).toBeLessThanOrEqual(tolerance(value));
      }
    },
  );
});
