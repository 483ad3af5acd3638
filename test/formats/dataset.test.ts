import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  countSharedRows,
  type Dataset,
  loadDataset,
  numbersOf,
  requireColumn,
  rowDigest,
  selectRows,
  splitDataset,
} from "../../src/formats/dataset.ts";
import { inFolderAsync } from "../hostile/safetensors-bytes.ts";
import { npyHeader, npyOf, zipOf } from "../hostile/zip-bytes.ts";

function load(name: string, content: string | Uint8Array): Promise<Dataset> {
  return inFolderAsync(async (folder) => {
    writeFileSync(join(folder, name), content);
    return await loadDataset(join(folder, name));
  });
}

function table(values: readonly number[]): Dataset {
  const columns = new Map([["x", { kind: "number", values: Float64Array.from(values) } as const]]);
  return { path: "memory", rows: values.length, columns, unusable: new Map() };
}

describe("loadDataset", () => {
  it("reads real arrays (values as NumPy 2.4 reads them)", async () => {
    const data = await loadDataset("examples/digits/data/invert.search.npz");
    expect(data.rows).toBe(80);
    const image = requireColumn(data, "image");
    expect(image).toMatchObject({ kind: "tensor", dtype: "f32", shape: [64] });
    expect(image.kind === "tensor" && (image.data as Float32Array).reduce((a, b) => a + b)).toBe(
      3520.125,
    );
    expect([...numbersOf(data, "label").subarray(0, 8)]).toEqual([2, 1, 9, 2, 3, 1, 7, 7]);
  });

  it("reads real text", async () => {
    const data = await loadDataset("examples/tinylm/data/math.search.jsonl");
    expect(data.rows).toBe(64);
    const text = requireColumn(data, "text");
    const first = JSON.parse(readFileSync(data.path, "utf8").split("\n")[0] as string);
    expect(text.kind === "text" && text.values[0]).toBe(first.text);
  });

  it("makes columns of what a JSONL file holds, and says why it does not", async () => {
    const lines = [
      {
        a: "x",
        n: 1,
        flag: true,
        ids: [1, 2],
        m: [[1], [2]],
        big: 1,
        mixed: 1,
        ragged: [1],
        hole: 1,
        o: {},
        z: null,
      },
      {
        a: "y",
        n: 2.5,
        flag: false,
        ids: [3, 4],
        m: [[3], [4]],
        big: 2,
        mixed: "1",
        ragged: [],
        o: {},
        z: null,
      },
    ];
    const text = lines
      .map((line) => JSON.stringify(line))
      .join("\n")
      .replace('"big":2', '"big":9007199254740993');
    const data = await load("x.jsonl", text);
    expect(data.rows).toBe(2);
    expect(data.columns.get("a")).toEqual({ kind: "text", values: ["x", "y"] });
    expect(data.columns.get("n")).toEqual({ kind: "number", values: Float64Array.of(1, 2.5) });
    expect(data.columns.get("flag")).toEqual({ kind: "number", values: Float64Array.of(1, 0) });
    expect(data.columns.get("ids")).toEqual({
      kind: "tensor",
      dtype: "f64",
      shape: [2],
      data: Float64Array.of(1, 2, 3, 4),
    });
    expect(data.columns.get("m")).toMatchObject({
      shape: [2, 1],
      data: Float64Array.of(1, 2, 3, 4),
    });
    expect(data.columns.get("big")).toEqual({ kind: "text", values: ["1", "9007199254740993"] });
    expect([...data.unusable]).toEqual([
      ["mixed", "it mixes number and text"],
      ["ragged", expect.stringMatching(/^line 2 does not hold numbers of shape \[1\]/)],
      ["hole", "line 2 does not have it"],
      ["o", "it holds object"],
      ["z", "it holds null"],
    ]);
    expect(() => requireColumn(data, "hole")).toThrow(/cannot be used: line 2 does not have it/);
    expect(() => requireColumn(data, "idz")).toThrow(
      expect.objectContaining({ hint: expect.stringMatching(/did you mean "ids"/) }),
    );
  });

  it("finds raggedness that keeps the count", async () => {
    const data = await load("x.jsonl", '{"m":[[1],[2],[3]]}\n{"m":[[1],[2,3],[]]}\n');
    expect(data.unusable.get("m")).toMatch(/line 2/);
  });

  it("F36: blank lines, CRLF, byte-order mark and a last line without line break are fine", async () => {
    const data = await load("x.jsonl", '\ufeff{"a":"1"}\r\n\r\n{"a":"2"}\n   \n{"a":"3"}');
    expect(data.columns.get("a")).toEqual({ kind: "text", values: ["1", "2", "3"] });
  });

  it.each<readonly [string, string | Uint8Array, number, RegExp]>([
    ["a repeated key", '{"a":1}\n{"a":1,"a":2}\n', 2, /"a" is repeated/],
    ["a torn last line", '{"a":1}\n{"a":', 2, /found the end/],
    ["a list", '{"a":1}\n[1]\n', 2, /expected an object/],
    ["__proto__", '{"__proto__":{"x":1}}\n', 1, /__proto__/],
    ["NaN", '{"a":NaN}\n', 1, /expected a number/],
    ["an overflow", '{"a":1e999}\n', 1, /too large/],
    ["text behind the object", '{"a":1} x\n', 1, /expected the end/],
    ["bytes that are not UTF-8", Buffer.from([0x7b, 0x7d, 0x0a, 0xff, 0x0a]), 2, /not UTF-8/],
    ["half a character pair", '{"a":"\\udc00"}\n', 1, /half a character pair/],
    [
      "deep nesting",
      `{}\n{"a":${"[".repeat(20_000)}${"]".repeat(20_000)}}\n`,
      2,
      /nested too deeply/,
    ],
    [
      "a line beyond 16 MiB",
      `{}\n{"a":"${"x".repeat(16 * 1024 * 1024)}"}\n`,
      2,
      /longer than 16777216/,
    ],
  ])(
    "F36: refuses %s in a JSONL file and names the line",
    async (_name, content, line, message) => {
      await expect(load("x.jsonl", content)).rejects.toMatchObject({
        code: "invalid-file",
        message: expect.stringMatching(message),
        where: { line },
      });
    },
  );

  it("hints at a file that is cut short", async () => {
    await expect(load("x.jsonl", '{"a":1}\n{"a"')).rejects.toMatchObject({
      hint: expect.stringMatching(/cut short/),
    });
  });

  it("reads CSV and TSV as text and converts on request", async () => {
    const csv = await load("x.csv", '\ufefftext,label\r\n"a, ""b""\nc",1\r\nd, 2e1\r\n');
    expect(csv.rows).toBe(2);
    expect(csv.columns.get("text")).toEqual({ kind: "text", values: ['a, "b"\nc', "d"] });
    expect([...numbersOf(csv, "label")]).toEqual([1, 20]);
    expect(() => numbersOf(csv, "text")).toThrow(/"text" in row 1 is not a number/);
    const tsv = await load("x.tsv", "a\tb\n1\t007\n");
    expect(tsv.columns.get("b")).toEqual({ kind: "text", values: ["007"] });
    for (const cell of ["", "0x10", "1_000", "Infinity", "1e999", "١"]) {
      const data = await load("x.csv", `a,b\n${cell},x\n`);
      expect(() => numbersOf(data, "a")).toThrow(/not a number/);
    }
  });

  it.each<readonly [string, string, RegExp]>([
    ["an uneven row", "a,b\n1,2\n3\n", /line 3/],
    ["an open quote", 'a,b\n"1,2\n', /quote/i],
    ["a repeated column", "a,a\n1,2\n", /"a" occurs twice/],
    ["a column without a name", "a,\n1,2\n", /no name/],
    ["no header", "", /header row is missing/],
  ])("refuses %s in a CSV file", async (_name, content, message) => {
    await expect(load("x.csv", content)).rejects.toMatchObject({
      code: "invalid-file",
      message: expect.stringMatching(message),
    });
  });

  it("reads a single array, sets scalars aside and refuses arrays of different lengths", async () => {
    const single = await load("x.npy", npyOf(npyHeader("|u1", "(3, 2)"), 6));
    expect(single.rows).toBe(3);
    expect(requireColumn(single, "data")).toMatchObject({ shape: [2] });
    const a = npyOf(npyHeader("|u1", "(3,)"), 3);
    const scalar = await load(
      "x.npz",
      zipOf([
        { name: "a.npy", data: a },
        { name: "s.npy", data: npyOf(npyHeader("|u1", "()"), 1) },
      ]),
    );
    expect(scalar.unusable.get("s")).toMatch(/single value/);
    const b = npyOf(npyHeader("|u1", "(4,)"), 4);
    await expect(
      load(
        "x.npz",
        zipOf([
          { name: "a.npy", data: a },
          { name: "b.npy", data: b },
        ]),
      ),
    ).rejects.toMatchObject({
      code: "mismatch",
      message: expect.stringMatching(/"a" has 3 rows, "b" has 4/),
    });
  });

  it("goes by content: a pickle named .npy and a pointer named .jsonl are refused", async () => {
    await expect(load("x.npy", Buffer.from("80049500000000", "hex"))).rejects.toMatchObject({
      hint: expect.stringMatching(/run code/),
    });
    await expect(
      load("x.jsonl", "version https://git-lfs.github.com/spec/v1\n"),
    ).rejects.toMatchObject({ hint: expect.stringMatching(/git lfs pull/) });
    await expect(load("x.parquet", "PAR1")).rejects.toMatchObject({ code: "unsupported" });
    await expect(loadDataset("/nonexistent/x.npz")).rejects.toMatchObject({ code: "not-found" });
  });
});

