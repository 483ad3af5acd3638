import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import type { ProgramChoice } from "../../src/evaluation/executor.ts";
import { recipeDigest } from "../../src/recipes/canonical.ts";
import { evaluationKeys } from "../../src/run/evaluation-keys.ts";
import { loadExperiment } from "../../src/run/experiment.ts";
import { prepareExperiment, withProgram } from "../../src/run/prepare.ts";
import { projectFile, writeText } from "../support/experiment-files.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const choice: ProgramChoice = {
  program: "slab",
  feed: "inputs",
  probe: { inputs: 0.1, session: 0.2 },
  runtime: { onnxruntime: "1.30.0", intraOpNumThreads: 1 },
};

const evaluator = (changes: object = {}): object => ({
  title: "rotated",
  task: "classification",
  data: {
    search: "data/rotate.search.npz",
    validation: "data/rotate.validation.npz",
    test: "data/rotate.test.npz",
  },
  inputs: { image: "image" },
  target: "label",
  output: "logits",
  fitness: "accuracy",
  metrics: ["accuracy", "cross_entropy"],
  batch: 64,
  ...changes,
});

/** A folder of its own with two small models and data, so that bytes can be changed. */
function laboratory(): string {
  const folder = temporaryFolder();
  for (const part of ["models/rotate", "models/invert", "models/base", "data"]) {
    cpSync(projectFile("examples/digits", part), join(folder, part), { recursive: true });
  }
  return folder;
}

function write(folder: string, changes: { evaluator?: object; experiment?: object } = {}): string {
  writeText(folder, "rotated.yml", JSON.stringify(evaluator(changes.evaluator)));
  return writeText(
    folder,
    "experiment.yml",
    JSON.stringify({
      models: {
        base: "models/base/model.onnx",
        rotate: "models/rotate/model.safetensors",
        invert: "models/invert/model.onnx",
      },
      base: "base",
      space: "whole-task-arithmetic",
      evaluate: ["./rotated.yml"],
      ...changes.experiment,
    }),
  );
}

/** The key of the first expert's scores. */
async function keyOf(
  file: string,
  split: "search" | "test" = "search",
  program: ProgramChoice = choice,
): Promise<string> {
  const prepared = withProgram(await prepareExperiment(loadExperiment(file)), program);
  try {
    const recipe = prepared.baselines[0]?.recipe;
    if (recipe === undefined) throw new Error("no baseline");
    const [key] = evaluationKeys(prepared, recipeDigest(recipe), split);
    return key?.evalKey ?? "";
  } finally {
    prepared.models.close();
  }
}

it("stays while nothing that matters changes", async () => {
  const folder = laboratory();
  const key = await keyOf(write(folder));
  expect(key).toMatch(/^[0-9a-f]{64}$/);
  const same: Record<string, { evaluator?: object; experiment?: object }> = {
    "a title": { evaluator: { title: "another" } },
    "a budget": { experiment: { budget: { evaluations: 9 } } },
    "an optimizer": { experiment: { optimizer: { name: "cma_es", sigma: 0.5 } } },
    "an objective": { experiment: { objective: "worst" } },
    workers: { experiment: { workers: 3 } },
    "a name": { experiment: { name: "renamed" } },
  };
  for (const [what, changes] of Object.entries(same)) {
    expect(await keyOf(write(folder, changes)), what).toBe(key);
  }
  // The probe's seconds are a measurement, not a way to run.
  expect(await keyOf(write(folder), "search", { ...choice, probe: { inputs: 9 } })).toBe(key);
  // Another place on the disk with the same contents.
  expect(await keyOf(write(laboratory()))).toBe(key);
});

it("changes with everything a score depends on", async () => {
  const folder = laboratory();
  const keys = new Map([["unchanged", await keyOf(write(folder))]]);
  const note = async (what: string, key: Promise<string>): Promise<void> => {
    keys.set(what, await key);
  };
  await note("split", keyOf(write(folder), "test"));
  await note("feed", keyOf(write(folder), "search", { ...choice, feed: "session" }));
  await note(
    "runtime",
    keyOf(write(folder), "search", {
      ...choice,
      runtime: { onnxruntime: "1.31.0", intraOpNumThreads: 1 },
    }),
  );
  for (const changes of [
    { limit: 10 },
    { batch: 32 },
    { metrics: ["accuracy"] },
    { fitness: "cross_entropy" },
    { task: "agreement", teacher: "rotate", fitness: "kl", metrics: [], target: undefined },
  ]) {
    await note(JSON.stringify(changes), keyOf(write(folder, { evaluator: changes })));
  }
  await note("seed of masks", keyOf(write(folder, { experiment: { seed: 1 } })));
  const frozen = {
    space: { method: "task_arithmetic", freeze: ["*bias*"], genes: { weight: { per: "model" } } },
  };
  await note("frozen tensors", keyOf(write(folder, { experiment: frozen })));
  await note("compat", keyOf(write(folder, { experiment: { compat: "mergekit" } })));
  await note("graph", keyOf(write(folder, { experiment: { graph: "invert" } })));

  const flip = async (what: string, path: string, offset: number): Promise<void> => {
    const file = join(folder, path);
    const bytes = readFileSync(file);
    const changed = Uint8Array.from(bytes);
    const at = offset < 0 ? bytes.length + offset : offset;
    changed[at] = (changed[at] as number) ^ 1;
    writeFileSync(file, changed);
    await note(what, keyOf(write(folder)));
    writeFileSync(file, bytes);
  };
  await flip("one bit of the expert's weights", "models/rotate/model.safetensors", -4);
  await flip("one bit of another model's weights", "models/base/model.onnx", -2000);
  const data = join(folder, "data/rotate.search.npz");
  const kept = readFileSync(data);
  cpSync(join(folder, "data/invert.search.npz"), data);
  await note("other items under the same name", keyOf(write(folder)));
  writeFileSync(data, kept);

  expect(await keyOf(write(folder))).toBe(keys.get("unchanged"));
  const distinct = new Map<string, string>();
  for (const [what, key] of keys) {
    expect(distinct.get(key), `${what} has the key of ${distinct.get(key)}`).toBeUndefined();
    distinct.set(key, what);
  }
});
