import { describe, expect, it } from "vitest";
import { MendelError } from "../../src/base/errors.ts";
import { parseRecipe, parseRecipes } from "../../src/recipes/parse.ts";

const parse = (text: string) => parseRecipe(text, "recipe.yml");

/** Code, message and hint of the refusal; "accepted" when there is none. */
function refusal(text: string, read: (text: string) => unknown = parse): string {
  try {
    read(text);
  } catch (error) {
    if (error instanceof MendelError) return `${error.code}: ${error.message} ${error.hint ?? ""}`;
    throw error;
  }
  return "accepted";
}

const two = `
merge_method: linear
models:
  - {model: a, parameters: {weight: 1}}
  - {model: b, parameters: {weight: 0.5}}
`;

describe("parseRecipe", () => {
  it("reads a whole-model recipe with everything a recipe can say", () => {
    const { recipe, warnings } = parse(`
name: mix
merge_method: ties
base_model: org/base@main
models:
  - model: org/math
    parameters: {weight: [0.2, 0.4], density: "0.5"}
  - model: {model: {path: C:/c++/code}, lora: {path: adapters/x, revision: v2}}
    parameters:
      weight:
        - {filter: mlp, value: [1, 0]}
        - {filter: "*", value: 2.5e-1}
parameters: {normalize: true, lambda: 1.1, int8_mask: "no"}
dtype: torch.float32
out_dtype: bfloat16
tokenizer: {source: union, tokens: {"<t>": {source: org/math, force: true}}}
chat_template: chatml
seed: 7
compat: mergekit
freeze: "*norm*"
`);
    expect(warnings).toEqual([]);
    expect(recipe).toEqual({
      name: "mix",
      mergeMethod: "ties",
      baseModel: { model: "org/base", revision: "main" },
      body: {
        kind: "models",
        models: [
          { model: { model: "org/math" }, parameters: { weight: [0.2, 0.4], density: 0.5 } },
          {
            model: { model: "C:/c++/code", lora: "adapters/x@v2" },
            parameters: {
              weight: [
                { filter: "mlp", value: [1, 0] },
                { filter: "*", value: 0.25 },
              ],
            },
          },
        ],
      },
      parameters: { normalize: 1, lambda: 1.1, int8_mask: 0 },
      dtype: "float32",
      outDtype: "bfloat16",
      seed: 7,
      compat: "mergekit",
      freeze: ["*norm*"],
      passthrough: {
        tokenizer: { source: "union", tokens: { "<t>": { source: "org/math", force: true } } },
        chat_template: "chatml",
      },
    });
  });

  it("reads slices with their own base and parameters", () => {
    const { recipe } = parse(`
merge_method: slerp
base_model: a
slices:
  - base_model: b
    sources:
      - {model: b, layer_range: [0, 2]}
      - {model: c@r+lora, layer_range: [1, 3], parameters: {scale: 2}}
    parameters: {t: [0, 0.5]}
`);
    expect(recipe.body).toEqual({
      kind: "slices",
      slices: [
        {
          baseModel: { model: "b" },
          sources: [
            { model: { model: "b" }, layerRange: [0, 2], parameters: {} },
            {
              model: { model: "c", revision: "r", lora: "lora" },
              layerRange: [1, 3],
              parameters: { scale: 2 },
            },
          ],
          parameters: { t: [0, 0.5] },
        },
      ],
    });
  });

  it("reads the module of single-module architectures, its parameters above the recipe's", () => {
    const { recipe } = parse(`
merge_method: linear
modules:
  default:
    models: [{model: a, parameters: {weight: 1}}, {model: b}]
    parameters: {weight: [{filter: mlp, value: 3}], normalize: false}
parameters: {weight: 0.5, normalize: true, other: 2}
`);
    expect(recipe.parameters).toEqual({
      weight: [{ filter: "mlp", value: 3 }, { value: 0.5 }],
      normalize: 0,
      other: 2,
    });
    expect(recipe.body.kind).toBe("models");
  });

  it("keeps keys without effect and says so, with the line", () => {
    const { recipe, warnings } = parse(`
merge_method: linear
base_modle: base
models:
  - {model: a, layer_range: [0, 3], parameters: {weight: 0.5, foo: 3}}
  - {model: b, parameters: {weight: 1}}
sauce: hot
`);
    expect(recipe.extra).toEqual({ base_modle: "base", sauce: "hot" });
    expect(recipe.body.kind === "models" && recipe.body.models[0]).toMatchObject({
      extra: { layer_range: [0, 3] },
      parameters: { weight: 0.5, foo: 3 },
    });
    expect(warnings).toHaveLength(3);
    expect(warnings.join("\n")).toMatch(/line 3: base_modle: .*did you mean "base_model"/);
    expect(warnings.join("\n")).toMatch(/line 5: models\[0\]\.layer_range/);
  });

  it("reads a bare conditional mapping as a list and an empty list as nothing, with a warning", () => {
    const { recipe, warnings } = parse(`
merge_method: linear
models:
  - {model: a, parameters: {weight: {filter: mlp, value: 0.8}}}
  - {model: b, parameters: {weight: []}}
parameters: {weight: 0.25}
`);
    expect(recipe.body.kind === "models" && recipe.body.models.map((m) => m.parameters)).toEqual([
      { weight: [{ filter: "mlp", value: 0.8 }] },
      {},
    ]);
    expect(warnings).toHaveLength(2);
  });

  it("warns of entries that no tensor can reach", () => {
    const { warnings } = parse(`
merge_method: linear
models:
  - {model: a, parameters: {weight: [{value: 1}, {filter: mlp, value: 2}]}}
`);
    expect(warnings.join()).toMatch(/no effect/);
  });

  it("reads booleans and numbers written as text, and never -0", () => {
    const { recipe } = parse(`
merge_method: ties
models: [{model: a}]
parameters: {a: true, b: "false", c: yes, d: "2.5e-1", e: -0, f: [true, false], g: -0.0, h: "-0"}
`);
    expect(recipe.parameters).toEqual({
      a: 1,
      b: 0,
      c: 1,
      d: 0.25,
      e: 0,
      f: [1, 0],
      g: 0,
      h: 0,
    });
    expect(Object.is(recipe.parameters["e"], 0)).toBe(true);
  });

  it.each([
    ["method missing", "models: [{model: a}]", /merge_method: missing/],
    [
      "models and slices",
      `${two}slices:\n  - sources: [{model: a, layer_range: [0, 3]}]`,
      /line 6/,
    ],
    ["nothing to merge", "merge_method: linear", /expected one of models, slices, modules/],
    ["empty models", "merge_method: linear\nmodels: []", /at least one entry/],
    [
      "lengths differ",
      "merge_method: linear\nslices:\n  - sources:\n      - {model: a, layer_range: [0, 2]}\n      - {model: b, layer_range: [0, 3]}",
      /line 5.*2 in the first, 3 here/,
    ],
    [
      "range missing",
      "merge_method: passthrough\nslices:\n  - sources: [{model: a}]",
      /slices\[0\]\.sources\[0\]\.layer_range: missing/,
    ],
    [
      "range of three",
      "merge_method: passthrough\nslices:\n  - sources: [{model: a, layer_range: [0, 1, 2]}]",
      /exactly 2/,
    ],
    [
      "range reversed",
      "merge_method: passthrough\nslices:\n  - sources: [{model: a, layer_range: [2, 1]}]",
      /start below end, got \[2, 1\]/,
    ],
    [
      "range negative",
      "merge_method: passthrough\nslices:\n  - sources: [{model: a, layer_range: [-1, 1]}]",
      /at least 0, got -1/,
    ],
    [
      "range of fractions",
      "merge_method: passthrough\nslices:\n  - sources: [{model: a, layer_range: [0, 1.5]}]",
      /whole number/,
    ],
    ["tokenizer twice", `${two}tokenizer_source: base\ntokenizer: {source: union}`, /got both/],
    [
      "token without a source",
      `${two}tokenizer: {source: base, tokens: {x: {force: true}}}`,
      /tokens\.x\.source: missing/,
    ],
    [
      "token named twice",
      `${two}tokenizer: {tokens: {x: {source: {kind: model_token, model: a, token: y, token_id: 3}}}}`,
      /exactly one of token and token_id/,
    ],
    ["text as weight", two.replace("weight: 1", "weight: heavy"), /line 4.*got "heavy"/],
    ["null as weight", two.replace("weight: 1", "weight: null"), /weight: expected a number/],
    ["infinite weight", two.replace("weight: 1", "weight: .inf"), /expected a number/],
    ["numbers and mappings", two.replace("weight: 1", "weight: [1, {value: 2}]"), /got a mapping/],
    [
      "filter that is no text",
      two.replace("weight: 1", "weight: [{filter: 3, value: 1}]"),
      /filter/,
    ],
    [
      "entry without a value",
      two.replace("weight: 1", "weight: [{filter: mlp}]"),
      /value: expected/,
    ],
    ["unknown dtype", `${two}dtype: float8`, /got "float8".*did you mean "float32"/],
    ["two revisions", two.replace("model: a", "model: a@x@y"), /more than one "@"/],
    ["two adapters", two.replace("model: a", "model: a+x+y"), /more than one "\+"/],
    ["empty revision", two.replace("model: a", "model: a@"), /empty path or revision/],
    ["model missing", two.replace("model: a, ", ""), /models\[0\]\.model: missing/],
    ["the same model twice", two.replace("model: b", "model: a"), /"a" is given twice/],
    [
      "the same model twice in a slice",
      "merge_method: linear\nslices:\n  - sources:\n      - {model: a, layer_range: [0, 2]}\n      - {model: a, layer_range: [1, 3]}",
      /given twice in this slice/,
    ],
    [
      "a module with both",
      "merge_method: passthrough\nmodules:\n  default:\n    models: [{model: a}]\n    slices: [{sources: [{model: a, layer_range: [0, 3]}]}]",
      /modules\.default\.slices: expected one of models, slices/,
    ],
    ["negative seed", `${two}seed: -1`, /seed/],
    ["unknown compat", `${two}compat: mergkit`, /compat/],
    ["two documents", `${two}---${two}`, /expected one document/],
  ])("refuses %s", (_, text, message) => {
    expect(refusal(text)).toMatch(/^invalid-config/);
    expect(refusal(text)).toMatch(message);
  });

  it("tells other documents of mergekit apart from recipes", () => {
    const moe = "base_model: a\ngate_mode: hidden\nexperts: [{source_model: b}]";
    expect(refusal(moe)).toMatch(/^unsupported: recipe.yml is a mixture-of-experts/);
    expect(refusal("genome: {models: [a]}\ntasks: []")).toMatch(/^unsupported.*evolutionary/);
    const t5 = "merge_method: linear\nmodules: {encoder: {models: [{model: a}]}}";
    expect(refusal(t5)).toMatch(/^unsupported.*"encoder"/);
  });

  it("lists every problem at once, in the order of lines", () => {
    const text = two.replace("weight: 1", "weight: heavy").replace("model: b", "model: b@x@y");
    expect(refusal(text)).toMatch(/2 problems:\n.*line 4.*\n.*line 5/);
  });
});

