import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { MendelError } from "../../src/base/errors.ts";
import { compileRecipe } from "../../src/merge/compile.ts";
import {
  blockLength,
  kernelBytesFor,
  materializeBytes,
  materializeTensor,
  weightsDigest,
} from "../../src/merge/materialize.ts";
import { parseRecipe } from "../../src/recipes/parse.ts";
import { createPlainKernels } from "../../src/tensors/plain-kernels.ts";
import { createKernels } from "../../src/tensors/wasm-kernels.ts";
import {
  type MemoryModels,
  type MemoryTensor,
  memoryModels,
  memoryPlan,
  memorySource,
} from "../support/memory-models.ts";
import { mergeAll, mergeMemory } from "../support/run-merge.ts";

const compile = (text: string, models: MemoryModels) =>
  compileRecipe(parseRecipe(text, "recipe.yml").recipe, memoryPlan(models));

/** A tensor longer than one block, with an odd rest. */
const long = blockLength + 37;
const wave = (frequency: number): Float32Array =>
  Float32Array.from({ length: long }, (_, i) => Math.fround(((i * frequency) % 1009) / 1009 - 0.5));
const large: MemoryModels = new Map(
  [3, 7, 11].map((frequency, k) => [
    ["base", "a", "b"][k] as string,
    new Map<string, MemoryTensor>([["w.weight", { shape: [long], values: wave(frequency) }]]),
  ]),
);
const tiesText = `
merge_method: ties
base_model: base
models:
  - {model: a, parameters: {weight: 0.6, density: 0.3}}
  - {model: b, parameters: {weight: 0.9, density: 0.7}}
parameters: {normalize: false}
`;

describe("materializing block by block", () => {
  it("stores every element exactly once, in blocks of one fixed length", () => {
    const compiled = compile(tiesText, large);
    const blocks: [number, number][] = [];
    materializeTensor(compiled, 0, {
      kernels: createKernels({ bytes: kernelBytesFor(compiled) }),
      source: memorySource(large),
      store: (start, values) => blocks.push([start, values.length]),
    });
    expect(blocks).toEqual([
      [0, blockLength],
      [blockLength, 37],
    ]);
  });

  it("ranks over all blocks", () => {
    const compiled = compile(tiesText.replace("0.9", "0"), large);
    const source = memorySource(large);
    const merged = mergeAll(compiled, source).get("w.weight");
    const values = new Float32Array((merged as { bytes: Uint8Array }).bytes.buffer);
    const base = wave(3);
    const delta = wave(7).map((value, i) => value - base[i]!);
    const count = Math.trunc(0.3 * long);
    const order = [...delta.keys()].sort(
      (i, j) => Math.abs(delta[j]!) - Math.abs(delta[i]!) || i - j,
    );
    const kept = new Set(order.slice(0, count));
    for (let i = 0; i < long; i++) {
      const expected = kept.has(i) ? base[i]! + 0.6 * delta[i]! : base[i]!;
      if (Math.abs(values[i]! - expected) > 1e-6) expect.fail(`element ${i}`);
    }
  });

  it("reports what is not finite, by tensor", () => {
    const models = memoryModels({ a: { "x.weight": [1, 3e38, -3e38] } });
    const compiled = compile(
      "merge_method: passthrough\nmodels: [{model: a, parameters: {scale: 10}}]",
      models,
    );
    const run = () => mergeAll(compiled, memorySource(models));
    expect(run).toThrow(MendelError);
    expect(run).toThrow("passthrough made 2 NaN or infinite elements in x.weight");
  });
});

