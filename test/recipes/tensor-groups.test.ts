import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MendelError } from "../../src/base/errors.ts";
import { matchesGlob } from "../../src/recipes/glob.ts";
import {
  findLayers,
  groupTensors,
  kindOf,
  selectTensors,
  unmatchedPattern,
} from "../../src/recipes/tensor-groups.ts";
import { bertShapes, cnnShapes, gpt2Names, llamaShapes, mlpShapes, t5Names } from "./families.ts";

const llama = Object.keys(llamaShapes(8));
const bert = Object.keys(bertShapes(4, 3));
const mlp = Object.keys(mlpShapes());
const cnn = Object.keys(cnnShapes(true));
const families: Record<string, string[]> = {
  llama,
  bert,
  mlp,
  cnn,
  gpt2: gpt2Names(3),
  t5: t5Names(2),
};

function kinds(names: readonly string[]): Record<string, string> {
  const structure = findLayers(names);
  return Object.fromEntries(names.map((name) => [name, kindOf(name, structure.placeOf(name))]));
}

describe("findLayers", () => {
  it("finds the stack of each architecture by its repetition", () => {
    const stacks = (names: string[]) => Object.fromEntries(findLayers(names).stacks);
    expect(stacks(llama)).toEqual({ "model.layers": [0, 1, 2, 3, 4, 5, 6, 7] });
    expect(stacks(bert)).toEqual({ "bert.encoder.layer": [0, 1, 2, 3] });
    expect(stacks(mlp)).toEqual({ layers: [0, 1, 2, 3] });
    expect(stacks(gpt2Names(3))).toEqual({ "transformer.h": [0, 1, 2] });
    expect(stacks(t5Names(2))).toEqual({ "encoder.block": [0, 1], "decoder.block": [0, 1] });
    expect(stacks(cnn)).toEqual({});
  });

  it("takes the outermost number, so that experts and sub-layers stay inside their block", () => {
    const names = [0, 1].flatMap((layer) =>
      [0, 1, 2].map((expert) => `model.layers.${layer}.mlp.experts.${expert}.w1.weight`),
    );
    expect(findLayers(names).placeOf(names[4] as string)).toEqual({
      stack: "model.layers",
      index: 1,
      rest: ".mlp.experts.1.w1.weight",
    });
  });

  it("does not need a name it knows: any repeated number is a stack", () => {
    const names = ["core.7.a", "core.9.a", "core.9.b", "tail.3.a"];
    expect(Object.fromEntries(findLayers(names).stacks)).toEqual({ core: [7, 9] });
  });

  it("recognizes a stack of one block by its usual names", () => {
    expect([...findLayers(["model.layers.0.mlp.up_proj.weight"]).stacks.keys()]).toEqual([
      "model.layers",
    ]);
  });

  it("ignores numbers that are part of a word or the name's end", () => {
    expect(findLayers(["conv1.weight", "conv2.weight", "a.1", "a.2"]).stacks.size).toBe(0);
  });
});

describe("kindOf", () => {
  it("tells the kinds of a Llama model", () => {
    expect(kinds(llama)).toMatchObject({
      "model.embed_tokens.weight": "embedding",
      "model.layers.3.self_attn.q_proj.weight": "attention",
      "model.layers.3.mlp.down_proj.weight": "mlp",
      "model.layers.3.post_attention_layernorm.weight": "norm",
      "model.norm.weight": "norm",
      "lm_head.weight": "head",
    });
  });

  it("tells the kinds of a BERT classifier", () => {
    expect(kinds(bert)).toMatchObject({
      "bert.embeddings.token_type_embeddings.weight": "embedding",
      "bert.embeddings.LayerNorm.bias": "norm",
      "bert.encoder.layer.2.attention.output.dense.weight": "attention",
      "bert.encoder.layer.2.attention.output.LayerNorm.weight": "norm",
      "bert.encoder.layer.2.intermediate.dense.bias": "mlp",
      "bert.encoder.layer.2.output.dense.weight": "mlp",
      "bert.pooler.dense.weight": "other",
      "classifier.weight": "head",
    });
  });

  it("tells the kinds of GPT-2, T5, GGUF and a convolutional net", () => {
    expect(kinds(gpt2Names(2))).toMatchObject({
      "transformer.wpe.weight": "embedding",
      "transformer.h.1.attn.c_proj.weight": "attention",
      "transformer.h.1.mlp.c_proj.bias": "mlp",
      "transformer.h.1.ln_2.bias": "norm",
      "transformer.ln_f.weight": "norm",
    });
    expect(kinds(t5Names(2))).toMatchObject({
      "shared.weight": "embedding",
      "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": "attention",
      "decoder.block.1.layer.1.EncDecAttention.o.weight": "attention",
      "decoder.block.1.layer.2.DenseReluDense.wi.weight": "mlp",
      "decoder.block.1.layer.2.layer_norm.weight": "norm",
      "lm_head.weight": "head",
    });
    const gguf = ["token_embd.weight", "blk.0.attn_q.weight", "blk.1.attn_q.weight"];
    gguf.push("blk.0.ffn_up.weight", "blk.0.attn_norm.weight", "output_norm.weight");
    gguf.push("output.weight");
    expect(Object.values(kinds(gguf))).toEqual([
      "embedding",
      "attention",
      "attention",
      "mlp",
      "norm",
      "norm",
      "head",
    ]);
    expect(kinds(cnn)).toMatchObject({
      "conv1.weight": "other",
      "bn1.running_var": "norm",
      "bn2.num_batches_tracked": "norm",
      "fc.weight": "other",
    });
  });
});

