import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import {
  digitsExperiment,
  digitsModels,
  projectFile,
  tinylmExperiment,
  writeExperiment,
} from "../support/experiment-files.ts";
import { mendelJson } from "../support/mendel-process.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

function namesIn(folder: string): string[] {
  return readdirSync(projectFile(folder))
    .filter((name) => /\.ya?ml$/.test(name))
    .map((name) => name.replace(/\.ya?ml$/, ""));
}

interface Summary {
  readonly state: string;
  readonly evaluations: number;
  readonly failures: number;
  readonly best: {
    readonly trial: string;
    readonly fitness: Readonly<Record<"search" | "validation" | "test", number>>;
    readonly weightsSha256: string;
  };
}

function expectFinished(summary: Summary, evaluations: number): void {
  expect(summary).toMatchObject({ state: "done", evaluations, failures: 0 });
  for (const split of ["search", "validation", "test"] as const) {
    expect(summary.best.fitness[split]).toEqual(expect.any(Number));
  }
  expect(summary.best.weightsSha256).toMatch(/^[0-9a-f]{64}$/);
}

/** What a space needs besides the digit models. */
const fittings: Readonly<Record<string, Record<string, unknown>>> = {
  "natural-niches": { optimizer: { name: "natural_niches", archive: 6 } },
  // Exactly two models.
  "slerp-layers": { models: two("rotate", "invert"), base: "rotate" },
  // Models with layers of one shape.
  "layer-paths": tinylmExperiment({ optimizer: "cma_es_margin" }),
};

function two(...names: readonly string[]): Record<string, string> {
  return Object.fromEntries(Object.entries(digitsModels()).filter(([id]) => names.includes(id)));
}

describe("every shipped search space", () => {
  it.each(namesIn("search-spaces"))("%s is searched", async (space) => {
    const folder = temporaryFolder();
    const tiny = { budget: { evaluations: 8 }, finalists: 2, optimizer: "cma_es" };
    const file = writeExperiment(
      folder,
      digitsExperiment({ ...tiny, ...fittings[space], space, program: "auto" }),
    );
    const summary = await mendelJson<Summary>(["run", file, "--db", join(folder, "a.sqlite")]);
    expectFinished(summary, 8);
  });
});

const examples = readdirSync(projectFile("examples"));
/** Enough to see that an example works; the language models' data is long. */
const small = ["--budget", "6", "--set", "finalists=2", "--set", "budget.time=10m"];

interface ExampleFile {
  readonly evaluate: readonly unknown[];
}

function exampleFile(name: string): ExampleFile {
  return parse(readFileSync(projectFile("examples", name, "experiment.yml"), "utf8"));
}

/** Evaluators of an example, cut to a few items each where they are text. */
function fewItems(name: string): string[] {
  return exampleFile(name).evaluate.flatMap((entry, i) => {
    if (typeof entry !== "string" || !entry.startsWith("tinylm")) return [];
    const file = projectFile("evaluators", `${entry}.yml`);
    const evaluator = parse(readFileSync(file, "utf8")) as {
      data: Record<string, string>;
      tokenizer: string;
    };
    const absolute = (path: string): string => join(projectFile("evaluators"), path);
    const cut = {
      ...evaluator,
      data: Object.fromEntries(
        Object.entries(evaluator.data).map(([split, path]) => [split, absolute(path)]),
      ),
      tokenizer: absolute(evaluator.tokenizer),
      limit: 8,
    };
    return ["--set", `evaluate.${i}=${JSON.stringify({ name: entry, evaluator: cut })}`];
  });
}

describe("every shipped example", () => {
  it.each(examples)("%s validates", async (name) => {
    const report = await mendelJson<{
      problems: { severity: string }[];
      coverage: { refused: unknown[] };
      forecast: Record<string, number>;
    }>(["validate", projectFile("examples", name, "experiment.yml")]);
    expect(report).toMatchObject({ schema: "mendel.validate/1", ok: true });
    expect(report.problems.filter(({ severity }) => severity === "error")).toEqual([]);
    expect(report.coverage.refused).toEqual([]);
    for (const key of ["memoryBytes", "diskBytes", "secondsPerEvaluation"]) {
      expect(report.forecast[key]).toBeGreaterThan(0);
    }
  });

  it.each(examples)("%s runs", async (name) => {
    const folder = temporaryFolder();
    const summary = await mendelJson<Summary & { run: string }>([
      ...["run", projectFile("examples", name), "--db", join(folder, "a.sqlite")],
      ...small,
      ...fewItems(name),
    ]);
    expectFinished(summary, 6);
    expect(summary.run).toBe(`${name}-1`);
  });

  it("between them and the extra one, every shipped evaluator is used", async () => {
    const used = new Set(
      examples.flatMap((name) =>
        exampleFile(name).evaluate.filter((entry) => typeof entry === "string"),
      ),
    );
    const rest = namesIn("evaluators").filter((name) => !used.has(name));
    // Those that no example names work on the digit models.
    const folder = temporaryFolder();
    const file = writeExperiment(
      folder,
      digitsExperiment({ evaluate: rest, budget: { evaluations: 6 }, finalists: 2 }),
    );
    const summary = await mendelJson<Summary & { best: { scores: Record<string, unknown> } }>([
      ...["run", file, "--db", join(folder, "a.sqlite")],
    ]);
    expectFinished(summary, 6);
    expect(Object.keys(summary.best.scores).sort()).toEqual([...rest].sort());
  });
});
