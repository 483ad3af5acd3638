import { describe, expect, it } from "vitest";
import { openFixedProgram } from "../../src/evaluation/fixed-program.ts";
import type { Program } from "../../src/evaluation/program.ts";
import type { Feeds } from "../../src/evaluation/session.ts";
import { loadSharedWeights, weightSourceOf } from "../../src/evaluation/shared-weights.ts";
import { openSlabProgram } from "../../src/evaluation/slab-program.ts";
import type { ModelSpec, TensorSpec } from "../../src/formats/onnx/onnx-builder.ts";
import type { OnnxReader } from "../../src/formats/onnx/open-onnx.ts";
import type { FeedKind } from "../../src/graph/weight-feed.ts";
import { matchModels } from "../../src/merge/matching.ts";
import { openModel, readFloats } from "../formats/onnx/onnx-files.ts";
import { type ExportStyle, tinyTransformer } from "../formats/onnx/tiny-transformer.ts";
import { linear, taskArithmetic } from "../support/digits-plan.ts";

const feeds: readonly FeedKind[] = ["inputs", "session"];
const styles: readonly ExportStyle[] = ["state-dict", "folded"];

/** A program over a graph and models by name; the first model is the reference. */
function open(
  graph: OnnxReader,
  models: Readonly<Record<string, OnnxReader>>,
  feed: FeedKind,
  freeze: readonly string[] = [],
): Promise<Program> {
  const readers = new Map(Object.entries(models));
  const [reference] = readers.keys();
  const { plan } = matchModels({ models: readers, reference: reference!, freeze });
  const source = weightSourceOf(loadSharedWeights(plan, readers));
  const graphId = [...readers].find(([, reader]) => reader === graph)?.[0];
  return openSlabProgram({ graph, graphId, inputs: plan, source, feed });
}

const tokens: Feeds = {
  input_ids: {
    type: "int64",
    dims: [2, 4],
    data: BigInt64Array.of(1n, 2n, 3n, 4n, 5n, 0n, 9n, 15n),
  },
};

async function logits(program: Program, inputs: Feeds = tokens): Promise<number[]> {
  return Array.from((await program.run(inputs, ["logits"]))["logits"]!.data);
}

function expectClose(actual: readonly number[], expected: readonly number[]): void {
  expect(actual.length).toBe(expected.length);
  actual.forEach((value, i) => {
    expect(value).toBeCloseTo(expected[i]!, 4);
  });
}

describe.each(feeds)("slab program, weights fed by %s", (feed) => {
  it.each(styles)("makes a model of another export style out of a %s graph", async (style) => {
    const other = style === "folded" ? "state-dict" : "folded";
    const graph = openModel(tinyTransformer(style, 2, 1));
    const expert = openModel(tinyTransformer(other, 2, 2));
    const program = await open(graph, { base: graph, expert }, feed);
    const alone = await openFixedProgram(expert.path);
    await program.load(linear({ expert: 1 }));
    expectClose(await logits(program), await logits(alone));
    await program.load(linear({ base: 1 }));
    const own = await openFixedProgram(graph.path);
    expectClose(await logits(program), await logits(own));
    for (const each of [program, alone, own]) await each.release();
  });

  it("offers the graph's own inputs and outputs, not the weights'", async () => {
    const graph = openModel(tinyTransformer("folded"));
    const program = await open(graph, { base: graph }, feed);
    expect(program.signature.inputs.map(({ name }) => name)).toEqual(["input_ids"]);
    expect(program.signature.outputs.map(({ name }) => name)).toEqual(["logits"]);
    await program.release();
  });

  it("leaves nothing of one candidate to the next, also after one that failed", async () => {
    const graph = openModel(tinyTransformer("folded", 2, 1));
    const models = { base: graph, expert: openModel(tinyTransformer("folded", 2, 2)) };
    const program = await open(graph, models, feed);
    const recipe = taskArithmetic({ expert: 0.5 });
    await program.load(recipe);
    const first = await logits(program);
    await program.load(linear({ base: 0.3, expert: 0.7 }));
    const second = await logits(program);
    await expect(program.load(linear({ nobody: 1 }))).rejects.toThrow();
    await program.load({ ...recipe, freeze: ["*embed*"] });
    await program.load(recipe);
    expect(await logits(program)).toEqual(first);
    expect(second).not.toEqual(first);
    await program.release();
  });

  it("copies what is frozen from the base", async () => {
    const graph = openModel(tinyTransformer("state-dict", 1, 1));
    const expert = openModel(tinyTransformer("state-dict", 1, 2));
    const everything = await open(graph, { base: graph, expert }, feed, ["*.weight", "*.bias"]);
    await everything.load(linear({ base: 0, expert: 1 }));
    const own = await openFixedProgram(graph.path);
    expectClose(await logits(everything), await logits(own));
    await everything.release();
    await own.release();
  });

  it("feeds half-precision graphs", async () => {
    const graph = openModel(scaling("f16", Uint16Array.of(0x3e00, 0xc000)));
    const wide = openModel(scaling("f32", Float32Array.of(0.1, 3)));
    const program = await open(graph, { base: graph, wide }, feed);
    await program.load(linear({ wide: 1 }));
    const image: Feeds = { image: { type: "float32", dims: [2], data: Float32Array.of(1, 1) } };
    // 0.1 rounded to half precision; 3 is exact.
    expect(await logits(program, image)).toEqual([Math.fround(0.0999755859375), 3]);
    await program.release();
  });
});