describe("parseRecipes", () => {
  const passthrough = (name: string | undefined, model: string) =>
    `${name === undefined ? "" : `name: ${name}\n`}merge_method: passthrough\nmodels: [{model: ${model}}]\n`;
  const read = (...documents: string[]) => parseRecipes(documents.join("---\n"), "many.yml");
  const refused = (...documents: string[]) => refusal("", () => read(...documents));

  it("puts every recipe after those it uses and the nameless one last", () => {
    const { recipes } = read(
      passthrough(undefined, "right"),
      passthrough("right", "left"),
      passthrough("left", "base"),
    );
    expect(recipes.map((recipe) => recipe.name)).toEqual(["left", "right", undefined]);
  });

  it("sees uses in bases, slices, adapters and tokenizers", () => {
    const user = `name: first\nmerge_method: linear\nbase_model: z1\nslices:\n  - base_model: z2\n    sources: [{model: x+z3, layer_range: [0, 1]}]\ntokenizer: {source: z4}\n`;
    const { recipes } = read(user, ...["z4", "z3", "z2", "z1"].map((n) => passthrough(n, "b")));
    expect(recipes.map((recipe) => recipe.name)).toEqual(["z1", "z2", "z3", "z4", "first"]);
  });

  it("refuses names twice, two recipes without a name, circles, and an empty file", () => {
    expect(refused(passthrough("x", "a"), passthrough("x", "b"))).toMatch(/second.*named "x"/);
    expect(refused(passthrough(undefined, "a"), passthrough(undefined, "b"))).toMatch(
      /line 4: a second recipe without a name/,
    );
    expect(refused(passthrough("x", "y"), passthrough("y", "x"))).toMatch(/use each other: x, y/);
    expect(refused("")).toMatch(/no recipe/);
  });
});
