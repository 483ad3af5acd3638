import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { buildOnnx, type ModelSpec, type TensorSpec } from "../../src/formats/onnx/onnx-builder.ts";
import type { OnnxReader } from "../../src/formats/onnx/open-onnx.ts";
import { transposeBytes } from "../../src/formats/onnx/tensor-bytes.ts";
import { writeOnnx } from "../../src/formats/onnx/write-onnx.ts";
import {
  buildWeightFeed,
  type FedTensor,
  type FeedKind,
  inputFeedProblems,
  type WeightFeed,
} from "../../src/graph/weight-feed.ts";
import { dtypeBytes } from "../../src/tensors/dtype.ts";
import {
  example,
  feedsOf,
  freshFolder,
  openModel,
  readAll,
  sessionOptions,
} from "../formats/onnx/onnx-files.ts";
import { tinyTransformer } from "../formats/onnx/tiny-transformer.ts";

const feeds: readonly FeedKind[] = ["inputs", "session"];

interface Case {
  readonly title: string;
  readonly model: string | ModelSpec;
  readonly input: string;
  readonly shape: readonly number[];
}

const cases: readonly Case[] = [
  {
    title: "multilayer perceptron",
    model: example("digits/models/base/model.onnx"),
    input: "image",
    shape: [3, 64],
  },
  {
    title: "convolutional network",
    model: example("digits-cnn/models/base/model.onnx"),
    input: "image",
    shape: [3, 1, 8, 8],
  },
  ...(["state-dict", "folded", "anonymous"] as const).map((style) => ({
    title: `transformer, ${style} export`,
    model: tinyTransformer(style),
    input: "input_ids",
    shape: [2, 5],
  })),
];

describe.each(cases)("$title", ({ model, input, shape }) => {
  it.each(feeds)("computes the same through the %s feed", async (feed) => {
    const reader = openModel(model);
    const names = [...reader.tensors.keys()];
    const expected = await runFile(reader.path, input, shape);
    for (const chosen of [names, names.slice(0, 2), names.slice(-1), []]) {
      for (const embedLimit of [undefined, 0]) {
        const options = {
          feed,
          names: chosen,
          ...(embedLimit === undefined ? {} : { embedLimit }),
        };
        const built = buildWeightFeed(reader, options);
        expect(built.tensors.map((tensor) => tensor.name)).toEqual(chosen);
        expect(await runFeed(built, ownSlab(built, reader), input, shape)).toEqual(expected);
      }
    }
  });

  it.each(feeds)(
    "computes with other weights as if they were in the file (%s feed)",
    async (feed) => {
      const reader = openModel(model);
      const built = buildWeightFeed(reader, { feed, names: reader.tensors.keys() });
      const slab = ownSlab(built, reader);
      const values = new Float32Array(slab.buffer);
      for (let i = 0; i < values.length; i += 3) values[i]! *= 1.25;
      const out = join(freshFolder(), "changed.onnx");
      const replace = new Map(
        built.tensors.map((fed) => [fed.name, { dtype: fed.dtype, read: logicalRead(fed, slab) }]),
      );
      await writeOnnx(reader, out, replace);
      const changed = await runFile(out, input, shape);
      expect(await runFeed(built, slab, input, shape)).toEqual(changed);
      expect(changed).not.toEqual(await runFile(reader.path, input, shape));
    },
  );
});

