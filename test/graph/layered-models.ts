import {
  buildOnnx,
  type ModelSpec,
  type NodeSpec,
  type TensorSpec,
} from "../../src/formats/onnx/onnx-builder.ts";
import { parseOnnx } from "../../src/formats/onnx/onnx-graph.ts";
import { openOnnx } from "../../src/formats/onnx/open-onnx.ts";
import { memorySource } from "../../src/formats/onnx/wire.ts";
import { pieceModel } from "../../src/graph/piece-model.ts";
import type { FedTensor } from "../../src/graph/weight-feed.ts";
import { type WeightedGraph, weightedGraph } from "../../src/graph/weighted-graph.ts";

/** A matrix or vector with repeatable numbers. */
export function weight(name: string, ...shape: number[]): TensorSpec {
  const count = shape.reduce((product, dim) => product * dim, 1);
  const seed = [...name].reduce((sum, letter) => sum + letter.charCodeAt(0), 0);
  const elements = Array.from({ length: count }, (_, i) => Math.sin(seed + 1.7 * i) / 3);
  return { name, dtype: "f32", shape, elements };
}

/** An encoder block that normalizes after each of its two residual sums, as BERT does. */
export function postNormBlock(block: number, input: string, output: string) {
  const at = (name: string): string => `block${block}.${name}`;
  const nodes: NodeSpec[] = [
    { op: "MatMul", inputs: [input, at("mix")], outputs: [at("mixed")] },
    { op: "Add", inputs: [at("mixed"), "mask"], outputs: [at("masked")] },
    { op: "Add", inputs: [input, at("masked")], outputs: [at("sum1")] },
    {
      op: "LayerNormalization",
      inputs: [at("sum1"), at("norm1"), at("shift1")],
      outputs: [at("state1")],
    },
    { op: "MatMul", inputs: [at("state1"), at("up")], outputs: [at("wide")] },
    { op: "Relu", inputs: [at("wide")], outputs: [at("active")] },
    { op: "MatMul", inputs: [at("active"), at("down")], outputs: [at("narrow")] },
    { op: "Add", inputs: [at("narrow"), at("state1")], outputs: [at("sum2")] },
    {
      op: "LayerNormalization",
      inputs: [at("sum2"), at("norm2"), at("shift2")],
      outputs: [output],
    },
  ];
  const initializers = [
    weight(at("mix"), 6, 6),
    weight(at("norm1"), 6),
    weight(at("shift1"), 6),
    weight(at("up"), 6, 10),
    weight(at("down"), 10, 6),
    weight(at("norm2"), 6),
    weight(at("shift2"), 6),
  ];
  return { nodes, initializers };
}

/** Embedding, a norm, post-norm blocks, a pooled head; the mask is computed once and read by every block. */
export function encoderSpec(blocks: number): ModelSpec {
  const parts = Array.from({ length: blocks }, (_, i) =>
    postNormBlock(i, `state.${i}`, `state.${i + 1}`),
  );
  return {
    inputs: [
      { name: "ids", dtype: "i64", shape: ["batch", "length"] },
      { name: "attention", dtype: "f32", shape: ["batch", "length", 1] },
    ],
    outputs: [{ name: "logits", dtype: "f32", shape: ["batch", 3] }],
    nodes: [
      { op: "Gather", inputs: ["words", "ids"], outputs: ["embedded"] },
      {
        op: "LayerNormalization",
        inputs: ["embedded", "first.norm", "first.shift"],
        outputs: ["state.0"],
      },
      { op: "Neg", inputs: ["attention"], outputs: ["mask"] },
      ...parts.flatMap(({ nodes }) => nodes),
      {
        op: "ReduceMean",
        inputs: [`state.${blocks}`],
        outputs: ["pooled"],
        attributes: { axes: { ints: [1] }, keepdims: { int: 0 } },
      },
      { op: "MatMul", inputs: ["pooled", "classifier"], outputs: ["logits"] },
    ],
    initializers: [
      weight("words", 20, 6),
      weight("first.norm", 6),
      weight("first.shift", 6),
      ...parts.flatMap(({ initializers }) => initializers),
      weight("classifier", 6, 3),
    ],
  };
}

