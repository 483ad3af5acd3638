import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import type { ModelSpec } from "../../src/formats/onnx/onnx-builder.ts";
import type { OnnxReader } from "../../src/formats/onnx/open-onnx.ts";
import { transposeBytes } from "../../src/formats/onnx/tensor-bytes.ts";
import { writeOnnx } from "../../src/formats/onnx/write-onnx.ts";
import {
  type BasisGraph,
  basisProblem,
  buildBasisGraph,
  type StackDtype,
} from "../../src/graph/basis-graph.ts";
import { dtypeBytes } from "../../src/tensors/dtype.ts";
import {
  example,
  feedsOf,
  freshFolder,
  openModel,
  readAll,
  readFloats,
  sessionOptions,
} from "../formats/onnx/onnx-files.ts";
import { tinyTransformer } from "../formats/onnx/tiny-transformer.ts";

const stackName = "stack.bin";
const shares = [0.5, 0.75, -0.25];

/**
 * Entry k of a weight: multiples of 2^-6 from 1 to 2, which 16-bit floats hold exactly, so that sums with the shares above
 * are exact in float32 whatever their order; and positive, because some weights are variances.
 */
function entryOf(length: number, index: number, k: number): Float32Array {
  return Float32Array.from({ length }, (_, i) => 1 + ((i * 7 + index * 13 + k * 5) % 64) * 2 ** -6);
}

function upperHalves(values: Float32Array): Uint8Array {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  return new Uint8Array(Uint16Array.from(words, (word) => word >>> 16).buffer);
}

/** Writes model and stack: three entries per stacked weight, the graph's own values for the others. */
function writeStack(built: BasisGraph, reader: OnnxReader): string {
  const folder = freshFolder();
  const bytes = new Uint8Array(built.stackBytes);
  built.stacks.forEach((stack, index) => {
    const length = stack.shape.reduce((product, dim) => product * dim, 1);
    const width = dtypeBytes[stack.stored];
    for (let k = 0; k < stack.entries; k++) {
      const values = entryOf(length, index, k);
      const own = stack.stored === "f32" ? new Uint8Array(values.buffer) : upperHalves(values);
      for (const part of stack.parts) {
        const piece = own.subarray(part.start * width, (part.start + part.length) * width);
        bytes.set(piece, part.offset + k * part.length * width);
      }
    }
  });
  for (const { name, offset, shape, transposed } of built.constants) {
    const logical = readAll(reader, name);
    const [columns, rows] = shape;
    const own = transposed ? transposeBytes(logical, rows!, columns!, 4) : logical;
    bytes.set(own, offset);
  }
  for (const { tensor, offset, byteLength } of built.kept) {
    reader.readStored(tensor, 0, bytes.subarray(offset, offset + byteLength));
  }
  writeFileSync(join(folder, stackName), bytes);
  writeFileSync(join(folder, "model.onnx"), built.model);
  return join(folder, "model.onnx");
}

/** The sums that the graph is to compute, written into the model as weights of its own. */
async function writeSums(built: BasisGraph, reader: OnnxReader): Promise<string> {
  const replace = new Map(
    built.stacks.map((stack, index) => {
      const length = stack.shape.reduce((product, dim) => product * dim, 1);
      const sum = new Float32Array(length);
      for (let k = 0; k < stack.entries; k++) {
        entryOf(length, index, k).forEach((value, i) => {
          sum[i] = sum[i]! + shares[k]! * value;
        });
      }
      const [rows, columns] = stack.shape;
      const graphs = new Uint8Array(sum.buffer);
      const logical = stack.transposed ? transposeBytes(graphs, rows!, columns!, 4) : graphs;
      const read = (start: number, target: Uint8Array): void => {
        target.set(logical.subarray(4 * start, 4 * start + target.length));
      };
      return [stack.name, { dtype: "f32" as const, read }];
    }),
  );
  const path = join(freshFolder(), "sums.onnx");
  await writeOnnx(reader, path, replace);
  return path;
}

async function outputsOf(path: string, feeds: Record<string, Tensor>): Promise<number[]> {
  const session = await InferenceSession.create(path, sessionOptions);
  const results = await session.run(feeds);
  await session.release();
  return Object.values(results).flatMap((tensor) => Array.from(tensor.data as Float32Array));
}

async function expectSums(
  reader: OnnxReader,
  options: Parameters<typeof buildBasisGraph>[1],
  feeds: Record<string, Tensor>,
): Promise<void> {
  const built = buildBasisGraph(reader, options);
  const coefficients = Float32Array.from(
    built.stacks.flatMap(({ entries }) => shares.slice(0, entries)),
  );
  expect(coefficients.length).toBe(built.coefficientCount);
  const own = await outputsOf(writeStack(built, reader), {
    ...feeds,
    [built.coefficients]: new Tensor("float32", coefficients, [coefficients.length]),
  });
  const expected = await outputsOf(await writeSums(built, reader), feeds);
  expect(own.length).toBe(expected.length);
  own.forEach((value, i) => {
    expect(Math.abs(value - expected[i]!)).toBeLessThanOrEqual(1e-5 * (1 + Math.abs(expected[i]!)));
  });
}

