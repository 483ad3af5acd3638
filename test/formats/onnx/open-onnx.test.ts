import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { ModelSpec, TensorSpec } from "../../../src/formats/onnx/onnx-builder.ts";
import { TensorBytes } from "../../../src/formats/onnx/tensor-bytes.ts";
import { openSafetensors } from "../../../src/formats/safetensors.ts";
import type { Dtype } from "../../../src/tensors/dtype.ts";
import { elementCount } from "../../../src/tensors/shape.ts";
import { example, openModel, readAll, readFloats } from "./onnx-files.ts";
import {
  type ExportStyle,
  hidden,
  stateDict,
  tinyTransformer,
  transposed,
  valuesOf,
} from "./tiny-transformer.ts";

const styles: readonly ExportStyle[] = ["state-dict", "folded", "anonymous"];

describe("shipped models", () => {
  it("finds the weights of the multilayer perceptron", () => {
    const reader = openModel(example("digits/models/base/model.onnx"));
    const layers = [0, 1, 2, 3].flatMap((i) => [`layers.${i}.bias`, `layers.${i}.weight`]);
    expect([...reader.tensors.keys()]).toEqual(layers);
    expect(reader.tensors.get("layers.3.weight")).toMatchObject({
      shape: [10, 64],
      dtype: "f32",
      transposed: false,
      namedBy: "file",
      graphPosition: { node: 3, slot: 1, op: "Gemm" },
    });
    expect(reader.metadata).toEqual({ family: "digits", model: "base" });
  });

  it("finds running statistics of a convolutional network", () => {
    const reader = openModel(example("digits-cnn/models/base/model.onnx"));
    const norm = (i: number) =>
      ["bias", "running_mean", "running_var", "weight"].map((part) => `bn${i}.${part}`);
    expect([...reader.tensors.keys()]).toEqual([
      ...norm(1),
      ...norm(2),
      "conv1.weight",
      "conv2.bias",
      "conv2.weight",
      "fc.bias",
      "fc.weight",
    ]);
  });

  it("holds the tensors of the checkpoint it was exported from, which is rounded to bfloat16", () => {
    const onnx = openModel(example("tinylm/models/base/model.onnx"));
    const checkpoint = openSafetensors(example("tinylm/models/base/model.safetensors"));
    expect([...onnx.tensors.keys()]).toEqual([...checkpoint.tensors.keys()]);
    for (const [name, { shape, dtype }] of checkpoint.tensors) {
      expect(onnx.tensors.get(name)!.shape).toEqual(shape);
      expect(dtype).toBe("bf16");
      const expected = new Uint16Array(elementCount(shape));
      checkpoint.read(name, 0, new Uint8Array(expected.buffer));
      const bits = new Uint32Array(readAll(onnx, name).buffer);
      expect(Uint16Array.from(bits, roundToBfloat16), name).toEqual(expected);
    }
    checkpoint.close();
  });
});

