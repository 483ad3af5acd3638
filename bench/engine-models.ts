import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { randomStream } from "../src/base/random.ts";
import { buildOnnx, type NodeSpec, type TensorSpec } from "../src/formats/onnx/onnx-builder.ts";

/** Shapes of a generated transformer. */
export interface TransformerShape {
  readonly layers: number;
  readonly width: number;
  readonly heads: number;
  readonly hidden: number;
  readonly vocabulary: number;
  readonly positions: number;
  /** Every position sees only those before it, and the embedding is the output matrix too: GPT-2. Else an encoder. */
  readonly causal: boolean;
}

/** 21.7 million parameters, nearly all in matrix products. */
export const encoderShape: TransformerShape = {
  layers: 12,
  width: 384,
  heads: 12,
  hidden: 1536,
  vocabulary: 1024,
  positions: 64,
  causal: false,
};

/** 124 million parameters. */
export const gpt2Shape: TransformerShape = {
  layers: 12,
  width: 768,
  heads: 12,
  hidden: 3072,
  vocabulary: 50257,
  positions: 1024,
  causal: true,
};

interface Parameter {
  readonly name: string;
  readonly shape: readonly number[];
  /** Standard deviation around `mean`. */
  readonly spread: number;
  readonly mean: number;
}

function parametersOf(shape: TransformerShape): readonly Parameter[] {
  const { layers, width, hidden, vocabulary, positions } = shape;
  const matrix = (name: string, rows: number, columns: number): Parameter => {
    return { name, shape: [rows, columns], spread: 0.5 / Math.sqrt(rows), mean: 0 };
  };
  const vector = (name: string, length: number, mean: number): Parameter => {
    return { name, shape: [length], spread: 0.02, mean };
  };
  const norm = (name: string): Parameter[] => [
    vector(`${name}.weight`, width, 1),
    vector(`${name}.bias`, width, 0),
  ];
  const linear = (name: string, from: number, to: number): Parameter[] => [
    matrix(`${name}.weight`, from, to),
    vector(`${name}.bias`, to, 0),
  ];
  return [
    { name: "wte.weight", shape: [vocabulary, width], spread: 0.02, mean: 0 },
    { name: "wpe.weight", shape: [positions, width], spread: 0.02, mean: 0 },
    ...Array.from({ length: layers }, (_, layer) => `layers.${layer}`).flatMap((layer) => [
      ...norm(`${layer}.norm1`),
      ...["query", "key", "value", "output"].flatMap((part) =>
        linear(`${layer}.attention.${part}`, width, width),
      ),
      ...norm(`${layer}.norm2`),
      ...linear(`${layer}.mlp.up`, width, hidden),
      ...linear(`${layer}.mlp.down`, hidden, width),
    ]),
    ...norm("norm"),
  ];
}

/** Number of parameters. */
export function parameterCount(shape: TransformerShape): number {
  return parametersOf(shape).reduce((sum, { shape: dims }) => sum + product(dims), 0);
}

function product(dims: readonly number[]): number {
  return dims.reduce((total, dim) => total * dim, 1);
}

export type StoredDtype = "f32" | "bf16";

/**
 * Writes a graph with float32 weights beside it, and models of the same tensors: `graph.onnx`, `m0.safetensors`, ….
 *
 * @returns paths of graph and models
 */
export function writeTransformer(
  folder: string,
  shape: TransformerShape,
  models: number,
  dtype: StoredDtype,
): { readonly graph: string; readonly models: readonly string[] } {
  mkdirSync(folder, { recursive: true });
  const parameters = parametersOf(shape);
  const graph = join(folder, "graph.onnx");
  writeGraph(folder, graph, shape, parameters);
  const paths = Array.from({ length: models }, (_, index) => {
    const path = join(folder, `m${index}.safetensors`);
    writeModel(path, parameters, index, dtype);
    return path;
  });
  return { graph, models: paths };
}

