import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { recipeDigest } from "../../src/recipes/canonical.ts";
import { readModelRef, writeModelRef } from "../../src/recipes/model-ref.ts";
import { parseRecipe } from "../../src/recipes/parse.ts";
import type { ModelRef, Recipe, Setting, Settings } from "../../src/recipes/recipe.ts";
import { writeRecipe } from "../../src/recipes/write.ts";

const number = fc
  .oneof(
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.integer(),
    fc.constantFrom(0, 1, 0.1, 1e-7, 1e21, 2e16, Number.MAX_VALUE, Number.MIN_VALUE),
  )
  .map((value) => value + 0);
/** Text that plain YAML would read as something else, beside ordinary names. */
const word = fc.oneof(
  fc.stringMatching(/^[a-zA-Z_][\w./-]{0,20}$/),
  fc.constantFrom("yes", "on", "null", "~", "1.5", "0x10", "1e3", "a: b", "#x", "- a", "*", "é☃"),
);
const path = fc.oneof(word, fc.constantFrom("models/c++/base", "a@b", "C:\\models\\x y"));
const ref: fc.Arbitrary<ModelRef> = fc.record(
  {
    model: path,
    revision: fc.stringMatching(/^[\w.-]{1,8}$/),
    lora: fc.stringMatching(/^[\w./-]{1,12}(@[\w.]{1,5})?$/),
  },
  { requiredKeys: ["model"] },
);
const gradient = fc.array(number, { minLength: 1, maxLength: 4 });
const value = fc.oneof(number, gradient);
const setting: fc.Arbitrary<Setting> = fc.oneof(
  number,
  gradient,
  fc.array(fc.record({ filter: word, value }, { requiredKeys: ["value"] }), {
    minLength: 1,
    maxLength: 4,
  }),
);
const parameter = fc.oneof(
  fc.constantFrom("weight", "density", "normalize", "rescale", "lambda", "t", "scale"),
  fc.stringMatching(/^[a-z_]{1,8}$/),
);
const settings: fc.Arbitrary<Settings> = fc.dictionary(parameter, setting, {
  maxKeys: 3,
  noNullPrototype: true,
});
const distinctRefs = (minLength: number) =>
  fc.uniqueArray(ref, { minLength, maxLength: 3, selector: (entry) => JSON.stringify(entry) });
const models = distinctRefs(1).chain((refs) =>
  fc.tuple(...refs.map((model) => fc.record({ model: fc.constant(model), parameters: settings }))),
);
const slice = fc
  .tuple(distinctRefs(1), fc.nat(40), fc.integer({ min: 1, max: 9 }))
  .chain(([refs, start, length]) => {
    const sources = refs.map((model, i) =>
      fc.record({
        model: fc.constant(model),
        layerRange: fc.constant<readonly [number, number]>([start + i, start + i + length]),
        parameters: settings,
      }),
    );
    return fc.record(
      { sources: fc.tuple(...sources), baseModel: ref, parameters: settings },
      { requiredKeys: ["sources", "parameters"] },
    );
  });
const dtype = fc.constantFrom<NonNullable<Recipe["dtype"]>>("float32", "bfloat16", "float64");
const recipe: fc.Arbitrary<Recipe> = fc.record(
  {
    mergeMethod: fc.stringMatching(/^[a-z_]{1,12}$/),
    body: fc.oneof(
      models.map((entries) => ({ kind: "models" as const, models: entries })),
      fc
        .array(slice, { minLength: 1, maxLength: 3 })
        .map((slices) => ({ kind: "slices" as const, slices })),
    ),
    baseModel: ref,
    parameters: settings,
    dtype,
    outDtype: dtype,
    seed: fc.maxSafeNat(),
    compat: fc.constant("mergekit" as const),
    freeze: fc.array(word, { maxLength: 3 }),
    name: word,
    passthrough: fc.constantFrom<Recipe["passthrough"]>(
      {},
      { tokenizer_source: "union" },
      { tokenizer: { source: "base", pad_to_multiple_of: 64 }, chat_template: "chatml" },
    ),
    extra: fc.constant({ sauce: "hot", "int-8": [1, { a: null }] }),
  },
  { requiredKeys: ["mergeMethod", "body", "parameters", "seed", "freeze", "passthrough"] },
);

