import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { withoutLines } from "../../src/base/yaml.ts";
import { recipeDigest } from "../../src/recipes/canonical.ts";
import { layerPathOf } from "../../src/recipes/layer-path.ts";
import { buildSpace } from "../../src/spaces/build-space.ts";
import { decodePublished, publishedLength } from "../../src/spaces/published-path.ts";
import { parseSpaceDefinition } from "../../src/spaces/schema.ts";
import type { Space } from "../../src/spaces/space.ts";
import { refusalOf } from "../support/refusal.ts";

const blocks = 4;

function spaceOf(keys: Record<string, unknown>, models = ["a", "b", "base"]): Space {
  const definition = parseSpaceDefinition(withoutLines({ kind: "layers", ...keys }, "space.yml"));
  return buildSpace(definition, {
    models,
    base: "base",
    tensors: [],
    methods: [],
    seed: 3,
    blocks,
  });
}

const walkOf = (space: Space, values: readonly number[]): string =>
  layerPathOf(space.decode({ kind: "vector", values }))!
    .steps.map(
      ({ model, layer, scale }) => `${model.model}${layer}${scale === 1 ? "" : `*${scale}`}`,
    )
    .join(" ");

describe("a space of paths", () => {
  it("begins at the first model's own path", () => {
    for (const keys of [
      {},
      { genes: "choose" },
      { order: "model", repeats: 2 },
      { ends: "free" },
    ]) {
      const space = spaceOf({ scale: { per: "step" }, length: { max: "1.5x" }, ...keys });
      const last = "order" in keys ? " base3" : "";
      expect(walkOf(space, space.start)).toBe(`base0 base1 base2 base3${last}`);
    }
  });

  it("includes slots whose coordinate is above one half, in order", () => {
    const space = spaceOf({ from: ["base", "a"] });
    const values = space.axes.map((axis) => (/a:[13]|base:2/.test(axis) ? 0.51 : 0.5));
    expect(walkOf(space, values)).toBe("base0 a1 base2 a3 base3");
  });

  it("chooses one model or none at each depth", () => {
    const space = spaceOf({ genes: "choose", repeats: 2, from: ["base", "a"] });
    expect(space.axes).toEqual(["block[1]", "block[1 (2)]", "block[2]", "block[2 (2)]"]);
    expect(space.levels).toEqual([3, 3, 3, 3]);
    expect(walkOf(space, [0.5, 0.9, 0.1, 0.1])).toBe("base0 base1 a1 base3");
  });

  it("scales every step but the first", () => {
    const space = spaceOf({ from: ["base"], scale: { per: "step", range: [0.5, 1.5] } });
    const values = space.axes.map((axis) => (axis.startsWith("scale") ? 1 : 0.9));
    expect(walkOf(space, values)).toBe("base0 base1*1.5 base2*1.5 base3*1.5");
  });

  it("scales by pair, in full or as a sum of products", () => {
    const full = spaceOf({ from: ["base"], scale: { per: "pair" } });
    expect(full.axes.length).toBe(2 + blocks * blocks);
    const values = full.axes.map((axis, i) =>
      axis === "scale[base:0 → base:2]" ? 0 : axis === "include[base:1]" ? 0.1 : full.start[i]!,
    );
    expect(walkOf(full, values)).toBe("base0 base2*0.5 base3");
    const low = spaceOf({ from: ["base"], scale: { per: "pair", rank: 2 } });
    expect(low.axes.length).toBe(2 + 2 * 2 * blocks);
    expect(walkOf(low, low.start)).toBe("base0 base1 base2 base3");
  });

  it("keeps to length limits by leaving out what is wanted least", () => {
    const space = spaceOf({ from: ["base", "a"], length: { min: 4, max: "1.25x" } });
    expect(
      walkOf(
        space,
        space.axes.map(() => 0.4),
      ).split(" ").length,
    ).toBe(4);
    const values = space.axes.map((_, i) => 0.6 + i / 100);
    expect(walkOf(space, values)).toBe("base0 base2 a2 a3 base3");
  });

  it("decodes every genome to a legal walk, and equal walks to one recipe", () => {
    const spaces = [
      spaceOf({ repeats: 2, scale: { per: "step" }, length: { min: 3, max: 7 } }),
      spaceOf({ genes: "choose", repeats: 2, length: { max: 5 } }),
      spaceOf({ order: "model", ends: "free", scale: { per: "pair", rank: 1 } }),
    ];
    for (const space of spaces) {
      const coordinate = fc.double({ min: -0.5, max: 1.5, noNaN: true });
      const genome = fc.array(coordinate, {
        minLength: space.axes.length,
        maxLength: space.axes.length,
      });
      fc.assert(
        fc.property(genome, (values) => {
          const recipe = space.decode({ kind: "vector", values });
          const path = layerPathOf(recipe)!;
          expect(path.steps.length).toBeGreaterThan(0);
          for (const { layer, scale } of path.steps) {
            expect(layer).toBeLessThan(blocks);
            expect(scale * 128).toBe(Math.round(scale * 128));
          }
          const again = space.decode({ kind: "vector", values: values.map((v) => v) });
          expect(recipeDigest(again)).toBe(recipeDigest(recipe));
        }),
      );
    }
  });

  it("writes walks without scales between the first model's ends as plain passthrough", () => {
    const space = spaceOf({ from: ["base", "a"], scale: { per: "step" } });
    const recipe = space.decode({ kind: "vector", values: space.start });
    expect(recipe.mergeMethod).toBe("passthrough");
    expect(recipe.body).toEqual({
      kind: "slices",
      slices: [
        {
          sources: [{ model: { model: "base" }, layerRange: [0, 4], parameters: {} }],
          parameters: {},
        },
      ],
    });
  });

  it.each([
    [{ from: ["nobody"] }, "no model named"],
    [{ length: { max: 1 } }, "no path satisfies"],
    [{ length: { min: 6, max: 5 } }, "no path satisfies"],
    [{ scale: { per: "step", range: [0, 1] } }, "above 0"],
    [{ scale: { per: "step", range: [0.5, 0.9] } }, "outside its range"],
    [{ scale: { per: "step", rank: 2 } }, "rank goes with"],
    [{ genes: "choose", order: "model" }, "order of layers"],
    [{ repeats: 0 }, "repeats"],
    [{ method: "linear" }, "method"],
  ])("refuses %j", (keys, words) => {
    const refusal = refusalOf(() => spaceOf(keys));
    expect(refusal.code).toBe("invalid-config");
    expect(refusal.message).toContain(words);
  });
});