describe("what is fed", () => {
  it("lies in one slab, aligned and without overlap", () => {
    const reader = openModel(tinyTransformer("folded"));
    const { tensors, slabBytes } = buildWeightFeed(reader, {
      feed: "inputs",
      names: reader.tensors.keys(),
    });
    let end = 0;
    for (const { offset, byteLength } of tensors) {
      expect(offset % 64).toBe(0);
      expect(offset).toBeGreaterThanOrEqual(end);
      end = offset + byteLength;
    }
    expect(slabBytes).toBe(end);
  });

  it("is described as the graph wants it", () => {
    const reader = openModel(tinyTransformer("folded"));
    const name = "model.layers.0.mlp.up_proj.weight";
    const [fed] = buildWeightFeed(reader, { feed: "inputs", names: [name] }).tensors;
    expect(reader.tensors.get(name)!.shape).toEqual([12, 8]);
    expect(fed).toMatchObject({ shape: [8, 12], transposed: true, dtype: "f32" });
    expect(fed!.graphName).toBe(reader.tensors.get(name)!.storedName);
  });

  it.each(feeds)("may be a Constant node's tensor (%s feed)", async (feed) => {
    const elements = Float32Array.from({ length: 16 }, (_, i) => i - 8);
    const value: TensorSpec = { dtype: "f32", shape: [4, 4], elements };
    const reader = openModel({
      nodes: [
        { op: "Constant", inputs: [], outputs: ["w"], attributes: { value: { tensor: value } } },
        { op: "MatMul", inputs: ["image", "w"], outputs: ["logits"] },
      ],
      inputs: [{ name: "image", dtype: "f32", shape: [2, 4] }],
      outputs: [{ name: "logits", dtype: "f32", shape: [2, 4] }],
    });
    const expected = await runFile(reader.path, "image", [2, 4]);
    const built = buildWeightFeed(reader, { feed, names: ["w"] });
    expect(await runFeed(built, ownSlab(built, reader), "image", [2, 4])).toEqual(expected);
  });

  it.each(feeds)("may be wanted inside a subgraph (%s feed)", async (feed) => {
    const branch = (op: string) => ({
      graph: {
        nodes: [{ op, inputs: ["image", "w"], outputs: [`${op}ed`] }],
        inputs: [],
        outputs: [{ name: `${op}ed`, dtype: "f32", shape: [2] }],
      } as const,
    });
    const reader = openModel({
      nodes: [
        {
          op: "ReduceSum",
          inputs: ["image"],
          outputs: ["sum"],
          attributes: { keepdims: { int: 0 } },
        },
        { op: "Cast", inputs: ["sum"], outputs: ["yes"], attributes: { to: { int: 9 } } },
        {
          op: "If",
          inputs: ["yes"],
          outputs: ["logits"],
          attributes: { then_branch: branch("Mul"), else_branch: branch("Add") },
        },
      ],
      inputs: [{ name: "image", dtype: "f32", shape: [2] }],
      outputs: [{ name: "logits", dtype: "f32", shape: [2] }],
      initializers: [{ name: "w", dtype: "f32", shape: [2], elements: [3, 5] }],
    });
    expect([...reader.tensors.keys()]).toEqual(["w"]);
    const expected = await runFile(reader.path, "image", [2]);
    const built = buildWeightFeed(reader, { feed, names: ["w"] });
    expect(await runFeed(built, ownSlab(built, reader), "image", [2])).toEqual(expected);
  });
});

describe("shared weights", () => {
  const shared: ModelSpec = {
    nodes: [
      { op: "Identity", name: "share", inputs: ["a"], outputs: ["b"] },
      { op: "Mul", name: "/a/Mul", inputs: ["image", "a"], outputs: ["m"] },
      { op: "Add", name: "/b/Add", inputs: ["m", "b"], outputs: ["logits"] },
    ],
    inputs: [{ name: "image", dtype: "f32", shape: [2] }],
    outputs: [{ name: "logits", dtype: "f32", shape: [2] }],
    initializers: [{ name: "a", dtype: "f32", shape: [2], elements: [1, 2] }],
  };
  const image = [0, Math.fround(Math.sin(1))] as const;

  it.each(feeds)("follow the one that is named (%s feed)", async (feed) => {
    const built = buildWeightFeed(openModel(shared), { feed, names: ["a"] });
    const slab = slabOf(built, { a: [3, 4] });
    const expected = [image[0] * 3 + 3, Math.fround(image[1] * 4) + 4].map(Math.fround);
    expect(await runFeed(built, slab, "image", [2])).toEqual(expected);
  });

  it.each(feeds)("get values of their own when both are named (%s feed)", async (feed) => {
    const built = buildWeightFeed(openModel(shared), { feed, names: ["b", "a"] });
    const slab = slabOf(built, { a: [3, 4], b: [10, 20] });
    const expected = [image[0] * 3 + 10, Math.fround(image[1] * 4) + 20].map(Math.fround);
    expect(await runFeed(built, slab, "image", [2])).toEqual(expected);
  });

  it.each(feeds)(
    "leave the original alone when only the alias is named (%s feed)",
    async (feed) => {
      const built = buildWeightFeed(openModel(shared), { feed, names: ["b"] });
      const slab = slabOf(built, { b: [10, 20] });
      const expected = [image[0] + 10, Math.fround(image[1] * 2) + 20].map(Math.fround);
      expect(await runFeed(built, slab, "image", [2])).toEqual(expected);
    },
  );

  it.each(feeds)("untie an output layer from the embedding (%s feed)", async (feed) => {
    const reader = openModel({
      nodes: [
        { op: "Gather", name: "/wte/Gather", inputs: ["wte.weight", "input_ids"], outputs: ["x"] },
        { op: "Transpose", name: "/head/Transpose", inputs: ["wte.weight"], outputs: ["t"] },
        { op: "MatMul", name: "/head/MatMul", inputs: ["x", "t"], outputs: ["logits"] },
      ],
      inputs: [{ name: "input_ids", dtype: "i64", shape: ["n"] }],
      outputs: [{ name: "logits", dtype: "f32", shape: ["n", 16] }],
      initializers: [
        {
          name: "wte.weight",
          dtype: "f32",
          shape: [16, 1],
          elements: new Float32Array(16).fill(1),
        },
      ],
    });
    const built = buildWeightFeed(reader, { feed, names: ["head.weight"] });
    const head = Array.from({ length: 16 }, (_, i) => i);
    expect(await runFeed(built, slabOf(built, { "head.weight": head }), "input_ids", [1])).toEqual(
      head,
    );
  });
});

