// Runs the tests on another Node: node scripts/test-node.mjs 22. The Node comes from npm (package node-<platform>-<arch>); the tests run in a
// fresh copy of the tracked files, because native modules are built for one Node version.
import { execFileSync, spawnSync } from "node:child_process";
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const major = process.argv[2];
if (major === undefined || !/^\d+$/.test(major)) {
  console.error("usage: node scripts/test-node.mjs 22");
  process.exit(2);
}
const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const npm =
  process.env.npm_execpath ?? createRequire(import.meta.url).resolve("npm/bin/npm-cli.js");
const folder = mkdtempSync(join(tmpdir(), `mendel-node${major}-`));
// A test reads the project as a user without rights.
chmodSync(folder, 0o755);

/** Runs a script with a Node, in a folder. */
function run(node, args, cwd, env) {
  const { status } = spawnSync(node, args, {
    cwd,
    stdio: "inherit",
    env: { ...process.env, ...env },
  });
  return status ?? 1;
}

try {
  const tools = join(folder, "tools");
  mkdirSync(tools);
  const name = `node-${process.platform === "win32" ? "win" : process.platform}-${process.arch}`;
  if (
    run(
      process.execPath,
      [npm, "install", "--prefix", tools, "--no-save", `${name}@${major}`],
      tools,
      {},
    ) !== 0
  ) {
    console.error(`${name}@${major} cannot be had here`);
    process.exit(1);
  }
  const place = join(tools, "node_modules", name);
  const node = join(place, "bin", process.platform === "win32" ? "node.exe" : "node");
  const copy = join(folder, "mendel");
  const files = execFileSync("git", ["ls-files", "-z"], { cwd: root, encoding: "utf8" });
  for (const file of files
    .split("\0")
    .filter((path) => path !== "" && existsSync(join(root, path)))) {
    cpSync(join(root, file), join(copy, file));
  }
  // The lint step reads which files git ignores.
  execFileSync("git", ["init", "-q"], { cwd: copy });
  const env = {
    PATH: `${dirname(node)}${delimiter}${process.env.PATH}`,
    ONNXRUNTIME_NODE_INSTALL: "skip",
    ...(existsSync(join(place, "include"))
      ? { npm_config_nodedir: place }
      : { npm_config_nodedir: "" }),
  };
  const status = run(node, [npm, "ci"], copy, env) || run(node, [npm, "test"], copy, env);
  process.exitCode = status;
} finally {
  rmSync(folder, { recursive: true, force: true });
}
