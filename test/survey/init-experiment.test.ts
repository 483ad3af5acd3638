import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MendelError } from "../../src/base/errors.ts";
import { parseYaml } from "../../src/base/yaml.ts";
import { loadEvaluator } from "../../src/evaluation/evaluator-schema.ts";
import { loadExperiment } from "../../src/run/experiment.ts";
import { inspectExperiment } from "../../src/run/inspect-experiment.ts";
import { yamlText } from "../../src/survey/experiment-text.ts";
import {
  type InitOptions,
  proposeExperiment,
  writeExperiment,
} from "../../src/survey/init-experiment.ts";
import { cli, cliJson } from "../support/cli.ts";
import { digitFamily, emptyFolder, folderWith, languageModels } from "../support/model-folders.ts";

const adapter = "../test/fixtures/lora-math";

/** Proposes, writes, and reads back what was written. */
async function initialize(folder: string, options: Omit<InitOptions, "folder"> = {}) {
  const proposal = await proposeExperiment({ folder, ...options });
  const files = writeExperiment(proposal).map(({ path }) => relative(folder, path));
  const experiment = loadExperiment(proposal.file);
  const evaluators = experiment.evaluators.map(({ source }) =>
    source.kind === "file" ? loadEvaluator(source.path) : undefined,
  );
  return { proposal, files, experiment, evaluators };
}

async function refusal(options: InitOptions): Promise<MendelError> {
  try {
    await proposeExperiment(options);
  } catch (error) {
    if (error instanceof MendelError) return error;
    throw error;
  }
  throw new Error("was accepted");
}

