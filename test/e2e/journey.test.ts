import { createHash } from "node:crypto";
import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { openModel } from "../../src/formats/index.ts";
import { dtypeBytes } from "../../src/tensors/dtype.ts";
import { elementCount } from "../../src/tensors/shape.ts";
import {
  digitsExperiment,
  tinylmExperiment,
  writeExperiment,
} from "../support/experiment-files.ts";
import { mendelJson, mendelOk } from "../support/mendel-process.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

type Split = "search" | "validation" | "test";
/** evaluator → metric → split → value. */
type Scores = Readonly<Record<string, Readonly<Record<string, Readonly<Record<Split, number>>>>>>;

interface Trial {
  readonly trial: string;
  readonly fitness: Readonly<Record<Split, number>>;
  readonly scores: Scores;
  readonly recipeSha256: string;
  readonly weightsSha256: string;
}

interface Summary {
  readonly best: Trial;
  readonly parents: Readonly<Record<string, Trial>>;
  readonly baselines: Readonly<Record<string, Trial>>;
}

interface Written {
  readonly files: readonly {
    readonly path: string;
    readonly bytes: number;
    readonly sha256: string;
  }[];
  readonly coverage: { readonly merged: number; readonly refused: readonly unknown[] };
}

interface Exported extends Written {
  readonly trial: string;
  readonly agrees: boolean;
  readonly verified: readonly {
    readonly split: Split;
    readonly stored: number;
    readonly measured: number;
  }[];
}

/** What `mendel evaluate` prints: evaluator → metric → value on the split that was asked for. */
type Evaluated = {
  readonly scores: Readonly<Record<string, Readonly<Record<string, { readonly value: number }>>>>;
};

/** Every metric of a trial on the test split, against what `mendel evaluate` measured. */
function expectSameScores(evaluated: Evaluated, scores: Scores): void {
  for (const [evaluator, metrics] of Object.entries(scores)) {
    for (const [metric, { test }] of Object.entries(metrics)) {
      const measured = evaluated.scores[evaluator]?.[metric]?.value;
      // Candidates are merged inside the graph, exported weights are merged before; the last bits of a loss may differ.
      expect(measured, `${evaluator}.${metric}`).toBeCloseTo(test, 5);
    }
  }
}

function expectFilesAsTold({ files }: Written): void {
  expect(files.length).toBeGreaterThan(0);
  for (const { path, bytes, sha256 } of files) {
    expect(statSync(path).size).toBe(bytes);
    expect(createHash("sha256").update(readFileSync(path)).digest("hex")).toBe(sha256);
  }
}

/** SHA256SUMS as `sha256sum -c` would read it. */
function expectSumsHold(folder: string): void {
  const lines = readFileSync(join(folder, "SHA256SUMS"), "utf8").trim().split("\n");
  expect(lines.length).toBeGreaterThan(3);
  for (const line of lines) {
    const [digest, name = ""] = line.split(/ {2}/);
    expect(
      createHash("sha256")
        .update(readFileSync(join(folder, name)))
        .digest("hex"),
    ).toBe(digest);
  }
}

/** All weights of a model: name → bytes. */
function weightsOf(path: string): Map<string, string> {
  const reader = openModel(path);
  try {
    return new Map(
      [...reader.tensors.values()].map(({ name, shape, dtype }) => {
        const bytes = new Uint8Array(elementCount(shape) * dtypeBytes[dtype]);
        reader.read(name, 0, bytes);
        return [
          name,
          `${dtype} ${shape.join("×")} ${createHash("sha256").update(bytes).digest("hex")}`,
        ];
      }),
    );
  } finally {
    reader.close();
  }
}

