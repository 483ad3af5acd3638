import { spawnSync } from "node:child_process";
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openModel } from "../src/formats/index.ts";

/**
 * Opens a sharded Hugging Face folder of 6 GB: the tensors of a 3-billion-parameter decoder in bf16, four shards. The files
 * are sparse, so they take no disk; what is measured, in a process of its own, is that opening does not read weights.
 *
 *     node scripts/bench.mjs inspect-large
 *
 * Prints one JSON object: size, tensors, seconds to open, peak resident memory, seconds to read one matrix of 50 MB.
 */
const layers = 28;
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

/** Writes the folder and returns the number of weight bytes. */
function writeSparseFolder(folder: string): number {
  const tensors: (readonly [string, readonly number[]])[] = [
    ["model.embed_tokens.weight", [128_256, hidden]],
    ...Array.from({ length: layers }, (_, i) =>
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
  writeFileSync(join(folder, "config.json"), JSON.stringify({ num_hidden_layers: layers }));
  return total;
}

function measure(folder: string): void {
  const start = performance.now();
  const model = openModel(folder);
  const opened = performance.now();
  const peak = process.resourceUsage().maxRSS * 1024;
  model.read("model.layers.0.mlp.up_proj.weight", 0, new Uint8Array(8192 * hidden * 2));
  const read = performance.now();
  const result = {
    tensors: model.tensors.size,
    openSeconds: (opened - start) / 1000,
    peakRssBytes: peak,
    readSeconds: (read - opened) / 1000,
  };
  model.close();
  process.stdout.write(JSON.stringify(result));
}

const [given] = process.argv.slice(2);
if (given !== undefined) {
  measure(given);
} else {
  const folder = mkdtempSync(join(tmpdir(), "mendel-bench-"));
  try {
    const weightBytes = writeSparseFolder(folder);
    const script = process.argv[1] as string;
    const child = spawnSync(process.execPath, [script, folder], { encoding: "utf8" });
    if (child.status !== 0) throw new Error(child.stderr);
    process.stdout.write(`${JSON.stringify({ weightBytes, ...JSON.parse(child.stdout) })}\n`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
