import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { type EvaluatorDefinition, parseEvaluator } from "../../src/evaluation/evaluator-schema.ts";
import { allocate, convert } from "../../src/evaluation/feed-numbers.ts";
import { createScorer } from "../../src/evaluation/item-scores.ts";
import { type PreparedSplit, prepareSplit } from "../../src/evaluation/prepared-split.ts";
import type { GraphSignature } from "../../src/evaluation/session.ts";
import { createSplitLoader } from "../../src/evaluation/split-data.ts";

const folder = mkdtempSync(join(tmpdir(), "mendel-items-"));
afterAll(() => rmSync(folder, { recursive: true }));
const tokenizer = fileURLToPath(
  new URL("../../examples/tinylm/models/base/tokenizer.json", import.meta.url),
);

function write(name: string, rows: readonly object[]): string {
  const path = join(folder, name);
  writeFileSync(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  return path;
}

/** An evaluator over rows; search, validation and test are told apart by an extra item each. */
function evaluator(name: string, rows: readonly object[], changes: object): EvaluatorDefinition {
  const data = {
    search: write(`${name}.search.jsonl`, rows),
    validation: write(`${name}.validation.jsonl`, rows),
    test: write(`${name}.test.jsonl`, rows),
  };
  const plain = { task: "classification", inputs: { x: "x" }, target: "y", fitness: "accuracy" };
  return parseEvaluator({ ...plain, data, ...changes }, name, folder);
}

async function prepare(
  definition: EvaluatorDefinition,
  graph: GraphSignature,
): Promise<PreparedSplit> {
  const data = await createSplitLoader().load(definition, "search");
  return prepareSplit(definition, "search", data, graph);
}

const numeric: GraphSignature = {
  inputs: [{ name: "x", type: "float32", shape: ["batch", 2] }],
  outputs: [{ name: "logits", type: "float32", shape: ["batch", 3] }],
};

const rows = [
  { x: [1, 2], y: 0 },
  { x: [3, 4], y: 2 },
  { x: [5, 6], y: 1 },
];

describe("numeric items", () => {
  it("are cut into minibatches in data order", async () => {
    const { batches, items } = await prepare(evaluator("a", rows, { batch: 2 }), numeric);
    expect(items).toBe(3);
    expect(batches.map((batch) => Array.from(batch.items))).toEqual([[0, 1], [2]]);
    expect(batches[0]?.feeds["x"]).toEqual({
      type: "float32",
      dims: [2, 2],
      data: Float32Array.of(1, 2, 3, 4),
    });
  });

  it("fill a graph of fixed batch size with copies that are not scored", async () => {
    const fixed: GraphSignature = {
      inputs: [{ name: "x", type: "float32", shape: [2, 2] }],
      outputs: [{ name: "logits", type: "float32", shape: [2, 3] }],
    };
    const prepared = await prepare(evaluator("b", rows, { batch: 64 }), fixed);
    expect(prepared.batches.map((batch) => Array.from(batch.items))).toEqual([[0, 1], [2]]);
    expect(prepared.batches[1]?.feeds["x"]?.data).toEqual(Float32Array.of(5, 6, 5, 6));
    const scorer = createScorer(prepared, undefined);
    for (const batch of prepared.batches) {
      scorer.add(batch, {
        logits: { dims: [2, 3], data: Float32Array.of(1, 0, 0, Number.NaN, 0, 0).fill(0, 3) },
      });
    }
    expect(scorer.results()[0]).toMatchObject({ items: 3, itemScores: [1, 0, 0] });
  });

  it("obey the limit", async () => {
    expect((await prepare(evaluator("c", rows, { limit: 2 }), numeric)).items).toBe(2);
  });

  it.each<[string, readonly object[], object, GraphSignature, string]>([
    ["a label out of range", [{ x: [1, 2], y: 3 }], {}, numeric, "from 0 to 2"],
    ["a label that is no class", [{ x: [1, 2], y: 0.5 }], {}, numeric, "label 0.5"],
    ["a wrong shape", [{ x: [1, 2, 3], y: 0 }], {}, numeric, "[3]"],
    ["an unknown input", rows, { inputs: { xx: "x" } }, numeric, 'no input "xx"'],
    ["an unknown output", rows, { output: "logit" }, numeric, 'no output "logit"'],
    ["an unknown field", rows, { inputs: { x: "z" } }, numeric, '"z"'],
    ["text without tokenizer", [{ x: "hello", y: 0 }], {}, numeric, "no tokenizer"],
    ["no rows", [], {}, numeric, "empty"],
  ])("refuse %s", async (name, data, changes, graph, message) => {
    const definition = evaluator(name.replaceAll(" ", "-"), data, changes);
    const error = await prepare(definition, graph).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "mismatch" });
    expect((error as Error).message).toContain(message);
  });

  it("of a regression are compared column by column", async () => {
    const data = [
      { x: [1, 2], y: [1, 10] },
      { x: [3, 4], y: [3, 20] },
    ];
    const changes = { task: "regression", fitness: "mse", metrics: ["mae", "r2"] };
    const graph: GraphSignature = {
      ...numeric,
      outputs: [{ name: "value", type: "float32", shape: ["batch", 2] }],
    };
    const prepared = await prepare(evaluator("regression", data, changes), graph);
    const scorer = createScorer(prepared, undefined);
    // Errors (0, 2) and (0, −4); variation 2·1 + 2·25 around the column means (2, 15).
    const output = { dims: [2, 2], data: Float32Array.of(1, 12, 3, 16) };
    scorer.add(prepared.batches[0]!, { value: output });
    const [mae, r2, mse] = scorer.results();
    expect(mae).toMatchObject({ metric: "mae", value: 1.5, itemScores: [1, 2] });
    expect(r2!.value).toBeCloseTo(1 - 20 / 52, 12);
    expect(mse).toMatchObject({ metric: "mse", value: 5, itemScores: [2, 8] });
    const narrow = { dims: [2, 1], data: Float32Array.of(1, 2) };
    const refused = createScorer(prepared, undefined);
    expect(() => refused.add(prepared.batches[0]!, { value: narrow })).toThrow("2 values per item");
  });

  it("refuse a graph input that nothing fills", async () => {
    const graph = {
      ...numeric,
      inputs: [...numeric.inputs, { name: "mask", type: "float32", shape: ["batch", 2] }],
    };
    await expect(prepare(evaluator("d", rows, {}), graph)).rejects.toThrow('"mask"');
  });
});

