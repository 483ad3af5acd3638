import { cpSync, writeFileSync } from "node:fs";
import { afterAll, describe, expect, it } from "vitest";
import { MendelError } from "../../src/base/errors.ts";
import { naturalOrder } from "../../src/base/natural-order.ts";
import { formats, openModel } from "../../src/formats/index.ts";
import { dtypeBytes } from "../../src/tensors/dtype.ts";
import type { ModelFormat, ModelReader } from "../../src/tensors/model-reader.ts";
import { elementCount } from "../../src/tensors/shape.ts";
import { inFolder } from "../hostile/safetensors-bytes.ts";

const base = openModel("examples/tinylm/models/base");
afterAll(() => base.close());

/** A real model of every format; a new format needs a line here. */
const samples: Readonly<
  Record<ModelFormat, () => { readonly path: string; readonly base?: ModelReader }>
> = {
  safetensors: () => ({ path: "examples/digits/models/rotate/model.safetensors" }),
  hf: () => ({ path: "examples/tinylm/models/base" }),
  onnx: () => ({ path: "examples/digits/models/base/model.onnx" }),
  lora: () => ({ path: "test/fixtures/lora-math", base }),
};

function bytesOf(model: ModelReader, name: string, start: number, count: number): Uint8Array {
  const tensor = model.tensors.get(name);
  if (tensor === undefined) throw new Error(name);
  const bytes = new Uint8Array(count * dtypeBytes[tensor.dtype]);
  model.read(name, start, bytes);
  return bytes;
}

describe.each(Object.keys(formats) as ModelFormat[])("format %s", (name) => {
  const open = (): ModelReader => {
    const { path, ...options } = samples[name]();
    return openModel(path, options);
  };

  it("is recognized by its content", () => {
    const model = open();
    expect(model.format).toBe(name);
    expect(model.path).toBe(samples[name]().path);
    model.close();
  });

  it("lists absolute files and tensors in natural order under unique names", () => {
    const model = open();
    expect(model.files.length).toBeGreaterThan(0);
    for (const file of model.files) expect(file.startsWith("/")).toBe(true);
    const names = [...model.tensors.keys()];
    expect(names.length).toBeGreaterThan(0);
    expect(names).toEqual([...names].sort(naturalOrder));
    for (const [key, tensor] of model.tensors) {
      expect(tensor.name).toBe(key);
      expect(tensor.aliases).not.toContain(key);
      expect(Object.keys(dtypeBytes)).toContain(tensor.dtype);
    }
    model.close();
  });

  it("reads any part of a tensor as it reads the whole", () => {
    const model = open();
    for (const [key, { shape, dtype }] of model.tensors) {
      const count = elementCount(shape);
      const width = dtypeBytes[dtype];
      const whole = bytesOf(model, key, 0, count);
      const third = Math.floor(count / 3);
      const rest = bytesOf(model, key, third, count - third);
      expect(Buffer.compare(rest, whole.subarray(third * width))).toBe(0);
      expect(bytesOf(model, key, count, 0)).toHaveLength(0);
      const start = bytesOf(model, key, 0, third);
      expect(Buffer.compare(start, whole.subarray(0, third * width))).toBe(0);
    }
    model.close();
  });

  it("reads the same from every opening", () => {
    const first = open();
    const second = open();
    expect([...second.tensors]).toEqual([...first.tensors]);
    for (const [key, { shape }] of first.tensors) {
      const count = elementCount(shape);
      const [a, b] = [first, second].map((model) => bytesOf(model, key, 0, count));
      expect(Buffer.compare(a as Uint8Array, b as Uint8Array)).toBe(0);
    }
    first.close();
    second.close();
  });

  it("refuses unknown names, reads past the end, and reads after close", () => {
    const model = open();
    const [key, tensor] = [...model.tensors][0] ?? [];
    if (key === undefined || tensor === undefined) throw new Error("no tensor");
    expect(() => model.read("no.such.tensor", 0, new Uint8Array(4))).toThrow(
      expect.objectContaining({ code: "not-found" }),
    );
    const count = elementCount(tensor.shape);
    expect(() => bytesOf(model, key, count, 1)).toThrow();
    expect(() => bytesOf(model, key, -1, 1)).toThrow();
    const changed = name === "lora" ? "model.layers.0.mlp.up_proj.weight" : key;
    model.close();
    model.close();
    expect(() => bytesOf(model, changed, 0, 1)).toThrow();
  });

  it("refuses files cut short with a MendelError", () => {
    inFolder((folder) => {
      const source = samples[name]();
      const model = open();
      const own = model.files.filter((file) => !base.files.includes(file) || name !== "lora");
      model.close();
      cpSync(source.path, `${folder}/copy`, { recursive: true });
      for (const file of own) {
        const copy = file.endsWith(source.path)
          ? `${folder}/copy`
          : file.replace(/^.*\/(?=[^/]+$)/, `${folder}/copy/`);
        writeFileSync(copy, new Uint8Array(4));
      }
      const { path: _, ...options } = source;
      expect(() => openModel(`${folder}/copy`, { ...options, hint: name })).toThrow(MendelError);
    });
  });
});
