import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { openSafetensors, openSafetensorsFiles } from "../../src/formats/safetensors.ts";
import { SafetensorsWriter, type TensorSpec } from "../../src/formats/safetensors-writer.ts";
import { type Dtype, dtypeBytes } from "../../src/tensors/dtype.ts";
import type { ModelReader } from "../../src/tensors/model-reader.ts";
import { elementCount } from "../../src/tensors/shape.ts";
import { inFolder } from "../hostile/safetensors-bytes.ts";

function readAll(model: ModelReader, name: string): Uint8Array {
  const tensor = model.tensors.get(name);
  if (tensor === undefined) throw new Error(name);
  const bytes = new Uint8Array(elementCount(tensor.shape) * dtypeBytes[tensor.dtype]);
  model.read(name, 0, bytes);
  return bytes;
}

function copyModel(model: ModelReader, target: string, maxShardBytes?: number): readonly string[] {
  const writer = new SafetensorsWriter(target, [...model.tensors.values()], {
    metadata: model.metadata,
    ...(maxShardBytes === undefined ? {} : { maxShardBytes }),
  });
  for (const name of model.tensors.keys()) writer.write(name, readAll(model, name));
  return writer.finish().map(({ path }) => path);
}

const specs: readonly TensorSpec[] = [
  { name: "b", dtype: "u8", shape: [3] },
  { name: "a", dtype: "f32", shape: [2] },
  { name: "c", dtype: "f32", shape: [] },
];