describe("number conversion", () => {
  it("rounds to float16 as the standard says", () => {
    const bits = (value: number): number => {
      const data = allocate("float16", 1);
      convert("float16", Float64Array.of(value), data, 0);
      return Number(data[0]);
    };
    expect([1, -2, 65504, 65519, 65520, 2 ** -24, 2 ** -25, 0, -0].map(bits)).toEqual([
      0x3c00, 0xc000, 0x7bff, 0x7bff, 0x7c00, 0x0001, 0x0000, 0x0000, 0x8000,
    ]);
    // Halfway cases go to the even neighbor; carries reach the exponent.
    expect([1 + 2 ** -11, 1 + 3 * 2 ** -11, 2 - 2 ** -11].map(bits)).toEqual([
      0x3c00, 0x3c02, 0x4000,
    ]);
  });

  it("refuses what an integer input cannot hold", () => {
    fc.assert(
      fc.property(fc.double(), (value) => {
        const whole = Number.isInteger(value);
        expect(convert("uint8", Float64Array.of(value), allocate("uint8", 1), 0)).toBe(
          whole && value >= 0 && value <= 255,
        );
        expect(convert("int64", Float64Array.of(value), allocate("int64", 1), 0)).toBe(
          Number.isSafeInteger(value),
        );
        expect(convert("bool", Float64Array.of(value), allocate("bool", 1), 0)).toBe(
          value === 0 || value === 1,
        );
      }),
    );
  });
});

