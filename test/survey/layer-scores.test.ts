import { resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { layerScores } from "../../src/survey/layer-scores.ts";

const options = {
  model: "examples/digits/models/base/model.onnx",
  evaluators: ["digits-rotate"],
  split: "validation",
} as const;

describe("scores of a model's layers", () => {
  it("say what each is worth, for a network of plain layers too", async () => {
    const { whole, layers, runs, metrics } = await layerScores(options);
    expect(metrics["digits-rotate"]).toEqual(expect.any(String));
    expect(layers.map(({ layer }) => layer)).toEqual([0, 1]);
    expect(runs.map(({ blocks, from }) => [blocks, from])).toEqual([[1, expect.any(Number)]]);
    for (const { drop, repeat, influence, angle } of layers) {
      expect(drop["digits-rotate"]).not.toBe(whole["digits-rotate"]);
      expect(repeat["digits-rotate"]).not.toBe(whole["digits-rotate"]);
      expect(influence).toBeGreaterThan(0);
      expect(angle).toBeGreaterThan(0);
      expect(angle).toBeLessThan(1);
    }
  });

  it.each([
    [{ evaluators: [] }, "usage"],
    [{ model: "examples/digits-cnn/models/base/model.onnx" }, "unsupported"],
    [{ model: resolve("examples/digits/models/rotate/model.safetensors") }, "mismatch"],
  ])("are refused for %j", async (changes, code) => {
    await expect(layerScores({ ...options, ...changes })).rejects.toMatchObject({ code });
  });
});
