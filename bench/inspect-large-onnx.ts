import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { encodeNode, encodeTensor } from "../src/formats/onnx/onnx-builder.ts";
import { graphField, modelField, tensorField } from "../src/formats/onnx/onnx-types.ts";
import { openOnnx } from "../src/formats/onnx/open-onnx.ts";
import { valueInfo } from "../src/formats/onnx/rewrite-model.ts";
import { concatBytes, encodeBytes, encodeHead, encodeNumber } from "../src/formats/onnx/wire.ts";

/**
 * Opens one ONNX file of 1.5 GB whose weights are all inside: 180 layers of 1024 × 2048 float32. The file is sparse, so
 * it takes no disk; what is measured is that opening does not read payloads.
 *
 *     node scripts/bench.mjs inspect-large-onnx
 *
 * Prints one JSON object: size, weights, seconds to open, resident memory before and after, seconds to read one weight.
 */
const layers = 180;
const width = 1024;
const payload = width * width * 2 * 4;

/** Writes the model; payloads are holes. */
function writeSparseModel(path: string): void {
  const nodes = Array.from({ length: layers }, (_, i) =>
    encodeBytes(
      graphField.node,
      encodeNode({
        op: "MatMul",
        name: `/model/layers.${i}/fc/MatMul`,
        inputs: [`x${i}`, `onnx::MatMul_${i}`],
        outputs: [i === layers - 1 ? "y" : `x${i + 1}`],
      }),
    ),
  );
  const heads = Array.from({ length: layers }, (_, i) => {
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
}

const folder = mkdtempSync(join(tmpdir(), "mendel-bench-"));
try {
  const path = join(folder, "model.onnx");
  writeSparseModel(path);
  const rssBefore = process.memoryUsage.rss();
  const start = performance.now();
  const reader = openOnnx(path);
  const opened = performance.now();
  const rssAfter = process.memoryUsage.rss();
  const [first] = reader.tensors.values();
  reader.read(first!.name, 0, new Uint8Array(payload));
  const read = performance.now();
  reader.close();
  const result = {
    fileBytes: statSync(path).size,
    weights: reader.tensors.size,
    first: { name: first!.name, shape: first!.shape, transposed: first!.transposed },
    openSeconds: (opened - start) / 1000,
    rssBeforeBytes: rssBefore,
    rssAfterBytes: rssAfter,
    readTransposedSeconds: (read - opened) / 1000,
  };
  process.stdout.write(`${JSON.stringify(result)}\n`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
