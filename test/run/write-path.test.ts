import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  openGraph,
  type PlanGraph,
  prepareHost,
  type SharedSetup,
} from "../../src/evaluation/host-setup.ts";
import { openPathProgram } from "../../src/evaluation/path-program.ts";
import type { EvaluationPlan } from "../../src/evaluation/plan.ts";
import { createSession, type Feeds } from "../../src/evaluation/session.ts";
import { weightSourceOf } from "../../src/evaluation/shared-weights.ts";
import { graphNames, openSlabProgram } from "../../src/evaluation/slab-program.ts";
import { openOnnx } from "../../src/formats/onnx/open-onnx.ts";
import { foldScales } from "../../src/recipes/fold-scales.ts";
import { type LayerStep, layerPathOf, layerRecipe } from "../../src/recipes/layer-path.ts";
import type { Recipe } from "../../src/recipes/recipe.ts";
import { writePath } from "../../src/run/write-path.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const models = resolve("examples/tinylm/models");
const plan: EvaluationPlan = {
  models: { base: { path: `${models}/base` }, math: { path: `${models}/math` } },
  graph: `${models}/base/model.onnx`,
  base: "base",
  evaluators: [],
  freeze: [],
  program: "path",
};
const ids = BigInt64Array.from({ length: 3 * 21 }, (_, i) => BigInt((11 * i) % 400));
const feeds: Feeds = {
  input_ids: { type: "int64", dims: [3, 21], data: ids },
  attention_mask: { type: "int64", dims: [3, 21], data: ids.map((_, i) => (i > 50 ? 0n : 1n)) },
};

const walk = (text: string): LayerStep[] =>
  text.split(" ").map((part) => {
    const [, model = "", layer = "", scale = "1"] = /^([a-z]+)(\d)(?:\*(.+))?$/.exec(part)!;
    return { model: { model }, layer: Number(layer), scale: Number(scale) };
  });
const recipeOf = (text: string): Recipe => layerRecipe(walk(text), { model: "base" }, { seed: 0 });

let shared: SharedSetup;
let graph: PlanGraph;
beforeAll(async () => {
  shared = await prepareHost(plan);
  graph = openGraph(plan);
});
afterAll(() => graph.reader.close());

async function searched(recipe: Recipe): Promise<Float32Array> {
  const { reader, modelId } = openGraph(plan);
  const { inputs } = shared;
  const program = await openPathProgram({
    graph: reader,
    inputs,
    source: weightSourceOf(shared.weights),
    names: graphNames({ graph: reader, graphId: modelId, inputs }),
    owner: "base",
    fallback: () => Promise.reject(new Error("not wanted")),
  });
  await program.load(recipe);
  const { logits } = await program.run(feeds, ["logits"]);
  const answer = logits!.data.slice();
  await program.release();
  return answer;
}

function largestGap(a: Float32Array, b: Float32Array): number {
  expect(a.length).toBe(b.length);
  return a.reduce((most, x, i) => Math.max(most, Math.abs(x - b[i]!)), 0);
}

describe("the ONNX file of a walk", () => {
  it.each([
    ["its own path", "base0 base1 base2 base3 base4 base5 base6 base7"],
    ["fewer layers", "base0 base2 base7"],
    ["repeats, swaps and scales", "base0 math1 math1 base2*0.75 math5 base5 base5*1.25 base7"],
  ])("answers as the search did: %s", async (_, text) => {
    const recipe = recipeOf(text);
    const [file] = await writePath({
      path: layerPathOf(recipe)!,
      graph: graph.reader,
      graphId: undefined,
      inputs: shared.inputs,
      source: weightSourceOf(shared.weights),
      out: temporaryFolder(),
    });
    const session = await createSession(file!.path);
    const { logits } = await session.run(feeds, ["logits"]);
    expect(largestGap(logits!.data, await searched(recipe))).toBeLessThan(2e-5);
    await session.release();
  });

  it("stores a block that is walked through twice once, unless every step shall have its own", async () => {
    const path = layerPathOf(recipeOf("base0 math1 math1 base7"))!;
    const counts: number[] = [];
    for (const share of [true, false]) {
      const out = join(temporaryFolder(), "walk.onnx");
      const common = { graph: graph.reader, graphId: undefined, inputs: shared.inputs };
      const source = weightSourceOf(shared.weights);
      await writePath({ path, ...common, source, out, share });
      const reader = openOnnx(out);
      counts.push(reader.tensors.size);
      const names = [...reader.tensors.keys()];
      expect(names).toContain("model.layers.1.self_attn.q_proj.weight");
      expect(names.includes("model.layers.2.self_attn.q_proj.weight")).toBe(!share);
      expect(names).toContain("model.layers.3.mlp.down_proj.weight");
      reader.close();
    }
    expect(counts).toEqual([3 + 3 * 9, 3 + 4 * 9]);
  });
});

describe("folding scales into weights", () => {
  const names = () => shared.inputs.tensors.map(({ name }) => name);

  it("makes a passthrough recipe that answers alike", async () => {
    const recipe = recipeOf("base0 base1*0.9 math2 base3*1.25 base4 math5*0.8 base6 base7");
    const folded = foldScales(recipe, names());
    if (typeof folded === "string") throw new Error(folded);
    expect(folded.mergeMethod).toBe("passthrough");
    const slab = await openSlabProgram({
      graph: graph.reader,
      graphId: undefined,
      inputs: shared.inputs,
      source: weightSourceOf(shared.weights),
      feed: "inputs",
    });
    await slab.load(folded);
    const { logits } = await slab.run(feeds, ["logits"]);
    const scaled = await searched(recipe);
    const plain = await searched(recipeOf("base0 base1 math2 base3 base4 math5 base6 base7"));
    const gap = largestGap(logits!.data, scaled);
    // What is left is the norms' epsilon; leaving the factors out would be another model.
    expect(gap).toBeLessThan(largestGap(plain, scaled) / 20);
    await slab.release();
  });

  it("leaves plain walks alone and says where it cannot be done", () => {
    const plain = recipeOf("base0 math1 base7");
    expect(foldScales(plain, names())).toBe(plain);
    expect(foldScales(recipeOf("base0 math1*0.5 base7"), ["encoder.layer.0.output.dense"])).toMatch(
      /cannot be folded/,
    );
    expect(foldScales(recipeOf("math0 math1 base7"), names())).toMatch(/another model/);
  });
});
