import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { loadExperiment, restoreExperiment } from "../../src/run/experiment.ts";
import { projectFile, projectRoot, writeText } from "../support/experiment-files.ts";
import { refusalOf } from "../support/refusal.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const minimal = `models:
  one: a.onnx
  two: b.onnx
space: whole-linear
evaluate: [digits-rotate]
`;

let folder = "";
beforeEach(() => {
  folder = temporaryFolder();
});

function load(text: string, ...changes: string[]) {
  return loadExperiment(writeText(folder, "search/experiment.yml", text), changes);
}

const refused = (text: string, ...changes: string[]) => refusalOf(() => load(text, ...changes));

describe("a whole experiment", () => {
  it("is the shipped one, with every name resolved to a place", () => {
    const experiment = loadExperiment(projectFile("examples/digits"));
    const at = (...parts: string[]): string => projectFile("examples/digits", ...parts);
    expect(experiment).toMatchObject({
      name: "digits",
      file: at("experiment.yml"),
      base: "base",
      graph: undefined,
      objective: "mean",
      optimizer: { name: "cma_es", settings: { sigma: 0.15 } },
      seed: 7,
      space: { kind: "file", path: projectFile("search-spaces/layer-task-arithmetic.yml") },
    });
    expect(experiment.models.map(({ id }) => id)).toEqual([
      "base",
      "rotate",
      "invert",
      "mirror",
      "flipfade",
    ]);
    expect(experiment.models[1]?.path).toBe(at("models/rotate/model.safetensors"));
    expect(experiment.evaluators[0]).toEqual({
      name: "digits-rotate",
      weight: 1,
      source: { kind: "file", path: projectFile("evaluators/digits-rotate.yml") },
    });
  });

  it("fills in what the file leaves out", () => {
    expect(load(minimal)).toMatchObject({
      objective: "mean",
      constraints: [],
      optimizer: { name: "cma_es", settings: {} },
      budget: { evaluations: 300 },
      seed: 0,
      workers: "auto",
      timeoutSeconds: 600,
      finalists: 10,
    });
  });

  it("reads sizes, times, pins and adapters", () => {
    const experiment = load(
      minimal.replace("two: b.onnx", `two: { path: b, base: one, sha256: ${"0f".repeat(32)} }`) +
        "budget: { evaluations: 7, time: 1.5h, stall: 3 }\ntimeout: 90s\nmemory: 2G\n",
    );
    expect(experiment.models[1]).toEqual({
      id: "two",
      path: join(folder, "search/b"),
      base: "one",
      sha256: "0f".repeat(32),
    });
    expect(experiment).toMatchObject({
      budget: { evaluations: 7, time: 5400, stall: 3 },
      timeoutSeconds: 90,
      memoryBytes: 2e9,
    });
  });

  it("is the same after a round through the run record", () => {
    const experiment = load(`${minimal}timeout: 90s\nmemory: 2G\n`, "budget.time=20m");
    const restored = restoreExperiment(
      JSON.parse(JSON.stringify(experiment.given)),
      experiment.file,
    );
    expect(restored).toEqual(experiment);
  });

  it("may be JSON", () => {
    const text = JSON.stringify({
      models: { one: "a.onnx", two: "b.onnx" },
      space: "whole-linear",
      evaluate: ["digits-rotate"],
    });
    expect(load(text).models).toHaveLength(2);
  });
});

describe("names", () => {
  it.each([
    ["search/experiment.yml", "search"],
    ["search/my-search.yml", "my-search"],
    ["search/my search (2).yaml", "my-search-2-"],
    ["search/_private.json", "private"],
    ["search/...yml", "run"],
  ])("%s is called %s", (path, name) => {
    expect(loadExperiment(writeText(folder, path, minimal)).name).toBe(name);
  });

  it("a name in the file wins", () => {
    expect(load(`${minimal}name: mine\n`).name).toBe("mine");
    expect(refused(`${minimal}name: ../mine\n`).message).toContain("letters, digits");
  });

  it("a folder means the experiment in it", () => {
    const file = writeText(folder, "search/experiment.json", JSON.stringify({}));
    expect(refusalOf(() => loadExperiment(join(folder, "search"))).where?.file).toBe(file);
    const error = refusalOf(() => loadExperiment(join(folder, "nowhere")));
    expect(error).toMatchObject({ code: "not-found", where: { file: join(folder, "nowhere") } });
    expect(error.hint).toContain("mendel init");
  });
});

describe("spaces and evaluators by name", () => {
  const title = (text: string): string => `title: ${text}\nmethod: linear\n`;

  it("beside the experiment first, then in the package", () => {
    expect(load(minimal).space).toEqual({
      kind: "file",
      path: join(projectRoot, "search-spaces/whole-linear.yml"),
    });
    const own = writeText(folder, "search/search-spaces/whole-linear.yaml", title("own"));
    expect(load(minimal).space).toEqual({ kind: "file", path: own });
  });

  it("by path, relative to the experiment", () => {
    const path = writeText(folder, "spaces/own.yml", title("own"));
    expect(load(minimal.replace("whole-linear", "../spaces/own.yml")).space).toEqual({
      kind: "file",
      path,
    });
    const error = refused(minimal.replace("whole-linear", "../spaces/none.yml"));
    expect(error.code).toBe("not-found");
    expect(error.message).toContain(join(folder, "spaces/none.yml"));
  });

  it("inline, with paths relative to the experiment", () => {
    const experiment = load(
      minimal
        .replace("whole-linear", "{ method: linear }")
        .replace("[digits-rotate]", "[{ name: mine, weight: 2, evaluator: { task: module } }]"),
    );
    expect(experiment.space).toEqual({ kind: "inline", value: { method: "linear" } });
    expect(experiment.evaluators).toEqual([
      {
        name: "mine",
        weight: 2,
        source: { kind: "inline", value: { task: "module" }, folder: join(folder, "search") },
      },
    ]);
  });

  it("suggest what was meant", () => {
    const space = refused(minimal.replace("whole-linear", "whole-linaer"));
    expect(space.message).toBe('no search space named "whole-linaer"');
    expect(space.hint).toContain('did you mean "whole-linear"?');
    const evaluator = refused(minimal.replace("digits-rotate", "digits-rotat"));
    expect(evaluator.message).toBe('no evaluator named "digits-rotat"');
    expect(evaluator.hint).toContain('did you mean "digits-rotate"?');
    expect(evaluator.where?.file).toBe(join(folder, "search/experiment.yml"));
  });

  it("an inline evaluator needs a name", () => {
    const error = refused(minimal.replace("digits-rotate", "{ evaluator: { task: module } }"));
    expect(error.message).toContain("needs a name");
    expect(error.hint).toContain("name: my-task");
  });
});

describe("--set", () => {
  it("changes, adds and nests, with values read as YAML", () => {
    const experiment = load(
      minimal,
      "budget.evaluations=50",
      "budget.time=20m",
      "optimizer.sigma=0.3",
      "seed=12",
      "objective=worst",
      "constraints=[digits-rotate.accuracy >= 0.5]",
      "models.three={ path: c.onnx }",
      "workers=auto",
    );
    expect(experiment).toMatchObject({
      budget: { evaluations: 50, time: 1200 },
      optimizer: { name: "cma_es", settings: { sigma: 0.3 } },
      seed: 12,
      objective: "worst",
      constraints: ["digits-rotate.accuracy >= 0.5"],
    });
    expect(experiment.models[2]?.path).toBe(join(folder, "search/c.onnx"));
  });

  it("keeps the optimizer's name when one of its settings is set", () => {
    const experiment = load(`${minimal}optimizer: natural_niches\n`, "optimizer.archive=5");
    expect(experiment.optimizer).toEqual({ name: "natural_niches", settings: { archive: 5 } });
  });

  it("is recorded with the run", () => {
    expect(load(minimal, "seed=99").given.seed).toBe(99);
  });

  it.each(["seed", "=5", "a"])("%j is no assignment", (change) => {
    expect(refused(minimal, change)).toMatchObject({ code: "usage" });
  });

  it("a key that does not exist is refused as in the file", () => {
    const error = refused(minimal, "budgte.evaluations=5");
    expect(error.code).toBe("invalid-config");
    expect(error.message).toContain("budgte");
    expect(error.hint).toContain('did you mean "budget"?');
  });

  it("a value that does not fit is refused with what was expected", () => {
    expect(refused(minimal, "budget.evaluations=0").message).toContain("budget.evaluations");
    expect(refused(minimal, "budget.time=soon").message).toContain("90s, 20m or 2h");
    expect(refused(minimal, "workers=many").code).toBe("invalid-config");
    expect(refused(minimal, "seed={").code).toBe("invalid-config");
  });

  it.each(["__proto__.polluted=1", "a.__proto__.polluted=1", "__proto__={ polluted: 1 }"])(
    "%s reaches no prototype",
    (change) => {
      expect(refused(minimal, change).code).toMatch(/usage|invalid-config/);
      expect(Object.hasOwn(Object.prototype, "polluted")).toBe(false);
    },
  );

  it.each(["", "# nothing\n", "[1, 2]\n", "just text\n"])(
    "on a file that holds %j complains about the file",
    (text) => {
      expect(refused(text, "seed=1").code).toBe("invalid-config");
    },
  );
});

describe("what is refused, with the line", () => {
  const lineOf = (text: string): number | undefined => refused(text).where?.line;

  it("unknown keys, at any depth, with a suggestion", () => {
    const error = refused(`${minimal}optimzer: cma_es\n`);
    expect(error.message).toContain('unknown key "optimzer"');
    expect(error.hint).toContain('did you mean "optimizer"?');
    expect(error.where).toMatchObject({ file: join(folder, "search/experiment.yml"), line: 6 });
    const nested = refused(`${minimal}budget:\n  evaluations: 5\n  stal: 3\n`);
    expect(nested.where?.line).toBe(8);
    expect(nested.hint).toContain('did you mean "stall"?');
  });

  it.each([
    ["a budget of zero", `${minimal}budget: { evaluations: 0 }\n`, 6],
    ["a time of zero", `${minimal}budget: { time: 0s }\n`, 6],
    ["a negative weight", minimal.replace("[digits", "[{ evaluator: x, weight: -1 }, digits"), 5],
    ["an objective there is none of", `${minimal}objective: maen\n`, 6],
    ["no evaluator", minimal.replace("[digits-rotate]", "[]"), 5],
    ["a short digest", minimal.replace("b.onnx", "{ path: b, sha256: 12ab }"), 3],
    ["a model name with a slash", minimal.replace("two:", "a/b:"), 3],
    ["a model given twice", minimal.replace("two:", "one:"), 3],
    ["an evaluator list that is a text", minimal.replace("[digits-rotate]", "digits-rotate"), 5],
  ])("%s", (_what, text, line) => {
    expect(lineOf(text)).toBe(line);
    expect(refused(text).code).toBe("invalid-config");
  });

  it("missing keys", () => {
    const error = refused("models: { a: x, b: y }\n");
    expect(error.message).toMatch(/space/);
    expect(error.message).toMatch(/evaluate/);
  });
});

describe("hostile files", () => {
  const laughs = (levels: number): string => {
    const lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"];
    for (let i = 1; i < levels; i++) {
      lines.push(`a${i}: &a${i} [${new Array(10).fill(`*a${i - 1}`).join(", ")}]`);
    }
    return `${lines.join("\n")}\n`;
  };

  it.each([
    ["a billion laughs", laughs(9)],
    ["a cycle", "models: &m { a: *m }\n"],
    ["depth", `${"[".repeat(20_000)}${"]".repeat(20_000)}\n`],
    ["a function tag", `${minimal}name: !!js/function "function () { return 1; }"\n`],
    ["a prototype", `${minimal}__proto__: { polluted: true }\n`],
    ["an overflowing number", `${minimal}seed: 1e400\n`],
    ["an integer beyond doubles", `${minimal}seed: 123456789012345678901\n`],
    ["two documents", `${minimal}---\n${minimal}`],
    ["half a mebibyte", `${minimal}# ${"x".repeat(512 * 1024)}\n`],
    ["a NUL", `${minimal}name: "a\\0b"\n`],
  ])("%s", (_what, text) => {
    const error = refused(text);
    expect(error.code).toBe("invalid-config");
    expect(error.where?.file).toBe(join(folder, "search/experiment.yml"));
    expect(Object.hasOwn(Object.prototype, "polluted")).toBe(false);
  });
});