function jsonl(path: string, rows: readonly object[]): void {
  writeFileSync(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
}

/** Distinct images of 64 numbers. */
function images(count: number): { image: number[] }[] {
  return Array.from({ length: count }, (_, i) => ({
    image: Array.from({ length: 64 }, (__, j) => ((i * 64 + j) % 97) / 97),
  }));
}

describe("a folder of models and data", () => {
  it("becomes an experiment of the digit family", async () => {
    const folder = digitFamily();
    const { files, experiment, evaluators } = await initialize(folder);
    expect(files).toEqual([
      "experiment.yml",
      ...["flipfade", "invert", "mirror", "rotate"].map((task) => `evaluators/${task}.yml`),
    ]);
    expect(experiment.models.map(({ id, path }) => [id, relative(folder, path)])).toEqual([
      ["base", "models/base/model.onnx"],
      ["flipfade", "models/flipfade/model.safetensors"],
      ["invert", "models/invert/model.onnx"],
      ["mirror", "models/mirror/model.onnx"],
      ["rotate", "models/rotate/model.safetensors"],
    ]);
    expect(experiment).toMatchObject({
      base: "base",
      graph: "base",
      objective: "mean",
      optimizer: { name: "cma_es" },
      budget: { evaluations: 300 },
      space: { kind: "file", path: expect.stringMatching(/layer-task-arithmetic\.yml$/) },
    });
    expect(evaluators[3]).toMatchObject({
      name: "rotate",
      task: "classification",
      data: { files: { search: join(folder, "data/rotate.search.npz") } },
      inputs: { image: "image" },
      target: "label",
      output: "logits",
      metrics: ["accuracy", "cross_entropy"],
    });
  });

  it("becomes an experiment of language models", async () => {
    const folder = languageModels();
    jsonl(join(folder, "data/questions.search.jsonl"), [{ prompt: "1 + 1", answer: "2" }]);
    const { proposal, experiment, evaluators } = await initialize(folder);
    expect(experiment.models.map(({ id }) => id)).toEqual([
      "base",
      "math",
      "names",
      "python",
      "scripture",
    ]);
    expect(experiment.graph).toBe("base");
    expect(evaluators[0]).toMatchObject({
      name: "math",
      task: "language-modeling",
      inputs: { input_ids: "text" },
      tokenizer: join(folder, "base/tokenizer.json"),
      // What tokenizer and configuration of the family state.
      maxLength: 256,
      fitness: [{ metric: "nll" }],
    });
    expect(proposal.leftOut).toEqual([
      {
        path: join(folder, "data/questions.search.jsonl"),
        reason: expect.stringContaining("its fields (prompt, answer) do not fill"),
      },
    ]);
  });

  it("may be flat: checkpoints, one graph, one file of data", async () => {
    const folder = folderWith({
      "base.safetensors": "digits-scratch/models/seed-0-4/model.safetensors",
      "tuned.safetensors": "digits-scratch/models/seed-5-9/model.safetensors",
      "model.onnx": "digits-scratch/models/seed-0-4/model.onnx",
      "digits.npz": "digits-scratch/data/digits.search.npz",
    });
    writeFileSync(join(folder, "notes.csv"), "name,remark\na,b\n");
    const { proposal, experiment, evaluators } = await initialize(folder);
    expect(experiment.models.map(({ path }) => relative(folder, path))).toEqual([
      "base.safetensors",
      "tuned.safetensors",
    ]);
    expect(experiment.graph).toBe("model.onnx");
    expect(evaluators[0]).toMatchObject({
      name: "digits",
      data: {
        kind: "fractions",
        file: join(folder, "digits.npz"),
        fractions: { search: 0.5, validation: 0.2, test: 0.3 },
        seed: 1,
      },
    });
    expect(proposal.leftOut.map(({ path }) => relative(folder, path))).toEqual(["notes.csv"]);
  });

  it("takes a checkpoint and the graph of the same name for one model", async () => {
    const folder = folderWith({
      "low.safetensors": "digits-scratch/models/seed-0-4/model.safetensors",
      "low.onnx": "digits-scratch/models/seed-0-4/model.onnx",
      "high.safetensors": "digits-scratch/models/seed-5-9/model.safetensors",
      "digits.npz": "digits-scratch/data/digits.search.npz",
    });
    const { experiment } = await initialize(folder);
    expect(experiment.models.map(({ id }) => id)).toEqual(["high", "low"]);
    expect(experiment.graph).toBe("low.onnx");
    expect(experiment.base).toBeUndefined();
    expect(experiment.space).toMatchObject({ path: expect.stringMatching(/layer-linear\.yml$/) });
  });

  it("may have names that YAML reads as something else", async () => {
    const folder = folderWith({
      "my models: #1/on/model.onnx": "digits/models/base/model.onnx",
      "my models: #1/123/model.onnx": "digits/models/invert/model.onnx",
      "my models: #1/a, b {c}/model.onnx": "digits/models/mirror/model.onnx",
      "- data/true.search.npz": "digits/data/invert.search.npz",
      "- data/true.validation.npz": "digits/data/invert.validation.npz",
      "- data/true.test.npz": "digits/data/invert.test.npz",
    });
    const { experiment, evaluators } = await initialize(folder);
    const ids = experiment.models.map(({ id }) => id);
    expect(ids.sort()).toEqual(["123", "a-b-c", "on"]);
    expect(evaluators[0]?.name).toBe("true");
    inspectExperiment(experiment).models.close();
  });
});

describe("the base", () => {
  it("is the model that the others lie around, when no name says so", async () => {
    const folder = folderWith({
      "a/model.onnx": "digits/models/invert/model.onnx",
      "b/model.onnx": "digits/models/base/model.onnx",
      "c/model.onnx": "digits/models/mirror/model.onnx",
      "d/model.safetensors": "digits/models/rotate/model.safetensors",
      data: "digits/data",
    });
    const { proposal, experiment } = await initialize(folder);
    expect(experiment.base).toBe("b");
    expect(experiment.models[0]?.id).toBe("b");
    expect(proposal.chosen.baseReason).toBe("the others lie around it");
  });

  it("is none of three experts", async () => {
    const folder = folderWith({
      "a/model.onnx": "digits/models/invert/model.onnx",
      "c/model.onnx": "digits/models/mirror/model.onnx",
      "d/model.safetensors": "digits/models/rotate/model.safetensors",
      data: "digits/data",
    });
    const { experiment, proposal } = await initialize(folder);
    expect(experiment.base).toBeUndefined();
    expect(proposal.space).toBe("layer-linear");
  });

  it("is the model under the adapters", async () => {
    const folder = folderWith({
      "lm/llama": "tinylm/models/base",
      "lm/names": "tinylm/models/names",
      "adapters/sums": adapter,
      data: "tinylm/data",
    });
    const config = join(folder, "adapters/sums/adapter_config.json");
    const text = readFileSync(config, "utf8");
    writeFileSync(config, text.replace("../base", "../../lm/llama"));
    const { proposal, experiment } = await initialize(folder);
    expect(proposal.chosen.baseReason).toBe("the model under the adapters");
    expect(experiment.models).toEqual([
      { id: "llama", path: join(folder, "lm/llama") },
      { id: "sums", path: join(folder, "adapters/sums"), base: "llama" },
      { id: "names", path: join(folder, "lm/names") },
    ]);
    inspectExperiment(experiment).models.close();
  });

  it("is what the user says, also none", async () => {
    const folder = digitFamily();
    const asked = await proposeExperiment({ folder, base: "rotate" });
    expect(asked.chosen).toMatchObject({ base: "rotate", baseReason: "as asked" });
    const none = await proposeExperiment({ folder, base: null });
    expect(none.chosen.base).toBeUndefined();
    expect(none.space).toBe("layer-linear");
    const error = await refusal({ folder, base: "rotat" });
    expect(error).toMatchObject({ code: "usage" });
    expect(error.hint).toContain('"rotate"');
  });
});

describe("models that do not belong", () => {
  it("are left out, and the reason is said", async () => {
    const folder = folderWith({
      "digits/base": "digits/models/base",
      "digits/rotate": "digits/models/rotate",
      "digits/copy/model.onnx": "digits/models/base/model.onnx",
      "cnn/invert": "digits-cnn/models/invert",
      data: "digits/data",
    });
    writeFileSync(join(folder, "digits/pytorch_model.bin"), "\x80\x02");
    writeFileSync(join(folder, "digits/broken.safetensors"), "not a model");
    const { proposal, experiment } = await initialize(folder);
    expect(experiment.models.map(({ id }) => id)).toEqual(["base", "rotate"]);
    const reasons = Object.fromEntries(
      proposal.leftOut.map(({ path, reason }) => [relative(folder, path), reason]),
    );
    expect(reasons["cnn/invert/model.onnx"]).toContain("does not fit with base");
    expect(reasons["digits/copy/model.onnx"]).toBe("holds the same weights as base");
    expect(reasons["digits/broken.safetensors"]).toContain("broken.safetensors");
  });

  it("are copies too when only the precision differs", async () => {
    // The folder holds bfloat16, the graph in it was exported from these weights in float32.
    const folder = folderWith({
      "base/model.onnx": "tinylm/models/base/model.onnx",
      half: "tinylm/models/base",
      math: "tinylm/models/math",
      data: "tinylm/data",
    });
    const { chosen, leftOut } = await proposeExperiment({ folder });
    expect(chosen.models.map(({ id }) => id)).toEqual(["base", "math"]);
    expect(leftOut).toContainEqual({
      path: join(folder, "half"),
      reason: "holds the same weights as base",
    });
  });

  it("are an error when the user has named them", async () => {
    const folder = folderWith({ cnn: "digits-cnn/models/invert", mlp: "digits/models/base" });
    const models = new Map([
      ["base", join(folder, "mlp")],
      ["cnn", join(folder, "cnn")],
    ]);
    expect(await refusal({ folder, models })).toMatchObject({
      code: "mismatch",
      message: expect.stringContaining("does not fit with base"),
    });
  });

  it("do not keep the largest family from being found", async () => {
    const folder = folderWith({
      "a/one": "digits-cnn/models/invert",
      "a/two": "digits-cnn/models/mirror",
      "b/three": "digits/models/invert",
      "b/four": "digits/models/mirror",
      "b/five": "digits/models/rotate",
      data: "digits/data",
    });
    const { chosen } = await proposeExperiment({ folder });
    expect(chosen.models.map(({ id }) => id).sort()).toEqual(["five", "four", "three"]);
  });
});

describe("data", () => {
  it("may be split by folder, by other words, or have only a training file for the search", async () => {
    const folder = folderWith({
      models: "digits/models",
      "data/search/turned.npz": "digits/data/rotate.search.npz",
      "data/dev/turned.npz": "digits/data/rotate.validation.npz",
      "data/test/turned.npz": "digits/data/rotate.test.npz",
      "mirror/train.npz": "digits/data/mirror.search.npz",
      "mirror/valid.npz": "digits/data/mirror.validation.npz",
      "mirror/test.npz": "digits/data/mirror.test.npz",
      "half/invert-test.npz": "digits/data/invert.test.npz",
      "half/invert-dev.npz": "digits/data/invert.validation.npz",
    });
    const { evaluators, proposal } = await initialize(folder);
    expect(evaluators.map((one) => one?.name)).toEqual(["invert", "mirror", "turned"]);
    expect(evaluators[0]?.data).toMatchObject({ file: join(folder, "half/invert-test.npz") });
    expect(evaluators[1]?.data).toMatchObject({
      files: { search: join(folder, "mirror/train.npz") },
    });
    expect(evaluators[2]?.data).toMatchObject({
      files: { validation: join(folder, "data/dev/turned.npz") },
    });
    const notes = proposal.evaluators.map((one) => one.notes.join());
    expect(notes[0]).toContain("there is only");
    expect(notes[1]).toContain("if the models were trained on it");
    const written = readFileSync(join(folder, "evaluators/mirror.yml"), "utf8");
    expect(written).toContain("if the models were trained on it");
  });

  it("without labels are judged by the expert they are named after", async () => {
    const folder = folderWith({ models: "digits/models" });
    jsonl(join(folder, "rotate.jsonl"), images(20));
    jsonl(join(folder, "other.jsonl"), images(20));
    const { evaluators, proposal } = await initialize(folder);
    expect(evaluators).toHaveLength(1);
    expect(evaluators[0]).toMatchObject({
      name: "rotate",
      task: "agreement",
      teacher: { kind: "model", at: "rotate" },
      fitness: [{ metric: "kl" }],
    });
    expect(proposal.leftOut[0]).toMatchObject({
      path: join(folder, "other.jsonl"),
      reason: expect.stringContaining("no field says what is right"),
    });
  });

  it("with numbers as targets are a regression", async () => {
    const folder = folderWith({ models: "digits/models" });
    const rows = images(20).map((row, i) => ({ ...row, y: Array(10).fill(i + 0.5) }));
    jsonl(join(folder, "values.jsonl"), rows);
    const { evaluators } = await initialize(folder);
    expect(evaluators[0]).toMatchObject({
      task: "regression",
      target: "y",
      metrics: ["mse", "mae", "r2"],
    });
  });

  it("that would mislead or break a search are left out", async () => {
    const folder = folderWith({
      models: "digits/models",
      // The same images in search and test.
      "leak.search.npz": "digits/data/rotate.search.npz",
      "leak.validation.npz": "digits/data/rotate.validation.npz",
      "leak.test.npz": "digits/data/rotate.search.npz",
      "good.npz": "digits/data/invert.test.npz",
    });
    jsonl(
      join(folder, "labels.jsonl"),
      images(30).map((row, i) => ({ ...row, label: i })),
    );
    jsonl(
      join(folder, "wide.jsonl"),
      images(30).map(({ image }) => ({ image: image.slice(1), label: 1 })),
    );
    const { proposal } = await initialize(folder);
    expect(proposal.evaluators.map(({ name }) => name)).toEqual(["good"]);
    const reasons = Object.fromEntries(
      proposal.leftOut.map(({ path, reason }) => [relative(folder, path), reason]),
    );
    expect(reasons["leak.search.npz"]).toContain("also in search");
    expect(reasons["labels.jsonl"]).toContain("expected a whole number from 0 to 9");
    expect(reasons["wide.jsonl"]).toContain("image [63]");
  });

  it("of which there is a lot are limited", async () => {
    const folder = folderWith({ models: "digits/models" });
    const rows = Array.from({ length: 5000 }, (_, i) => ({
      image: Array.from({ length: 64 }, (__, j) => (j === 0 ? i : 0)),
      label: i % 10,
    }));
    jsonl(join(folder, "many.jsonl"), rows);
    const { evaluators, proposal } = await initialize(folder);
    expect(proposal.evaluators[0]?.rows).toEqual({ search: 2500, validation: 1000, test: 1500 });
    expect(evaluators[0]?.limit).toBe(2000);
  });

  it("are only those that the user names, and for the task that the user names", async () => {
    const folder = digitFamily();
    const data = ["search", "validation", "test"].map((split) =>
      join(folder, `data/rotate.${split}.npz`),
    );
    const { proposal } = await initialize(folder, { data });
    expect(proposal.evaluators.map(({ name }) => name)).toEqual(["rotate"]);
    const agreement = await proposeExperiment({ folder, data, task: "agreement" });
    expect(agreement.evaluators[0]).toMatchObject({ task: "agreement", teacher: "rotate" });
    expect(await refusal({ folder, data, task: "language-modeling" })).toMatchObject({
      code: "not-found",
      message: expect.stringContaining("it could be classification"),
    });
  });
});

describe("what is not enough", () => {
  it("no model, one model, no data, no graph, no folder", async () => {
    const folder = emptyFolder();
    expect(await refusal({ folder })).toMatchObject({
      code: "not-found",
      message: expect.stringContaining("no model was found"),
      hint: expect.stringContaining("--model NAME=PATH"),
    });
    const one = folderWith({ base: "digits/models/base", data: "digits/data" });
    expect((await refusal({ folder: one })).message).toContain("only one model was found");
    const noData = folderWith({ models: "digits/models" });
    expect(await refusal({ folder: noData })).toMatchObject({
      code: "not-found",
      message: "no data to judge candidates by was found",
      hint: expect.stringContaining("--data FILE"),
    });
    const noGraph = folderWith({
      math: "tinylm/models/math",
      names: "tinylm/models/names",
      data: "tinylm/data",
    });
    expect((await refusal({ folder: noGraph })).message).toContain("an ONNX graph");
    expect((await refusal({ folder: join(folder, "nothing") })).code).toBe("not-found");
    expect(existsSync(join(folder, "experiment.yml"))).toBe(false);
  });

  it("a space, optimizer, graph or budget that does not exist", async () => {
    const folder = digitFamily();
    const cases: [Partial<InitOptions>, string][] = [
      [{ space: "layer-task-aritmetic" }, "layer-task-arithmetic"],
      [{ optimizer: "cma-es" }, "cma_es"],
      [{ graph: "bse" }, "base"],
      [{ budget: "many" }, "--budget 20m"],
    ];
    for (const [options, hint] of cases) {
      expect((await refusal({ folder, ...options })).hint).toContain(hint);
    }
  });
});

describe("writing", () => {
  it("overwrites nothing unless forced", async () => {
    const folder = digitFamily();
    const { proposal, files } = await initialize(folder);
    const before = readFileSync(proposal.file, "utf8");
    expect(() => writeExperiment({ ...proposal, budget: { evaluations: 5 } })).toThrow(
      /would be overwritten/,
    );
    expect(readFileSync(proposal.file, "utf8")).toBe(before);
    writeExperiment({ ...proposal, budget: { evaluations: 5 } }, { force: true });
    expect(loadExperiment(proposal.file).budget).toEqual({ evaluations: 5 });
    expect(files).toHaveLength(5);
  });

  it("leaves nothing behind that does not hold together", async () => {
    const folder = digitFamily();
    const proposal = await proposeExperiment({ folder, space: "slerp-layers" });
    expect(() => writeExperiment(proposal)).toThrow(/slerp/);
    expect(existsSync(proposal.file)).toBe(false);
    expect(existsSync(join(folder, "evaluators/rotate.yml"))).toBe(false);
  });

  it("goes where it is told, with paths that still lead to the files", async () => {
    const folder = digitFamily();
    const out = join(emptyFolder(), "deep/er/search.yml");
    const { experiment } = await initialize(folder, { out });
    expect(experiment.file).toBe(out);
    expect(experiment.name).toBe("search");
    expect(experiment.models.every(({ path }) => existsSync(path))).toBe(true);
  });

  it("takes the optimizer that a space needs", async () => {
    const folder = digitFamily();
    const { experiment } = await initialize(folder, { space: "natural-niches", budget: "90s" });
    expect(experiment.optimizer.name).toBe("natural_niches");
    expect(experiment.budget).toEqual({ time: 90 });
  });

  it("spells any text so that YAML reads it back", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", maxLength: 30 }), (text) => {
        fc.pre(!text.includes("\0"));
        const document = `plain: ${yamlText(text)} # remark\nflow: { key: ${yamlText(text)}, list: [${yamlText(text)}] }\n`;
        expect(parseYaml(document, "test").value).toEqual({
          plain: text,
          flow: { key: text, list: [text] },
        });
      }),
    );
    for (const word of ["true", "No", "null", "~", "1e3", "0x1", ".inf", "-", "a: b", "a #b", ""]) {
      expect(parseYaml(`x: ${yamlText(word)}`, "test").value).toEqual({ x: word });
    }
  });
});