describe("logical names", () => {
  it.each(["state-dict", "folded"] as const)("are those of the state dict (%s export)", (style) => {
    const reader = openModel(tinyTransformer(style));
    const expected = stateDict(2);
    expect(new Set(reader.tensors.keys())).toEqual(new Set(expected.keys()));
    for (const [name, shape] of expected) {
      const weight = reader.tensors.get(name)!;
      expect(weight.shape, name).toEqual(shape);
      expect(readFloats(reader, name), name).toEqual(valuesOf(name, shape, 1));
      const folded = style === "folded" && name.match(/_proj.weight|lm_head/) !== null;
      expect(weight.transposed, name).toBe(folded);
      expect(weight.namedBy, name).toBe(folded ? "node" : "file");
    }
  });

  it("stay automatic in an anonymous graph, where positions and the signature pair the weights", () => {
    const [named, folded, anonymous] = styles.map((style) => openModel(tinyTransformer(style)));
    expect(folded!.signature).toEqual(named!.signature);
    expect(anonymous!.signature).toEqual(named!.signature);
    const key = (position: object | undefined) => JSON.stringify(position);
    const byPosition = new Map(
      [...anonymous!.tensors.values()].map((weight) => [key(weight.graphPosition), weight]),
    );
    expect(byPosition.size).toBe(named!.tensors.size);
    for (const weight of named!.tensors.values()) {
      const twin = byPosition.get(key(weight.graphPosition))!;
      expect(twin.namedBy).toBe("automatic");
      expect(twin.name).toBe(twin.storedName);
      expect(readAll(anonymous!, twin.name)).toEqual(readAll(named!, weight.name));
    }
  });

  it("are taken from torch's scope metadata where nodes are named by number", () => {
    const scopes = "['', 'model', 'model.fc', 'linear']";
    const spec = linearModel({ name: "val_7", transB: 0 });
    const metadata = { "pkg.torch.onnx.name_scopes": scopes };
    const nodes = spec.nodes.map((node) => ({ ...node, name: "node_linear_1", metadata }));
    const reader = openModel({ ...spec, nodes });
    expect([...reader.tensors.keys()]).toEqual(["model.fc.weight"]);
  });

  it.each([
    { name: "val_7", transB: 0, logical: [3, 2] },
    { name: "val_7", transB: 1, logical: [2, 3] },
    { name: "h.0.c_attn.weight", transB: 0, logical: [2, 3] },
    { name: "fc.weight", transB: 1, logical: [2, 3] },
  ])("decide the layout of a Gemm weight: $name, transB=$transB", ({ name, transB, logical }) => {
    const [weight] = openModel(linearModel({ name, transB })).tensors.values();
    expect(weight!.shape).toEqual(logical);
  });

  it("never transpose a table that Gather reads", () => {
    const spec = tinyTransformer("anonymous");
    const table = [...openModel(spec).tensors.values()].find(
      (w) => w.graphPosition?.op === "Gather",
    );
    expect(table).toMatchObject({ transposed: false, shape: [16, hidden] });
  });

  it("do not depend on the order of nodes in the file", () => {
    const spec = tinyTransformer("folded");
    const shuffled = openModel({ ...spec, nodes: [...spec.nodes].reverse() });
    const straight = openModel(spec);
    for (const [name, weight] of straight.tensors) {
      expect(shuffled.tensors.get(name)!.graphPosition).toEqual(weight.graphPosition);
    }
    expect(shuffled.signature).toEqual(straight.signature);
  });

  it("tell different networks apart", () => {
    const digests = [1, 2, 3].map((n) => openModel(tinyTransformer("folded", n)).signature.digest);
    expect(new Set(digests).size).toBe(3);
  });
});

describe("shared weights", () => {
  it("list the names that Identity nodes give a deduplicated weight", () => {
    const reader = openModel(deduplicated());
    expect([...reader.tensors.keys()]).toEqual(["a.weight"]);
    expect(reader.tensors.get("a.weight")!.aliases).toEqual(["b.weight"]);
    expect(readFloats(reader, "b.weight")).toEqual(readFloats(reader, "a.weight"));
  });

  it("are one tensor when an output layer is tied to the embedding", () => {
    const table = floats("wte.weight", [4, 2]);
    const reader = openModel({
      nodes: [
        { op: "Gather", name: "/wte/Gather", inputs: ["wte.weight", "ids"], outputs: ["x"] },
        { op: "Transpose", name: "/lm_head/Transpose", inputs: ["wte.weight"], outputs: ["t"] },
        { op: "MatMul", name: "/lm_head/MatMul", inputs: ["x", "t"], outputs: ["y"] },
      ],
      inputs: [{ name: "ids", dtype: "i64", shape: ["n"] }],
      outputs: [{ name: "y", dtype: "f32", shape: ["n", 4] }],
      initializers: [table],
    });
    expect([...reader.tensors.keys()]).toEqual(["wte.weight"]);
    expect(reader.tensors.get("wte.weight")!.aliases).toEqual(["lm_head.weight"]);
  });
});

