import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { mendelJson, mendelOk } from "../support/mendel-process.ts";
import { digitFamily, folderWith } from "../support/model-folders.ts";

interface RunResult {
  readonly evaluations: number;
  readonly failures: number;
  readonly best: { readonly recipeSha256: string };
}

/** A flat folder: two checkpoints without a common ancestor, a graph, and one file of data to be cut. */
function flatFolder(): string {
  return folderWith({
    "low.safetensors": "digits-scratch/models/seed-0-4/model.safetensors",
    "high.safetensors": "digits-scratch/models/seed-5-9/model.safetensors",
    "graph.onnx": "digits-scratch/models/seed-0-4/model.onnx",
    "digits.npz": "digits-scratch/data/digits.search.npz",
  });
}

/** Two language models with their base and the texts of their domains. */
function languageFolder(): string {
  const splits = ["search", "validation", "test"];
  const texts = ["math", "names"].flatMap((domain) =>
    splits.map((split) => `data/${domain}.${split}.jsonl`),
  );
  return folderWith({
    ...Object.fromEntries(texts.map((path) => [path, `tinylm/${path}`])),
    ...Object.fromEntries(["base", "math", "names"].map((name) => [name, `tinylm/models/${name}`])),
  });
}

describe("what init writes", () => {
  it.each([
    ["digits in folders", digitFamily],
    ["language models with their texts", languageFolder],
    ["checkpoints, a graph and one data file", flatFolder],
  ])("validates and runs as it is: %s", async (_, makeFolder) => {
    const folder = makeFolder();
    const env = { MENDEL_DB: join(folder, "runs.sqlite") };
    await mendelOk(["init", "."], { cwd: folder, env });
    const report = await mendelJson<{ ok: boolean; problems: { severity: string }[] }>(
      ["validate", "experiment.yml"],
      { cwd: folder, env },
    );
    expect(report.ok).toBe(true);
    expect(report.problems.filter(({ severity }) => severity === "error")).toEqual([]);
    const result = await mendelJson<RunResult>(["run", "experiment.yml", "--budget", "4"], {
      cwd: folder,
      env,
    });
    expect(result).toMatchObject({ failures: 0 });
    expect(result.best.recipeSha256).toMatch(/^[0-9a-f]{64}$/);
  });
});
