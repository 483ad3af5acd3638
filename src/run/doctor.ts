import { accessSync, constants, existsSync, statfsSync } from "node:fs";
import { cpus, freemem, totalmem } from "node:os";
import { dirname, resolve } from "node:path";
import { messageOf } from "../base/errors.ts";

/** One thing that was looked at. */
export interface Finding {
  readonly name: string;
  readonly level: "ok" | "warning" | "problem";
  readonly message: string;
  /** How to fix it. */
  readonly hint?: string;
}

const SMALL_MEMORY = 2e9; // a digit search fits in less; a 100 M-parameter family does not
const SMALL_DISK = 1e9; // the database of a long run plus one export

function checkNode(): Finding {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  const old = major < 20 || (major === 20 && minor < 19);
  return {
    name: "node",
    level: old ? "problem" : "ok",
    message: `${process.versions.node} on ${process.platform} ${process.arch}`,
    ...(old ? { hint: "install Node 20.19 or newer" } : {}),
  };
}

async function checkModule(
  name: string,
  load: () => Promise<string>,
  hint: string,
): Promise<Finding> {
  try {
    return { name, level: "ok", message: await load() };
  } catch (thrown) {
    const [message = ""] = messageOf(thrown).split("\n");
    return { name, level: "problem", message, hint };
  }
}

async function sqliteVersion(): Promise<string> {
  const { default: Database } = await import("better-sqlite3");
  const db = new Database(":memory:");
  const version = db.prepare("SELECT sqlite_version()").pluck().get() as string;
  db.close();
  return `SQLite ${version}`;
}

async function runtimeVersion(): Promise<string> {
  const ort = await import("onnxruntime-node");
  return `ONNX Runtime ${ort.env.versions.node ?? "unknown"}`;
}

async function kernelSpeed(): Promise<string> {
  const { createKernels } = await import("../tensors/wasm-kernels.ts");
  const kernels = createKernels({ bytes: 16 << 20 });
  const x = kernels.float32(1 << 20);
  kernels.fill(x, 1);
  const sum = kernels.dot(x, x);
  if (sum !== 1 << 20) throw new Error(`a dot product came out as ${sum} instead of ${1 << 20}`);
  return "WebAssembly SIMD works";
}

function checkMemory(): Finding {
  const small = freemem() < SMALL_MEMORY;
  return {
    name: "memory",
    level: small ? "warning" : "ok",
    message: `${(freemem() / 1e9).toFixed(1)} GB free of ${(totalmem() / 1e9).toFixed(1)} GB`,
    ...(small ? { hint: "close other programs or use fewer --workers" } : {}),
  };
}

function checkDisk(db: string): Finding {
  let folder = dirname(resolve(db));
  while (!existsSync(folder)) folder = dirname(folder);
  try {
    accessSync(folder, constants.W_OK);
  } catch {
    return {
      name: "disk",
      level: "problem",
      message: `${folder} is not writable`,
      hint: "choose another database with --db or MENDEL_DB",
    };
  }
  const { bavail, bsize } = statfsSync(folder);
  const free = bavail * bsize;
  return {
    name: "disk",
    level: free < SMALL_DISK ? "warning" : "ok",
    message: `${(free / 1e9).toFixed(1)} GB free at ${folder}`,
    ...(free < SMALL_DISK ? { hint: "free some space before a long run" } : {}),
  };
}

/**
 * Looks at everything a search needs from the machine: Node, native modules, kernels, processor, memory, disk.
 * The database itself is checked by `checkDatabase` of the store room.
 */
export async function diagnose(db: string): Promise<Finding[]> {
  return [
    checkNode(),
    await checkModule(
      "better-sqlite3",
      sqliteVersion,
      "run npm rebuild better-sqlite3 (a C++ compiler is needed)",
    ),
    await checkModule(
      "onnxruntime-node",
      runtimeVersion,
      "run npm ci again; CPU binaries come inside the package",
    ),
    await checkModule(
      "kernels",
      kernelSpeed,
      "run npm run build; the CPU and Node must support WebAssembly SIMD",
    ),
    {
      name: "processor",
      level: "ok",
      message: `${cpus().length} × ${cpus()[0]?.model.trim() ?? "unknown"}`,
    },
    checkMemory(),
    checkDisk(db),
  ];
}
