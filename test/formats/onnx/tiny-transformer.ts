import { randomStream } from "../../../src/base/random.ts";
import type { ModelSpec, NodeSpec, TensorSpec } from "../../../src/formats/onnx/onnx-builder.ts";

/**
 * How an exporter writes the network: linear weights under state-dict names with a `Transpose` behind each; folded into
 * [in, out] under automatic names; or folded with all node names gone too.
 */
export type ExportStyle = "state-dict" | "folded" | "anonymous";

export const hidden = 8;
const inner = 12;
const vocabulary = 16;

/** Linear layers of one block as [out, in]; no two neighbors agree in shape by accident except q and o. */
const linears: readonly (readonly [string, number, number])[] = [
  ["self_attn.q_proj", hidden, hidden],
  ["self_attn.k_proj", hidden, hidden],
  ["self_attn.v_proj", 4, hidden],
  ["self_attn.o_proj", hidden, 4],
  ["mlp.up_proj", inner, hidden],
  ["mlp.down_proj", hidden, inner],
];

/** State-dict names of the network, with shapes. */
export function stateDict(layers: number): Map<string, readonly number[]> {
  const shapes = new Map<string, readonly number[]>([
    ["model.embed_tokens.weight", [vocabulary, hidden]],
  ]);
  for (let layer = 0; layer < layers; layer++) {
    for (const [name, rows, columns] of linears) {
      shapes.set(`model.layers.${layer}.${name}.weight`, [rows, columns]);
    }
    shapes.set(`model.layers.${layer}.mlp.up_proj.bias`, [inner]);
    shapes.set(`model.layers.${layer}.norm.weight`, [hidden]);
  }
  shapes.set("lm_head.weight", [vocabulary, hidden]);
  return shapes;
}

/** Values of one state-dict tensor, in its own layout; the same in every style. */
export function valuesOf(name: string, shape: readonly number[], seed: number): Float32Array {
  const stream = randomStream(seed, name);
  const count = shape.reduce((product, dim) => product * dim, 1);
  return Float32Array.from({ length: count }, () => stream.normal() / 2);
}

/** A decoder-like network: embedding, blocks of attention and MLP, output layer; `input_ids` in, `logits` out. */
export function tinyTransformer(style: ExportStyle, layers = 2, seed = 1): ModelSpec {
  const shapes = stateDict(layers);
  const nodes: NodeSpec[] = [];
  const initializers: TensorSpec[] = [];
  let count = 100;
  const used = new Map<string, number>();
  // The second MatMul of a module is MatMul_1, as torch has it.
  const unique = (name: string): string => {
    const n = used.get(name) ?? 0;
    used.set(name, n + 1);
    return n === 0 ? name : `${name}_${n}`;
  };
  const run = (
    path: string,
    op: string,
    inputs: string[],
    more: Partial<NodeSpec> = {},
  ): string => {
    const output = style === "anonymous" ? `v${count++}x` : `/${path}/${op}_output_${count++}`;
    const name = style === "anonymous" ? `${op}_${count}` : unique(`/${path}/${op}`);
    nodes.push({ op, inputs, outputs: [output], name, ...more });
    return output;
  };
  const store = (name: string, transpose: boolean): string => {
    const shape = shapes.get(name)!;
    const values = valuesOf(name, shape, seed);
    const automatic = style === "anonymous" || (style === "folded" && transpose);
    const storedName = automatic ? `onnx::MatMul_${count++}` : name;
    const [rows, columns] = shape as readonly [number, number];
    const folded = transpose && style !== "state-dict";
    initializers.push({
      name: storedName,
      dtype: "f32",
      shape: folded ? [columns, rows] : shape,
      elements: folded ? transposed(values, rows, columns) : values,
    });
    return storedName;
  };
  const linear = (path: string, x: string): string => {
    let weight = store(`${path}.weight`, true);
    const modulePath = path.replaceAll(".", "/").replace(/layers\/(\d+)/, "layers.$1");
    if (style === "state-dict") {
      weight = run(modulePath, "Transpose", [weight], { attributes: { perm: { ints: [1, 0] } } });
    }
    const product = run(modulePath, "MatMul", [x, weight]);
    if (!shapes.has(`${path}.bias`)) return product;
    return run(modulePath, "Add", [store(`${path}.bias`, false), product]);
  };
  let x = run("model/embed_tokens", "Gather", [
    store("model.embed_tokens.weight", false),
    "input_ids",
  ]);
  for (let layer = 0; layer < layers; layer++) {
    const path = `model.layers.${layer}`;
    const place = `model/layers.${layer}`;
    const scaled = run(`${place}/norm`, "Mul", [store(`${path}.norm.weight`, false), x]);
    const q = linear(`${path}.self_attn.q_proj`, scaled);
    const k = linear(`${path}.self_attn.k_proj`, scaled);
    const v = linear(`${path}.self_attn.v_proj`, scaled);
    const turned = run(`${place}/self_attn`, "Transpose", [k], {
      attributes: { perm: { ints: [0, 2, 1] } },
    });
    const scores = run(`${place}/self_attn`, "MatMul", [q, turned]);
    const shares = run(`${place}/self_attn`, "Softmax", [scores]);
    const mixed = run(`${place}/self_attn`, "MatMul", [shares, v]);
    x = run(place, "Add", [x, linear(`${path}.self_attn.o_proj`, mixed)]);
    const up = run(`${place}/mlp/act`, "Tanh", [linear(`${path}.mlp.up_proj`, x)]);
    x = run(place, "Add", [x, linear(`${path}.mlp.down_proj`, up)]);
  }
  const logits = linear("lm_head", x);
  nodes.push({ op: "Identity", inputs: [logits], outputs: ["logits"], name: "out" });
  return {
    nodes,
    initializers,
    inputs: [{ name: "input_ids", dtype: "i64", shape: ["batch", "sequence"] }],
    outputs: [{ name: "logits", dtype: "f32", shape: ["batch", "sequence", vocabulary] }],
  };
}

/** The transpose of a row-major matrix [rows, columns], by the definition. */
export function transposed(values: Float32Array, rows: number, columns: number): Float32Array {
  return Float32Array.from(
    { length: values.length },
    (_, i) => values[(i % rows) * columns + Math.floor(i / rows)]!,
  );
}