describe("half precision", () => {
  it("feeds f16 weights as they are, wrapped so that every Node version takes them", async () => {
    const reader = openModel(halves("f16"));
    const expected = await runFile(reader.path, "image", [2]);
    for (const feed of feeds) {
      const built = buildWeightFeed(reader, { feed, names: ["w"] });
      expect(built.tensors[0]!.dtype).toBe("f16");
      expect(await runFeed(built, ownSlab(built, reader), "image", [2])).toEqual(expected);
    }
  });

  it("feeds bf16 weights through sessions only, and says so", async () => {
    const reader = openModel(halves("bf16"));
    expect(inputFeedProblems(reader, ["w"])).toEqual([
      { name: "w", reason: "bfloat16 tensors cannot be graph inputs" },
    ]);
    expect(() => buildWeightFeed(reader, { feed: "inputs", names: ["w"] })).toThrow(
      expect.objectContaining({ code: "unsupported" }),
    );
    const built = buildWeightFeed(reader, { feed: "session", names: ["w"] });
    const expected = await runFile(reader.path, "image", [2]);
    expect(await runFeed(built, ownSlab(built, reader), "image", [2])).toEqual(expected);
  });
});

describe("external data of the original", () => {
  it.each(feeds)("is embedded or passed in memory, never by path (%s feed)", async (feed) => {
    const reader = openModel(example("tinylm/models/base/model.onnx"));
    const path = join(freshFolder(), "external.onnx");
    await writeOnnx(reader, path, new Map(), { externalData: "always" });
    const external = openModel(path);
    const names = ["model.norm.weight", "lm_head.weight"];
    const expected = await runTokens(path);
    for (const embedLimit of [2 ** 30, 0]) {
      const built = buildWeightFeed(external, { feed, names, embedLimit });
      expect(built.externalData.length).toBe(embedLimit === 0 ? 1 : 0);
      expect(Buffer.from(built.model).includes("external.onnx_data")).toBe(false);
      expect(await runFeed(built, ownSlab(built, external), "tokens", [])).toEqual(expected);
    }
  });

  it("reaches tensors inside subgraphs", async () => {
    const folder = freshFolder();
    const store = { external: [["location", "w.bin"]] } as const;
    const inner = { name: "w", dtype: "f32", shape: [2], store } as const;
    const branch = {
      graph: {
        nodes: [{ op: "Add", inputs: ["image", "w"], outputs: ["sum"] }],
        inputs: [],
        outputs: [{ name: "sum", dtype: "f32", shape: [2] }],
        initializers: [inner],
      },
    } as const;
    const bytes = buildOnnx({
      nodes: [
        {
          op: "If",
          inputs: ["yes"],
          outputs: ["logits"],
          attributes: { then_branch: branch, else_branch: branch },
        },
      ],
      inputs: [{ name: "image", dtype: "f32", shape: [2] }],
      outputs: [{ name: "logits", dtype: "f32", shape: [2] }],
      initializers: [{ name: "yes", dtype: "bool", shape: [], elements: [1] }],
    });
    writeFileSync(join(folder, "model.onnx"), bytes);
    writeFileSync(join(folder, "w.bin"), new Uint8Array(Float32Array.from([10, 20]).buffer));
    const built = buildWeightFeed(openModel(join(folder, "model.onnx")), {
      feed: "inputs",
      names: [],
    });
    const expected = [10, Math.fround(Math.fround(Math.sin(1)) + 20)];
    expect(await runFeed(built, new Uint8Array(0), "image", [2])).toEqual(expected);
  });
});

