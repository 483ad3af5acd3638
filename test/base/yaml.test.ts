import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MendelError } from "../../src/base/errors.ts";
import { parseYaml, parseYamlDocuments, readYaml } from "../../src/base/yaml.ts";

function refusal(text: string): MendelError {
  try {
    parseYaml(text, "x.yml");
  } catch (error) {
    if (error instanceof MendelError) return error;
    throw error;
  }
  throw new Error("was accepted");
}

describe("parseYaml", () => {
  it("reads YAML 1.2 core values as written", () => {
    const { value } = parseYaml(
      "a: 1\nb: 0.5\nc: no\nd: [x, null, true, .inf, -.inf]\ne: 'quoted'\nf: 1e-3\ng: 0x10\n",
      "x.yml",
    );
    expect(value).toEqual({
      a: 1,
      b: 0.5,
      c: "no",
      d: ["x", null, true, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY],
      e: "quoted",
      f: 1e-3,
      g: 16,
    });
  });

  it("accepts JSON, tabs and escapes included", () => {
    const value = { a: [1, "x\ny", { b: null }], c: "😀", "d e": -0.25 };
    expect(parseYaml(JSON.stringify(value), "x.json").value).toEqual(value);
    expect(parseYaml(JSON.stringify(value, null, "\t"), "x.json").value).toEqual(value);
    expect(parseYaml('{"a":"\\ud83d\\ude00"}', "x.json").value).toEqual({ a: "😀" });
  });

  it("reads back any JSON document", () => {
    const finite = fc.double({ noNaN: true, noDefaultInfinity: true });
    const text = fc.string({ unit: "grapheme" }).filter((s) => !s.includes("\0"));
    const key = text.filter((s) => s !== "__proto__");
    const { tree } = fc.letrec((tie) => ({
      leaf: fc.oneof(fc.boolean(), fc.constant(null), text, fc.integer(), finite),
      tree: fc.oneof(
        { maxDepth: 4 },
        tie("leaf"),
        fc.array(tie("tree"), { maxLength: 4 }),
        fc.dictionary(key, tie("tree"), { maxKeys: 4, noNullPrototype: true }),
      ),
    }));
    fc.assert(
      fc.property(tree, (value) => {
        const json = JSON.stringify(value);
        // Doubles beyond 2^53 are written by JSON as integers, which are refused by design.
        fc.pre(!/(^|[^\d.e"-])-?\d{16,}($|[^\d.e"])/.test(json));
        expect(parseYaml(json, "x.json").value).toEqual(JSON.parse(json));
      }),
      { numRuns: 300 },
    );
  });

  it("copies what an alias names, as many times as it is used", () => {
    const { value } = parseYaml("a: &x {k: &y 1}\nb: *x\ny2: &y 2\nc: *y\nd: *x\n", "x.yml");
    expect(value).toEqual({ a: { k: 1 }, b: { k: 1 }, y2: 2, c: 2, d: { k: 1 } });
  });

  it("knows the lines of keys, items and of the place where a missing key would be", () => {
    const parsed = parseYaml("a: 1\nb:\n  - x\n  - k: v\n    n: 2\nc: {d: 3,\n  e: 4}\n", "x.yml");
    expect(parsed.lineOf([])).toBe(1);
    expect(parsed.lineOf(["b", 0])).toBe(3);
    expect(parsed.lineOf(["b", 1, "n"])).toBe(5);
    expect(parsed.lineOf(["c", "e"])).toBe(7);
    expect(parsed.lineOf(["c", "missing", "deeper"])).toBe(6);
  });

  it("splits a stream of documents", () => {
    const documents = parseYamlDocuments("a: 1\n---\nb: 2\n", "x.yml");
    expect(documents.map((document) => document.value)).toEqual([{ a: 1 }, { b: 2 }]);
    expect(documents[1]?.lineOf(["b"])).toBe(3);
    expect(refusal("a: 1\n---\nb: 2\n").message).toMatch(/one document/);
  });

  it.each<readonly [string, string, number | undefined, RegExp]>([
    ["nothing", "", 1, /empty/],
    ["only a comment", "# hello\n", 1, /empty/],
    ["more bytes than the cap", `a: ${"x".repeat(256 * 1024)}`, undefined, /at most 262144/],
    ["a duplicate key", "a: 1\nb: 2\na: 3\n", 3, /"a" was given before, on line 1/],
    ["a key in two spellings", '{1: x,\n"1": y}', 2, /given before/],
    ["a nested duplicate key", "m:\n  k: 1\n  k: 2\n", 3, /"k" was given before/],
    ["a duplicate key in JSON", '{"a": 1,\n"a": 2}', 2, /given before/],
    ["a function tag", "a: 1\nb: !!js/function 'function () {}'\n", 2, /tag/i],
    ["a local tag", "a: !include secret.txt\n", 1, /tag/i],
    ["a set tag", "a: !!set {x, y}\n", 1, /tag/i],
    ["a version directive", "%YAML 1.1\n---\na: yes\n", 1, /directive/],
    ["a tag directive", "%TAG ! tag:x,2000:\n---\na: !b c\n", 1, /directive/],
    ["__proto__", "a: 1\n__proto__: {polluted: true}\n", 2, /__proto__/],
    ["__proto__ in JSON", '{"a": {"__proto__": {"polluted": true}}}', 1, /__proto__/],
    ["an overflowing number", "a: 1\nb: 1e400\n", 2, /too large/],
    ["a negative overflow", "a: -1e999\n", 1, /too large/],
    ["a 21-digit integer", "a: 1\nb: 123456789012345678901\n", 2, /cannot be held exactly/],
    ["2^53 + 1", "a: 9007199254740993\n", 1, /cannot be held exactly/],
    ["an all-digit digest", `a: ${"1234567890".repeat(6)}1234\n`, 1, /cannot be held exactly/],
    ["an old octal", "mode: 0777\n", 1, /starts with zeros/],
    ["a cyclic list", "a: &x\n  - 1\n  - *x\n", 3, /contains itself/],
    ["a cyclic mapping", "&r\nself: *r\n", 2, /contains itself/],
    ["an alias without anchor", "a: 1\nb: *nobody\n", 2, /nobody/],
    ["a merge key", "d: &d {a: 1}\ne:\n  <<: *d\n", 3, /merge keys/],
    ["a list as a key", "? [a, b]\n: c\n", 1, /plain text/],
    ["an empty key", "a: 1\n: 2\n", 2, /plain text/],
    ["broken syntax", "a: 1\nb: [1, 2\nc: 3\n", undefined, /line/],
    ["a NUL escape", 'a: "x\\0y"\n', 1, /NUL/],
    ["half a surrogate pair", 'a: 1\nb: "\\ud800"\n', 2, /character pair/],
  ])("refuses %s", (_name, text, line, message) => {
    const error = refusal(text);
    expect(error.code).toBe("invalid-config");
    expect(error.message).toMatch(message);
    if (line !== undefined) expect(error.where).toMatchObject({ file: "x.yml", line });
    expect(Object.hasOwn(Object.prototype, "polluted")).toBe(false);
  });

  it("refuses expansion, depth and sheer numbers before they cost anything", () => {
    const laughs = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"];
    for (let i = 1; i < 9; i++) {
      laughs.push(
        `a${i}: &a${i} [${Array(9)
          .fill(`*a${i - 1}`)
          .join(", ")}]`,
      );
    }
    const keys = Array.from({ length: 40_000 }, (_, i) => `k${i}: 1`);
    expect(refusal(laughs.join("\n")).message).toMatch(/more than 50000 values/);
    expect(refusal("[".repeat(20_000)).message).toMatch(/nested deeper than 64/);
    expect(refusal(`a: ${"[".repeat(20_000)}${"]".repeat(20_000)}`).message).toMatch(
      /nested deeper/,
    );
    expect(refusal(`a: ${"{a: ".repeat(20_000)}${"}".repeat(20_000)}`).message).toMatch(/nested/);
    expect(refusal("- ".repeat(20_000)).message).toMatch(/nested deeper/);
    expect(refusal(keys.join("\n")).message).toMatch(/at most 262144/);
    expect(refusal(keys.slice(0, 26_000).join("\n")).where?.line).toBeGreaterThan(20_000);
    expect(refusal(`[${",".repeat(200_000)}]`).code).toBe("invalid-config");
    expect(refusal("*a ".repeat(60_000)).code).toBe("invalid-config");
  });

  it("takes 20,000 keys in linear time", () => {
    const text = Array.from({ length: 20_000 }, (_, i) => `k${i}: 1`).join("\n");
    expect(Object.keys(parseYaml(text, "x.yml").value as object)).toHaveLength(20_000);
  });

  it("never throws anything but a MendelError", () => {
    const pieces = [
      "{",
      "}",
      "[",
      "]",
      ":",
      "- ",
      "\n",
      "  ",
      "*a",
      "&a ",
      "!t ",
      "'",
      '"',
      "|",
      ">",
      "#",
      "?",
      ",",
      "x",
      "1",
      "---",
      "%",
      "\t",
      "\\u",
      "<<: ",
    ];
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...pieces), { maxLength: 40 }), (parts) => {
        try {
          parseYaml(parts.join(""), "x.yml");
        } catch (error) {
          expect(error).toBeInstanceOf(MendelError);
        }
      }),
      { numRuns: 2000 },
    );
  });
});

describe("readYaml", () => {
  it("names the file that is missing, not text, or not a file", () => {
    const folder = mkdtempSync(join(tmpdir(), "mendel-yaml-"));
    try {
      const path = join(folder, "a.yml");
      expect(() => readYaml(path)).toThrow(expect.objectContaining({ code: "not-found" }));
      writeFileSync(path, Buffer.from([0x61, 0x3a, 0x20, 0xff]));
      expect(() => readYaml(path)).toThrow(/not UTF-8/);
      writeFileSync(path, "\ufeffa: 1\n");
      expect(readYaml(path).value).toEqual({ a: 1 });
      expect(() => readYaml(folder)).toThrow(/expected a file/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