const networks: readonly (readonly [string, string | ModelSpec, string, readonly number[]])[] = [
  ["multilayer perceptron", example("digits/models/base/model.onnx"), "image", [3, 64]],
  ["convolutional network", example("digits-cnn/models/base/model.onnx"), "image", [3, 1, 8, 8]],
  ["transformer, folded export", tinyTransformer("folded"), "input_ids", [2, 5]],
  ["transformer, weights transposed", tinyTransformer("state-dict"), "input_ids", [2, 5]],
  ["transformer, no names", tinyTransformer("anonymous"), "input_ids", [2, 5]],
];

describe.each(networks)("%s", (_, model, input, shape) => {
  it.each(["f32", "bf16"] as const)("sums %s entries of all weights", async (stored) => {
    const reader = openModel(model);
    const stacked = [...reader.tensors.keys()].map((name) => ({ name, entries: 3, stored }));
    await expectSums(reader, { stacked, constant: [], stackName }, feedsOf(input, shape));
  });

  it("sums some weights, takes others from the file, and leaves the rest", async () => {
    const reader = openModel(model);
    const names = [...reader.tensors.keys()];
    const stored: StackDtype = "f32";
    const stacked = names.slice(0, 2).map((name, i) => ({ name, entries: 1 + i, stored }));
    const constant = names.slice(2, 4);
    await expectSums(reader, { stacked, constant, stackName }, feedsOf(input, shape));
    const one = { stacked: stacked.slice(1), constant: [], stackName };
    await expectSums(reader, one, feedsOf(input, shape));
  });
});

/** image × w, with options that graphs differ in. */
function product(changes: Partial<ModelSpec>, rows = 4, columns = 4): ModelSpec {
  const elements = new Float32Array(rows * columns).fill(0.5);
  return {
    nodes: [{ op: "MatMul", inputs: ["image", "w"], outputs: ["logits"] }],
    inputs: [{ name: "image", dtype: "f32", shape: [2, rows] }],
    outputs: [{ name: "logits", dtype: "f32", shape: [2, columns] }],
    initializers: [{ name: "w", dtype: "f32", shape: [rows, columns], elements }],
    ...changes,
  };
}

describe("graphs of all kinds", () => {
  it("may use an operator set whose Split has its sizes as an attribute", async () => {
    const elements = new Float32Array(4).fill(0.5);
    const reader = openModel(
      product({
        opset: 11,
        nodes: [
          { op: "MatMul", inputs: ["image", "w"], outputs: ["product"] },
          { op: "Add", inputs: ["product", "b"], outputs: ["logits"] },
        ],
        initializers: [
          { name: "w", dtype: "f32", shape: [4, 4], elements: new Float32Array(16).fill(1) },
          { name: "b", dtype: "f32", shape: [4], elements },
        ],
      }),
    );
    const stacked = ["w", "b"].map((name) => ({ name, entries: 3, stored: "f32" as const }));
    await expectSums(reader, { stacked, constant: [], stackName }, feedsOf("image", [2, 4]));
  });

  it("may have weights so large that 16-bit entries are widened in parts", async () => {
    // Three entries of 4 MiB in float32 each make four parts.
    const reader = openModel(product({}, 1024, 1024));
    const stacked = [{ name: "w", entries: 3, stored: "bf16" as const }];
    const { stacks } = buildBasisGraph(reader, { stacked, constant: [], stackName });
    expect(stacks[0]!.parts.length).toBeGreaterThan(1);
    await expectSums(reader, { stacked, constant: [], stackName }, feedsOf("image", [2, 1024]));
  });

  it.each([
    [
      "float64",
      product({
        inputs: [{ name: "image", dtype: "f64", shape: [2, 4] }],
        outputs: [{ name: "logits", dtype: "f64", shape: [2, 4] }],
        initializers: [
          { name: "w", dtype: "f64", shape: [4, 4], elements: Array.from({ length: 16 }, () => 1) },
        ],
      }),
    ],
    [
      "also an input",
      product({
        irVersion: 3,
        inputs: [
          { name: "image", dtype: "f32", shape: [2, 4] },
          { name: "w", dtype: "f32", shape: [4, 4] },
        ],
      }),
    ],
  ])("are refused where a weight is %s", (reason, model) => {
    const reader = openModel(model);
    expect(basisProblem(reader, ["w"])).toContain(reason);
    const stacked = [{ name: "w", entries: 2, stored: "f32" as const }];
    expect(() => buildBasisGraph(reader, { stacked, constant: [], stackName })).toThrow(reason);
  });

  it("keep a weight that is summed out of the file, and everything aligned", () => {
    const reader = openModel(tinyTransformer("folded"));
    expect(readFloats(reader, [...reader.tensors.keys()][0]!).length).toBeGreaterThan(0);
    const stacked = [...reader.tensors.keys()].map((name) => {
      return { name, entries: 3, stored: "f32" as const };
    });
    const built = buildBasisGraph(reader, { stacked, constant: [], stackName });
    let end = 0;
    for (const { parts, entries } of built.stacks) {
      for (const { offset, length } of parts) {
        expect(offset % 64).toBe(0);
        expect(offset).toBeGreaterThanOrEqual(end);
        end = offset + 4 * entries * length;
      }
    }
    expect(built.stackBytes).toBeGreaterThanOrEqual(end);
  });
});