it("from a search to a model one can ship: every verb tells the same story", async () => {
  const folder = temporaryFolder();
  const db = ["--db", join(folder, "a.sqlite")];
  const experiment = writeExperiment(folder, digitsExperiment());
  const { best, baselines } = await mendelJson<Summary>(["run", experiment, "--name", "d", ...db]);
  expect(best.trial).toMatch(/^d\/\d+$/);

  const top = await mendelJson<{ trials: Trial[] }>(["best", "d", "--top", "3", ...db]);
  expect(top.trials).toHaveLength(3);
  expect(top.trials[0]).toMatchObject(best);

  const shown = await mendelJson<Trial & { genome: object; genes: object[]; recipe: object }>([
    ...["show", "d/best", ...db],
  ]);
  expect(shown).toMatchObject(best);
  expect(shown.genome).toMatchObject({ kind: "vector" });
  expect(shown.genes).toHaveLength(4);
  expect(shown.recipe).toMatchObject({ merge_method: "task_arithmetic", base_model: "base" });

  const pedigree = await mendelJson<{ nodes: { trial: string; fitness: number }[] }>([
    ...["lineage", "d/best", ...db],
  ]);
  expect(pedigree.nodes[0]).toMatchObject({ trial: best.trial });

  const comparison = await mendelJson<{ split: Split; trials: Trial[]; tests: object[] }>([
    ...["compare", "d/best", "d/baseline:uniform", ...db],
  ]);
  expect(comparison.split).toBe("test");
  expect(comparison.trials[0]?.scores).toEqual(best.scores);
  expect(comparison.trials[1]?.scores).toEqual(baselines["uniform"]?.scores);
  expect(comparison.tests.length).toBeGreaterThanOrEqual(2);

  const out = join(folder, "out");
  const exported = await mendelJson<Exported>(["export", "d/best", out, ...db]);
  expect(exported).toMatchObject({ trial: best.trial, agrees: true });
  expect(exported.verified.map(({ split }) => split)).toContain("test");
  expect(exported.coverage.refused).toEqual([]);
  expectFilesAsTold(exported);
  expectSumsHold(out);
  for (const name of ["model.onnx", "recipe.yml", "README.md", "lineage.json"]) {
    expect(existsSync(join(out, name)), name).toBe(true);
  }
  const recipe = readFileSync(join(out, "recipe.yml"), "utf8");
  expect(recipe).toContain(best.recipeSha256);
  expect(recipe).toContain(best.weightsSha256);

  const model = join(out, "model.onnx");
  expectSameScores(await mendelJson<Evaluated>(["evaluate", model]), best.scores);
  expectSameScores(await mendelJson<Evaluated>(["evaluate", "d/best", ...db]), best.scores);

  const again = join(folder, "again");
  const merged = await mendelJson<Written>(["merge", join(out, "recipe.yml"), again]);
  expectFilesAsTold(merged);
  expect(weightsOf(join(again, "model.onnx"))).toEqual(weightsOf(model));
  const args = ["--experiment", experiment];
  expectSameScores(
    await mendelJson<Evaluated>(["evaluate", join(again, "model.onnx"), ...args]),
    best.scores,
  );
  expectSameScores(
    await mendelJson<Evaluated>(["evaluate", join(out, "recipe.yml"), ...args]),
    best.scores,
  );

  // The same weights in another format, run by the graph of the experiment.
  const tensors = join(folder, "tensors");
  await mendelOk(["export", "d/best", tensors, "--format", "safetensors", ...db]);
  expectSameScores(
    await mendelJson<Evaluated>(["evaluate", join(tensors, "model.safetensors")]),
    best.scores,
  );
});

it("the same with language models, exported as a Hugging Face folder", async () => {
  const folder = temporaryFolder();
  const db = ["--db", join(folder, "a.sqlite")];
  const experiment = writeExperiment(folder, tinylmExperiment());
  const { best, parents } = await mendelJson<Summary>(["run", experiment, "--name", "t", ...db]);
  expect(Object.keys(parents)).toEqual(["math", "names"]);

  const out = join(folder, "out");
  const exported = await mendelJson<Exported>(["export", "t/best", out, "--format", "hf", ...db]);
  expect(exported).toMatchObject({ trial: best.trial, agrees: true });
  expectFilesAsTold(exported);
  expectSumsHold(out);
  const config = JSON.parse(readFileSync(join(out, "config.json"), "utf8")) as object;
  expect(config).toMatchObject({ num_hidden_layers: expect.any(Number) });
  expect(existsSync(join(out, "tokenizer.json"))).toBe(true);
  expectSameScores(await mendelJson<Evaluated>(["evaluate", out]), best.scores);

  const again = join(folder, "again");
  expectFilesAsTold(await mendelJson<Written>(["merge", join(out, "recipe.yml"), again]));
  expect(weightsOf(again)).toEqual(weightsOf(out));
  expectSameScores(
    await mendelJson<Evaluated>(["evaluate", again, "--experiment", experiment]),
    best.scores,
  );

  // Half as many bits: other scores, said so, but no failure.
  const half = join(folder, "half");
  const narrow = await mendelJson<Exported>([
    ...["export", "t/best", half, "--format", "hf", "--dtype", "bfloat16", ...db],
  ]);
  expect(narrow.agrees).toBe(false);
  for (const { stored, measured } of narrow.verified) {
    expect(Math.abs(measured - stored)).toBeLessThan(0.05);
  }
  expect(statSync(join(half, "model.safetensors")).size).toBeLessThan(
    0.6 * statSync(join(out, "model.safetensors")).size,
  );
});

it("a parent that is exported is the parent, bit for bit", async () => {
  const folder = temporaryFolder();
  const db = ["--db", join(folder, "a.sqlite")];
  const models = digitsExperiment()["models"] as Record<string, string>;
  const experiment = writeExperiment(folder, digitsExperiment({ budget: { evaluations: 6 } }));
  await mendelOk(["run", experiment, "--name", "d", "-q", ...db]);
  const out = join(folder, "rotate");
  await mendelOk(["export", "d/baseline:rotate", out, "--format", "safetensors", ...db]);
  const [written, original] = [out, models["rotate"] as string].map((path) =>
    weightsOf(path === out ? join(out, "model.safetensors") : path),
  );
  expect([...(written?.values() ?? [])].sort()).toEqual([...(original?.values() ?? [])].sort());
});
