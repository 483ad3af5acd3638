import { readdirSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MendelError } from "../../src/base/errors.ts";
import type { Genome } from "../../src/base/genome.ts";
import { packageRoot } from "../../src/base/package.ts";
import { parseYaml, withoutLines } from "../../src/base/yaml.ts";
import { mergeMethods } from "../../src/merge/index.ts";
import { lookupList, lookupSetting } from "../../src/recipes/lookup.ts";
import { parseRecipe } from "../../src/recipes/parse.ts";
import type { Recipe } from "../../src/recipes/recipe.ts";
import { writeRecipe } from "../../src/recipes/write.ts";
import { buildSpace } from "../../src/spaces/build-space.ts";
import { loadSpaceDefinition, parseSpaceDefinition } from "../../src/spaces/schema.ts";
import type { Space, SpaceContext } from "../../src/spaces/space.ts";
import { bertShapes, cnnShapes, llamaShapes, mlpShapes, t5Names } from "../recipes/families.ts";

const families: Record<string, readonly string[]> = {
  llama: Object.keys(llamaShapes(12)),
  bert: Object.keys(bertShapes(4)),
  mlp: Object.keys(mlpShapes()),
  cnn: Object.keys(cnnShapes(false)),
  t5: [...new Set(t5Names(2))],
};
const context = (changes: Partial<SpaceContext> = {}): SpaceContext => ({
  models: ["base", "rotate", "invert", "mirror"],
  base: "base",
  tensors: families["mlp"] as string[],
  methods: Object.values(mergeMethods),
  seed: 7,
  ...changes,
});
const build = (definition: unknown, changes: Partial<SpaceContext> = {}): Space =>
  buildSpace(parseSpaceDefinition(withoutLines(definition, "space.yml")), context(changes));

/** Value of a parameter for one tensor and model, by the lookup that merging uses. */
function valueFor(recipe: Recipe, parameter: string, tensor: string, model?: string) {
  if (recipe.body.kind !== "models") throw new Error("spaces make whole-model recipes");
  const entry = recipe.body.models.find((candidate) => candidate.model.model === model);
  const levels = [entry?.parameters, recipe.parameters];
  return lookupSetting(levels, parameter, { tensor, position: 0 });
}

const vector = (values: readonly number[]): Genome => ({ kind: "vector", values });
const startOf = (space: Space): Genome => vector(space.start);

/** Genomes of a space: mostly inside, sometimes on the edges of the cube. */
const genomes = (space: Space) =>
  fc
    .array(
      fc.oneof(
        { weight: 4, arbitrary: fc.double({ min: 0, max: 1, noNaN: true }) },
        { weight: 1, arbitrary: fc.constantFrom(0, 1, 0.5) },
      ),
      { minLength: space.axes.length, maxLength: space.axes.length },
    )
    .map(vector);