describe("writeRecipe", () => {
  it("writes text that reads back to the same recipe", () => {
    fc.assert(
      fc.property(recipe, (given) => {
        const text = writeRecipe(given);
        expect(parseRecipe(text, "written.yml").recipe).toEqual(given);
        expect(writeRecipe(parseRecipe(text, "written.yml").recipe)).toBe(text);
      }),
      { numRuns: 300 },
    );
  });

  it("writes what people like to read", () => {
    const text = `merge_method: ties
base_model: base
models:
  - model: math@v1+adapters/a
    parameters:
      weight:
        - {filter: layers.0., value: 0.30000000000000004}
        - {value: [0.25, 1.0e-7]}
      density: 0.5
parameters:
  normalize: false
  lambda: 1
dtype: float32
seed: 7
freeze:
  - "*norm*"
`;
    const { recipe } = parseRecipe(text, "recipe.yml");
    expect(writeRecipe(recipe)).toBe(text.replace("1.0e-7", "1e-7"));
  });

  it("puts a comment before the document", () => {
    const { recipe } = parseRecipe("merge_method: linear\nmodels: [{model: a}]", "recipe.yml");
    const text = writeRecipe(recipe, { comment: "run digits-1, trial 12\nfitness: 0.81" });
    expect(text).toMatch(/^# run digits-1, trial 12\n# fitness: 0\.81\n\nmerge_method: linear\n/);
    expect(parseRecipe(text, "written.yml").recipe).toEqual(recipe);
  });

  it("quotes text that an older YAML reader would take for a boolean", () => {
    const { recipe } = parseRecipe('merge_method: linear\nmodels: [{model: "yes"}]', "recipe.yml");
    expect(writeRecipe(recipe)).toMatch(/model: "yes"/);
  });
});

describe("model references", () => {
  it("read back from either spelling", () => {
    fc.assert(
      fc.property(ref, (given) => {
        expect(readModelRef(writeModelRef(given))).toEqual({ ok: true, ref: given, ignored: [] });
      }),
    );
  });
});

describe("recipeDigest", () => {
  const digest = (text: string) => recipeDigest(parseRecipe(text, "recipe.yml").recipe);
  const text = "merge_method: linear\nmodels: [{model: a, parameters: {weight: 0.5}}]\n";

  it("is the same for recipes that mean the same", () => {
    const same = [
      `${text}name: x\n`,
      `${text}sauce: hot\n`,
      `models: [{parameters: {weight: "0.5"}, model: a}]\nmerge_method: linear\n`,
      text.replace("0.5", "[{value: 0.5}]"),
      text.replace("0.5", '[{filter: "*", value: 5e-1}, {filter: mlp, value: 3}]'),
    ];
    for (const other of same) expect(digest(other)).toBe(digest(text));
  });

  it("differs where the weights may differ", () => {
    const others = [
      text.replace("0.5", "0.50000001"),
      text.replace("linear", "ties"),
      text.replace("model: a", "model: a@main"),
      text.replace("0.5", "[{filter: mlp, value: 0.5}]"),
      `${text}seed: 1\n`,
      `${text}compat: mergekit\n`,
      `${text}dtype: bfloat16\n`,
      `${text}freeze: [x]\n`,
      `${text}tokenizer_source: union\n`,
    ];
    const digests = [text, ...others].map(digest);
    expect(new Set(digests).size).toBe(digests.length);
  });

  it("does not depend on -0 nor on the order of frozen patterns", () => {
    const { recipe: given } = parseRecipe(`${text}freeze: [a, b]\n`, "recipe.yml");
    const body = { kind: "models" as const, models: [] };
    expect(recipeDigest({ ...given, freeze: ["b", "a", "b"] })).toBe(recipeDigest(given));
    expect(recipeDigest({ ...given, body, parameters: { x: -0 } })).toBe(
      recipeDigest({ ...given, body, parameters: { x: 0 } }),
    );
  });

  it("survives writing and reading", () => {
    fc.assert(
      fc.property(recipe, (given) => {
        const again = parseRecipe(writeRecipe(given), "written.yml").recipe;
        expect(recipeDigest(again)).toBe(recipeDigest(given));
      }),
      { numRuns: 100 },
    );
  });
});
