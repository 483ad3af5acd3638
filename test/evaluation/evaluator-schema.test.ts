import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { MendelError } from "../../src/base/errors.ts";
import { loadEvaluator, parseEvaluator } from "../../src/evaluation/evaluator-schema.ts";
import { createSplitLoader } from "../../src/evaluation/split-data.ts";

const shipped = fileURLToPath(new URL("../../evaluators", import.meta.url));

const minimal = {
  task: "classification",
  data: { search: "s.npz", validation: "v.npz", test: "t.npz" },
  inputs: { image: "image" },
  target: "label",
  fitness: "accuracy",
};

const text = {
  task: "language-modeling",
  data: "all.jsonl",
  split: { search: 0.5, validation: 0.2, test: 0.3, seed: 1 },
  inputs: { input_ids: "text" },
  tokenizer: "tokenizer.json",
  fitness: "nll",
};

function refusal(value: object): MendelError {
  try {
    parseEvaluator(value, "mine", "/data");
  } catch (thrown) {
    if (thrown instanceof MendelError) return thrown;
    throw thrown;
  }
  throw new Error("was not refused");
}

describe("shipped evaluators", () => {
  const files = readdirSync(shipped).filter((file) => file.endsWith(".yml"));

  it.each(files)("%s is valid and its splits are disjoint", async (file) => {
    const definition = loadEvaluator(`${shipped}/${file}`);
    expect(definition.name).toBe(file.replace(".yml", ""));
    await createSplitLoader().check(definition);
  });
});

describe("evaluator files", () => {
  it("fills in defaults and makes paths absolute", () => {
    expect(parseEvaluator(minimal, "mine", "/data")).toEqual({
      name: "mine",
      title: "mine",
      task: "classification",
      data: {
        kind: "files",
        files: { search: "/data/s.npz", validation: "/data/v.npz", test: "/data/t.npz" },
      },
      inputs: { image: "image" },
      target: "label",
      fitness: [{ metric: "accuracy", weight: 1 }],
      metrics: ["accuracy"],
      direction: { accuracy: "higher" },
      batch: 64,
    });
  });

  it("records the metrics of a weighted fitness too, each once", () => {
    const definition = parseEvaluator(
      {
        ...minimal,
        metrics: ["cross_entropy", "accuracy"],
        fitness: [{ metric: "accuracy", weight: 0.7 }, { metric: "cross_entropy" }],
      },
      "mine",
      "/data",
    );
    expect(definition.metrics).toEqual(["cross_entropy", "accuracy"]);
    expect(definition.fitness).toEqual([
      { metric: "accuracy", weight: 0.7 },
      { metric: "cross_entropy", weight: 1 },
    ]);
    expect(definition.direction).toEqual({ cross_entropy: "lower", accuracy: "higher" });
  });

  it("tells a teacher's name from a file", () => {
    const agreement = { ...minimal, task: "agreement", target: undefined, fitness: "kl" };
    const teacherOf = (teacher: string): unknown =>
      parseEvaluator({ ...agreement, teacher }, "mine", "/data").teacher;
    expect(teacherOf("rotate")).toEqual({ kind: "model", at: "rotate" });
    expect(teacherOf("./expert.onnx")).toEqual({ kind: "file", at: "/data/expert.onnx" });
  });

  it("gives module metrics the direction that is written, or higher", () => {
    const definition = parseEvaluator(
      {
        ...minimal,
        task: "module",
        module: "./m.mjs",
        fitness: "gain",
        metrics: ["cost"],
        direction: { cost: "lower" },
      },
      "mine",
      "/data",
    );
    expect(definition.direction).toEqual({ cost: "lower", gain: "higher" });
    expect(definition.module).toBe("/data/m.mjs");
  });
});

describe("refused evaluator files", () => {
  it.each(["generation", "embedding"])("says that the task %s is not there yet", (task) => {
    const error = refusal({ ...minimal, task });
    expect(error.code).toBe("unsupported");
    expect(error.hint).toContain(
      "classification, regression, language-modeling, agreement, module",
    );
  });

  it.each<[string, object, string, string?]>([
    ["an unknown key", { ...minimal, bach: 3 }, 'unknown key "bach"', '"batch"'],
    ["an unknown metric", { ...minimal, metrics: ["acuracy"] }, '"acuracy"', '"accuracy"'],
    ["a metric of another task", { ...minimal, fitness: "nll" }, "does not apply"],
    ["a missing target", { ...minimal, target: undefined }, "missing"],
    ["no inputs", { ...minimal, inputs: {} }, "no graph input"],
    ["one file without fractions", { ...text, split: undefined }, "needs `split`"],
    ["fractions above one", { ...text, split: { ...text.split, test: 0.6 } }, "add up to"],
    ["an empty fraction", { ...text, split: { ...text.split, test: 0 } }, "split.test"],
    ["fractions for three files", { ...minimal, split: text.split }, "names three"],
    ["text without tokenizer", { ...text, tokenizer: undefined }, "tokenizer.json"],
    ["a target that nothing reads", { ...text, target: "label" }, "has no target"],
    ["a module outside its task", { ...minimal, module: "m.mjs" }, "only the task module"],
    ["a module task without module", { ...minimal, task: "module" }, "missing"],
    ["agreement without teacher", { ...minimal, task: "agreement" }, "missing"],
    ["a batch of zero", { ...minimal, batch: 0 }, "batch"],
    [
      "a direction for a built-in metric",
      { ...minimal, direction: { accuracy: "lower" } },
      "only metrics of a module",
    ],
  ])("names %s", (_, value, message, hint) => {
    const error = refusal(value);
    expect(error.code).toBe("invalid-config");
    expect(error.message).toContain(message);
    if (hint !== undefined) expect(error.hint).toContain(hint);
  });
});
