import { closeSync, ftruncateSync, mkdirSync, openSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { encodeNode, encodeTensor } from "../src/formats/onnx/onnx-builder.ts";
import { graphField, modelField, tensorField } from "../src/formats/onnx/onnx-types.ts";
import { valueInfo } from "../src/formats/onnx/rewrite-model.ts";
import { concatBytes, encodeBytes, encodeHead, encodeNumber } from "../src/formats/onnx/wire.ts";

/** Large models as sparse files: all headers are there, the weights are holes and take no disk. */

const onnxLayers = 180;
const onnxWidth = 1024;

/** One ONNX file of 1.5 GB whose weights are all inside: 180 layers of 1024 × 2048 float32. @returns weight bytes */
export function writeLargeOnnx(path: string): number {
  const width = onnxWidth;
  const payload = width * width * 2 * 4;
  const nodes = Array.from({ length: onnxLayers }, (_, i) =>
    encodeBytes(
      graphField.node,
      encodeNode({
        op: "MatMul",
        name: `/model/layers.${i}/fc/MatMul`,
        inputs: [`x${i}`, `onnx::MatMul_${i}`],
        outputs: [i === onnxLayers - 1 ? "y" : `x${i + 1}`],
      }),
    ),
  );
  const heads = Array.from({ length: onnxLayers }, (_, i) => {
    const shape = i % 2 === 0 ? [width, 2 * width] : [2 * width, width];
    const store = { external: [] };
    // The encoder marks a tensor without data as external (two bytes at its end); here raw data follows instead.
    const encoded = encodeTensor({ name: `onnx::MatMul_${i}`, dtype: "f32", shape, store });
    const head = concatBytes([encoded.subarray(0, -2), encodeHead(tensorField.rawData, payload)]);
    return concatBytes([encodeHead(graphField.initializer, head.length + payload), head]);
  });
  const values = concatBytes([
    encodeBytes(graphField.input, valueInfo("x0", "f32", ["n", width])),
    encodeBytes(graphField.output, valueInfo("y", "f32", ["n", width])),
  ]);
  const before = concatBytes([...nodes, values]);
  const length = before.length + heads.reduce((sum, head) => sum + head.length + payload, 0);
  const file = openSync(path, "w");
  let at = 0;
  const write = (bytes: Uint8Array): void => {
    at += writeSync(file, bytes, 0, bytes.length, at);
  };
  write(encodeNumber(modelField.irVersion, 8));
  write(encodeHead(modelField.graph, length));
  write(before);
  for (const head of heads) {
    write(head);
    at += payload;
  }
  ftruncateSync(file, at);
  closeSync(file);
  return onnxLayers * payload;
}

const hfLayers = 28;
const hidden = 3072;
const shards = 4;

const layerShapes: readonly (readonly [string, readonly number[]])[] = [
  ["self_attn.q_proj", [hidden, hidden]],
  ["self_attn.k_proj", [1024, hidden]],
  ["self_attn.v_proj", [1024, hidden]],
  ["self_attn.o_proj", [hidden, hidden]],
  ["mlp.gate_proj", [8192, hidden]],
  ["mlp.up_proj", [8192, hidden]],
  ["mlp.down_proj", [hidden, 8192]],
  ["input_layernorm", [hidden]],
  ["post_attention_layernorm", [hidden]],
];

/** A Hugging Face folder of 6 GB: the tensors of a 3-billion-parameter decoder in bf16, four shards. @returns weight bytes */
export function writeLargeFolder(folder: string): number {
  mkdirSync(folder, { recursive: true });
  const tensors: (readonly [string, readonly number[]])[] = [
    ["model.embed_tokens.weight", [128_256, hidden]],
    ...Array.from({ length: hfLayers }, (_, i) =>
      layerShapes.map(([name, shape]) => [`model.layers.${i}.${name}.weight`, shape] as const),
    ).flat(),
    ["model.norm.weight", [hidden]],
  ];
  const map: Record<string, string> = {};
  let total = 0;
  for (let shard = 0; shard < shards; shard++) {
    const name = `model-0000${shard + 1}-of-0000${shards}.safetensors`;
    const header: Record<string, unknown> = {};
    let end = 0;
    for (const [tensor, shape] of tensors.filter((_, i) => i % shards === shard)) {
      const begin = end;
      end += 2 * shape.reduce((product, dim) => product * dim, 1);
      header[tensor] = { dtype: "BF16", shape, data_offsets: [begin, end] };
      map[tensor] = name;
    }
    const text = Buffer.from(JSON.stringify(header));
    const prefix = Buffer.alloc(8);
    prefix.writeBigUInt64LE(BigInt(text.length));
    const file = openSync(join(folder, name), "w");
    writeSync(file, Buffer.concat([prefix, text]));
    ftruncateSync(file, 8 + text.length + end);
    closeSync(file);
    total += end;
  }
  const index = { metadata: { total_size: total }, weight_map: map };
  writeFileSync(join(folder, "model.safetensors.index.json"), JSON.stringify(index));
  writeFileSync(join(folder, "config.json"), JSON.stringify({ num_hidden_layers: hfLayers }));
  return total;
}
