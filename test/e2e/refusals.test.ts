import { cpSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { npyHeader, npyOf, zipOf } from "../hostile/zip-bytes.ts";
import {
  digitsExperiment,
  digitsModels,
  projectFile,
  tinylmExperiment,
  writeExperiment,
  writeText,
} from "../support/experiment-files.ts";
import { mendel } from "../support/mendel-process.ts";
import { rowsOf } from "../support/run-story.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

/** One experiment that must be refused before any work. */
interface Case {
  readonly what: string;
  /** Writes what it needs into the folder; @returns changes to a good experiment, or the text of a whole file. */
  readonly broken: (folder: string) => object | string;
  /** What stderr must say; `{folder}` stands for the test's folder. */
  readonly says: readonly string[];
  readonly args?: readonly string[];
}

const rotate = (): string => digitsModels()["rotate"] as string;

/** A copy of a safetensors file with another header or other bytes. */
function editSafetensors(
  target: string,
  edit: (
    header: Record<string, { shape: number[]; data_offsets: [number, number] }>,
    data: Uint8Array,
  ) => void,
): string {
  const bytes = readFileSync(rotate());
  const length = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + length).toString()) as Parameters<typeof edit>[0];
  const data = bytes.subarray(8 + length);
  edit(header, data);
  const text = JSON.stringify(header);
  const padded = text.padEnd(Math.ceil(text.length / 8) * 8);
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(padded.length));
  writeFileSync(target, Buffer.concat([prefix, Buffer.from(padded), data]));
  return target;
}

const withRotate = (path: string): object => ({ models: { ...digitsModels(), rotate: path } });

const dataOf = (task: string) => ({
  search: projectFile(`examples/digits/data/${task}.search.npz`),
  validation: projectFile(`examples/digits/data/${task}.validation.npz`),
  test: projectFile(`examples/digits/data/${task}.test.npz`),
});

/** An experiment whose only evaluator is a good one with changes. */
function withEvaluator(changes: object): object {
  const evaluator = {
    task: "classification",
    data: dataOf("rotate"),
    inputs: { image: "image" },
    target: "label",
    output: "logits",
    fitness: "accuracy",
    metrics: ["accuracy"],
    ...changes,
  };
  return { evaluate: [{ name: "own", evaluator }] };
}

const space = (changes: object): object => ({
  space: { method: "task_arithmetic", genes: { weight: { per: "model" } }, ...changes },
});

/** Images of zeros, distinct in their first pixel, with the given labels. */
function writeImages(folder: string, name: string, labels: readonly number[], from = 0): string {
  const images = new Float32Array(labels.length * 64);
  labels.forEach((_, i) => {
    images[i * 64] = from + i;
  });
  const path = join(folder, name);
  writeFileSync(
    path,
    zipOf([
      {
        name: "image.npy",
        data: npyOf(npyHeader("<f4", `(${labels.length}, 64)`), new Uint8Array(images.buffer)),
      },
      {
        name: "label.npy",
        data: npyOf(
          npyHeader("<i8", `(${labels.length},)`),
          new Uint8Array(BigInt64Array.from(labels, BigInt).buffer),
        ),
      },
    ]),
  );
  return path;
}