it("feeds bfloat16 graphs through sessions", async () => {
  const graph = openModel(scaling("bf16", Uint16Array.of(0x3fc0, 0xc000)));
  const wide = openModel(scaling("f32", Float32Array.of(0.1, 3)));
  const program = await open(graph, { base: graph, wide }, "session");
  await program.load(linear({ wide: 1 }));
  const image: Feeds = { image: { type: "float32", dims: [2], data: Float32Array.of(1, 1) } };
  expect(await logits(program, image)).toEqual([Math.fround(0.10009765625), 3]);
  await program.release();
});

describe("refusals", () => {
  it("names a merged tensor that the graph lacks: it would be searched without effect", async () => {
    const graph = openModel(tinyTransformer("folded", 1));
    const deeper = openModel(tinyTransformer("folded", 2));
    await expect(open(graph, { base: deeper }, "inputs")).rejects.toMatchObject({
      code: "mismatch",
      where: { tensor: expect.stringContaining("layers.1") },
    });
  });

  it("names source and tensor of weights that are not finite", () => {
    const broken = openModel(scaling("f32", Float32Array.of(1, Number.POSITIVE_INFINITY)));
    const half = openModel(scaling("f16", Uint16Array.of(0x7c01, 0)));
    for (const reader of [broken, half]) {
      const models = new Map([["bad", reader]]);
      const { plan } = matchModels({ models, reference: "bad" });
      expect(() => loadSharedWeights(plan, models)).toThrow(
        expect.objectContaining({ code: "non-finite", message: expect.stringContaining('"bad"') }),
      );
    }
  });
});

it("shared weights are those of the file", () => {
  const reader = openModel(tinyTransformer("folded"));
  const models = new Map([["m", reader]]);
  const { plan } = matchModels({ models, reference: "m" });
  const source = weightSourceOf(loadSharedWeights(plan, models));
  for (const name of reader.tensors.keys()) {
    const expected = readFloats(reader, name);
    const part = new Float32Array(expected.length - 1);
    source.read("m", name, 1, new Uint8Array(part.buffer));
    expect(part).toEqual(expected.subarray(1));
  }
});

/** logits = image × w, with two weights in a dtype. */
function scaling(dtype: TensorSpec["dtype"], values: Float32Array | Uint16Array): ModelSpec {
  return {
    nodes: [
      { op: "Cast", inputs: ["w"], outputs: ["wide"], attributes: { to: { int: 1 } } },
      { op: "Mul", inputs: ["image", "wide"], outputs: ["logits"] },
    ],
    inputs: [{ name: "image", dtype: "f32", shape: [2] }],
    outputs: [{ name: "logits", dtype: "f32", shape: [2] }],
    initializers: [
      { name: "w", dtype, shape: [2], elements: { bytes: new Uint8Array(values.buffer) } },
    ],
  };
}