describe("texts", () => {
  const graph: GraphSignature = {
    inputs: [
      { name: "input_ids", type: "int64", shape: ["batch", "sequence"] },
      { name: "attention_mask", type: "int64", shape: ["batch", "sequence"] },
    ],
    outputs: [{ name: "logits", type: "float32", shape: ["batch", "sequence", 512] }],
  };
  const texts = ["In the beginning was the Word", "def", "Answer: 42\n"];
  const language = {
    task: "language-modeling",
    inputs: { input_ids: "text" },
    target: undefined,
    tokenizer,
    fitness: "nll",
    batch: 2,
  };
  const make = (name: string, changes: object = {}): Promise<PreparedSplit> =>
    prepare(
      evaluator(
        name,
        texts.map((text) => ({ text })),
        { ...language, ...changes },
      ),
      graph,
    );

  it("are sorted by length, padded on the right and masked", async () => {
    const { batches } = await make("lm");
    expect(Array.from(batches[0]!.items)[0]).toBe(1);
    expect(batches.flatMap((batch) => Array.from(batch.items)).sort()).toEqual([0, 1, 2]);
    const { input_ids: ids, attention_mask: mask } = batches[0]!.feeds;
    const [rowCount, length] = ids!.dims as [number, number];
    for (let row = 0; row < rowCount; row++) {
      const tokens = Array.from(ids!.data.slice(row * length, (row + 1) * length), Number);
      const real = Array.from(mask!.data.slice(row * length, (row + 1) * length), Number);
      // <s> in front, <pad> (2) exactly where the mask is 0.
      expect(tokens[0]).toBe(0);
      expect(real.every((bit, at) => (bit === 0) === (tokens[at] === 2))).toBe(true);
      expect(real).toEqual([...real].sort((a, b) => b - a));
    }
  });

  it("predict every token but the first", async () => {
    const { reference } = await make("labels");
    if (reference.kind !== "tokens") throw new Error("tokens expected");
    expect(Array.from(reference.labels[1]!)).not.toContain(0);
    const bare = await make("bare", { add_bos: false });
    if (bare.reference.kind !== "tokens") throw new Error("tokens expected");
    for (const [item, labels] of bare.reference.labels.entries()) {
      // Without <s> the first real token is context instead.
      expect(Array.from(labels)).toEqual(Array.from(reference.labels[item]!.subarray(1)));
    }
    // The tokenizer puts <s> in front already; asking for it changes nothing.
    expect((await make("bos", { add_bos: true })).reference).toEqual(reference);
  });

  it("are cut at max_length", async () => {
    const { reference } = await make("short", { max_length: 3 });
    if (reference.kind !== "tokens") throw new Error("tokens expected");
    expect(Math.max(...reference.labels.map((labels) => labels.length))).toBe(2);
  });

  it("refuse a model with fewer words than the tokenizer", async () => {
    const outputs = [{ name: "logits", type: "float32", shape: ["batch", "sequence", 100] }];
    const definition = evaluator(
      "vocabulary",
      texts.map((text) => ({ text })),
      language,
    );
    await expect(prepare(definition, { ...graph, outputs })).rejects.toThrow("100 tokens");
  });

  it("ignore what a model says at padded positions", async () => {
    const prepared = await make("padding");
    const score = (padding: number): unknown => {
      const scorer = createScorer(prepared, undefined);
      for (const batch of prepared.batches) {
        const [rowCount, length] = batch.feeds["input_ids"]!.dims as [number, number];
        const mask = batch.feeds["attention_mask"]!.data;
        const data = new Float32Array(rowCount * length * 512);
        for (let at = 0; at < rowCount * length; at++) {
          for (let word = 0; word < 512; word++) {
            data[at * 512 + word] = Number(mask[at]) === 1 ? Math.sin(at + word) : padding;
          }
        }
        scorer.add(batch, { logits: { dims: [rowCount, length, 512], data } });
      }
      return scorer.results();
    };
    expect(score(Number.NaN)).toEqual(score(0));
  });
});

describe("one file cut by fractions", () => {
  const many = Array.from({ length: 40 }, (_, i) => ({ x: [i % 30, 1], y: i % 3 }));
  const cut = parseEvaluator(
    {
      task: "classification",
      data: write("many.jsonl", many),
      split: { search: 0.5, validation: 0.2, test: 0.3, seed: 1 },
      inputs: { x: "x" },
      target: "y",
      fitness: "accuracy",
    },
    "cut",
    folder,
  );

  it("gives disjoint splits even when rows repeat, the same ones every time", async () => {
    const loader = createSplitLoader();
    await loader.check(cut);
    const first = await loader.load(cut, "test");
    const second = await createSplitLoader().load(cut, "test");
    expect(second.columns).toEqual(first.columns);
  });
});
