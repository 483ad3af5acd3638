import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { MendelError } from "../../src/base/errors.ts";
import { decodeFloats } from "../../src/formats/decode-floats.ts";
import { openHfFolder } from "../../src/formats/hf-folder.ts";
import { openModel } from "../../src/formats/index.ts";
import { openLora } from "../../src/formats/lora.ts";
import { openSafetensors } from "../../src/formats/safetensors.ts";
import { SafetensorsWriter } from "../../src/formats/safetensors-writer.ts";
import { dtypeBytes } from "../../src/tensors/dtype.ts";
import type { ModelReader } from "../../src/tensors/model-reader.ts";
import { elementCount, type Shape } from "../../src/tensors/shape.ts";
import { inFolder } from "../hostile/safetensors-bytes.ts";

const adapter = "test/fixtures/lora-math";
const base = "examples/tinylm/models/base";

function values(model: ModelReader, name: string, start = 0, count?: number): Float64Array {
  const tensor = model.tensors.get(name);
  if (tensor === undefined) throw new Error(name);
  const length = count ?? elementCount(tensor.shape) - start;
  const bytes = new Uint8Array(length * dtypeBytes[tensor.dtype]);
  model.read(name, start, bytes);
  return decodeFloats(bytes, tensor.dtype);
}

/** Bit-for-bit equality; the matcher for arrays is a thousand times slower. */
function same(a: Float64Array, b: Float64Array): boolean {
  const bytes = (x: Float64Array): Buffer => Buffer.from(x.buffer, x.byteOffset, x.byteLength);
  return bytes(a).equals(bytes(b));
}

interface Matrix {
  readonly shape: Shape;
  readonly data: readonly number[];
}

/** A small base and adapter on disk for the time of `use`. */
function withAdapter<T>(
  tensors: Readonly<Record<string, Matrix>>,
  lora: Readonly<Record<string, Matrix>>,
  config: Readonly<Record<string, unknown>>,
  use: (base: ModelReader, adapter: string) => T,
): T {
  return inFolder((folder) => {
    const write = (path: string, matrices: Readonly<Record<string, Matrix>>): void => {
      const list = Object.entries(matrices);
      const writer = new SafetensorsWriter(
        path,
        list.map(([name, { shape }]) => ({ name, shape, dtype: "f32" })),
      );
      for (const [name, { data }] of list)
        writer.write(name, new Uint8Array(Float32Array.from(data).buffer));
      writer.finish();
    };
    mkdirSync(join(folder, "adapter"));
    write(join(folder, "base.safetensors"), tensors);
    write(join(folder, "adapter", "adapter_model.safetensors"), lora);
    const complete = { peft_type: "LORA", r: 2, lora_alpha: 4, ...config };
    writeFileSync(join(folder, "adapter", "adapter_config.json"), JSON.stringify(complete));
    const model = openSafetensors(join(folder, "base.safetensors"));
    try {
      return use(model, join(folder, "adapter"));
    } finally {
      model.close();
    }
  });
}

const weight: Matrix = { shape: [3, 2], data: [1, 2, 3, 4, 5, 6] };
const a: Matrix = { shape: [2, 2], data: [1, 2, 3, 4] };
const b: Matrix = { shape: [3, 2], data: [1, 0, 0, 1, 1, 1] };
// B·A = [[1,2],[3,4],[4,6]]
const pair = {
  "base_model.model.layer.lora_A.weight": a,
  "base_model.model.layer.lora_B.weight": b,
};

function merged(
  tensors: Readonly<Record<string, Matrix>>,
  lora: Readonly<Record<string, Matrix>>,
  config: Readonly<Record<string, unknown>>,
  name = "layer.weight",
): readonly number[] {
  return withAdapter(tensors, lora, config, (model, path) => {
    const reader = openLora(path, model);
    const result = [...values(reader, name)];
    reader.close();
    return result;
  });
}

function refusal(
  lora: Readonly<Record<string, Matrix>>,
  config: Readonly<Record<string, unknown>>,
): MendelError {
  return withAdapter({ "layer.weight": weight }, lora, config, (model, path) => {
    try {
      openLora(path, model).close();
    } catch (error) {
      if (error instanceof MendelError) return error;
      throw error;
    }
    throw new Error("was accepted");
  });
}