const names: readonly Case[] = [
  {
    what: "an unknown key",
    broken: () => ({ optimzer: "cma_es" }),
    says: ['unknown key "optimzer"', 'did you mean "optimizer"?', "experiment.yml:"],
  },
  {
    what: "an unknown key of an inline space",
    broken: () => space({ gropus: "layer" }),
    says: ['"gropus"', 'did you mean "groups"?', "experiment.yml"],
  },
  {
    what: "a misspelt space",
    broken: () => ({ space: "layer-task-aritmetic" }),
    says: ['did you mean "layer-task-arithmetic"?'],
  },
  {
    what: "a misspelt evaluator",
    broken: () => ({ evaluate: ["digits-rotat"] }),
    says: ['did you mean "digits-rotate"?'],
  },
  {
    what: "a misspelt optimizer",
    broken: () => ({ optimizer: "cma-es" }),
    says: ['"cma-es"', 'did you mean "cma_es"?'],
  },
  {
    what: "a setting that the optimizer does not have",
    broken: () => ({ optimizer: { name: "cma_es", sgima: 0.1 } }),
    says: ['"sgima"', 'did you mean "sigma"?'],
  },
  {
    what: "a misspelt method",
    broken: () => space({ method: "task_aritmetic" }),
    says: ['"task_aritmetic"', 'did you mean "task_arithmetic"?'],
  },
  {
    what: "a misspelt metric",
    broken: () => withEvaluator({ metrics: ["acuracy"] }),
    says: ['"acuracy"', 'did you mean "accuracy"?'],
  },
  {
    what: "a base that is no model",
    broken: () => ({ base: "bass" }),
    says: ['did you mean "base"?'],
  },
  {
    what: "a graph that is neither model nor file",
    broken: () => ({ graph: "invrt" }),
    says: ['did you mean "invert"?'],
  },
  {
    what: "an evaluator listed twice",
    broken: () => ({ evaluate: ["digits-rotate", "digits-rotate"] }),
    says: ['"digits-rotate" is listed twice'],
  },
  {
    what: "a model listed twice",
    broken: () =>
      `models:\n  a: x.onnx\n  a: y.onnx\nspace: whole-linear\nevaluate: [digits-rotate]\n`,
    says: ['the key "a" was given before, on line 2', "experiment.yml:3"],
  },
  {
    what: "a model with the name of a baseline",
    broken: () => ({ models: { ...digitsModels(), uniform: rotate() } }),
    says: ['"uniform" is the name of a baseline'],
  },
  {
    what: "a constraint that names no metric",
    broken: () => ({ constraints: ["digits-rotate.accurcy >= 0.5"] }),
    says: ['no metric "accurcy"', 'did you mean "accuracy"?'],
  },
  {
    what: "a budget of zero",
    broken: () => ({ budget: { evaluations: 0 } }),
    says: ["budget.evaluations", "experiment.yml:"],
  },
  {
    what: "a budget of zero on the command line",
    broken: () => ({}),
    args: ["--budget", "0"],
    says: ["budget.evaluations"],
  },
  {
    what: "one model only",
    broken: () => ({ models: { base: digitsModels()["base"] } }),
    says: ["at least two models"],
  },
  {
    what: "a product of losses",
    broken: () => ({
      ...withEvaluator({ fitness: "cross_entropy", metrics: ["cross_entropy"] }),
      objective: "product",
    }),
    says: ["a product needs fitness that is better when larger", "own"],
  },
];

const files: readonly Case[] = [
  {
    what: "a model that is missing",
    broken: (folder) => withRotate(join(folder, "none.safetensors")),
    says: ["{folder}/none.safetensors"],
  },
  {
    what: "a model that is truncated",
    broken: (folder) => {
      writeFileSync(join(folder, "cut.safetensors"), readFileSync(rotate()).subarray(0, 30_000));
      return withRotate(join(folder, "cut.safetensors"));
    },
    says: ["{folder}/cut.safetensors"],
  },
  {
    what: "an ONNX model that is truncated",
    broken: (folder) => {
      const whole = readFileSync(digitsModels()["invert"] as string);
      writeFileSync(join(folder, "cut.onnx"), whole.subarray(0, whole.length - 700));
      return { models: { ...digitsModels(), invert: join(folder, "cut.onnx") } };
    },
    says: ["{folder}/cut.onnx"],
  },
  {
    what: "a header larger than any",
    broken: (folder) => {
      const bytes = Uint8Array.from(readFileSync(rotate()));
      bytes.set([0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0]);
      writeFileSync(join(folder, "huge.safetensors"), bytes);
      return withRotate(join(folder, "huge.safetensors"));
    },
    says: ["{folder}/huge.safetensors", "header"],
  },
  {
    what: "a pickle that is called safetensors",
    broken: (folder) => {
      const pickle = Buffer.concat([
        Buffer.from([0x80, 2]),
        Buffer.from("cposix\nsystem\n"),
        Buffer.alloc(64),
      ]);
      writeFileSync(join(folder, "model.safetensors"), pickle);
      return withRotate(join(folder, "model.safetensors"));
    },
    says: ["{folder}/model.safetensors"],
  },
  {
    what: "a text that is called ONNX",
    broken: (folder) => ({
      models: { ...digitsModels(), invert: writeText(folder, "model.onnx", "not a model\n") },
    }),
    says: ["{folder}/model.onnx"],
  },
  {
    what: "a model that is not the pinned one",
    broken: () => ({
      models: { ...digitsModels(), rotate: { path: rotate(), sha256: "ab".repeat(32) } },
    }),
    says: ["pinned to sha256 abab", "rotate"],
  },
  {
    what: "data that is missing",
    broken: (folder) =>
      withEvaluator({ data: { ...dataOf("rotate"), test: join(folder, "none.npz") } }),
    says: ["{folder}/none.npz"],
  },
  {
    what: "data that is a folder",
    broken: (folder) => withEvaluator({ data: { ...dataOf("rotate"), test: folder } }),
    says: ["own", "{folder}"],
  },
  {
    what: "data that is truncated",
    broken: (folder) => {
      const whole = readFileSync(dataOf("rotate").test);
      writeFileSync(join(folder, "cut.npz"), whole.subarray(0, whole.length - 300));
      return withEvaluator({ data: { ...dataOf("rotate"), test: join(folder, "cut.npz") } });
    },
    says: ["{folder}/cut.npz"],
  },
];