/** A residual convolutional network: a stem, stages of one shape, a wider stage, a head. */
export function residualSpec(stages: number): ModelSpec {
  const conv = (name: string, input: string, output: string): NodeSpec => ({
    op: "Conv",
    inputs: [input, name],
    outputs: [output],
    attributes: { pads: { ints: [1, 1, 1, 1] } },
  });
  const stage = (i: number): NodeSpec[] => [
    conv(`s${i}.a`, `x${i}`, `s${i}.1`),
    { op: "Relu", inputs: [`s${i}.1`], outputs: [`s${i}.2`] },
    conv(`s${i}.b`, `s${i}.2`, `s${i}.3`),
    { op: "Add", inputs: [`x${i}`, `s${i}.3`], outputs: [`s${i}.4`] },
    { op: "Relu", inputs: [`s${i}.4`], outputs: [`x${i + 1}`] },
  ];
  const all = Array.from({ length: stages }, (_, i) => i);
  return {
    inputs: [{ name: "image", dtype: "f32", shape: ["batch", 1, 8, 8] }],
    outputs: [{ name: "logits", dtype: "f32", shape: ["batch", 3] }],
    nodes: [
      conv("stem", "image", "stemmed"),
      { op: "Relu", inputs: ["stemmed"], outputs: ["x0"] },
      ...all.flatMap(stage),
      conv("wide", `x${stages}`, "wider"),
      { op: "GlobalAveragePool", inputs: ["wider"], outputs: ["pooled"] },
      { op: "Flatten", inputs: ["pooled"], outputs: ["flat"] },
      { op: "MatMul", inputs: ["flat", "classifier"], outputs: ["logits"] },
    ],
    initializers: [
      weight("stem", 4, 1, 3, 3),
      ...all.flatMap((i) => [weight(`s${i}.a`, 4, 4, 3, 3), weight(`s${i}.b`, 4, 4, 3, 3)]),
      weight("wide", 8, 4, 3, 3),
      weight("classifier", 8, 3),
    ],
  };
}

/** A built model with its weights told apart, as from a file whose every initializer is a weight. */
export function weightedSpec(spec: ModelSpec): WeightedGraph {
  const model = parseOnnx(memorySource(buildOnnx(spec), "built.onnx"));
  const weights = new Map(
    (spec.initializers ?? []).map(({ name = "", dtype, shape }): [string, FedTensor] => [
      name,
      { name, graphName: name, dtype, shape, transposed: false, offset: 0, byteLength: 0 },
    ]),
  );
  return { path: "built.onnx", model, weights };
}

/** The same network with every name of values, nodes and weights replaced by a number. */
export function nameless(path: string): WeightedGraph {
  const reader = openOnnx(path);
  const named = weightedGraph(reader);
  reader.close();
  const { graph } = named.model;
  const rename = new Map<string, string>();
  const keep = new Set([...graph.inputs, ...graph.outputs].map(({ name }) => name));
  const number = (name: string): string => {
    if (name === "" || keep.has(name)) return name;
    const known = rename.get(name) ?? String(rename.size);
    rename.set(name, known);
    return known;
  };
  for (const { name } of graph.initializers) number(name);
  for (const { outputs } of graph.nodes) outputs.map(number);
  const typed = (name: string) => {
    const { dtype, shape } = [...graph.inputs, ...graph.outputs].find(
      (value) => value.name === name,
    )!;
    return { name, type: { dtype: dtype!, shape: shape! } };
  };
  const fed = [...named.weights.values()];
  const constants = graph.initializers
    .map(({ name }) => name)
    .filter((name) => !named.weights.has(name));
  if (constants.length > 0) throw new Error("initializers that are no weights keep their names");
  const bytes = pieceModel(named, {
    nodes: graph.nodes.map((node) => ({ node, rename })),
    inputs: graph.inputs.map(({ name }) => typed(name)),
    outputs: graph.outputs.map(({ name }) => typed(name)),
    weights: fed.map((like) => ({
      name: number(like.graphName),
      like,
      data: { kind: "external", location: "w", offset: like.offset, length: like.byteLength },
    })),
    constants,
  });
  return {
    path: "nameless.onnx",
    model: parseOnnx(memorySource(bytes, "nameless.onnx")),
    weights: new Map(
      fed.map((tensor) => {
        const name = number(tensor.graphName);
        return [name, { ...tensor, name, graphName: name }];
      }),
    ),
  };
}
