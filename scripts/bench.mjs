// Compiles the benchmarks and runs one: node scripts/bench.mjs optimizers/cma-table [arguments]
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const tsc = join(dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "bin");

/** Runs a script with this very Node and passes its exit status on. */
function run(script, args) {
  const { status } = spawnSync(process.execPath, [script, ...args], {
    cwd: root,
    stdio: "inherit",
  });
  return status ?? 1;
}

const [name, ...args] = process.argv.slice(2);
if (name === undefined) {
  const benches = readdirSync(join(root, "bench"), { recursive: true })
    .map(String)
    .filter((file) => file.endsWith(".ts"))
    .map((file) => file.replace(/\.ts$/, ""));
  console.error(
    `usage: node scripts/bench.mjs NAME [arguments]; names: ${benches.sort().join(", ")}`,
  );
  process.exit(2);
}

const kernels = join(root, "dist", "tensors", "kernels.wasm");
if (!existsSync(kernels)) run(join(root, "scripts", "build.mjs"), ["--kernels"]);
// A type error elsewhere does not keep a benchmark from running: its file is emitted all the same.
run(join(tsc, "tsc"), ["-p", "tsconfig.bench.json"]);
const script = join(root, "dist-bench", "bench", `${name}.js`);
if (!existsSync(script)) {
  console.error(`there is no benchmark "${name}"`);
  process.exit(2);
}
// Code that looks for the package finds its version beside the compiled benchmarks.
copyFileSync(join(root, "package.json"), join(root, "dist-bench", "package.json"));
copyFileSync(kernels, join(root, "dist-bench", "src", "tensors", "kernels.wasm"));
process.exit(run(script, args));
