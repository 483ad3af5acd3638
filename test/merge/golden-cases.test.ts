import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { MendelError } from "../../src/base/errors.ts";
import { openSafetensors } from "../../src/formats/safetensors.ts";
import { compileRecipe } from "../../src/merge/compile.ts";
import type { WeightSource } from "../../src/merge/materialize.ts";
import { parseRecipes } from "../../src/recipes/parse.ts";
import type { Recipe } from "../../src/recipes/recipe.ts";
import { dtypeBytes } from "../../src/tensors/dtype.ts";
import type { ModelReader, ModelTensor } from "../../src/tensors/model-reader.ts";
import { planByName, readerSource } from "../support/memory-models.ts";
import { type MergedOutput, mergeAll } from "../support/run-merge.ts";
import { valuesOf } from "../support/stored-values.ts";

interface GoldenCase {
  readonly checks: string;
  readonly tolerance?: { readonly atol: number; readonly rtol: number };
  readonly expect_error?: boolean;
  readonly error?: string;
  readonly known_reference_defect?: string;
}

const root = join(import.meta.dirname, "../golden/mergekit");
const ids = readdirSync(join(root, "cases")).sort();
const readers = new Map<string, ModelReader>(
  readdirSync(join(root, "models")).map((name) => [
    name,
    openSafetensors(join(root, "models", name, "model.safetensors")),
  ]),
);
afterAll(() => {
  for (const reader of readers.values()) reader.close();
});

function caseOf(id: string): GoldenCase {
  return JSON.parse(readFileSync(join(root, "cases", id, "case.json"), "utf8")) as GoldenCase;
}

/** The recipes of a case, in the order in which they run. */
function recipesOf(id: string): readonly Recipe[] {
  const file = join(root, "cases", id, "recipe.yml");
  return parseRecipes(readFileSync(file, "utf8"), file).recipes;
}

function tensorsOf(recipe: Recipe, made: ReadonlyMap<string, Map<string, MergedOutput>>) {
  const text = JSON.stringify(recipe);
  const models = new Map<string, ReadonlyMap<string, ModelTensor>>();
  for (const [id, reader] of readers) {
    if (text.includes(`"${id}"`)) models.set(id, reader.tensors);
  }
  for (const [id, outputs] of made) {
    if (!text.includes(`"${id}"`)) continue;
    models.set(id, new Map([...outputs].map(([name, output]) => [name, described(name, output)])));
  }
  return models;
}

function described(name: string, { shape, dtype }: MergedOutput): ModelTensor {
  return { name, shape, dtype, storedName: name, transposed: false, namedBy: "file", aliases: [] };
}

/** Files on disk, and results of earlier recipes. */
function sourceOf(made: ReadonlyMap<string, Map<string, MergedOutput>>): WeightSource {
  const files = readerSource(readers);
  return {
    dtypeOf: (id, name) => made.get(id)?.get(name)?.dtype ?? files.dtypeOf(id, name),
    read(id, name, start, target) {
      const output = made.get(id)?.get(name);
      if (output === undefined) return files.read(id, name, start, target);
      const from = start * dtypeBytes[output.dtype];
      target.set(output.bytes.subarray(from, from + target.length));
    },
  };
}

function run(id: string, compat: boolean): Map<string, MergedOutput> {
  const made = new Map<string, Map<string, MergedOutput>>();
  let last = new Map<string, MergedOutput>();
  for (const parsed of recipesOf(id)) {
    const recipe: Recipe = compat ? { ...parsed, compat: "mergekit" } : parsed;
    const compiled = compileRecipe(recipe, planByName(tensorsOf(recipe, made)));
    last = mergeAll(compiled, sourceOf(made));
    if (recipe.name !== undefined) made.set(recipe.name, last);
  }
  return last;
}