const fits: readonly Case[] = [
  {
    what: "a tensor of another shape",
    broken: (folder) => {
      const path = editSafetensors(join(folder, "wide.safetensors"), (header) => {
        const tensor = header["layers.1.weight"];
        if (tensor !== undefined) tensor.shape = [32, 128];
      });
      return withRotate(path);
    },
    // Both shapes and both models.
    says: ["layers.1.weight", "32", "128", "64", "wide.safetensors", "base"],
  },
  {
    what: "a model of another family",
    broken: () => ({
      models: { ...digitsModels(), other: projectFile("examples/tinylm/models/math") },
    }),
    says: ["other"],
  },
  {
    what: "NaN among the weights",
    broken: (folder) => {
      const path = editSafetensors(join(folder, "nan.safetensors"), (header, data) => {
        const [start] = header["layers.2.weight"]?.data_offsets ?? [0];
        data.set([0, 0, 0xc0, 0x7f], start + 4 * 100);
      });
      return withRotate(path);
    },
    says: ["layers.2.weight", "rotate"],
  },
  {
    what: "an infinity among the base's weights",
    broken: (folder) => {
      const path = editSafetensors(join(folder, "inf.safetensors"), (header, data) => {
        const [start] = header["layers.0.bias"]?.data_offsets ?? [0];
        data.set([0, 0, 0x80, 0xff], start);
      });
      return { models: { ...digitsModels(), extra: path } };
    },
    says: ["layers.0.bias", "extra"],
  },
  {
    what: "a freeze pattern that matches nothing",
    broken: () => space({ freeze: ["layres.*"] }),
    says: ['"layres.*"'],
  },
  {
    what: "a group pattern that matches nothing",
    broken: () => space({ groups: { all: ["layers.*"], none: ["head.*"] } }),
    says: ['"head.*"'],
  },
  {
    what: "a kind that matches nothing",
    broken: () => space({ freeze: ["kind:attention"] }),
    says: ["kind:attention"],
  },
  {
    what: "a start outside its range",
    broken: () => space({ genes: { weight: { per: "model", range: [0, 1], start: 2 } } }),
    says: ["weight", "2"],
  },
  {
    what: "an empty range",
    broken: () => space({ genes: { weight: { per: "model", range: [1, 1] } } }),
    says: ["weight"],
  },
  {
    what: "a reversed range",
    broken: () => space({ genes: { weight: { per: "model", range: [1, 0] } } }),
    says: ["weight"],
  },
  {
    what: "a gene that the method does not have",
    broken: () => space({ genes: { weight: { per: "model" }, densty: { range: [0, 1] } } }),
    says: ['"densty"'],
  },
  {
    what: "a method that needs a base, without one",
    broken: () => ({ base: undefined, ...space({}) }),
    says: ["task_arithmetic needs a base"],
  },
  {
    what: "splits that overlap",
    broken: () => withEvaluator({ data: { ...dataOf("rotate"), test: dataOf("rotate").search } }),
    says: ["own", "items are also in search", "rotate.search.npz"],
  },
  {
    what: "a split that is empty",
    broken: (folder) =>
      withEvaluator({
        data: { ...dataOf("rotate"), validation: writeImages(folder, "e.npz", []) },
      }),
    says: ["own", "validation", "empty"],
  },
  {
    what: "labels out of range",
    broken: (folder) =>
      withEvaluator({
        data: {
          search: writeImages(folder, "search.npz", [1, 2, 10]),
          validation: writeImages(folder, "validation.npz", [1, 2], 100),
          test: writeImages(folder, "test.npz", [1, 2], 200),
        },
      }),
    says: ["own", "10"],
  },
  {
    what: "an input that the graph does not have",
    broken: () => withEvaluator({ inputs: { imge: "image" } }),
    says: ["imge", "image"],
  },
  {
    what: "a field that the data does not have",
    broken: () => withEvaluator({ inputs: { image: "picture" } }),
    says: ["picture", "image"],
  },
  {
    what: "a target that the data does not have",
    broken: () => withEvaluator({ target: "lable" }),
    says: ["lable", "label"],
  },
  {
    what: "an output that the graph does not have",
    broken: () => withEvaluator({ output: "logit" }),
    says: ["logit", "logits"],
  },
  {
    what: "a module that is missing",
    broken: (folder) =>
      withEvaluator({
        task: "module",
        target: undefined,
        output: undefined,
        module: join(folder, "none.mjs"),
        fitness: "mine",
        metrics: ["mine"],
      }),
    says: ["{folder}/none.mjs"],
  },
  {
    what: "a tokenizer that is missing",
    broken: (folder) => {
      const { evaluate, ...rest } = tinylmExperiment() as { evaluate: { evaluator: object }[] };
      const [first] = evaluate;
      const evaluator = { ...first?.evaluator, tokenizer: join(folder, "none.json") };
      return { ...rest, evaluate: [{ name: "own", evaluator }] };
    },
    says: ["{folder}/none.json"],
  },
  {
    what: "no graph at all",
    broken: () => ({
      models: {
        base: projectFile("examples/digits-scratch/models/seed-0-4/model.safetensors"),
        other: projectFile("examples/digits-scratch/models/seed-5-9/model.safetensors"),
      },
    }),
    says: ["no ONNX graph"],
  },
];