describe("splitDataset", () => {
  const values = fc.array(fc.nat(20), { minLength: 30, maxLength: 60 });

  it("is deterministic, disjoint by content, and complete", () => {
    fc.assert(
      fc.property(values, fc.integer(), (numbers, seed) => {
        const data = table([...numbers, ...Array.from({ length: 10 }, (_, i) => 100 + i)]);
        const shares = { search: 0.5, validation: 0.2, test: 0.3, seed };
        const parts = splitDataset(data, shares);
        expect(splitDataset(data, shares)).toEqual(parts);
        expect(parts.search.rows + parts.validation.rows + parts.test.rows).toBe(data.rows);
        expect(countSharedRows(parts.search, parts.validation)).toBe(0);
        expect(countSharedRows(parts.search, parts.test)).toBe(0);
        expect(countSharedRows(parts.validation, parts.test)).toBe(0);
      }),
    );
  });

  it("deals distinct rows out by the fractions and depends on the seed", () => {
    const data = table(Array.from({ length: 100 }, (_, i) => i));
    const first = splitDataset(data, { search: 0.5, validation: 0.2, test: 0.2, seed: 1 });
    expect([first.search.rows, first.validation.rows, first.test.rows]).toEqual([50, 20, 20]);
    const other = splitDataset(data, { search: 0.5, validation: 0.2, test: 0.2, seed: 2 });
    expect(numbersOf(other.search, "x")).not.toEqual(numbersOf(first.search, "x"));
  });

  it("refuses senseless fractions and parts that stay empty", () => {
    const data = table([1, 2]);
    expect(() => splitDataset(data, { search: 0.8, validation: 0.3, test: 0, seed: 1 })).toThrow(
      /add up/,
    );
    expect(() => splitDataset(data, { search: -0.1, validation: 0.3, test: 0, seed: 1 })).toThrow(
      /at least 0/,
    );
    expect(() => splitDataset(data, { search: 0.5, validation: 0.1, test: 0.4, seed: 1 })).toThrow(
      /nothing for the validation split/,
    );
  });
});

describe("rowDigest", () => {
  it("tells rows apart by value and type, and finds them again in another file", async () => {
    const data = await loadDataset("examples/digits/data/invert.search.npz");
    const part = selectRows(data, [5, 3]);
    expect(rowDigest(part, 0)).toBe(rowDigest(data, 5));
    expect(rowDigest(part, 1)).toBe(rowDigest(data, 3));
    expect(rowDigest(part, 0, ["label"])).not.toBe(rowDigest(part, 0));
    expect(countSharedRows(data, part)).toBe(2);
    const test = await loadDataset("examples/digits/data/invert.test.npz");
    expect(countSharedRows(data, test)).toBe(0);
    const text = {
      ...table([]),
      rows: 1,
      columns: new Map([["x", { kind: "text", values: ["1"] } as const]]),
    };
    expect(rowDigest(text, 0)).not.toBe(rowDigest(table([1]), 0));
  });
});