describe("mendel init", () => {
  it("prints what it wrote and what to type next", async () => {
    const folder = digitFamily();
    const { status, stdout, stderr } = await cli("init", folder);
    expect(status).toBe(0);
    expect(stdout.match(/^wrote .*$/gm)).toHaveLength(5);
    expect(stdout).toMatch(/mendel validate .*experiment\.yml\n {2}mendel run .*experiment\.yml/);
    expect(stderr).toContain("base, by its name");
    const again = await cli("init", folder);
    expect(again.status).toBe(2);
    expect(again.stderr).toContain("--force");
    expect((await cli("init", folder, "--force", "-q")).status).toBe(0);
  });

  it("takes everything as flags", async () => {
    const folder = digitFamily();
    const { status, json } = await cliJson(
      ...["init", folder, "--out", join(folder, "own"), "--base", "plain", "--graph", "plain"],
      ...["--model", `plain=${join(folder, "models/base")}`],
      ...["--model", `turned=${join(folder, "models/rotate")}`],
      ...["--data", join(folder, "data"), "--task", "classification"],
      ...["--space", "whole-linear", "--optimizer", "random", "--budget", "12"],
    );
    expect(status).toBe(0);
    expect(json).toMatchObject({
      schema: "mendel.init/1",
      experiment: join(folder, "own/experiment.yml"),
      models: [{ name: "plain" }, { name: "turned" }],
      base: "plain",
      space: "whole-linear",
      optimizer: "random",
      budget: { evaluations: 12 },
      evaluators: Array(4).fill({ task: "classification", fitness: "accuracy" }),
      next: [expect.stringMatching(/^mendel validate /), expect.stringMatching(/^mendel run /)],
    });
    expect(loadExperiment(join(folder, "own")).models).toHaveLength(2);
  });

  it.each([
    [["--model", "base"], "--model expects NAME=PATH"],
    [["--model", "a=x", "--model", "a=y"], 'names "a" twice'],
    [["--task", "clasification"], "--task does not know"],
    [["--budget", "0"], "--budget expects"],
  ])("refuses %j", async (flags, message) => {
    const { status, stderr } = await cli("init", digitFamily(), ...flags);
    expect(status).toBe(2);
    expect(stderr).toContain(message);
  });
});