describe("openLora on a real adapter", () => {
  const model = openHfFolder(base);
  const merge = openLora(adapter, model);

  it("changes the 56 linear weights of the blocks and nothing else", () => {
    expect(merge.format).toBe("lora");
    expect(merge.changed).toHaveLength(56);
    expect([...merge.tensors.keys()]).toEqual([...model.tensors.keys()]);
    const changed = new Set(merge.changed);
    for (const [name, tensor] of merge.tensors) {
      expect(tensor.dtype).toBe(changed.has(name) ? "f32" : "bf16");
      if (!changed.has(name)) expect(same(values(merge, name), values(model, name))).toBe(true);
    }
  });

  it("equals W + (alpha / r) · B·A summed by hand, bit for bit, and in any pieces", () => {
    const lora = openSafetensors(join(adapter, "adapter_model.safetensors"));
    for (const name of merge.changed) {
      const module = `base_model.model.${name.slice(0, -".weight".length)}`;
      const left = values(lora, `${module}.lora_B.weight`);
      const right = values(lora, `${module}.lora_A.weight`);
      const expected = values(model, name);
      const columns = right.length / 8;
      for (let i = 0; i < expected.length; i++) {
        let sum = 0;
        for (let k = 0; k < 8; k++) {
          sum +=
            (left[Math.floor(i / columns) * 8 + k] as number) *
            (right[k * columns + (i % columns)] as number);
        }
        expected[i] = Math.fround((expected[i] as number) + (16 / 8) * sum);
      }
      expect(same(values(merge, name), expected)).toBe(true);
      expect(same(values(merge, name, 77, 301), expected.subarray(77, 378))).toBe(true);
      expect(same(values(merge, name, expected.length - 1, 1), expected.subarray(-1))).toBe(true);
    }
    lora.close();
  });

  // NumPy 2.4: float64 matrix product, added to the bf16 base, rounded to float32.
  it.each([
    [
      "model.layers.0.self_attn.q_proj.weight",
      8.789902831829531,
      0.028158020228147507,
      -0.11685935407876968,
    ],
    [
      "model.layers.3.mlp.down_proj.weight",
      9.341082453861679,
      -0.2018371820449829,
      0.17802299559116364,
    ],
    [
      "model.layers.7.mlp.gate_proj.weight",
      12.873887094684681,
      0.202097550034523,
      0.03135921433568001,
    ],
  ])("agrees with NumPy on %s", (name, norm, first, last) => {
    const got = values(merge, name);
    expect(Math.sqrt(got.reduce((sum, x) => sum + x * x, 0))).toBeCloseTo(norm, 6);
    expect(got[0]).toBeCloseTo(first, 7);
    expect(got.at(-1)).toBeCloseTo(last, 7);
  });

  it("is opened by openModel, which asks for a base when there is none", () => {
    expect(openModel(adapter, { base: model }).format).toBe("lora");
    expect(() => openModel(adapter)).toThrow(
      expect.objectContaining({ code: "invalid-config", hint: expect.stringMatching(/base/) }),
    );
  });
});