describe("what counts as a weight", () => {
  const scalar = { name: "/Constant_3_output_0", dtype: "f32", shape: [], elements: [2] } as const;
  it.each<[string, string, TensorSpec, number, boolean]>([
    ["a float matrix", "MatMul", floats("w", [3, 3]), 1, true],
    ["a named scalar", "Mul", { name: "scale", dtype: "f32", shape: [], elements: [2] }, 1, true],
    ["a scalar without a name of its own", "Mul", scalar, 1, false],
    ["a bound of Clip", "Clip", { name: "low", dtype: "f32", shape: [], elements: [0] }, 1, false],
    ["a shape", "Reshape", { name: "shape", dtype: "i64", shape: [2], elements: [3, 3] }, 1, false],
    ["an index", "Gather", { name: "index", dtype: "i64", shape: [1], elements: [0] }, 1, false],
    [
      "a table of integers",
      "Gather",
      { name: "ids", dtype: "i64", shape: [9], elements: nine },
      0,
      true,
    ],
  ])("%s in slot of %s", (_, op, tensor, slot, expected) => {
    const inputs = slot === 0 ? [tensor.name!, "x"] : ["x", tensor.name!];
    const reader = openModel({
      nodes: [{ op, inputs, outputs: ["y"], name: `/fc/${op}` }],
      inputs: [{ name: "x", dtype: "f32", shape: [3, 3] }],
      outputs: [{ name: "y", dtype: "f32", shape: [3, 3] }],
      initializers: [tensor],
    });
    expect(reader.tensors.size).toBe(expected ? 1 : 0);
  });

  it.each([
    [[4, 4], true],
    [[15], false],
  ])("a Constant of shape %j: %s", (shape, expected) => {
    const count = shape.reduce((a, b) => a * b, 1);
    const value: TensorSpec = { dtype: "f32", shape, elements: new Float32Array(count) };
    const reader = openModel({
      nodes: [
        {
          op: "Constant",
          inputs: [],
          outputs: ["fc.weight"],
          attributes: { value: { tensor: value } },
        },
        { op: "Mul", name: "/fc/Mul", inputs: ["x", "fc.weight"], outputs: ["y"] },
      ],
      inputs: [{ name: "x", dtype: "f32", shape }],
      outputs: [{ name: "y", dtype: "f32", shape }],
    });
    expect([...reader.tensors.keys()]).toEqual(expected ? ["fc.weight"] : []);
  });
});

