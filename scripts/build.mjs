// Builds everything `dist/` needs: WebAssembly kernels with AssemblyScript, then the TypeScript sources with tsc.
import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const resolve = createRequire(import.meta.url).resolve;

/** Runs a package's command line with this very Node, so that no shell or PATH is involved. */
function run(script, args) {
  execFileSync(process.execPath, [script, ...args], { cwd: root, stdio: "inherit" });
}

mkdirSync(join(root, "dist", "tensors"), { recursive: true });
run(join(dirname(resolve("assemblyscript/package.json")), "bin", "asc.js"), [
  "src/tensors/kernels/index.ts",
  "--config",
  "src/tensors/kernels/asconfig.json",
  "--target",
  "release",
]);
if (!process.argv.includes("--kernels")) {
  run(join(dirname(resolve("typescript/package.json")), "bin", "tsc"), ["-p", "tsconfig.json"]);
}