describe.each([
  ["names and settings", names],
  ["files", files],
  ["what must fit together", fits],
] as const)("refused before any work: %s", (_title, cases) => {
  it.each(cases)("$what", async ({ broken, says, args = [] }) => {
    const folder = temporaryFolder();
    const db = join(folder, "runs.sqlite");
    const made = broken(folder);
    const file =
      typeof made === "string"
        ? writeText(folder, "tiny/experiment.yml", made)
        : writeExperiment(folder, digitsExperiment(made));
    const { status, stdout, stderr } = await mendel(["run", file, "--db", db, ...args]);
    expect(stderr).toMatch(/^error: /m);
    for (const text of says) expect(stderr).toContain(text.replace("{folder}", folder));
    expect(status, stderr).toBe(3);
    expect(stdout).toBe("");
    expect(stderr).not.toMatch(/^\s+at |internal|This is a bug/m);
    expect(existsSync(db)).toBe(false);
  });
});

describe("bad usage", () => {
  it.each<[string, readonly string[], string]>([
    ["a misspelt verb", ["rnu", "x.yml"], 'did you mean "run"?'],
    ["a misspelt flag", ["run", "x.yml", "--bugdet", "5"], "did you mean --budget?"],
    ["no experiment", ["run"], "missing required argument"],
    ["too many arguments", ["run", "a.yml", "b.yml"], "too many arguments"],
    ["no workers", ["run", "examples/digits", "--workers", "0"], "--workers"],
    ["an assignment without a value", ["run", "examples/digits", "--set", "seed"], "key=value"],
    ["a run name with a slash", ["run", "examples/digits", "--name", "a/b"], '"a/b"'],
    ["a split there is none of", ["evaluate", "x", "--split", "train"], '"train"'],
    ["a format there is none of", ["merge", "x.yml", "y", "--format", "gguf"], '"gguf"'],
  ])("%s", async (_what, args, says) => {
    const folder = temporaryFolder();
    const db = join(folder, "runs.sqlite");
    const { status, stderr } = await mendel([...args, "--db", db]);
    expect(stderr).toContain(says);
    expect(status, stderr).toBe(2);
    expect(stderr).not.toMatch(/^\s+at /m);
  });

  it("a name that is taken records nothing and hurts nothing", async () => {
    const folder = temporaryFolder();
    const db = join(folder, "runs.sqlite");
    const file = writeExperiment(folder, digitsExperiment({ budget: { evaluations: 6 } }));
    expect((await mendel(["run", file, "--db", db, "--name", "x", "-q"])).status).toBe(0);
    const again = await mendel(["run", file, "--db", db, "--name", "x"]);
    expect(again.status).toBe(2);
    expect(again.stderr).toContain('there already is a run named "x"');
    const { stdout } = await mendel(["list", "--db", db, "--json"]);
    expect((JSON.parse(stdout) as { runs: unknown[] }).runs).toHaveLength(1);
  });
});

