import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openModel } from "../src/formats/index.ts";
import { writeLargeFolder, writeLargeOnnx } from "./large-models.ts";

/**
 * Runs `mendel inspect` on two large models: an ONNX file of 1.5 GB with its weights inside, and a sharded Hugging Face
 * folder of 6 GB. Time and memory are those of the whole process, start of Node included: what is shown is that a look
 * does not read weights. The models are sparse files in the system's folder for temporary files, removed at the end.
 *
 *     npm run build && node scripts/bench.mjs inspect-large
 *
 * Prints one JSON object a model: weight bytes, tensors, seconds and peak resident memory of the command, and the seconds
 * to read one matrix once the model is open (for the ONNX file transposed, as exporters store linear layers).
 */
const command = join(process.cwd(), "dist", "cli", "main.js");
/** Loaded into the command's process before it starts: its last line on stderr is the peak memory in kilobytes. */
const reportMemory = `data:text/javascript,process.on("exit",()=>process.stderr.write("\\n"+process.resourceUsage().maxRSS))`;

function measure(model: string, path: string, weightBytes: number, matrix: string): void {
  const start = performance.now();
  const args = ["--import", reportMemory, command, "inspect", path, "--json"];
  const child = spawnSync(process.execPath, args, { encoding: "utf8" });
  const seconds = (performance.now() - start) / 1000;
  if (child.status !== 0) throw new Error(child.stderr || child.stdout);
  const { models } = JSON.parse(child.stdout) as { models: [{ total: { tensors: number } }] };
  const peakRssBytes = Number(child.stderr.split("\n").at(-1)) * 1024;
  const readMatrixSeconds = timeToRead(path, matrix);
  const { tensors } = models[0].total;
  const result = { model, weightBytes, tensors, seconds, peakRssBytes, readMatrixSeconds };
  process.stdout.write(`${JSON.stringify(result)}\n`);
}

function timeToRead(path: string, matrix: string): number {
  const reader = openModel(path);
  const tensor = reader.tensors.get(matrix);
  if (tensor === undefined) throw new Error(`${path} has no ${matrix}`);
  const bytes = tensor.dtype === "bf16" ? 2 : 4;
  const target = new Uint8Array(tensor.shape.reduce((product, dim) => product * dim, bytes));
  const start = performance.now();
  reader.read(matrix, 0, target);
  const seconds = (performance.now() - start) / 1000;
  reader.close();
  return seconds;
}

if (!existsSync(command)) throw new Error(`no ${command}: run npm run build first`);
const folder = mkdtempSync(join(tmpdir(), "mendel-bench-"));
try {
  const onnx = join(folder, "model.onnx");
  measure("onnx", onnx, writeLargeOnnx(onnx), "model.layers.0.fc.weight");
  const hf = join(folder, "hf");
  measure("hf", hf, writeLargeFolder(hf), "model.layers.0.mlp.up_proj.weight");
} finally {
  rmSync(folder, { recursive: true, force: true });
}