describe("dtypes", () => {
  const raw = (values: readonly number[]): Uint8Array =>
    new Uint8Array(Uint16Array.from(values).buffer);
  const half: MemoryModels = new Map([
    [
      "a",
      new Map<string, MemoryTensor>([
        ["h.weight", { shape: [2], values: { dtype: "bf16", raw: raw([0x3f80, 0xc040]) } }],
        [
          "ids",
          { shape: [1], values: { dtype: "i64", raw: new Uint8Array([7, 0, 0, 0, 0, 0, 0, 1]) } },
        ],
      ]),
    ],
  ]);

  it("are the inputs' own unless the recipe names one; integers are copied byte by byte", () => {
    const text = "merge_method: passthrough\nmodels: [{model: a, parameters: {scale: 3}}]";
    const plain = mergeAll(compile(text, half), memorySource(half));
    expect(plain.get("h.weight")).toMatchObject({ dtype: "bf16", bytes: raw([0x4040, 0xc110]) });
    const wide = mergeAll(compile(`${text}\nout_dtype: float64`, half), memorySource(half));
    const values = new Float64Array((wide.get("h.weight") as { bytes: Uint8Array }).bytes.buffer);
    expect([...values]).toEqual([3, -9]);
    for (const output of [plain, wide]) {
      expect(output.get("ids")).toMatchObject({ dtype: "i64" });
      expect([...output.get("ids")!.bytes]).toEqual([7, 0, 0, 0, 0, 0, 0, 1]);
    }
  });

  it("convert frozen tensors with the rest, and copy their bytes where nothing changes", () => {
    const models = memoryModels({
      base: { "n.weight": [1.5], "x.weight": [1] },
      a: { "n.weight": [9], "x.weight": [3] },
    });
    const text = `merge_method: task_arithmetic
base_model: base
models: [{model: a, parameters: {weight: 0.5}}]
freeze: [n.*]
`;
    const same = mergeAll(compile(text, models), memorySource(models));
    expect(same.get("n.weight")?.bytes).toEqual(new Uint8Array(Float32Array.of(1.5).buffer));
    const halved = mergeAll(compile(`${text}out_dtype: float16`, models), memorySource(models));
    expect(halved.get("n.weight")).toMatchObject({ dtype: "f16", bytes: raw([0x3e00]) });
    expect(halved.get("x.weight")).toMatchObject({ dtype: "f16", bytes: raw([0x4000]) });
  });

  it("round inputs first only under compat", () => {
    const models = memoryModels({ a: { "x.weight": [1 + 2 ** -10] } });
    const text =
      "merge_method: passthrough\nmodels: [{model: a, parameters: {scale: 256}}]\ndtype: bfloat16\nout_dtype: float32";
    expect([...(mergeMemory(text, models).get("x.weight") ?? [])]).toEqual([256.25]);
    const compat = mergeMemory(`${text}\ncompat: mergekit`, models).get("x.weight");
    expect([...(compat ?? [])]).toEqual([256]);
  });
});

const recordedDigest = "b2695ef51ceb458b68807aec657092d864149078f9a072d685e711128e931437";

describe("the weights digest", () => {
  it("is the hash of names, shapes and float32 elements", () => {
    const models = memoryModels({ a: { "b.weight": [1, 2], "a.weight": [0.5] } });
    const compiled = compile("merge_method: passthrough\nmodels: [{model: a}]", models);
    const hash = createHash("sha256");
    hash.update('["a.weight",[1]]\n').update(new Uint8Array(Float32Array.of(0.5).buffer));
    hash.update('["b.weight",[2]]\n').update(new Uint8Array(Float32Array.of(1, 2).buffer));
    const kernels = createKernels({ bytes: kernelBytesFor(compiled) });
    const digest = weightsDigest(compiled, { kernels, source: memorySource(models) });
    expect(digest).toBe(hash.digest("hex"));
  });

  it("is one for a recipe, whatever computes it, and does not see the written dtype", () => {
    const compiled = compile(tiesText, large);
    const bytes = kernelBytesFor(compiled);
    const source = memorySource(large);
    const digests = [createKernels({ bytes }), createPlainKernels({ bytes })].map((kernels) =>
      weightsDigest(compiled, { kernels, source }),
    );
    const narrow = compile(`${tiesText}out_dtype: bfloat16`, large);
    digests.push(weightsDigest(narrow, { kernels: createKernels({ bytes }), source }));
    // Recorded once: a change means that the same recipe no longer gives the same weights.
    expect(new Set(digests)).toEqual(new Set([recordedDigest]));
  });

  it("depends on the identity that seeds a mask, not on how a model is referred to", () => {
    const models = new Map(large);
    models.set("path/to/a", large.get("a")!);
    const digestOf = (id: string, identities?: ReadonlyMap<string, string>): string => {
      const text = `merge_method: dare_linear\nbase_model: base\nmodels: [{model: ${id}, parameters: {weight: 1, density: 0.5}}]`;
      const plan = { ...memoryPlan(models), ...(identities === undefined ? {} : { identities }) };
      const compiled = compileRecipe(parseRecipe(text, "recipe.yml").recipe, plan);
      const kernels = createKernels({ bytes: kernelBytesFor(compiled) });
      return weightsDigest(compiled, { kernels, source: memorySource(models) });
    };
    expect(digestOf("path/to/a")).not.toBe(digestOf("a"));
    expect(digestOf("path/to/a", new Map([["path/to/a", "a"]]))).toBe(digestOf("a"));
  });
});

it("kernel memory for a recipe is enough at every width", () => {
  const wide: MemoryModels = new Map(
    ["base", "a", "b"].map((id, k) => {
      const values = Float64Array.from({ length: long }, (_, i) => ((i * (k + 2)) % 7) / 7);
      const tensor = { dtype: "f64" as const, raw: new Uint8Array(values.buffer) };
      return [id, new Map<string, MemoryTensor>([["w.weight", { shape: [long], values: tensor }]])];
    }),
  );
  const compiled = compile(`${tiesText}compat: mergekit\ndtype: float16\nout_dtype: float64`, wide);
  const kernels = createKernels({ bytes: kernelBytesFor(compiled) });
  let written = 0;
  materializeBytes(compiled, 0, {
    kernels,
    source: memorySource(wide),
    write: (_, bytes) => {
      written += bytes.length;
    },
  });
  expect(written).toBe(long * 8);
});