describe("buildSpace", () => {
  it("makes one axis per expert and group, models first", () => {
    const space = build({
      method: "task_arithmetic",
      groups: "layer",
      genes: {
        weight: { per: ["model", "group"], range: [-0.2, 1.5], start: 0.3 },
        lambda: { value: 1 },
        density: { choices: [0.1, 0.2, 0.4, 0.8] },
      },
      freeze: ["layers.3.*"],
    });
    expect(space.axes).toHaveLength(3 * 3 + 1);
    expect(space.axes.slice(0, 4)).toEqual([
      "weight[rotate, layers.0]",
      "weight[rotate, layers.1]",
      "weight[rotate, layers.2]",
      "weight[invert, layers.0]",
    ]);
    expect(space.axes.at(-1)).toBe("density");
    expect([...space.groups.keys()]).toEqual(["layers.0", "layers.1", "layers.2"]);
    expect(space.frozen).toEqual(["layers.3.bias", "layers.3.weight"]);
    const recipe = space.decode(startOf(space));
    expect(recipe).toEqual({
      mergeMethod: "task_arithmetic",
      baseModel: { model: "base" },
      body: {
        kind: "models",
        models: ["rotate", "invert", "mirror"].map((model) => ({
          model: { model },
          parameters: { weight: 0.3 },
        })),
      },
      parameters: { normalize: 0, rescale: 0, lambda: 1, density: 0.1 },
      seed: 7,
      freeze: ["layers.3.*"],
      passthrough: {},
    });
  });

  it("decodes the declared starts exactly, on every scale", () => {
    fc.assert(
      fc.property(
        fc.constantFrom("linear", "log", "logit"),
        fc.double({ min: 1e-6, max: 1, noNaN: true }),
        fc.double({ min: 1e-6, max: 1, noNaN: true }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (scale, a, b, share) => {
          const [low, high] = [Math.min(a, b), Math.max(a, b)];
          fc.pre(high - low > 1e-3 && high > 2e-3 && low < 0.998);
          const start = Math.min(high, Math.max(low, low + share * (high - low)));
          const space = build({
            method: "ties",
            genes: { density: { range: [low, high], scale, start }, weight: { value: 1 } },
          });
          expect(space.decode(startOf(space)).parameters["density"]).toBe(start);
          expect(space.decode(vector([0])).parameters["density"]).toBe(low);
          expect(space.decode(vector([1])).parameters["density"]).toBe(high);
        },
      ),
      { numRuns: 300 },
    );
  });

  it("keeps the order of values along an axis and never leaves the range", () => {
    const space = build({
      method: "ties",
      genes: {
        weight: { value: 1 },
        lambda: { range: [0.2, 2], scale: "log" },
        density: { range: [0, 1], scale: "logit", start: 0.9999 },
      },
    });
    const at = (u: number, name: string) => space.decode(vector([u, u])).parameters[name] as number;
    fc.assert(
      fc.property(
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (u, v) => {
          for (const [name, low, high] of [
            ["lambda", 0.2, 2],
            ["density", 0, 1],
          ] as const) {
            expect(at(u, name)).toBeGreaterThanOrEqual(low);
            expect(at(u, name)).toBeLessThanOrEqual(high);
            // The exact start of a logit scale may sit 2^-40 from its place.
            if (v - u > 1e-9) expect(at(v, name)).toBeGreaterThanOrEqual(at(u, name));
          }
        },
      ),
    );
  });

  it("shares the unit interval evenly between choices", () => {
    const space = build({
      method: "ties",
      genes: { weight: { value: 1 }, density: { choices: [0.1, 0.2, 0.4, 0.8], start: 0.4 } },
    });
    const density = (u: number) => space.decode(vector([u])).parameters["density"];
    expect([0, 0.2499, 0.25, 0.5, 0.75, 1].map(density)).toEqual([0.1, 0.1, 0.2, 0.4, 0.8, 0.8]);
    expect(space.start).toEqual([0.625]);
  });

  it("takes what a method requires from the method's own facts", () => {
    const space = build({ method: "task_arithmetic", groups: "layer" });
    expect(space.axes).toHaveLength(3 * 4);
    const recipe = space.decode(startOf(space));
    expect(valueFor(recipe, "weight", "layers.0.weight", "invert")).toBe(0.4);
    const slerp = build({ method: "slerp", groups: "layer" }, { models: ["a", "b"], base: "b" });
    expect(slerp.axes).toEqual(["t[layers.0]", "t[layers.1]", "t[layers.2]", "t[layers.3]"]);
  });

  it("completes a gene that names no range, and lets a switch be off or on", () => {
    const space = build({
      method: "ties",
      genes: { weight: { per: "model" }, lambda: { start: 0.5 }, normalize: {} },
    });
    expect(space.axes).toEqual([
      "weight[rotate]",
      "weight[invert]",
      "weight[mirror]",
      "lambda",
      "normalize",
    ]);
    const ends = [0, 1].map((u) => space.decode(vector([u, u, u, u, u])).parameters);
    expect(ends).toMatchObject([
      { lambda: 0.2, normalize: 0 },
      { lambda: 2, normalize: 1 },
    ]);
    expect(space.decode(startOf(space)).parameters).toMatchObject({ lambda: 0.5, normalize: 1 });
  });

  it("makes the method a gene when there are several", () => {
    const space = build({
      method: ["task_arithmetic", "ties", "linear"],
      genes: {
        weight: { per: "model", range: [0, 1], start: 0.5 },
        density: { choices: [0.5, 1] },
      },
    });
    expect(space.axes[0]).toBe("method");
    const genome = (u: number) => vector([u, ...space.start.slice(1)]);
    expect([0, 0.5, 1].map((u) => space.decode(genome(u)).mergeMethod)).toEqual([
      "task_arithmetic",
      "ties",
      "linear",
    ]);
    // A method gets the genes and models it has: linear merges the base as a model and knows no density.
    const linear = space.decode(genome(1));
    expect(linear.parameters).toEqual({ normalize: 1 });
    expect(linear.body.kind === "models" && linear.body.models).toHaveLength(4);
    expect(space.genes(genome(1)).map((gene) => gene.name)).toEqual([
      "method",
      ...Array(4).fill("weight"),
    ]);
    expect(space.genes(genome(0.5)).filter((gene) => gene.model === "base")).toEqual([]);
    expect(space.genes(genome(0.5))[0]).toEqual({ name: "method", value: "ties" });
  });

  it("says where each value belongs", () => {
    const space = build({
      method: "task_arithmetic",
      groups: "layer/2",
      genes: { weight: { per: ["model", "group"], range: [0, 1], start: 0.25 } },
    });
    expect(space.genes(startOf(space))[1]).toEqual({
      name: "weight",
      value: 0.25,
      model: "rotate",
      group: "layers.2-3",
    });
  });

  it("passes seed and compatibility on, and expands kinds into names that recipes know", () => {
    const space = build(
      { method: "task_arithmetic", freeze: ["kind:norm", "conv1.*"] },
      { tensors: families["cnn"] as string[], compat: "mergekit", seed: 11 },
    );
    const recipe = space.decode(startOf(space));
    expect(recipe).toMatchObject({ seed: 11, compat: "mergekit" });
    expect(recipe.freeze).toContain("bn1.running_mean");
    expect(recipe.freeze).toContain("conv1.*");
    expect([...space.groups.values()].flat()).toEqual(["conv2.weight", "fc.bias", "fc.weight"]);
  });

  it("accepts a freeze pattern whose tensors matching already took out", () => {
    const changes = { tensors: ["a.weight"], frozen: ["classifier.weight"] };
    const space = build({ method: "task_arithmetic", freeze: ["classifier.*"] }, changes);
    expect(space.frozen).toEqual(["classifier.weight"]);
  });
});

describe("settings of groups", () => {
  const specs = ["whole", "layer", "layer/2", "kind", "layer+kind", "tensor"];
  const cases = Object.keys(families).flatMap((family) => specs.map((spec) => [family, spec]));

  it.each(cases)("give every tensor of %s its group's value, grouped by %s", (family, groups) => {
    const tensors = families[family as string] as string[];
    const space = build(
      {
        method: "task_arithmetic",
        groups,
        genes: {
          weight: { per: ["model", "group"], range: [-1, 2], start: 0.3 },
          lambda: { per: "group", range: [0.5, 2], start: 1 },
        },
      },
      { tensors, models: ["base", "a", "b"] },
    );
    expect([...space.groups.values()].flat().sort()).toEqual([...tensors].sort());
    fc.assert(
      fc.property(genomes(space), (genome) => {
        // Through the text of a recipe, because that is what is kept and exported.
        const text = writeRecipe(space.decode(genome));
        const { recipe, warnings } = parseRecipe(text, "recipe.yml");
        expect(warnings).toEqual([]);
        for (const gene of space.genes(genome)) {
          const members = gene.group === undefined ? tensors : space.groups.get(gene.group);
          for (const tensor of members ?? []) {
            expect(valueFor(recipe, gene.name, tensor, gene.model)).toBe(gene.value);
          }
        }
      }),
      { numRuns: 5 },
    );
  });

  it("survive names that are part of one another, in any mapping", () => {
    const name = fc.stringMatching(/^[ab](\.[ab1]){0,3}$/);
    const property = fc.property(
      fc.uniqueArray(name, { minLength: 2, maxLength: 14 }),
      fc.array(fc.nat(3), { minLength: 14, maxLength: 14 }),
      (tensors, owners) => {
        const mapping: Record<string, string[]> = {};
        for (const [i, tensor] of tensors.entries()) {
          const group = `g${owners[i]}`;
          mapping[group] = [...(mapping[group] ?? []), tensor];
        }
        const space = build(
          {
            method: "task_arithmetic",
            groups: mapping,
            genes: { weight: { per: "group", range: [0, 1], start: 0.5 } },
          },
          { tensors },
        );
        const genome = vector(space.axes.map((_, i) => (i + 1) / 10));
        const recipe = space.decode(genome);
        for (const { group, value } of space.genes(genome)) {
          for (const tensor of space.groups.get(group as string) ?? []) {
            expect(valueFor(recipe, "weight", tensor)).toBe(value);
          }
        }
      },
    );
    fc.assert(property, { numRuns: 500 });
  });

  it("are short where names allow it, and end with an entry for all that is left", () => {
    const tensors = families["llama"] as string[];
    const weights = (groups: string) => {
      const genes = { weight: { per: "group", range: [0, 1], start: 0.5 } };
      const space = build({ method: "task_arithmetic", groups, genes }, { tensors });
      const values = space.axes.map((_, i) => (i + 1) / 100);
      const setting = space.decode(vector(values)).parameters["weight"] ?? [];
      return typeof setting === "number" ? [] : setting.map((entry) => Object(entry));
    };
    const byLayer = weights("layer");
    expect(byLayer).toHaveLength(14);
    expect(byLayer.map((entry) => entry.filter)).toContain("model.layers.1.");
    expect(byLayer.at(-1)).not.toHaveProperty("filter");
    const byKind = weights("kind").map((entry) => entry.filter);
    expect(byKind).toContain("self_attn");
    expect(byKind).toContain("mlp");
    expect(byKind).toHaveLength(5);
  });

  it("are one number where all groups agree", () => {
    const space = build({ method: "task_arithmetic", groups: "layer" });
    const recipe = space.decode(startOf(space));
    expect(recipe.body.kind === "models" && recipe.body.models[0]?.parameters).toEqual({
      weight: 0.4,
    });
  });
});

describe("decode", () => {
  it("is defined on the whole cube and outside of it, and refuses what is no genome", () => {
    const space = build({ method: ["ties", "dare_ties"], groups: "layer" });
    fc.assert(
      fc.property(genomes(space), (genome) => {
        const recipe = space.decode(genome);
        expect(space.decode(genome)).toEqual(recipe);
        expect(parseRecipe(writeRecipe(recipe), "r.yml").recipe).toEqual(recipe);
      }),
      { numRuns: 50 },
    );
    const far = vector(space.axes.map((_, i) => (i % 2 === 0 ? -3 : 9)));
    const edge = vector(space.axes.map((_, i) => (i % 2 === 0 ? 0 : 1)));
    expect(space.decode(far)).toEqual(space.decode(edge));
    expect(() => space.decode(vector([0.5]))).toThrow(/coordinates/);
    expect(() => space.decode(vector(space.axes.map(() => Number.NaN)))).toThrow(/NaN/);
  });
});

describe("initial", () => {
  const weightsOf = (space: Space, label: string) => {
    const genome = space.initial.find((entry) => entry.label === label)?.genome;
    if (genome === undefined) return undefined;
    const recipe = space.decode(genome);
    const { body } = recipe;
    return body.kind === "models" ? body.models.map((entry) => entry.parameters["weight"]) : [];
  };

  it("holds the soup of the experts, each expert and the base, with exact weights", () => {
    const space = build({
      method: "task_arithmetic",
      groups: "layer",
      genes: { weight: { per: ["model", "group"], range: [-0.2, 1.5], start: 0.3 } },
    });
    const labels = space.initial.map((entry) => entry.label);
    expect(labels).toEqual(["uniform", "rotate", "invert", "mirror", "base"]);
    expect(weightsOf(space, "uniform")).toEqual([1 / 3, 1 / 3, 1 / 3]);
    expect(weightsOf(space, "invert")).toEqual([0, 1, 0]);
    expect(weightsOf(space, "base")).toEqual([0, 0, 0]);
  });

  it("averages a single expert with its base", () => {
    const models = ["base", "rotate"];
    const arithmetic = build({ method: "task_arithmetic" }, { models });
    expect(weightsOf(arithmetic, "uniform")).toEqual([0.5]);
    expect(weightsOf(build({ method: "linear" }, { models }), "uniform")).toEqual([0.5, 0.5]);
    const slerp = build({ method: "slerp" }, { models });
    const t = (label: string) => {
      const genome = slerp.initial.find((entry) => entry.label === label)?.genome as Genome;
      return slerp.decode(genome).parameters["t"];
    };
    expect(["uniform", "base", "rotate"].map(t)).toEqual([0.5, 0, 1]);
  });

  it("gives the base no part of a soup of several experts", () => {
    const space = build({ method: "linear" });
    expect(weightsOf(space, "uniform")).toEqual([0, 1 / 3, 1 / 3, 1 / 3]);
    expect(weightsOf(space, "base")).toEqual([1, 0, 0, 0]);
  });

  it("leaves out what the ranges cannot express", () => {
    const genes = { weight: { per: "model", range: [0.5, 1.5], start: 1 } };
    expect(build({ method: "task_arithmetic", genes }).initial).toEqual([]);
    const shared = { weight: { range: [0, 1], start: 0.5 } };
    const labels = build({ method: "task_arithmetic", genes: shared }).initial.map((e) => e.label);
    expect(labels).toEqual(["uniform", "base"]);
    const half = { weight: { per: "model", range: [0, 1] }, lambda: { value: 0.5 } };
    const scaled = build({ method: "task_arithmetic", genes: half }).initial.map((e) => e.label);
    expect(scaled).toEqual(["uniform"]);
  });

  it("keeps everything of a model that stands alone", () => {
    const genes = {
      weight: { per: "model", range: [0, 1], start: 0.5 },
      density: { per: "model", range: [0.05, 1], scale: "logit" },
      lambda: { range: [0.2, 2], scale: "log" },
    };
    const space = build({ method: "ties", genes });
    const alone = space.initial.find((entry) => entry.label === "mirror")?.genome as Genome;
    const recipe = space.decode(alone);
    expect(recipe.parameters["lambda"]).toBe(1);
    expect(valueFor(recipe, "density", "layers.0.weight", "mirror")).toBe(1);
    const sparse = { ...genes, density: { choices: [0.1, 0.2] } };
    expect(build({ method: "ties", genes: sparse }).initial.map((e) => e.label)).toEqual([
      "uniform",
    ]);
  });
});

describe("segments", () => {
  it("decodes breaks and shares into the recipe of the segments method", () => {
    const space = build({ method: "segments" }, { models: ["a", "b"], base: undefined });
    expect(space).toMatchObject({ genome: "segments", axes: [], start: [], models: ["a", "b"] });
    const recipe = space.decode({
      kind: "segments",
      breaks: [0, 100],
      coefficients: [
        [1, 0.25],
        [0, 0.75],
      ],
    });
    expect(recipe.mergeMethod).toBe("segments");
    expect(lookupList([recipe.parameters], "breaks", { tensor: "x", position: 0 })).toEqual([
      0, 100,
    ]);
    expect(recipe.body).toMatchObject({
      models: [{ parameters: { weights: [1, 0.25] } }, { parameters: { weights: [0, 0.75] } }],
    });
    expect(space.initial.map((entry) => entry.label)).toEqual(["uniform", "a", "b"]);
    expect(space.genes(space.initial[1]?.genome as Genome)).toHaveLength(2);
    expect(() => space.decode(vector([]))).toThrow();
  });

  it("are cut from the experts where there are two, with the base as donor only", () => {
    const space = build({ method: "segments" });
    expect(space.models).toEqual(["rotate", "invert", "mirror"]);
    expect(space.decode(space.initial[0]?.genome as Genome)).toMatchObject({
      baseModel: { model: "base" },
      body: { models: [{ model: { model: "rotate" }, parameters: { weights: [1 / 3] } }, {}, {}] },
    });
    expect(build({ method: "segments" }, { models: ["base", "rotate"] }).models).toEqual([
      "base",
      "rotate",
    ]);
  });
});

describe("what is refused", () => {
  function refusal(definition: unknown, changes: Partial<SpaceContext> = {}): string {
    try {
      build(definition, changes);
    } catch (error) {
      if (!(error instanceof MendelError)) throw error;
      return `${error.code}: ${error.message} ${error.hint ?? ""} @${error.where?.key}`;
    }
    return "accepted";
  }
  const ta = (weight: unknown, more: Record<string, unknown> = {}) => ({
    method: "task_arithmetic",
    genes: { weight, ...more },
  });

  it.each<[string, unknown, RegExp]>([
    ["start outside its range", ta({ range: [0, 1], start: 2 }), /start 2 is outside.*\[0, 1\]/],
    ["a start below the default range", ta({ start: -3 }), /start -3 is outside/],
    ["an empty range", ta({ range: [1, 1] }), /range \[1, 1\] is empty/],
    ["a reversed range", ta({ range: [1, 0] }), /reversed.*write \[0, 1\]/],
    [
      "a gene the method lacks",
      ta({}, { wieght: { value: 1 } }),
      /no parameter "wieght".*"weight"/,
    ],
    [
      "a value out of bounds",
      ta({}, { density: { value: 2 } }),
      /density takes numbers from 0 to 1/,
    ],
    [
      "a range out of bounds",
      ta({}, { density: { range: [0.5, 2] } }),
      /from 0 to 1, got \[0.5, 2\]/,
    ],
    ["a choice out of bounds", ta({}, { density: { choices: [0.5, 2] } }), /from 0 to 1, got 2/],
    ["a choice twice", ta({}, { density: { choices: [0.5, 0.5] } }), /0.5 is given twice/],
    ["a start that is no choice", ta({}, { density: { choices: [0.5], start: 1 } }), /not one of/],
    ["two forms", ta({ range: [0, 1], value: 1 }), /one of range, choices and value/],
    ["a scale for choices", ta({ choices: [1], scale: "log" }), /a scale goes with a range/],
    ["a fixed value per model", ta({ value: 1, per: "model" }), /fixed value is the same/],
    ["per model for all", ta({}, { lambda: { per: "model" } }), /one value for all models/],
    ["the same per twice", ta({ per: ["model", "model"] }), /same word twice/],
    ["a log scale at 0", ta({ range: [0, 1], scale: "log" }), /log scale needs/],
    ["a logit scale beyond 1", ta({ range: [0, 2], scale: "logit" }), /logit scale needs/],
    ["a range for a switch", ta({}, { normalize: { range: [0, 1] } }), /is a switch/],
    ["a switch of 0.5", ta({}, { normalize: { value: 0.5 } }), /false or true, got 0.5/],
    ["an unknown scale", ta({ range: [0, 1], scale: "lin" }), /linear \| log \| logit/],
    ["an unknown key", ta({ rang: [0, 1] }), /unknown key "rang".*did you mean "range"/],
    ["an unknown method", { method: "task_arithmetics" }, /did you mean "task_arithmetic"/],
    ["no method", { groups: "layer" }, /method: expected text or a list, got nothing/],
    ["a method twice", { method: ["ties", "ties"] }, /"ties" is given twice/],
    ["an unknown grouping", { method: "ties", groups: "layers" }, /did you mean "layer"/],
    ["an unknown kind", { method: "ties", groups: { a: "kind:nrm" } }, /unknown tensor kind "nrm"/],
    [
      "a group of nothing",
      { method: "ties", groups: { a: "*attn*" } },
      /matches no tensor.*@groups.a/,
    ],
    [
      "a freeze of nothing",
      { method: "ties", freeze: ["*norm*"] },
      /matches no tensor.*@freeze\[0\]/,
    ],
    ["a freeze twice", { method: "ties", freeze: ["*", "*"] }, /given twice/],
    ["nothing left", { method: "ties", freeze: ["*"] }, /^mismatch: no tensor is left/],
    ["too many models", { method: "slerp" }, /exactly 1 model besides the base.*has 3/],
    ["segments among others", { method: ["segments", "ties"] }, /cannot be one of several/],
    ["genes of segments", { method: "segments", genes: { a: { value: 1 } } }, /has no genes/],
    ["groups of segments", { method: "segments", groups: "layer" }, /has no groups/],
    ["both", { kind: "both" }, /^unsupported/],
  ])("%s", (_, definition, message) => {
    expect(refusal(definition)).toMatch(message);
  });

  it("a method that needs a base, without one", () => {
    expect(refusal(ta({}), { base: undefined })).toMatch(/needs a base/);
  });

  it("freezing without a base to copy from", () => {
    const definition = { method: "linear", freeze: ["layers.3.*"] };
    expect(refusal(definition, { base: undefined })).toMatch(/but there is none.*@freeze/);
    expect(refusal(definition)).toBe("accepted");
  });

  it("names every key that is wrong, with its line", () => {
    const text = `method: task_arithmetic
genes:
  weight: { range: [0, 9e9] }
  lamda: { value: 1 }
freeze: [nothing]
`;
    const definition = parseSpaceDefinition(parseYaml(text, "my-space.yml"));
    expect(() => buildSpace(definition, context())).toThrow(/line 5.*freeze/);
    const fixed = parseSpaceDefinition(parseYaml(text.replace("[nothing]", "[]"), "my-space.yml"));
    expect(() => buildSpace(fixed, context())).toThrow(
      /2 problems:\n.*line 3, genes\.weight\.range.*\n.*line 4, genes\.lamda/,
    );
  });
});

describe("the spaces that are shipped", () => {
  const folder = join(packageRoot(), "search-spaces");
  const files = readdirSync(folder).filter((file) => file.endsWith(".yml"));

  it.each(files)("%s decodes its start for every family", (file) => {
    const definition = loadSpaceDefinition({ kind: "file", path: join(folder, file) });
    const models = definition.methods.includes("slerp") ? ["base", "a"] : ["base", "a", "b"];
    for (const tensors of Object.values(families)) {
      const space = buildSpace(definition, context({ models, tensors, blocks: 4 }));
      expect(space.title).not.toBe("Search space");
      const genome = space.genome === "vector" ? startOf(space) : space.initial[0]?.genome;
      const recipe = space.decode(genome as Genome);
      expect(parseRecipe(writeRecipe(recipe), file).recipe).toEqual(recipe);
      // Whoever weighs no models cannot take one alone.
      const alone = definition.methods.includes("iso_c") ? [] : ["a"];
      expect(space.initial.map((entry) => entry.label)).toEqual(
        expect.arrayContaining(definition.layers === undefined ? ["uniform", ...alone] : ["base"]),
      );
    }
  });

  it("cover the usual groupings", () => {
    const groupings = files.map(
      (file) => loadSpaceDefinition({ kind: "file", path: join(folder, file) }).groups,
    );
    expect(groupings).toEqual(expect.arrayContaining(["whole", "layer", "kind"]));
  });
});