function expectAgreement(id: string, outputs: Map<string, MergedOutput>, only?: RegExp): void {
  const { atol, rtol } = caseOf(id).tolerance ?? { atol: 0, rtol: 0 };
  const expected = openSafetensors(join(root, "cases", id, "expected.safetensors"));
  expect([...outputs.keys()].sort()).toEqual([...expected.tensors.keys()].sort());
  for (const [name, { shape, dtype }] of expected.tensors) {
    if (only !== undefined && !only.test(name)) continue;
    const output = outputs.get(name) as MergedOutput;
    expect([name, output.dtype, ...output.shape]).toEqual([name, dtype, ...shape]);
    const raw = new Uint8Array(output.bytes.length);
    expected.read(name, 0, raw);
    const want = valuesOf(dtype, raw);
    const got = valuesOf(output.dtype, output.bytes);
    for (const [i, value] of want.entries()) {
      const off = Math.abs((got[i] as number) - value);
      if (off <= atol + rtol * Math.abs(value)) continue;
      expect.fail(`${name}[${i}]: expected ${value}, got ${got[i]}`);
    }
  }
  expected.close();
}

const results = ids.filter((id) => existsSync(join(root, "cases", id, "expected.safetensors")));
const refusals = ids.filter((id) => caseOf(id).expect_error === true);

describe("the reference's results", () => {
  it("are all here", () => {
    expect(results.length).toBeGreaterThanOrEqual(101);
    expect(refusals.length).toBeGreaterThanOrEqual(29);
  });

  it.each(results)("%s, following the reference", (id) => {
    expectAgreement(id, run(id, true));
  });

  // The recipe without `compat`: the same numbers, except where the reference contradicts its documentation, and where it
  // ranks inputs that it rounded to bfloat16 first.
  const departing = [
    "025-linear-slices-tail",
    "047-karcher-base",
    "069-ties-dtype-bf16",
    "082-model-stock-3",
    "083-model-stock-2-rows",
  ];
  it.each(results.filter((id) => !departing.includes(id)))("%s", (id) => {
    expectAgreement(id, run(id, false));
  });

  it("025: by the documented rule the last slice's models all enter the final norm and the head", () => {
    const outputs = run("025-linear-slices-tail", false);
    expectAgreement("025-linear-slices-tail", outputs, /layers|embed/);
    for (const name of ["model.norm.weight", "lm_head.weight"]) {
      const { bytes } = outputs.get(name) as MergedOutput;
      const got = valuesOf("f32", bytes);
      const [b, c] = ["expert-b", "expert-c"].map((id) => {
        const raw = new Uint8Array(bytes.length);
        readers.get(id)?.read(name, 0, raw);
        return valuesOf("f32", raw);
      }) as [Float32Array, Float32Array];
      expect(got).toEqual(b.map((value, i) => (value + (c[i] as number)) / 2));
    }
  });

  it("047: without compat a base that is not listed is no point of the mean", () => {
    const listed = run("047-karcher-base", false);
    const [recipe] = recipesOf("047-karcher-base");
    const { baseModel: _, ...alone } = recipe as Recipe;
    const compiled = compileRecipe(alone, planByName(tensorsOf(alone, new Map())));
    expect(listed).toEqual(mergeAll(compiled, readerSource(readers)));
  });

  it("082: without compat the ratio of Model Stock stays inside [0, 1], and is the same there", () => {
    const outputs = run("082-model-stock-3", false);
    const reference = run("082-model-stock-3", true);
    let clamped = 0;
    for (const [name, { bytes }] of outputs) {
      const base = new Uint8Array(bytes.length);
      readers.get("base")?.read(name, 0, base);
      const same = valuesOf("f32", bytes);
      if (Buffer.compare(bytes, base) === 0) clamped++;
      else {
        const want = valuesOf("f32", (reference.get(name) as MergedOutput).bytes);
        for (const [i, value] of want.entries()) expect(same[i]).toBeCloseTo(value, 5);
      }
    }
    expect(clamped).toBeGreaterThan(0);
    expect(clamped).toBeLessThan(outputs.size);
  });

  it.each(refusals)("%s is refused", (id) => {
    expect(() => run(id, false)).toThrow(MendelError);
    expect(() => run(id, true)).toThrow(MendelError);
  });
});