describe("nothing of that name", () => {
  it.each<[string, readonly string[]]>([
    ["no database", ["best"]],
    ["a run", ["resume", "digits-9"]],
    ["a trial", ["show", "digits-9/best"]],
  ])("%s", async (_what, args) => {
    const folder = temporaryFolder();
    const { status, stderr } = await mendel([...args, "--db", join(folder, "none.sqlite")]);
    expect(status, stderr).toBe(6);
    expect(stderr).toMatch(/^error: .*\n(.*\n)*\s+hint: /m);
    expect(existsSync(join(folder, "none.sqlite"))).toBe(false);
  });
});

it("a split that nothing can be scored on ends a run before its search", async () => {
  const folder = temporaryFolder();
  const db = join(folder, "runs.sqlite");
  const broken = withEvaluator({
    data: {
      search: writeImages(folder, "search.npz", [1, 2, 3]),
      validation: writeImages(folder, "validation.npz", [1, 2], 100),
      test: writeImages(folder, "test.npz", [1, -1], 200),
    },
  });
  const file = writeExperiment(folder, digitsExperiment(broken));
  const { status, stderr } = await mendel(["run", file, "--db", db]);
  // 5 when it is found by scoring the baselines, 3 when it is found even before them.
  expect([3, 5], stderr).toContain(status);
  expect(stderr).toContain("label -1");
  if (status === 5) {
    expect(rowsOf(db, "SELECT 1 FROM trial WHERE origin = 'search'")).toEqual([]);
  }
});

it("an input that changed since the run began is refused on resume, by name", async () => {
  const folder = temporaryFolder();
  const db = join(folder, "runs.sqlite");
  const copy = join(folder, "rotate.safetensors");
  cpSync(rotate(), copy);
  const file = writeExperiment(
    folder,
    digitsExperiment({ ...withRotate(copy), budget: { evaluations: 6 } }),
  );
  expect((await mendel(["run", file, "--db", db, "--name", "x", "-q"])).status).toBe(0);
  const bytes = readFileSync(copy);
  bytes[bytes.length - 4] = (bytes[bytes.length - 4] ?? 0) ^ 1;
  writeFileSync(copy, bytes);
  for (const args of [
    ["resume", "x", "--budget", "+6"],
    ["export", "x/best", join(folder, "out")],
  ]) {
    const { status, stderr } = await mendel([...args, "--db", db]);
    expect(status, stderr).toBe(3);
    expect(stderr).toContain(copy);
  }
  expect(existsSync(join(folder, "out"))).toBe(false);
});
