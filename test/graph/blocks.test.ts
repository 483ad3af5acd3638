import { describe, expect, it } from "vitest";
import type { NodeSpec } from "../../src/formats/onnx/onnx-builder.ts";
import { openOnnx } from "../../src/formats/onnx/open-onnx.ts";
import { findBlocks } from "../../src/graph/blocks.ts";
import { weightedGraph } from "../../src/graph/weighted-graph.ts";
import { refusalOf } from "../support/refusal.ts";
import { encoderSpec, nameless, residualSpec, weight, weightedSpec } from "./layered-models.ts";

const decoder = "examples/tinylm/models/base/model.onnx";

function cutOf(path: string) {
  const reader = openOnnx(path);
  try {
    return findBlocks(weightedGraph(reader));
  } finally {
    reader.close();
  }
}

describe("blocks of a decoder", () => {
  const cut = cutOf(decoder);

  it("are its layers, nine weights each in the same roles", () => {
    expect(cut.blocks.length).toBe(8);
    cut.blocks.forEach(({ weights }, layer) => {
      const names = weights.map((name) => cut.graph.weights.get(name)!.name);
      const roles = names.map((name) => name.replace(`layers.${layer}.`, "layers.N."));
      const first = cut.blocks[0]!.weights.map((name) => cut.graph.weights.get(name)!.name);
      expect(roles).toEqual(first.map((name) => name.replace("layers.0.", "layers.N.")));
      expect(roles.length).toBe(9);
    });
  });

  it("read a mask and two rotary tables, which the embedding makes", () => {
    expect(cut.sides.length).toBe(3);
    for (const { reads } of cut.blocks) expect([...reads].sort()).toEqual([...cut.sides].sort());
    expect([...cut.embedding.reads].sort()).toEqual(["attention_mask", "input_ids"]);
  });

  it("leave embedding, norm and head outside", () => {
    const namesOf = (weights: readonly string[]) =>
      weights.map((name) => cut.graph.weights.get(name)!.name);
    expect(namesOf(cut.embedding.weights)).toEqual(["model.embed_tokens.weight"]);
    expect(namesOf(cut.head.weights)).toEqual(["model.norm.weight", "lm_head.weight"]);
  });

  it("are found without any names", () => {
    const bare = findBlocks(nameless(decoder));
    expect(bare.blocks.map(({ nodes }) => nodes.length)).toEqual(
      cut.blocks.map(({ nodes }) => nodes.length),
    );
    expect(bare.embedding.nodes.length).toBe(cut.embedding.nodes.length);
    expect(bare.head.weights.length).toBe(2);
  });
});

describe("blocks of other networks", () => {
  it("that normalize after each sum begin behind the embedding's norm", () => {
    const cut = findBlocks(weightedSpec(encoderSpec(3)));
    expect(cut.boundaries).toEqual(["state.0", "state.1", "state.2", "state.3"]);
    expect(cut.sides).toEqual(["mask"]);
    expect(cut.head.weights).toEqual(["classifier"]);
  });

  it("can be residual stages of one shape", () => {
    const cut = findBlocks(weightedSpec(residualSpec(3)));
    expect(cut.boundaries).toEqual(["x0", "x1", "x2", "x3"]);
    expect(cut.blocks[1]!.weights).toEqual(["s1.a", "s1.b"]);
    expect(cut.head.weights).toEqual(["wide", "classifier"]);
  });

  it("can be plain layers of one width", () => {
    const cut = cutOf("examples/digits/models/base/model.onnx");
    expect(cut.blocks.length).toBe(2);
    expect(cut.blocks.map(({ weights }) => weights)).toEqual([
      ["layers.1.weight", "layers.1.bias"],
      ["layers.2.weight", "layers.2.bias"],
    ]);
  });

  it("may look positions up in a table that all of them read", () => {
    const spec = encoderSpec(2);
    const table: NodeSpec = { op: "Gather", inputs: ["angles", "ids"], outputs: ["turned"] };
    const nodes = spec.nodes.map((node) =>
      node.outputs[0] === "mask" ? { ...node, op: "Add", inputs: ["attention", "turned"] } : node,
    );
    const cut = findBlocks(
      weightedSpec({
        ...spec,
        nodes: [table, ...nodes],
        initializers: [...spec.initializers!, weight("angles", 20, 6)],
      }),
    );
    expect(cut.boundaries).toEqual(["state.0", "state.1", "state.2"]);
    expect(cut.sides).toEqual(["mask"]);
    expect(cut.embedding.weights).toContain("angles");
  });
});

describe("networks without blocks are refused", () => {
  it("when nothing repeats", () => {
    const refusal = refusalOf(() => cutOf("examples/digits-cnn/models/base/model.onnx"));
    expect(refusal.code).toBe("unsupported");
    expect(refusal.message).toContain("no repeated blocks");
  });

  it("when a value jumps over the blocks", () => {
    const spec = residualSpec(3);
    const nodes = spec.nodes.map((node) =>
      node.outputs[0] === "wider" ? { ...node, inputs: ["jumped", "wide"] } : node,
    );
    const jump: NodeSpec = { op: "Add", inputs: ["x0", "x3"], outputs: ["jumped"] };
    const refusal = refusalOf(() =>
      findBlocks(
        weightedSpec({ ...spec, nodes: [...nodes.slice(0, -4), jump, ...nodes.slice(-4)] }),
      ),
    );
    expect(refusal.code).toBe("unsupported");
  });

  it("when a block has a constant of its own", () => {
    const spec = encoderSpec(3);
    const nodes = spec.nodes.flatMap((node): NodeSpec[] => {
      if (node.outputs[0] !== "block1.wide") return [node];
      return [
        { ...node, outputs: ["block1.raw"] },
        {
          op: "Constant",
          inputs: [],
          outputs: ["two"],
          attributes: { value: { tensor: { dtype: "f32", shape: [], elements: [2] } } },
        },
        { op: "Mul", inputs: ["block1.raw", "two"], outputs: ["block1.wide"] },
      ];
    });
    expect(refusalOf(() => findBlocks(weightedSpec({ ...spec, nodes }))).code).toBe("unsupported");
  });
});
