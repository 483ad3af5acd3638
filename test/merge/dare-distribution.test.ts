import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { openSafetensors } from "../../src/formats/safetensors.ts";
import { mergeMethods } from "../../src/merge/index.ts";
import type { MergeMethod } from "../../src/merge/method.ts";
import { elementCount } from "../../src/tensors/shape.ts";
import { runMethod } from "../support/run-method.ts";

interface Distribution {
  readonly name: string;
  readonly method: "dare_linear" | "dare_ties" | "della" | "della_linear";
  readonly tensor: string;
  readonly base: string;
  readonly experts: readonly string[];
  readonly parameters: Readonly<Record<string, number | boolean | readonly number[]>>;
  readonly seeds: number;
}

const root = join(import.meta.dirname, "../golden/mergekit");
const entries = JSON.parse(
  readFileSync(join(root, "random/index.json"), "utf8"),
) as readonly Distribution[];
const seeds = 1000;

function tensorOf(path: string, name: string) {
  const reader = openSafetensors(join(root, path));
  const tensor = reader.tensors.get(name);
  if (tensor === undefined) throw new Error(`no ${name} in ${path}`);
  return { reader, tensor };
}

function floats(path: string, name: string): Float64Array | Float32Array {
  const { reader, tensor } = tensorOf(path, name);
  const length = elementCount(tensor.shape);
  const raw = new Uint8Array(length * (tensor.dtype === "f64" ? 8 : 4));
  reader.read(name, 0, raw);
  reader.close();
  return tensor.dtype === "f64" ? new Float64Array(raw.buffer) : new Float32Array(raw.buffer);
}

/** Mean and variance of every element of merged − base over seeds. */
function sample(entry: Distribution, inputs: readonly ArrayLike<number>[]) {
  const { reader, tensor } = tensorOf(`models/${entry.base}/model.safetensors`, entry.tensor);
  const { shape } = tensor;
  reader.close();
  const method: MergeMethod = mergeMethods[entry.method];
  const values = Object.fromEntries(
    Object.entries(entry.parameters).map(([key, value]) => [
      key,
      typeof value === "boolean" ? Number(value) : value,
    ]),
  );
  const length = inputs[0]?.length as number;
  const mean = new Float64Array(length);
  const squares = new Float64Array(length);
  for (let seed = 0; seed < seeds; seed++) {
    const run = { inputs, shape, baseIndex: 0, values, seed, compat: true, name: entry.tensor };
    const merged = runMethod(method, run);
    for (let i = 0; i < length; i++) {
      const delta = merged[i]! - (inputs[0] as ArrayLike<number>)[i]!;
      mean[i] = mean[i]! + delta / seeds;
      squares[i] = squares[i]! + (delta * delta) / seeds;
    }
  }
  const correction = seeds / (seeds - 1);
  const variance = squares.map((square, i) => (square - mean[i]! ** 2) * correction);
  return { mean, variance };
}

describe("DARE and DELLA over seeds are distributed like the reference", () => {
  it.each(entries.map((entry) => [entry.name, entry] as const))("%s", (name, entry) => {
    const inputs = [entry.base, ...entry.experts].map((model) =>
      floats(`models/${model}/model.safetensors`, entry.tensor),
    );
    const expected = {
      mean: floats(`random/${name}.safetensors`, "delta_mean"),
      variance: floats(`random/${name}.safetensors`, "delta_variance"),
    };
    const { mean, variance } = sample(entry, inputs);
    for (const [i, value] of mean.entries()) {
      const spread = Math.sqrt(expected.variance[i]! * (1 / entry.seeds + 1 / seeds));
      expect(Math.abs(value - expected.mean[i]!), `element ${i}`).toBeLessThanOrEqual(
        5 * spread + 1e-7,
      );
    }
    const average = (values: ArrayLike<number>): number =>
      Array.from(values).reduce((sum, value) => sum + value, 0) / values.length;
    const ratio = average(variance) / average(expected.variance);
    expect(ratio).toBeGreaterThan(0.9);
    expect(ratio).toBeLessThan(1.1);
  });

  it.each([
    ["dare_linear", { density: 0.3 }],
    ["della_linear", { density: 0.4, epsilon: 0.2 }],
  ] as const)("%s is unbiased with the paper's 1/p", (name, values) => {
    const base = [0, 0, 0, 0];
    const expert = [1, -2, 0.5, 4];
    const sums = [0, 0, 0, 0];
    const n = 4000;
    for (let seed = 0; seed < n; seed++) {
      const merged = runMethod(mergeMethods[name], {
        inputs: [base, expert],
        baseIndex: 0,
        values: { weight: 1, ...values },
        seed,
      });
      for (const [i, value] of merged.entries()) sums[i] = sums[i]! + value / n;
    }
    // Standard error of a mean: |τ|·√((1 − p)/p/n), at most 0.032·|τ| (p = 0.2).
    for (const [i, sum] of sums.entries()) {
      expect(Math.abs(sum - expert[i]!)).toBeLessThan(0.13 * Math.abs(expert[i]!));
    }
  });
});