function writeGraph(
  folder: string,
  path: string,
  shape: TransformerShape,
  parameters: readonly Parameter[],
): void {
  const file = openSync(join(folder, "graph.data"), "w");
  let offset = 0;
  const initializers = parameters.map((parameter): TensorSpec => {
    const bytes = valuesOf(parameter, 0, "f32");
    writeSync(file, bytes, 0, bytes.length, offset);
    const external = [
      ["location", "graph.data"],
      ["offset", String(offset)],
      ["length", String(bytes.length)],
    ] as const;
    offset += bytes.length;
    return { name: parameter.name, dtype: "f32", shape: parameter.shape, store: { external } };
  });
  closeSync(file);
  const { nodes, constants, output } = networkOf(shape);
  writeFileSync(
    path,
    buildOnnx({
      nodes,
      inputs: [{ name: "input_ids", dtype: "i64", shape: ["batch", "tokens"] }],
      outputs: [output],
      initializers: [...initializers, ...constants],
    }),
  );
}

function networkOf(shape: TransformerShape) {
  const { layers, width, heads, causal, vocabulary } = shape;
  const size = width / heads;
  const nodes: NodeSpec[] = [];
  const int64 = (name: string, elements: readonly number[], dims = [elements.length]) =>
    ({ name, dtype: "i64", shape: dims, elements }) satisfies TensorSpec;
  const number = (name: string, value: number) =>
    ({ name, dtype: "f32", shape: [], elements: [value] }) satisfies TensorSpec;
  const constants: TensorSpec[] = [
    int64("heads.shape", [0, 0, heads, size]),
    int64("joined.shape", [0, 0, width]),
    int64("zero", [0], []),
    int64("one", [1], []),
    int64("axis.0", [0]),
    int64("axis.1", [1]),
    number("scale", 1 / Math.sqrt(size)),
    number("root2", Math.SQRT2),
    number("half", 0.5),
    number("unit", 1),
    number("low", -1e9),
    number("floor", 0),
  ];
  const add = (
    op: string,
    inputs: readonly string[],
    output: string,
    attributes: NodeSpec["attributes"] = {},
  ): string => {
    nodes.push({ op, inputs, outputs: [output], attributes });
    return output;
  };
  const norm = (x: string, name: string): string =>
    add("LayerNormalization", [x, `${name}.weight`, `${name}.bias`], `${name}.out`, {
      axis: { int: -1 },
      epsilon: { float: 1e-5 },
    });
  const linear = (x: string, name: string): string => {
    const flat = add("MatMul", [x, `${name}.weight`], `${name}.product`);
    return add("Add", [flat, `${name}.bias`], `${name}.out`);
  };
  const split = (x: string, perm: readonly number[]): string => {
    const wide = add("Reshape", [x, "heads.shape"], `${x}.heads`);
    return add("Transpose", [wide], `${x}.turned`, { perm: { ints: perm } });
  };
  const embedded = add("Gather", ["wte.weight", "input_ids"], "embedded");
  const dims = add("Shape", ["input_ids"], "dims");
  const tokens = add("Gather", [dims, "one"], "tokens");
  const places = add("Range", ["zero", tokens, "one"], "places");
  let x = add("Add", [embedded, add("Gather", ["wpe.weight", places], "placed")], "x");
  const mask = causal ? causalMask(add) : undefined;
  for (let layer = 0; layer < layers; layer++) {
    const own = (name: string): string => `layers.${layer}.${name}`;
    const normed = norm(x, own("norm1"));
    const [q, k, v] = ["query", "key", "value"].map((part) =>
      linear(normed, own(`attention.${part}`)),
    );
    const scores = add("MatMul", [split(q!, [0, 2, 1, 3]), split(k!, [0, 2, 3, 1])], own("scores"));
    const scaled = add("Mul", [scores, "scale"], own("scaled"));
    const seen = mask === undefined ? scaled : add("Add", [scaled, mask], own("seen"));
    const shares = add("Softmax", [seen], own("shares"), { axis: { int: -1 } });
    const mixed = add("MatMul", [shares, split(v!, [0, 2, 1, 3])], own("mixed"));
    const turned = add("Transpose", [mixed], own("mixed.turned"), {
      perm: { ints: [0, 2, 1, 3] },
    });
    const joined = add("Reshape", [turned, "joined.shape"], own("joined"));
    x = add("Add", [x, linear(joined, own("attention.output"))], own("x1"));
    const up = linear(norm(x, own("norm2")), own("mlp.up"));
    const erf = add("Erf", [add("Div", [up, "root2"], own("gelu0"))], own("gelu1"));
    const gate = add("Add", [erf, "unit"], own("gelu2"));
    const active = add("Mul", [add("Mul", [up, gate], own("gelu3")), "half"], own("gelu"));
    x = add("Add", [x, linear(active, own("mlp.down"))], own("x2"));
  }
  x = norm(x, "norm");
  if (!causal) {
    const first = add("Gather", [x, "zero"], "pooled", { axis: { int: 1 } });
    return {
      nodes,
      constants,
      output: { name: first, dtype: "f32" as const, shape: ["batch", width] },
    };
  }
  const head = add("Transpose", ["wte.weight"], "head", { perm: { ints: [1, 0] } });
  add("MatMul", [x, head], "logits");
  return {
    nodes,
    constants,
    output: { name: "logits", dtype: "f32" as const, shape: ["batch", "tokens", vocabulary] },
  };
}

