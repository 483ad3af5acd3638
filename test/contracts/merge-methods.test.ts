import { describe, expect, it } from "vitest";
import { mergeMethods } from "../../src/merge/index.ts";
import type { MergeMethod, MethodParameter, TensorParameters } from "../../src/merge/method.ts";
import type { Kernels } from "../../src/tensors/kernels.ts";
import { createPlainKernels } from "../../src/tensors/plain-kernels.ts";
import { createKernels } from "../../src/tensors/wasm-kernels.ts";

/** One tensor as every method must be able to merge it; odd lengths reach the ends of vectorized loops. */
const shape = [7, 13] as const;
const length = shape[0] * shape[1];
const blockLength = 32;
const bytes = 1 << 21;

/** A repeatable wave, with some exact zeros and repeated magnitudes. */
function weights(model: number): Float32Array {
  return Float32Array.from({ length }, (_, i) => {
    if ((i + model) % 11 === 0) return 0;
    return Math.sin(i * 0.7 + model * 0.4) * (i % 5 === model ? 2 : 1);
  });
}

function sampleOf({ search, default: fallback, range }: MethodParameter): number {
  return search?.start ?? fallback ?? Math.min(Math.max(1, range[0]), range[1]);
}

function parametersFor(method: MergeMethod, models: number): TensorParameters {
  const of = (scope: "global" | "model"): Record<string, number> =>
    Object.fromEntries(
      method.parameters
        .filter((parameter) => parameter.scope === scope && parameter.type !== "list")
        .map((parameter) => [parameter.name, sampleOf(parameter)]),
    );
  const perModel = Array.from({ length: models }, () => of("model"));
  const lists =
    method.name === "segments"
      ? {
          lists: {
            global: { breaks: [0, 50, 60] },
            models: perModel.map((_, k) => ({ weights: [1, k, 2 - k].map((x) => x / 3) })),
          },
        }
      : {};
  return { global: of("global"), models: perModel, ...lists };
}

interface Setup {
  readonly arrays: readonly Float32Array[];
  readonly kernels: Kernels;
  readonly compat?: boolean;
  readonly seed?: number;
}

/** Runs a method and checks on the way that it stores every element once and gives its memory back. */
function run(method: MergeMethod, setup: Setup): Float32Array {
  const { arrays, kernels } = setup;
  const result = new Float32Array(length);
  const stored = new Uint8Array(length);
  const mark = kernels.mark();
  method.merge({
    name: "model.layers.0.mlp.up_proj.weight",
    shape,
    length,
    inputs: arrays.map((values, k) => ({
      modelId: `model-${k}`,
      load: (start, out) => out.set(values.subarray(start, start + out.length)),
    })),
    baseIndex: method.base === "none" ? undefined : 0,
    parameters: parametersFor(method, arrays.length),
    seed: setup.seed ?? 3,
    compat: setup.compat ?? false,
    offset: 17,
    kernels,
    blockLength,
    store(start, values) {
      for (let i = 0; i < values.length; i++) {
        stored[start + i] = stored[start + i]! + 1;
      }
      result.set(values, start);
    },
  });
  expect(stored.every((count) => count === 1)).toBe(true);
  expect(kernels.mark()).toBe(mark);
  return result;
}

const entries: [string, MergeMethod][] = Object.entries(mergeMethods);

describe.each(entries)("merge method %s", (name, method) => {
  const [low, high] = method.inputs;
  const count = Math.min(Math.max(low, 3), high) + (method.base === "none" ? 0 : 1);
  const arrays = (): Float32Array[] => Array.from({ length: count }, (_, k) => weights(k));
  const wasm = createKernels({ bytes });
  const plain = createPlainKernels({ bytes });

  it("says what it is, and its parameters fit their ranges", () => {
    expect(method.name).toBe(name);
    for (const text of [method.title, method.description, method.reference]) {
      expect(text.length).toBeGreaterThan(5);
    }
    expect(low).toBeGreaterThanOrEqual(1);
    expect(high).toBeGreaterThanOrEqual(low);
    const names = method.parameters.map((parameter) => parameter.name);
    expect(new Set(names).size).toBe(names.length);
    for (const { range, default: fallback, search, type } of method.parameters) {
      const inside = (value: number): boolean => value >= range[0] && value <= range[1];
      if (fallback !== undefined) expect(inside(fallback)).toBe(true);
      if (type === "boolean")
        expect([range, [0, 1].includes(fallback ?? -1)]).toEqual([[0, 1], true]);
      if (search === undefined) continue;
      expect(search.range.every(inside)).toBe(true);
      expect(search.start).toBeGreaterThanOrEqual(search.range[0]);
      expect(search.start).toBeLessThanOrEqual(search.range[1]);
      if (search.scale === "log") expect(search.range[0]).toBeGreaterThan(0);
    }
    expect(method.check?.(parametersFor(method, count))).toBeUndefined();
  });

  it.each([false, true])("is a pure function of its job (compat %s)", (compat) => {
    const inputs = arrays();
    const before = inputs.map((values) => values.slice());
    const first = run(method, { arrays: inputs, kernels: wasm, compat });
    expect(inputs).toEqual(before);
    expect(run(method, { arrays: inputs, kernels: wasm, compat })).toEqual(first);
    expect(first.every(Number.isFinite)).toBe(true);
    // Of several inputs something is merged: the result is none of them.
    if (count === 1) return;
    for (const values of inputs) expect(first).not.toEqual(values);
  });

  it.each([false, true])("gives the same bytes with both kernels (compat %s)", (compat) => {
    const bits = (kernels: Kernels): Uint32Array =>
      new Uint32Array(run(method, { arrays: arrays(), kernels, compat }).buffer);
    expect(bits(wasm)).toEqual(bits(plain));
  });

  if (keepsEqualSources(method)) {
    it("returns a source that all models share", () => {
      const shared = weights(1);
      const merged = run(method, { arrays: arrays().map(() => shared), kernels: wasm });
      expect(merged).toEqual(shared);
    });
  }

  it("stays finite when every model is zero", () => {
    const zeros = arrays().map(() => new Float32Array(length));
    expect(run(method, { arrays: zeros, kernels: wasm }).every((value) => value === 0)).toBe(true);
  });
});

/** Methods with a base add differences from it, which are zero; of the others, those that normalize average. */
function keepsEqualSources(method: MergeMethod): boolean {
  return (
    method.base === "required" ||
    method.parameters.some(({ name, default: value }) => name === "normalize" && value === 1)
  );
}
