import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { openModel } from "../../src/formats/index.ts";
import { checkLayerModels } from "../../src/run/check-layer-models.ts";
import { loadExperiment } from "../../src/run/experiment.ts";
import { inspectExperiment } from "../../src/run/inspect-experiment.ts";
import { refusalOf } from "../support/refusal.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const models = resolve("examples/tinylm/models");

/** The math model with one setting of its configuration changed. */
function changed(setting: string, value: unknown): string {
  const folder = temporaryFolder();
  cpSync(join(models, "math"), folder, { recursive: true });
  const path = join(folder, "config.json");
  const config = JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown>;
  writeFileSync(path, JSON.stringify({ ...config, [setting]: value }));
  return folder;
}

describe("models whose layers are walked together", () => {
  it.each([
    ["rope_theta", 500000],
    ["num_attention_heads", 8],
    ["hidden_act", "gelu"],
  ])("are refused when they differ in %s", (setting, value) => {
    const readers = new Map([
      ["base", openModel(join(models, "base"))],
      ["math", openModel(changed(setting, value))],
    ]);
    const refusal = refusalOf(() => checkLayerModels(readers));
    expect(refusal.code).toBe("mismatch");
    expect(refusal.message).toContain(setting);
    for (const reader of readers.values()) reader.close();
  });

  it("are those of the example: one choice at each depth between the ends", () => {
    const {
      space,
      plan,
      models: open,
    } = inspectExperiment(loadExperiment("examples/layers/experiment.yml"));
    open.close();
    expect(plan.program).toBe("path");
    expect(space.levels).toEqual([4, 4, 4, 4, 4, 4]);
  });

  it("need a graph with repeated blocks", () => {
    const experiment = loadExperiment("examples/digits-cnn/experiment.yml", ["space=layer-paths"]);
    expect(refusalOf(() => inspectExperiment(experiment)).code).toBe("unsupported");
  });
});
