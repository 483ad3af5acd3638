import { readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { InferenceSession } from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { sha256 } from "../../../src/base/hash.ts";
import { buildOnnx } from "../../../src/formats/onnx/onnx-builder.ts";
import type { OnnxReader } from "../../../src/formats/onnx/open-onnx.ts";
import { concatBytes, encodeBytes } from "../../../src/formats/onnx/wire.ts";
import { type WeightSource, writeOnnx } from "../../../src/formats/onnx/write-onnx.ts";
import { example, feedsOf, freshFolder, openModel, readAll, sessionOptions } from "./onnx-files.ts";
import { type ExportStyle, tinyTransformer } from "./tiny-transformer.ts";

const digits = example("digits/models/base/model.onnx");
const realModels = [
  digits,
  example("digits-cnn/models/base/model.onnx"),
  example("tinylm/models/base/model.onnx"),
];
const styles: readonly ExportStyle[] = ["state-dict", "folded", "anonymous"];

describe("writing without replacements", () => {
  it.each(realModels)("gives the same bytes: %s", async (path) => {
    const out = join(freshFolder(), "out.onnx");
    const files = await writeOnnx(openModel(path), out, new Map());
    const bytes = readFileSync(path);
    expect(Buffer.compare(readFileSync(out), bytes)).toBe(0);
    expect(files).toEqual([{ path: out, bytes: bytes.length, sha256: sha256(bytes) }]);
  });

  it("leaves no temporary files", async () => {
    const folder = freshFolder();
    await writeOnnx(openModel(digits), join(folder, "out.onnx"), new Map());
    expect(readdirSync(folder)).toEqual(["out.onnx"]);
  });
});

describe("unknown fields", () => {
  it("survive the replacement of weights beside them", async () => {
    const secret = encodeBytes(4000, "kept in the model");
    const bytes = concatBytes([secret, buildOnnx(tinyTransformer("folded")), secret]);
    const reader = openModel(bytes);
    const out = join(freshFolder(), "out.onnx");
    await writeOnnx(reader, out, sameWeights(reader), { metadata: { recipe: "r" } });
    const text = readFileSync(out, "latin1");
    expect(text.split("kept in the model").length).toBe(3);
  });
});

describe("writing weights", () => {
  it.each(styles)("writes what it is given, in logical layout (%s export)", async (style) => {
    const target = openModel(tinyTransformer(style, 2, 1));
    const donor = openModel(tinyTransformer(style, 2, 2));
    const out = join(freshFolder(), "out.onnx");
    await writeOnnx(target, out, weightsOf(donor));
    const written = openModel(out);
    for (const name of target.tensors.keys()) {
      expect(readAll(written, name), name).toEqual(readAll(donor, name));
    }
    expect(await logits(out)).toEqual(await logits(donor.path));
  });

  it.each(styles)("computes the same with external data (%s export)", async (style) => {
    const reader = openModel(wide(style));
    const out = join(freshFolder(), "out.onnx");
    const files = await writeOnnx(reader, out, sameWeights(reader), { externalData: "always" });
    expect(files.map((file) => file.path)).toEqual([out, `${out}_data`]);
    for (const { path, bytes, sha256: digest } of files) {
      expect(statSync(path).size).toBe(bytes);
      expect(sha256(readFileSync(path))).toBe(digest);
    }
    const written = openModel(out);
    expect(written.files).toEqual(files.map((file) => file.path));
    for (const name of reader.tensors.keys()) {
      expect(readAll(written, name), name).toEqual(readAll(reader, name));
    }
    expect(await logits(out)).toEqual(await logits(reader.path));
  });

  it("brings external data back into one file", async () => {
    const reader = openModel(wide("state-dict"));
    const first = join(freshFolder(), "first.onnx");
    const second = join(freshFolder(), "second.onnx");
    await writeOnnx(reader, first, new Map(), { externalData: "always" });
    const files = await writeOnnx(openModel(first), second, new Map());
    expect(files.length).toBe(1);
    expect(await logits(second)).toEqual(await logits(reader.path));
  });

  it("adds metadata and replaces entries of the same key", async () => {
    const reader = openModel(digits);
    const out = join(freshFolder(), "out.onnx");
    await writeOnnx(reader, out, new Map(), { metadata: { model: "merged", recipe: "abc" } });
    expect(openModel(out).metadata).toEqual({ family: "digits", model: "merged", recipe: "abc" });
  });

  it("stores halves beside a Cast and finds them again under the same names", async () => {
    const reader = openModel(tinyTransformer("folded"));
    const halves = new Map(
      [...reader.tensors.keys()].map((name) => [name, halfSource(reader, name)]),
    );
    const out = join(freshFolder(), "out.onnx");
    await writeOnnx(reader, out, halves);
    const written = openModel(out);
    expect([...written.tensors.keys()]).toEqual([...reader.tensors.keys()]);
    expect(written.signature).toEqual(reader.signature);
    for (const [name, weight] of reader.tensors) {
      const half = written.tensors.get(name)!;
      expect(half).toMatchObject({ dtype: "bf16", shape: weight.shape });
      expect(half.graphPosition).toEqual(weight.graphPosition);
    }
    const exact = await logits(reader.path);
    const rounded = await logits(out);
    const error = Math.max(...rounded.map((value, i) => Math.abs(value - exact[i]!)));
    expect(error).toBeGreaterThan(0);
    expect(error).toBeLessThan(0.1);
  });

  it("stores shared weights apart when they are named apart", async () => {
    const reader = openModel({
      nodes: [
        { op: "Identity", inputs: ["a"], outputs: ["b"] },
        { op: "Mul", inputs: ["image", "a"], outputs: ["m"] },
        { op: "Mul", inputs: ["m", "b"], outputs: ["logits"] },
      ],
      inputs: [{ name: "image", dtype: "f32", shape: [2] }],
      outputs: [{ name: "logits", dtype: "f32", shape: [2] }],
      initializers: [{ name: "a", dtype: "f32", shape: [2], elements: [1, 1] }],
    });
    const out = join(freshFolder(), "out.onnx");
    await writeOnnx(
      reader,
      out,
      new Map([
        ["a", constant([2, 3])],
        ["b", constant([5, 7])],
      ]),
    );
    const written = openModel(out);
    expect([...written.tensors.keys()]).toEqual(["a", "b"]);
    const session = await InferenceSession.create(out, sessionOptions);
    const { logits } = await session.run(feedsOf("image", [2]));
    expect([...(logits!.data as Float32Array)]).toEqual(
      [0, Math.fround(Math.fround(Math.sin(1)) * 3) * 7].map(Math.fround),
    );
  });
});

describe("refusals", () => {
  it("never overwrites a model it reads, not even through a link", async () => {
    const reader = openModel(buildOnnx(tinyTransformer("folded")));
    const before = readFileSync(reader.path);
    const link = join(freshFolder(), "link.onnx");
    symlinkSync(reader.path, link);
    for (const out of [reader.path, link, join(dirname(reader.path), ".", "model.onnx")]) {
      await expect(writeOnnx(reader, out, new Map())).rejects.toMatchObject({ code: "usage" });
    }
    expect(readFileSync(reader.path)).toEqual(before);
  });

  it("names unknown weights", async () => {
    const out = join(freshFolder(), "out.onnx");
    const replace = new Map([["layers.9.weight", constant([1])]]);
    await expect(writeOnnx(openModel(digits), out, replace)).rejects.toMatchObject({
      code: "not-found",
    });
  });

  it("leaves the old file and no temporary when a source fails", async () => {
    const folder = freshFolder();
    const out = join(folder, "out.onnx");
    writeFileSync(out, "old");
    const failing: WeightSource = {
      dtype: "f32",
      read: () => {
        throw new Error("no values");
      },
    };
    const replace = new Map([["layers.0.weight", failing]]);
    await expect(writeOnnx(openModel(digits), out, replace)).rejects.toThrow("no values");
    expect(readdirSync(folder)).toEqual(["out.onnx"]);
    expect(readFileSync(out, "utf8")).toBe("old");
  });

  it("says when the folder does not exist", async () => {
    const out = join(freshFolder(), "missing", "out.onnx");
    await expect(writeOnnx(openModel(digits), out, new Map())).rejects.toMatchObject({
      code: "not-found",
    });
  });
});

/** A network whose embedding is large enough to go into the data file. */
function wide(style: ExportStyle) {
  const spec = tinyTransformer(style);
  const table = spec.initializers![0]!;
  const elements = new Float32Array(64 * 8);
  elements.set(table.elements as Float32Array);
  const initializers = [{ ...table, shape: [64, 8], elements }, ...spec.initializers!.slice(1)];
  return { ...spec, initializers };
}

function weightsOf(donor: OnnxReader): Map<string, WeightSource> {
  return new Map(
    [...donor.tensors.values()].map(({ name, dtype }) => [
      name,
      { dtype, read: (start, target) => donor.read(name, start, target) },
    ]),
  );
}

const sameWeights = weightsOf;

function constant(values: readonly number[]): WeightSource {
  const bytes = new Uint8Array(Float32Array.from(values).buffer);
  return {
    dtype: "f32",
    read: (start, target) => target.set(bytes.subarray(start * 4, start * 4 + target.length)),
  };
}

/** The weight truncated to bfloat16. */
function halfSource(reader: OnnxReader, name: string): WeightSource {
  return {
    dtype: "bf16",
    read: (start, target) => {
      const full = new Uint16Array(target.length);
      reader.read(name, start, new Uint8Array(full.buffer));
      const half = Uint16Array.from({ length: target.length / 2 }, (_, i) => full[2 * i + 1]!);
      target.set(new Uint8Array(half.buffer));
    },
  };
}

async function logits(path: string): Promise<number[]> {
  const session = await InferenceSession.create(path, sessionOptions);
  const { logits } = await session.run(feedsOf("input_ids", [2, 5]));
  await session.release();
  return [...(logits!.data as Float32Array)];
}
