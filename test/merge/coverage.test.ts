import { describe, expect, it } from "vitest";
import { coverageOf, coverageText } from "../../src/merge/coverage.ts";
import { type MatchedModel, matchModels } from "../../src/merge/matching.ts";
import type { ModelTensor } from "../../src/tensors/model-reader.ts";
import { bertShapes, cnnShapes } from "../recipes/families.ts";

function model(path: string, shapes: Readonly<Record<string, readonly number[]>>): MatchedModel {
  const tensors = Object.entries(shapes).map(([name, shape]): [string, ModelTensor] => [
    name,
    {
      name,
      shape,
      dtype: name.endsWith("num_batches_tracked") ? "i64" : "f32",
      storedName: name,
      transposed: false,
      namedBy: "file",
      aliases: [],
    },
  ]);
  return { path, tensors: new Map(tensors) };
}

const match = (models: Record<string, MatchedModel>, freeze: readonly string[] = []) =>
  matchModels({
    models: new Map(Object.entries(models)),
    reference: "base",
    base: "base",
    freeze,
  });

describe("coverage", () => {
  it("counts every tensor of the output once", () => {
    const report = match({
      base: model("base", cnnShapes(true)),
      a: model("a", cnnShapes(true)),
    });
    expect(coverageOf(report)).toEqual({ merged: 12, copied: 2, refused: [] });
  });

  it("names what is refused", () => {
    const models = {
      base: model("base", bertShapes(2)),
      a: model("a", bertShapes(2, 3)),
    };
    const { merged, copied, refused } = coverageOf(match(models));
    expect([merged, copied]).toEqual([Object.keys(bertShapes(2)).length, 0]);
    expect(refused).toEqual([
      { tensor: "classifier.bias", reason: expect.stringMatching(/missing in base/) },
      { tensor: "classifier.weight", reason: expect.stringMatching(/missing in base/) },
    ]);
    expect(coverageOf(match(models, ["classifier.*"]))).toEqual({ merged, copied: 2, refused: [] });
  });

  it("says it in a few lines", () => {
    const models = {
      base: model("base", { ...cnnShapes(true), "head.weight": [3, 4] }),
      a: model("a", { ...cnnShapes(true), "head.weight": [2, 4] }),
    };
    expect(coverageText(match(models))).toBe(`12 tensors merged, 2 copied, 1 refused
  copied 2: a training counter, from base
  refused head.weight: shapes differ: [3, 4] in base (base), [2, 4] in a (a)
  unused 2: a training counter; taken from base (a)`);
  });

  it("does not fill the screen when nothing fits", () => {
    const strangers = { base: model("base", bertShapes(4)), a: model("a", cnnShapes(false)) };
    const lines = coverageText(match(strangers)).split("\n");
    expect(lines).toHaveLength(22);
    expect(lines.at(-1)).toMatch(/and \d+ more refused/);
  });
});