describe("reading", () => {
  it.each<[Dtype, number[]]>([
    ["f32", [1.5, -2, 0.25, 3, 4, -0.5]],
    ["f64", [1.5, -2, 0.1, 3, 4, 5]],
    ["i64", [1, -2, 2 ** 40, -(2 ** 40), 0, 7]],
    ["i32", [1, -2, 2 ** 30, -(2 ** 30), 0, 7]],
    ["i16", [1, -2, 300, -300, 0, 7]],
    ["i8", [1, -2, 127, -128, 0, 7]],
    ["u8", [1, 2, 255, 0, 128, 7]],
    ["u32", [1, 2, 2 ** 31 - 1, 0, 128, 7]],
  ])("typed %s fields are the same elements as raw data", (dtype, elements) => {
    const tensor = { name: "t", dtype, shape: [6], elements };
    const bytes = (["raw", "typed"] as const).map((store) => {
      const reader = openModel(sliceModel({ ...tensor, store }));
      const [initializer] = reader.graph.graph.initializers;
      const target = new Uint8Array(readSize(dtype) * 6);
      reader.readStored(initializer!, 0, target);
      return target;
    });
    expect(bytes[1]).toEqual(bytes[0]);
  });

  it("typed half-precision fields hold bit patterns", () => {
    const bits = Uint16Array.from([0x3c00, 0xbc00, 0x7c00, 1, 0x8000, 0xffff]);
    const elements = { bytes: new Uint8Array(bits.buffer) };
    const tensor: TensorSpec = { name: "t", dtype: "bf16", shape: [6], elements, store: "typed" };
    expect(new Uint16Array(readAll(openModel(sliceModel(tensor)), "t").buffer)).toEqual(bits);
  });

  it("gives the same elements block by block, transposed or not", () => {
    const reader = openModel(tinyTransformer("folded"));
    const names = [...reader.tensors.keys()];
    fc.assert(
      fc.property(
        fc.constantFrom(...names),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (name, a, b) => {
          const all = readAll(reader, name);
          const count = all.length / 4;
          const [start, end] = [a, b].map((x) => Math.floor(x * count)).sort((x, y) => x - y);
          const part = new Uint8Array((end! - start!) * 4);
          reader.read(name, start!, part);
          expect(part).toEqual(all.subarray(start! * 4, end! * 4));
        },
      ),
    );
  });

  it("turns large matrices around panel by panel", () => {
    const columns = 7;
    const rows = 10;
    const reader = openModel(sliceModel(floats("t", [columns, rows])));
    const [tensor] = reader.graph.graph.initializers;
    const whole = transposed(new Float32Array(readAll(reader, "t").buffer), columns, rows);
    // Panels of three rows of the transpose, the last of one.
    const bytes = new TensorBytes(reader.graph.source, reader.external, 3 * columns * 4);
    for (let start = 0; start < whole.length; start += 5) {
      const part = new Float32Array(Math.min(17, whole.length - start));
      bytes.readTransposed(tensor!, start, new Uint8Array(part.buffer));
      expect(part).toEqual(whole.slice(start, start + part.length));
    }
  });

  it("refuses unknown names with a suggestion", () => {
    const reader = openModel(example("digits/models/base/model.onnx"));
    expect(() => reader.read("layers.3.wieght", 0, new Uint8Array(4))).toThrow(
      expect.objectContaining({
        code: "not-found",
        hint: expect.stringContaining("layers.3.weight"),
      }),
    );
  });
});

/** Upper half of a float32's bits, rounded to nearest even; finite values only. */
function roundToBfloat16(bits: number): number {
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

const nine = [0, 1, 2, 3, 4, 5, 6, 7, 8];

function floats(name: string, shape: readonly number[]): TensorSpec {
  const count = shape.reduce((product, dim) => product * dim, 1);
  return { name, dtype: "f32", shape, elements: Float32Array.from({ length: count }, (_, i) => i) };
}

function readSize(dtype: Dtype): number {
  return { f64: 8, i64: 8, i16: 2, i8: 1, u8: 1 }[dtype as string] ?? 4;
}

function sliceModel(tensor: TensorSpec): ModelSpec {
  return {
    nodes: [{ op: "Gather", inputs: ["t", "i"], outputs: ["y"] }],
    inputs: [{ name: "i", dtype: "i64", shape: [1] }],
    outputs: [{ name: "y", dtype: tensor.dtype, shape: [1] }],
    initializers: [tensor],
  };
}

function linearModel({ name, transB }: { name: string; transB: number }): ModelSpec {
  return {
    nodes: [
      {
        op: "Gemm",
        name: "/fc/Gemm",
        inputs: ["x", name],
        outputs: ["y"],
        attributes: { transB: { int: transB } },
      },
    ],
    inputs: [{ name: "x", dtype: "f32", shape: [1, transB === 0 ? 2 : 3] }],
    outputs: [{ name: "y", dtype: "f32", shape: [1, transB === 0 ? 3 : 2] }],
    initializers: [floats(name, [2, 3])],
  };
}

function deduplicated(): ModelSpec {
  return {
    nodes: [
      { op: "Identity", name: "id", inputs: ["a.weight"], outputs: ["b.weight"] },
      { op: "Mul", name: "/a/Mul", inputs: ["x", "a.weight"], outputs: ["m"] },
      { op: "Mul", name: "/b/Mul", inputs: ["m", "b.weight"], outputs: ["y"] },
    ],
    inputs: [{ name: "x", dtype: "f32", shape: [4] }],
    outputs: [{ name: "y", dtype: "f32", shape: [4] }],
    initializers: [floats("a.weight", [4])],
  };
}