describe("the published encoding", () => {
  it("has 4286 numbers for two models of 32 blocks, three times", () => {
    expect(publishedLength(64, 3)).toBe(4286);
  });

  it("takes slots with a positive indicator between the first model's ends, scaled by pair", () => {
    // Two models of 3 blocks, laid out twice: T = 12, M = 6.
    const genome = new Array(publishedLength(6, 2)).fill(0);
    for (const t of [1, 4, 7, 10]) genome[t - 1] = 0.5;
    genome[2 - 1] = -0.5;
    const pair = (from: number, to: number): number => 10 + 6 * from + to;
    genome[pair(0, 1)] = 0.25;
    genome[pair(4, 1)] = -0.5;
    genome[pair(1, 4)] = 0.125;
    expect(decodePublished(genome, 6, 3, 2)).toEqual({
      blocks: [0, 1, 4, 1, 4, 2],
      scales: [1, 1.25, 1.125, 0.5, 1.125, 1],
    });
  });

  it("is what a space in the order of models with scales per pair says", () => {
    const space = spaceOf(
      {
        order: "model",
        repeats: 2,
        from: ["base", "a"],
        scale: { per: "pair", range: [0.5, 1.5] },
      },
      ["base", "a"],
    );
    const M = 2 * blocks;
    expect(space.axes.length).toBe(publishedLength(M, 2));
    const draws = fc.array(fc.integer({ min: -64, max: 64 }), {
      minLength: space.axes.length,
      maxLength: space.axes.length,
    });
    fc.assert(
      fc.property(draws, (numbers) => {
        const genome = numbers.map((n) => n / 128);
        const { blocks: path, scales } = decodePublished(genome, M, blocks, 2);
        const published = path.map((block, at) => {
          const name = `${block < blocks ? "base" : "a"}${block % blocks}`;
          return scales[at] === 1 ? name : `${name}*${scales[at]}`;
        });
        expect(
          walkOf(
            space,
            genome.map((x) => x + 0.5),
          ),
        ).toBe(published.join(" "));
      }),
    );
  });

  it("may have no block between the ends", () => {
    const genome = new Array(publishedLength(4, 1)).fill(0);
    expect(decodePublished(genome, 4, 2, 1).blocks).toEqual([0, 1]);
  });
});
