// The one-minute tour: searches merge recipes over the bundled digit models and prints what it found.
import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const args = [
  join(root, "dist", "cli", "main.js"),
  "run",
  "examples/digits/experiment.yml",
  ...process.argv.slice(2),
];
console.error(
  "Four experts of one digit network, merged into one model: searching for a minute at most (examples/digits/experiment.yml).",
);
const { status } = spawnSync(process.execPath, args, {
  cwd: root,
  stdio: "inherit",
  env: { ...process.env, MENDEL_COMMAND: "npx mendel" },
});
process.exitCode = status ?? 1;
