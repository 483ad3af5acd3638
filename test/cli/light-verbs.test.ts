import { existsSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { expect, it } from "vitest";

const source = join(import.meta.dirname, "../../src");

/** Everything that is loaded with a file: our files by path below src, packages by name. */
function loadedWith(file: string, seen = new Set<string>()): Set<string> {
  const name = relative(source, file);
  if (seen.has(name)) return seen;
  seen.add(name);
  const text = readFileSync(file, "utf8");
  for (const [, clause, target] of text.matchAll(
    /^(?:import|export) ([^;"]*?from )?"([^"]+)";/gm,
  )) {
    if (target === undefined || clause?.startsWith("type ")) continue;
    if (!target.startsWith(".")) seen.add(target);
    else loadedWith(join(dirname(file), target), seen);
  }
  return seen;
}

it.each(["list", "status", "best", "show", "compare", "lineage", "stop"])(
  "%s answers without loading inference, kernels or schemas of experiments",
  (verb) => {
    const file = join(source, "cli/commands", `${verb}.ts`);
    expect(existsSync(file)).toBe(true);
    const loaded = [...loadedWith(file)];
    expect(loaded).toContain("store/connection.ts");
    expect(loaded).toContain("better-sqlite3");
    const heavy =
      /^(onnxruntime-node|piscina|@huggingface|assemblyscript|(evaluation|graph|merge|tensors|formats|optimizers|spaces)\/)/;
    expect(loaded.filter((name) => heavy.test(name))).toEqual([]);
    expect(loaded).not.toContain("run/experiment.ts");
  },
);

it("sees through several files", () => {
  expect([...loadedWith(join(source, "cli/commands/run.ts"))]).toContain("onnxruntime-node");
});