describe("openLora on small adapters", () => {
  it("scales by alpha / r, or alpha / sqrt(r) for rsLoRA", () => {
    expect(merged({ "layer.weight": weight }, pair, {})).toEqual([3, 6, 9, 12, 13, 18]);
    const stabilized = merged({ "layer.weight": weight }, pair, { use_rslora: true });
    expect(stabilized[0]).toBe(Math.fround(1 + 4 / Math.SQRT2));
  });

  it("transposes for fan_in_fan_out and for embeddings", () => {
    const stored: Matrix = { shape: [2, 3], data: [1, 3, 5, 2, 4, 6] };
    const expected = [3, 9, 13, 6, 12, 18];
    expect(merged({ "layer.weight": stored }, pair, { fan_in_fan_out: true })).toEqual(expected);
    const embedding = {
      "base_model.model.layer.lora_embedding_A": a,
      "base_model.model.layer.lora_embedding_B": b,
    };
    expect(merged({ "layer.weight": stored }, embedding, {})).toEqual(expected);
  });

  it("takes rank and alpha of single modules from the patterns", () => {
    expect(merged({ "layer.weight": weight }, pair, { alpha_pattern: { layer: 2 } })).toEqual([
      2, 4, 6, 8, 9, 12,
    ]);
    expect(merged({ "layer.weight": weight }, pair, { r: 8, rank_pattern: { layer: 2 } })).toEqual([
      3, 6, 9, 12, 13, 18,
    ]);
  });

  it("reads convolutions, the adapter-name spelling and fully trained tensors", () => {
    const kernel: Matrix = { shape: [3, 1, 2, 1], data: weight.data };
    const convolution = {
      "layer.lora_A.default.weight": { shape: [2, 1, 2, 1], data: a.data },
      "layer.lora_B.default.weight": { shape: [3, 2, 1, 1], data: b.data },
    };
    expect(merged({ "layer.weight": kernel }, convolution, {})).toEqual([3, 6, 9, 12, 13, 18]);
    const head = { ...pair, "base_model.model.head.weight": { shape: [2], data: [7, 8] } };
    const tensors = { "layer.weight": weight, "head.weight": { shape: [2], data: [0, 0] } };
    expect(merged(tensors, head, {}, "head.weight")).toEqual([7, 8]);
  });

  it.each<
    readonly [string, Readonly<Record<string, Matrix>>, Readonly<Record<string, unknown>>, RegExp]
  >([
    [
      "a target that the base lacks",
      { "base_model.model.other.lora_A.weight": a, "base_model.model.other.lora_B.weight": b },
      {},
      /"other.weight", which .* does not have/,
    ],
    ["A without B", { "base_model.model.layer.lora_A.weight": a }, {}, /no B matrix/],
    ["B without A", { "base_model.model.layer.lora_B.weight": b }, {}, /no A matrix/],
    ["a rank that the matrices do not have", pair, { r: 4 }, /rank 4/],
    [
      "a product of another shape",
      { ...pair, "base_model.model.layer.lora_B.weight": { shape: [2, 2], data: [1, 2, 3, 4] } },
      {},
      /does not fit/,
    ],
    ["the transposed shape", pair, { fan_in_fan_out: true }, /does not fit/],
    [
      "a trained tensor of another shape",
      { "base_model.model.layer.weight": { shape: [1], data: [1] } },
      {},
      /has shape \[1\]/,
    ],
    ["rank 0", pair, { r: 0 }, /r must be a number from 1/],
    ["half a rank", pair, { r: 1.5 }, /r must be a whole number/],
    ["no rank", pair, { r: undefined }, /r must be a whole number .* got nothing/],
    ["a huge rank", pair, { r: 1e9 }, /from 1 to 65536/],
    ["a huge alpha", pair, { lora_alpha: 1e300 }, /lora_alpha must be a number/],
    ["alpha as text", pair, { lora_alpha: "16" }, /got "16"/],
    ["another kind of adapter", pair, { peft_type: "IA3" }, /peft_type must be "LORA"/],
    ["DoRA", pair, { use_dora: true }, /DoRA/],
    ["trained biases", pair, { bias: "all" }, /biases/],
    [
      "a pattern that is a regular expression",
      pair,
      { rank_pattern: { "(a+)+$": 2 } },
      /with the pattern "\(a\+\)\+\$"/,
    ],
  ])("refuses %s", (_name, lora, config, message) => {
    const error = refusal(lora, config);
    expect(["mismatch", "invalid-file", "unsupported"]).toContain(error.code);
    expect(error.message).toMatch(message);
  });

  it("refuses infinite alpha and an adapter without weights", () => {
    inFolder((folder) => {
      cpSync(adapter, folder, { recursive: true });
      const config = readFileSync(join(adapter, "adapter_config.json"), "utf8");
      const model = openHfFolder(base);
      writeFileSync(
        join(folder, "adapter_config.json"),
        config.replace('"lora_alpha": 16', '"lora_alpha": NaN'),
      );
      expect(() => openLora(folder, model)).toThrow(/lora_alpha must be a number/);
      writeFileSync(
        join(folder, "adapter_config.json"),
        config.replace('"lora_alpha": 16', '"lora_alpha": Infinity'),
      );
      expect(() => openLora(folder, model)).toThrow(/lora_alpha must be a number/);
      mkdirSync(join(folder, "empty"));
      writeFileSync(join(folder, "empty", "adapter_config.json"), config);
      expect(() => openLora(join(folder, "empty"), model)).toThrow(
        expect.objectContaining({ code: "not-found" }),
      );
      model.close();
    });
  });
});