/** 0 where a position may look, a large negative number where it may not. */
function causalMask(
  add: (op: string, inputs: readonly string[], output: string) => string,
): string {
  const rows = add("Unsqueeze", ["places", "axis.1"], "rows");
  const columns = add("Unsqueeze", ["places", "axis.0"], "columns");
  const hidden = add("Less", [rows, columns], "hidden");
  return add("Where", [hidden, "low", "floor"], "mask");
}

/** A model file of its own: the shared origin plus a small difference. */
function writeModel(
  path: string,
  parameters: readonly Parameter[],
  index: number,
  dtype: StoredDtype,
): void {
  const width = dtype === "f32" ? 4 : 2;
  let offset = 0;
  const header: Record<string, object> = {};
  for (const { name, shape } of parameters) {
    const bytes = product(shape) * width;
    header[name] = {
      dtype: dtype === "f32" ? "F32" : "BF16",
      shape,
      data_offsets: [offset, offset + bytes],
    };
    offset += bytes;
  }
  const text = JSON.stringify(header);
  const padded = Buffer.from(text + " ".repeat((8 - (text.length % 8)) % 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  const file = openSync(path, "w");
  writeSync(file, length);
  writeSync(file, padded);
  for (const parameter of parameters) writeSync(file, valuesOf(parameter, index, dtype));
  closeSync(file);
}

/** Pseudo-random numbers are the costly part of hundreds of millions of weights: a table is walked from random places. */
const TABLE = 1 << 16;
const table = (() => {
  const stream = randomStream(0, "bench", "normal table");
  return Float32Array.from({ length: TABLE }, () => {
    const radius = Math.sqrt(-2 * Math.log(1 - stream.uniform()));
    return radius * Math.cos(2 * Math.PI * stream.uniform());
  });
})();

function valuesOf(parameter: Parameter, model: number, dtype: StoredDtype): Uint8Array {
  const { name, shape, spread, mean } = parameter;
  const length = product(shape);
  const shared = randomStream(0, "bench", "origin", name);
  const own = randomStream(0, "bench", "difference", name, String(model));
  const values = new Float32Array(length);
  let at = 0;
  let other = 0;
  for (let i = 0; i < length; i++) {
    // New starting points now and then keep rows from repeating.
    if ((i & 1023) === 0) {
      at = Math.floor(shared.uniform() * TABLE);
      other = Math.floor(own.uniform() * TABLE);
    }
    const base = table[(at + i) & (TABLE - 1)]!;
    const difference = table[(other + 3 * i) & (TABLE - 1)]!;
    values[i] = mean + spread * (base + 0.1 * difference);
  }
  if (dtype === "f32") return new Uint8Array(values.buffer);
  const words = new Uint32Array(values.buffer);
  const halves = Uint16Array.from(words, (word) => (word + 0x8000) >>> 16);
  return new Uint8Array(halves.buffer);
}
