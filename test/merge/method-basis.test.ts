import { describe, expect, it } from "vitest";
import { mergeMethods } from "../../src/merge/index.ts";
import type { BasisTerm, MergeMethod, TensorParameters } from "../../src/merge/method.ts";
import { parametersOf, runMethod } from "../support/run-method.ts";

const shape = [6, 8];
const length = 48;
const wave = (model: number): Float32Array =>
  Float32Array.from(
    { length },
    (_, i) => Math.sin(i * i * 0.37 + model * 2.1) * (model > 0 ? 0.3 : 1),
  );
const base = wave(0);
const experts = [1, 2, 3].map((k) => wave(k).map((value, i) => value + base[i]!));

/** A parameter somewhere inside its search range, another one for every model. */
function valuesFor(method: MergeMethod): Record<string, number | number[]> {
  return Object.fromEntries(
    method.parameters.flatMap(({ name, type, scope, search }) => {
      if (type === "list" || search === undefined) return [];
      const [low, high] = search.range;
      const at = (share: number): number => low + share * (high - low);
      return [[name, scope === "global" ? at(0.37) : [at(0.31), at(0.58), at(0.83)]]];
    }),
  );
}

/** Σ c·S as an engine would sum it. */
function sumOf(
  method: MergeMethod,
  inputs: readonly Float32Array[],
  baseIndex: number | undefined,
  parameters: TensorParameters,
  terms: readonly BasisTerm[],
): Float64Array {
  const sum = new Float64Array(length);
  for (const { input, coefficient, derived } of terms) {
    const entry =
      derived === undefined
        ? inputs[input]!
        : runMethod(
            { ...method, merge: (job) => derived.make({ ...job, parameters }) },
            { inputs, shape, ...(baseIndex === undefined ? {} : { baseIndex }), seed: 5 },
          );
    for (let i = 0; i < length; i++) sum[i] = sum[i]! + coefficient * entry[i]!;
  }
  return sum;
}

const linear = Object.values<MergeMethod>(mergeMethods).filter(
  ({ basis, name }) => basis !== undefined && name !== "segments" && name !== "layers",
);

describe("the linear form of a method", () => {
  it.each(linear.map((method) => [method.name, method] as const))(
    "%s: is what it merges",
    (_, method) => {
      const hasBase = method.base !== "none";
      const [low, high] = method.inputs;
      const count = Math.min(Math.max(low, 3), high);
      const inputs = [...(hasBase ? [base] : []), ...experts.slice(0, count)];
      const baseIndex = hasBase ? 0 : undefined;
      const run = {
        inputs,
        shape,
        ...(baseIndex === undefined ? {} : { baseIndex }),
        values: valuesFor(method),
        seed: 5,
      };
      const parameters = parametersOf(method, run);
      const terms = method.basis?.({
        name: "layer.weight",
        shape,
        length,
        baseIndex,
        parameters,
        seed: 5,
        compat: false,
        offset: 0,
        inputs: inputs.map((_x, k) => ({ modelId: `model-${k}` })),
        gram: (a, b) => inputs[a]!.reduce((sum, value, i) => sum + value * inputs[b]![i]!, 0),
      });
      expect(terms?.length).toBeGreaterThan(0);
      const merged = runMethod(method, run);
      const sum = sumOf(method, inputs, baseIndex, parameters, terms ?? []);
      for (const [i, value] of merged.entries()) expect(sum[i]).toBeCloseTo(value, 5);
    },
  );

  it("covers what is linear", () => {
    const names = linear.map(({ name }) => name);
    for (const name of ["karcher", "model_stock", "della_linear", "breadcrumbs", "tsvm", "wudi"]) {
      expect(names).toContain(name);
    }
  });
});
