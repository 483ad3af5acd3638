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

/** The reference marks results on which its two precisions disagree as ill-conditioned; ours must follow the float64 one. */
const wellConditioned = vectors.filter(
  ({ expected_float64: outcome }) => Array.isArray(outcome) || typeof outcome === "number",
);

describe("the reference's single tensors", () => {
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
        const tolerance = 2e-6 + 1e-5 * Math.abs(value);
        expect(Math.abs((got[i] as number) - value), `element ${i}`).toBeLessThanOrEqual(tolerance);
      }
    },
  );
});
