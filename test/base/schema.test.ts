import { describe, expect, it } from "vitest";
import { z } from "zod";
import { MendelError } from "../../src/base/errors.ts";
import { checkWithSchema, formatKey, parseWithSchema } from "../../src/base/schema.ts";
import { parseYaml, withoutLines } from "../../src/base/yaml.ts";

const Model = z.union([
  z.string(),
  z.strictObject({ path: z.string(), sha256: z.string().optional(), base: z.string().optional() }),
]);
const Experiment = z.strictObject({
  models: z.record(z.string(), Model),
  seed: z.int().min(0).default(0),
  objective: z.enum(["mean", "worst", "product", "pareto"]).default("mean"),
  normalize: z.boolean().optional(),
  genes: z
    .record(z.string(), z.strictObject({ range: z.tuple([z.number(), z.number()]).optional() }))
    .optional(),
  constraints: z.array(z.string()).max(2).optional(),
});

function problems(text: string): readonly string[] {
  const result = checkWithSchema(Experiment, parseYaml(text, "e.yml"));
  if (result.ok) throw new Error("was accepted");
  return result.problems.map(
    ({ line, key, message, hint }) => `${line} ${key}: ${message}${hint ? ` (${hint})` : ""}`,
  );
}

describe("parseWithSchema", () => {
  it("returns the schema's output", () => {
    expect(parseWithSchema(Experiment, parseYaml("models: {a: x}\n", "e.yml"))).toEqual({
      models: { a: "x" },
      seed: 0,
      objective: "mean",
    });
  });

  it("suggests the key that was meant, at any depth and inside unions", () => {
    expect(problems("models: {}\nobjectve: mean\n")).toEqual([
      expect.stringMatching(/^2 objectve: unknown key "objectve" \(did you mean "objective"\?/),
    ]);
    expect(problems("models:\n  a:\n    path: x\n    shaa256: y\n")).toEqual([
      expect.stringMatching(/^4 models.a.shaa256: unknown key .*did you mean "sha256"/),
    ]);
    expect(problems("models: {}\ngenes:\n  weight: {rnge: [0, 1]}\n")).toEqual([
      expect.stringMatching(/^3 genes.weight.rnge: unknown key .*did you mean "range"/),
    ]);
  });

  it("says what was expected, what arrived and where", () => {
    expect(problems("models:\n  a: 3\nseed: x\nobjective: maen\nnormalize: yes\n")).toEqual([
      "2 models.a: expected text or a mapping, got 3",
      '3 seed: expected a number, got "x"',
      '4 objective: expected mean | worst | product | pareto, got "maen" (did you mean "mean"?)',
      '5 normalize: expected true or false, got "yes" (write true)',
    ]);
    expect(problems("seed: -1\nconstraints: [a, b, c]\n")).toEqual([
      "1 models: missing; expected a mapping",
      "1 seed: expected a number of at least 0, got -1",
      "2 constraints: expected a size of at most 2, got a list",
    ]);
    expect(problems("models: {}\ngenes: {w: {range: [0, .inf]}}\n")).toHaveLength(1);
    expect(problems("models: {}\nseed: 1.5\n")[0]).toMatch(/expected a whole number, got 1.5/);
    expect(problems("- 1\n")[0]).toBe("1 : expected a mapping, got a list");
  });

  it("throws one error with all problems, placed at the first line", () => {
    let thrown: unknown;
    try {
      parseWithSchema(Experiment, parseYaml("models: {}\nseed: x\nbudgt: 1\n", "e.yml"));
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(MendelError);
    const error = thrown as MendelError;
    expect(error.code).toBe("invalid-config");
    expect(error.message).toContain("e.yml has 2 problems");
    expect(error.message).toContain('line 3, budgt: unknown key "budgt"');
    expect(error.where).toEqual({ file: "e.yml", line: 2, key: "seed" });
    expect(error.hint).toContain("known keys: models");
  });

  it("works on values that have no lines", () => {
    expect(() => parseWithSchema(Experiment, withoutLines({ models: 1 }, "--set"))).toThrow(
      "--set: models: expected a mapping, got 1",
    );
  });
});

describe("formatKey", () => {
  it("quotes what is not a word", () => {
    expect(formatKey(["a", 2, "b c", "d-e"])).toBe('a[2]["b c"].d-e');
  });
});