describe("SafetensorsWriter", () => {
  // Both files were written by the reference library (Python, 0.8).
  it.each([
    "examples/digits/models/rotate/model.safetensors",
    "examples/tinylm/models/base/model.safetensors",
  ])("writes %s byte for byte as the reference writer did", (path) => {
    inFolder((folder) => {
      const model = openSafetensors(path);
      const target = join(folder, "copy.safetensors");
      copyModel(model, target);
      model.close();
      expect(readFileSync(target).equals(readFileSync(path))).toBe(true);
    });
  });

  it("returns what was written, for any tensors, in any order and in pieces", () => {
    const spec = fc.record({
      name: fc.string({ unit: "grapheme" }),
      dtype: fc.constantFrom(...(Object.keys(dtypeBytes) as Dtype[])),
      shape: fc.array(fc.nat(4), { maxLength: 3 }),
    });
    const tensors = fc
      .uniqueArray(spec, { selector: ({ name }) => name, maxLength: 7 })
      // biome-ignore lint/suspicious/noControlCharactersInRegex: the format refuses these
      .filter((list) => list.every(({ name }) => !/[\u0000-\u001f\u007f]/.test(name)));
    fc.assert(
      fc.property(
        tensors,
        fc.option(fc.integer({ min: 1, max: 200 })),
        fc.boolean(),
        (list, limit, given) => {
          inFolder((folder) => {
            const writer = new SafetensorsWriter(join(folder, "m.safetensors"), list, {
              order: given ? "given" : "size",
              ...(limit === null ? {} : { maxShardBytes: limit }),
            });
            const content = new Map(
              list.map(({ name, dtype, shape }, t) => [
                name,
                new Uint8Array(elementCount(shape) * dtypeBytes[dtype]).map((_, i) => (t + i) % 2),
              ]),
            );
            for (const { name, dtype } of [...list].reverse()) {
              const bytes = content.get(name) as Uint8Array;
              writer.write(name, bytes.subarray(0, Math.min(bytes.length, dtypeBytes[dtype])));
              writer.write(name, bytes.subarray(dtypeBytes[dtype]));
            }
            const files = writer
              .finish()
              .map(({ path }) => path)
              .filter((path) => path.endsWith(".safetensors"));
            const model = openSafetensorsFiles(folder, "safetensors", files);
            expect(model.tensors.size).toBe(list.length);
            for (const { name, dtype, shape } of list) {
              expect(model.tensors.get(name)).toMatchObject({ dtype, shape });
              expect(readAll(model, name)).toEqual(content.get(name));
            }
            model.close();
          });
        },
      ),
      { numRuns: 60 },
    );
  });

  it("puts wide types first, or keeps the caller's order", () => {
    inFolder((folder) => {
      const headerOf = (order: "size" | "given"): string => {
        const target = join(folder, `${order}.safetensors`);
        const writer = new SafetensorsWriter(target, specs, { order });
        for (const { name, dtype, shape } of specs) {
          writer.write(name, new Uint8Array(elementCount(shape) * dtypeBytes[dtype]));
        }
        writer.finish();
        const bytes = readFileSync(target);
        const length = Number(bytes.readBigUInt64LE(0));
        expect(length % 8).toBe(0);
        return bytes.subarray(8, 8 + length).toString();
      };
      expect(headerOf("size").match(/"[abc]"/g)).toEqual(['"a"', '"c"', '"b"']);
      expect(headerOf("given").match(/"[abc]"/g)).toEqual(['"b"', '"a"', '"c"']);
    });
  });

  it("splits a model into shards that the index describes, and none beyond the limit", () => {
    inFolder((folder) => {
      const model = openSafetensors("examples/tinylm/models/base/model.safetensors");
      const files = copyModel(model, join(folder, "model.safetensors"), 700_000);
      expect(files.map((path) => path.slice(folder.length + 1))).toEqual([
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
        "model.safetensors.index.json",
      ]);
      const index = JSON.parse(readFileSync(files[3] as string, "utf8"));
      expect(index.metadata.total_size).toBe(1_379_520);
      expect(Object.keys(index.weight_map).sort()).toEqual([...model.tensors.keys()].sort());
      const copy = openSafetensorsFiles(folder, "hf", files.slice(0, 3));
      for (const path of files.slice(0, 3)) {
        const shard = openSafetensors(path);
        const sizes = [...shard.tensors.keys()].map((name) => readAll(shard, name).length);
        expect(sizes.reduce((a, b) => a + b)).toBeLessThanOrEqual(700_000);
        shard.close();
      }
      for (const name of model.tensors.keys()) {
        expect(Buffer.compare(readAll(copy, name), readAll(model, name))).toBe(0);
      }
      copy.close();
      model.close();
    });
  });

  it("A30: saves over a file whose tensors it is reading", () => {
    inFolder((folder) => {
      const path = join(folder, "m.safetensors");
      writeFileSync(path, readFileSync("examples/digits/models/rotate/model.safetensors"));
      const model = openSafetensors(path);
      copyModel(model, path);
      model.close();
      const before = readFileSync("examples/digits/models/rotate/model.safetensors");
      expect(readFileSync(path).equals(before)).toBe(true);
    });
  });

  it("leaves nothing behind when it gives up, and refuses to finish half a tensor", () => {
    inFolder((folder) => {
      const target = join(folder, "m.safetensors");
      const writer = new SafetensorsWriter(target, specs, { maxShardBytes: 4 });
      writer.write("c", new Uint8Array(4));
      writer.discard();
      writer.discard();
      expect(readdirSync(folder)).toEqual([]);
      const half = new SafetensorsWriter(target, specs);
      half.write("a", new Uint8Array(4));
      expect(() => half.finish()).toThrow(/tensor a got 4 of 8 bytes/);
      expect(readdirSync(folder)).toEqual([]);
      expect(existsSync(target)).toBe(false);
    });
  });

  it("refuses too many bytes, part elements and unannounced tensors", () => {
    inFolder((folder) => {
      const writer = new SafetensorsWriter(join(folder, "m.safetensors"), specs);
      expect(() => writer.write("a", new Uint8Array(12))).toThrow(/12 bytes after 0 of 8/);
      expect(() => writer.write("a", new Uint8Array(3))).toThrow(/3 bytes/);
      expect(() => writer.write("x", new Uint8Array(4))).toThrow(/not announced/);
      writer.discard();
    });
  });

  it.each<readonly [string, readonly TensorSpec[], Readonly<Record<string, string>>, RegExp]>([
    [
      "A23 metadata that no reader would take",
      [],
      { a: "x".repeat(100_000_000) },
      /header of 1000000\d\d bytes/,
    ],
    [
      "A29 an unknown dtype",
      [{ name: "a", dtype: "f33" as Dtype, shape: [1] }],
      {},
      /unknown dtype/,
    ],
    ["a repeated name", [specs[0] as TensorSpec, specs[0] as TensorSpec], {}, /twice/],
    ["a control character", [{ name: "a\0", dtype: "f32", shape: [1] }], {}, /does not allow/],
    [
      "the metadata's own name",
      [{ name: "__metadata__", dtype: "f32", shape: [1] }],
      {},
      /does not allow/,
    ],
    ["a negative dimension", [{ name: "a", dtype: "f32", shape: [-1] }], {}, /shape \[-1\]/],
    ["an absurd shape", [{ name: "a", dtype: "f32", shape: [2 ** 40, 2 ** 40] }], {}, /shape/],
  ])("refuses to write %s", (_name, list, metadata, message) => {
    inFolder((folder) => {
      const target = join(folder, "m.safetensors");
      expect(() => new SafetensorsWriter(target, list, { metadata })).toThrow(
        expect.objectContaining({ code: "unsupported", message: expect.stringMatching(message) }),
      );
      expect(readdirSync(folder)).toEqual([]);
    });
  });

  it("says that a target cannot be written", () => {
    inFolder((folder) => {
      mkdirSync(join(folder, "m.safetensors"));
      const writer = new SafetensorsWriter(join(folder, "m.safetensors"), []);
      expect(() => writer.finish()).toThrow(expect.objectContaining({ code: "resource" }));
      expect(readdirSync(folder)).toEqual(["m.safetensors"]);
    });
  });
});