describe("groupTensors", () => {
  it("groups a decoder by layer with embedding first and norm and head together at the end", () => {
    const groups = groupTensors(llama, "layer");
    expect([...groups.keys()]).toEqual([
      "embedding",
      ...[0, 1, 2, 3, 4, 5, 6, 7].map((i) => `layers.${i}`),
      "final",
    ]);
    expect(groups.get("final")).toEqual(["lm_head.weight", "model.norm.weight"]);
    expect(groups.get("layers.5")).toHaveLength(9);
  });

  it("puts consecutive layers together", () => {
    expect([...groupTensors(llama, "layer/3").keys()]).toEqual([
      "embedding",
      "layers.0-2",
      "layers.3-5",
      "layers.6-7",
      "final",
    ]);
  });

  it("keeps what is outside of the layers apart by module", () => {
    const groups = groupTensors(bert, "layer");
    expect([...groups.keys()]).toEqual([
      "embedding",
      "layer.0",
      "layer.1",
      "layer.2",
      "layer.3",
      "bert.pooler.dense",
      "final",
    ]);
    expect(groups.get("embedding")).toContain("bert.embeddings.LayerNorm.weight");
    expect(groups.get("final")).toEqual(["classifier.bias", "classifier.weight"]);
  });

  it("groups a net without repeated blocks by module", () => {
    expect([...groupTensors(cnn, "layer").keys()]).toEqual(["bn1", "bn2", "conv1", "conv2", "fc"]);
    expect([...groupTensors(mlp, "layer").keys()]).toEqual([0, 1, 2, 3].map((i) => `layers.${i}`));
  });

  it("tells stacks of the same name apart", () => {
    const groups = [...groupTensors(t5Names(1).concat(t5Names(2)), "layer/2").keys()];
    expect(groups).toEqual(["embedding", "decoder.block.0-1", "encoder.block.0-1", "final"]);
  });

  it("groups by kind and by layer and kind", () => {
    expect([...groupTensors(llama, "kind").keys()]).toEqual([
      "embedding",
      "attention",
      "mlp",
      "norm",
      "head",
    ]);
    const both = groupTensors(llama, "layer+kind");
    expect(both.get("layers.2/attention")).toHaveLength(4);
    expect(both.get("layers.2/norm")).toHaveLength(2);
    expect(groupTensors(llama, "layer/4+kind").get("layers.4-7/mlp")).toHaveLength(12);
  });

  it("follows patterns, first match first, and keeps what is left", () => {
    const groups = groupTensors(llama, {
      edges: ["model.layers.0.*", "model.layers.7.*"],
      attention: "kind:attention",
      fed: ["*.mlp.*"],
    });
    expect([...groups.keys()]).toEqual(["edges", "attention", "fed", "rest"]);
    expect(groups.get("edges")).toHaveLength(18);
    expect(groups.get("attention")).toHaveLength(24);
  });

  it.each(Object.keys(families))(
    "puts every tensor of %s into exactly one group, whatever the order of names",
    (family) => {
      const names = families[family] as string[];
      const specs = ["whole", "layer", "layer/2", "kind", "layer+kind", "layer/2+kind", "tensor"];
      for (const spec of specs) {
        const groups = groupTensors(names, spec);
        expect([...groups.values()].flat().sort()).toEqual([...new Set(names)].sort());
        expect(groupTensors([...names].reverse(), spec)).toEqual(groups);
      }
    },
  );

  it("refuses words and patterns that mean nothing, with the nearest that would", () => {
    const attempt = (spec: Parameters<typeof groupTensors>[1]) => {
      try {
        groupTensors(llama, spec);
      } catch (error) {
        if (error instanceof MendelError) return `${error.message}; ${error.hint}`;
      }
      return "accepted";
    };
    expect(attempt("layers")).toMatch(/unknown grouping "layers".*did you mean "layer"/);
    expect(attempt("layer/0")).toMatch(/unknown grouping/);
    expect(attempt({ a: "*layrnorm*" })).toMatch(/matches no tensor.*did you mean "\*layernorm\*"/);
    expect(attempt({ a: "kind:atention" })).toMatch(/kind "atention".*did you mean "attention"/);
    expect(attempt({ a: "kind:other" })).toMatch(/matches no tensor.*kinds of these models/);
    expect(attempt({ all: "*", late: "*mlp*" })).toMatch(/"late" gets no tensor/);
  });
});

describe("patterns", () => {
  it("agrees with a regular expression on any name", () => {
    const text = fc.string({ unit: fc.constantFrom("a", "b", ".", "*", "?"), maxLength: 12 });
    const plain = fc.string({ unit: fc.constantFrom("a", "b", "."), maxLength: 16 });
    fc.assert(
      fc.property(plain, text, (name, pattern) => {
        const source = pattern.replace(/[.]/g, "\\.").replace(/\*/g, ".*").replace(/\?/g, ".");
        expect(matchesGlob(name, pattern)).toBe(new RegExp(`^${source}$`).test(name));
      }),
      { numRuns: 500 },
    );
  });

  it("answers a hostile pattern at once", () => {
    const name = "a".repeat(5_000);
    expect(matchesGlob(name, `${"*a".repeat(500)}b`)).toBe(false);
  });

  it("selects by kind", () => {
    expect(selectTensors(bert, "kind:head")).toEqual(["classifier.weight", "classifier.bias"]);
    expect(selectTensors(bert, "*pooler*")).toHaveLength(2);
  });

  it("names a key and something that exists when nothing matches", () => {
    const error = unmatchedPattern(llama, "lm_hed.weight", "freeze");
    expect(error.where).toEqual({ key: "freeze" });
    expect(error.hint).toMatch(/lm_head\.weight/);
  });
});