function halves(dtype: "f16" | "bf16"): ModelSpec {
  // 1.5 and -2 as bit patterns.
  const bits = Uint16Array.from(dtype === "f16" ? [0x3e00, 0xc000] : [0x3fc0, 0xc000]);
  return {
    nodes: [
      { op: "Cast", inputs: ["w"], outputs: ["wide"], attributes: { to: { int: 1 } } },
      { op: "Mul", inputs: ["image", "wide"], outputs: ["logits"] },
    ],
    inputs: [{ name: "image", dtype: "f32", shape: [2] }],
    outputs: [{ name: "logits", dtype: "f32", shape: [2] }],
    initializers: [
      { name: "w", dtype, shape: [2], elements: { bytes: new Uint8Array(bits.buffer) } },
    ],
  };
}

/** The slab filled with the model's own weights. */
function ownSlab(feed: WeightFeed, reader: OnnxReader): Uint8Array {
  const slab = new Uint8Array(feed.slabBytes);
  for (const fed of feed.tensors) {
    const logical = readAll(reader, fed.name);
    const [columns, rows] = fed.shape as readonly [number, number];
    const stored = fed.transposed
      ? transposeBytes(logical, rows, columns, dtypeBytes[fed.dtype])
      : logical;
    slab.set(stored, fed.offset);
  }
  return slab;
}

function slabOf(feed: WeightFeed, values: Record<string, readonly number[]>): Uint8Array {
  const slab = new Uint8Array(feed.slabBytes);
  for (const { name, offset } of feed.tensors) {
    slab.set(new Uint8Array(Float32Array.from(values[name]!).buffer), offset);
  }
  return slab;
}

/** A fed tensor's values read in logical layout, for the writer. */
function logicalRead(fed: FedTensor, slab: Uint8Array): (start: number, out: Uint8Array) => void {
  const stored = slab.slice(fed.offset, fed.offset + fed.byteLength);
  const [columns, rows] = fed.shape as readonly [number, number];
  const logical = fed.transposed ? transposeBytes(stored, columns, rows, 4) : stored;
  return (start, out) => out.set(logical.subarray(start * 4, start * 4 + out.length));
}

async function runFile(path: string, input: string, shape: readonly number[]): Promise<number[]> {
  const session = await InferenceSession.create(path, sessionOptions);
  return finish(session, inputsOf(input, shape));
}

function runTokens(path: string): Promise<number[]> {
  return runFile(path, "tokens", []);
}

function inputsOf(input: string, shape: readonly number[]): Record<string, Tensor> {
  if (input !== "tokens") return feedsOf(input, shape);
  return {
    input_ids: new Tensor("int64", BigInt64Array.from([0n, 17n, 300n, 9n]), [1, 4]),
    attention_mask: new Tensor("int64", BigInt64Array.from([1n, 1n, 1n, 1n]), [1, 4]),
  };
}

async function runFeed(
  feed: WeightFeed,
  slab: Uint8Array,
  input: string,
  shape: readonly number[],
): Promise<number[]> {
  const weights = feed.weightsPath === undefined ? [] : [{ path: feed.weightsPath, data: slab }];
  const session = await InferenceSession.create(feed.model, {
    ...sessionOptions,
    externalData: [...feed.externalData, ...weights],
  });
  const inputs = inputsOf(input, shape);
  for (const fed of feed.feed === "inputs" ? feed.tensors : []) {
    inputs[fed.graphName] = asTensor(fed, slab);
  }
  return finish(session, inputs);
}

/** Newer Node versions need a plain object for float16, see the binding's handling of Float16Array. */
function asTensor({ dtype, shape, offset, byteLength }: FedTensor, slab: Uint8Array): Tensor {
  if (dtype === "f32") {
    return new Tensor("float32", new Float32Array(slab.buffer, offset, byteLength / 4), shape);
  }
  const data = new Uint16Array(slab.buffer, offset, byteLength / 2);
  return { type: "float16", dims: shape, location: "cpu", data } as object as Tensor;
}

async function finish(
  session: InferenceSession,
  inputs: Record<string, Tensor>,
): Promise<number[]> {
  const { logits } = await session.run(inputs);
  await session.release();
  return [...(logits!.data as Float32Array)];
}
