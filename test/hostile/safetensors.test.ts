import {
  closeSync,
  ftruncateSync,
  openSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MendelError } from "../../src/base/errors.ts";
import { randomStream } from "../../src/base/random.ts";
import { withFile } from "../../src/formats/random-access-file.ts";
import { openSafetensors } from "../../src/formats/safetensors.ts";
import {
  readSafetensorsHeader,
  type SafetensorsHeader,
  type SafetensorsLimits,
} from "../../src/formats/safetensors-header.ts";
import { asFile, entry, fileOf, inFolder, withLength } from "./safetensors-bytes.ts";

function header(bytes: Uint8Array, limits?: SafetensorsLimits): SafetensorsHeader {
  return asFile(bytes, (path) => withFile(path, (file) => readSafetensorsHeader(file, limits)));
}

function refusal(bytes: Uint8Array, limits?: SafetensorsLimits): MendelError {
  try {
    header(bytes, limits);
  } catch (error) {
    if (error instanceof MendelError) return error;
    throw error;
  }
  throw new Error("was accepted");
}

const square = entry("test", "I32", "[2,2]", "[0,16]");
const good = fileOf(`{${square}}`, 16);
const repeat = (n: number, item: (i: number) => string): string =>
  `{${Array.from({ length: n }, (_, i) => item(i)).join(",")}}`;

describe("files the reference reader refuses, and so do we", () => {
  it.each<readonly [string, Uint8Array, RegExp]>([
    ["A1 nothing", new Uint8Array(0), /0 bytes are too few/],
    ["A2 a length and no header", withLength(60n), /said to be 60 bytes/],
    [
      "A3 a length beyond the format's limit",
      Buffer.concat([Buffer.from("3c000000ffffffff00", "hex").subarray(0, 8), good.subarray(8)]),
      /a header of \d+ bytes, but at most/,
    ],
    ["A4 a header that is not UTF-8", fileOf(Buffer.from([0xff])), /not UTF-8/],
    ["A5 an object that does not end", fileOf("{"), /expected a string/],
    [
      "A6 text behind the data (polyglot)",
      Buffer.concat([good, Buffer.from("<script>alert('not a model')</script>")]),
      /the header describes \d+ bytes, the file has/,
    ],
    ["A7 data cut short", fileOf(`{${square}}`, 14), /the file has/],
    [
      "A8 shape and offsets disagree",
      fileOf(`{${entry("t", "I32", "[2,2]", "[0,4]")}}`, 4),
      /needs 16 bytes, data_offsets give 4/,
    ],
    [
      "A9 an element count that overflows",
      fileOf(`{${entry("t", "I32", "[2,18446744073709551614]", "[0,16]")}}`, 16),
      /at most 2\^53 - 1/,
    ],
    [
      "A10 a byte count that overflows",
      fileOf(`{${entry("t", "I32", "[2,9223372036854775807]", "[0,16]")}}`, 16),
      /at most 2\^53 - 1/,
    ],
    [
      "A10' safe dimensions with an unsafe product",
      fileOf(`{${entry("t", "U8", "[9007199254740991,2]", "[0,16]")}}`, 16),
      /more elements than can be counted/,
    ],
    [
      "A11 ten tensors on the same bytes",
      fileOf(
        repeat(10, (i) => entry(`t${i}`, "F32", "[2,2]", "[0,16]")),
        16,
      ),
      /hole or an overlap/,
    ],
    [
      "A21 half a byte",
      fileOf(`{${entry("t", "F4", "[1,3]", "[0,2]")}}`, 2),
      /do not fill whole bytes/,
    ],
    [
      "A22 four-bit elements with too many bytes",
      fileOf(`{${entry("t", "F4", "[1,2]", "[0,2]")}}`, 2),
      /needs 1 bytes/,
    ],
    ["A24 half a header", good.subarray(0, 8 + 30), /said to be/],
    [
      "A25 four megabytes promised, one byte there",
      fileOf(`{${entry("t", "F32", "[1024,1024]", "[0,4194304]")}}`, 1),
      /the file has/,
    ],
    ["A26 a patched length", withLength(1000n, good.subarray(8)), /said to be 1000 bytes/],
    [
      "A28 16 GB in 160 kB",
      fileOf(
        repeat(100_000, (i) => entry(`t${i}`, "F32", "[200,200]", "[0,160000]")),
        160_000,
      ),
      /hole or an overlap/,
    ],
    ["B1 seven bytes", new Uint8Array(7).fill(1), /7 bytes are too few/],
    ["B2 length 0", withLength(0n), /found the end/],
    ["B2 length 0 and data", withLength(0n, "", 8), /found the end/],
    ["B3 length 2^63 - 1", withLength(2n ** 63n - 1n), /at most/],
    ["B3 length 2^64 - 1", withLength(2n ** 64n - 1n), /at most/],
    ["B3 length 100,000,001", withLength(100_000_001n), /at most/],
    ["B4 a list", fileOf("[]"), /expected \{/],
    ["B4 null", fileOf("null"), /expected \{/],
    ["B4 a string", fileOf('"x"'), /expected \{/],
    ["B4 a number", fileOf("1"), /expected \{/],
    ["B5 data without tensors", fileOf("{}", 8), /the file has/],
    ["B6 padding with NUL", fileOf("{}\0\0\0\0\0\0"), /expected the end/],
    ["B6 a word behind", fileOf("{} x"), /expected the end/],
    ["B6 two objects", fileOf("{}{}"), /expected the end/],
    ["B6 a comment", fileOf("{/*x*/}"), /expected a string/],
    ["B6 a trailing comma", fileOf(`{${square},}`, 16), /expected a string/],
    ["B6 NaN", fileOf(`{${entry("t", "U8", "[NaN]", "[0,1]")}}`, 1), /expected a number/],
    ["B7 a byte-order mark", fileOf("\ufeff{}"), /expected \{/],
    [
      "B9 a hole at the start",
      fileOf(`{${entry("t", "U8", "[4]", "[4,8]")}}`, 8),
      /hole or an overlap/,
    ],
    [
      "B9 a hole between",
      fileOf(`{${entry("a", "U8", "[4]", "[0,4]")},${entry("b", "U8", "[4]", "[8,12]")}}`, 12),
      /hole or an overlap/,
    ],
    [
      "B10 an exact overlap",
      fileOf(`{${entry("a", "U8", "[4]", "[0,4]")},${entry("b", "U8", "[4]", "[0,4]")}}`, 4),
      /hole or an overlap/,
    ],
    [
      "B10 a partial overlap",
      fileOf(`{${entry("a", "U8", "[8]", "[0,8]")},${entry("b", "U8", "[8]", "[4,12]")}}`, 12),
      /hole or an overlap/,
    ],
    ["B12 reversed offsets", fileOf(`{${entry("t", "U8", "[4]", "[4,0]")}}`, 4), /run backwards/],
    ["B12 a negative offset", fileOf(`{${entry("t", "U8", "[4]", "[-4,0]")}}`, 4), /whole number/],
    [
      "B12 a negative dimension",
      fileOf(`{${entry("t", "U8", "[-4]", "[0,4]")}}`, 4),
      /whole number/,
    ],
    ...[
      "[0.0,4]",
      "[0,4e0]",
      "[0,4.0]",
      '[0,"4"]',
      "[-0,4]",
      "[0,04]",
      "[0,4,4]",
      "[4]",
      "[]",
      "null",
      "[0,null]",
    ].map(
      (offsets) =>
        [
          `B13 offsets ${offsets}`,
          fileOf(`{${entry("t", "U8", "[4]", offsets)}}`, 4),
          /./,
        ] as const,
    ),
    [
      "B14 a dimension of 20 digits",
      fileOf(`{${entry("t", "U8", "[99999999999999999999]", "[0,4]")}}`, 4),
      /whole number/,
    ],
    [
      "B16 zero behind a huge dimension",
      fileOf(`{${entry("t", "U8", "[18446744073709551615,2,0]", "[0,0]")}}`),
      /whole number/,
    ],
    ...["F33", "f32", ""].map(
      (dtype) =>
        [
          `B18 dtype "${dtype}"`,
          fileOf(`{${entry("t", dtype, "[1]", "[0,4]")}}`, 4),
          /unknown dtype/,
        ] as const,
    ),
    [
      "B18 dtype as a number",
      fileOf('{"t":{"dtype":32,"shape":[1],"data_offsets":[0,4]}}', 4),
      /expected a string/,
    ],
    [
      "B18 no shape",
      fileOf('{"t":{"dtype":"F32","data_offsets":[0,4]}}', 4),
      /the shape is missing/,
    ],
    ["B18 no dtype", fileOf('{"t":{"shape":[1],"data_offsets":[0,4]}}', 4), /the dtype is missing/],
    ["B18 no offsets", fileOf('{"t":{"dtype":"F32","shape":[1]}}', 4), /two numbers/],
    [
      "B18 two dtypes",
      fileOf('{"t":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', 4),
      /dtype is repeated/,
    ],
    [
      "B19 three six-bit elements",
      fileOf(`{${entry("t", "F6_E2M3", "[3]", "[0,2]")}}`, 2),
      /do not fill whole bytes/,
    ],
    [
      "B23 a repeated name with its own bytes",
      fileOf(`{${entry("t", "U8", "[4]", "[0,4]")},${entry("t", "U8", "[4]", "[4,8]")}}`, 8),
      /occurs twice/,
    ],
    [
      "B24 two __metadata__",
      fileOf('{"__metadata__":{},"__metadata__":{}}'),
      /__metadata__ is repeated/,
    ],
    ["B26 a number in the metadata", fileOf('{"__metadata__":{"a":1}}'), /expected a string/],
    ["B26 an object in the metadata", fileOf('{"__metadata__":{"a":{}}}'), /expected a string/],
    ["B26 a list in the metadata", fileOf('{"__metadata__":{"a":[]}}'), /expected a string/],
    [
      "B26 metadata like a tensor",
      fileOf('{"__metadata__":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', 4),
      /expected a string/,
    ],
    [
      "B29 a raw control character in a name",
      fileOf(`{"a\nb":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1),
      /raw control character/,
    ],
    [
      "B29 half a surrogate pair",
      fileOf('{"\\ud800":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 1),
      /half a character pair/,
    ],
    [
      "B30 one name in two spellings",
      fileOf(
        '{"\\u0061":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
        2,
      ),
      /occurs twice/,
    ],
    [
      "B31 a metadata value of 100,000 lists",
      fileOf(`{"__metadata__":{"a":${"[".repeat(100_000)}${"]".repeat(100_000)}}}`),
      /expected a string/,
    ],
    [
      "B31 an extra field of 100,000 lists",
      fileOf(`{"t":{"x":${"[".repeat(100_000)}${"]".repeat(100_000)}}}`),
      /nested too deeply/,
    ],
    [
      "B31 a header 200 objects deep",
      fileOf(`${'{"a":'.repeat(200)}1${"}".repeat(200)}`),
      /nested too deeply/,
    ],
  ])("%s", (_name, bytes, message) => {
    const error = refusal(bytes);
    expect(error.code).toBe("invalid-file");
    expect(error.message).toMatch(message);
    expect(error.where?.file).toMatch(/model\.safetensors$/);
  });
});

describe("files the reference reader accepts and we refuse", () => {
  it.each<readonly [string, Uint8Array, RegExp]>([
    [
      "B15 zero before a huge dimension",
      fileOf(`{${entry("t", "U8", "[0,18446744073709551615,2]", "[0,0]")}}`),
      /whole number/,
    ],
    [
      "B15' a zero that hides an unsafe product",
      fileOf(`{${entry("t", "U8", "[0,9007199254740991,9007199254740991]", "[0,0]")}}`),
      /more elements than can be counted/,
    ],
    [
      "B22 a repeated name on the same bytes",
      fileOf(`{${entry("t", "U8", "[4]", "[0,4]")},${entry("t", "U8", "[4]", "[0,4]")}}`, 4),
      /occurs twice/,
    ],
    [
      "B22 a repeated name with another dtype",
      fileOf(`{${entry("t", "U8", "[4]", "[0,4]")},${entry("t", "F32", "[1]", "[0,4]")}}`, 4),
      /occurs twice/,
    ],
    [
      "B25 a repeated metadata key",
      fileOf('{"__metadata__":{"a":"1","a":"2"}}'),
      /"a" is repeated/,
    ],
    [
      "B28 an escaped NUL in a name",
      fileOf('{"a\\u0000b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 1),
      /control character/,
    ],
    [
      "B28 an escaped line break in a name",
      fileOf('{"a\\nb":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 1),
      /control character/,
    ],
    [
      "B32 100,000 dimensions of 1",
      fileOf(`{${entry("t", "U8", `[${Array(100_000).fill(1).join(",")}]`, "[0,1]")}}`, 1),
      /more than 64 numbers/,
    ],
  ])("%s", (_name, bytes, message) => {
    const error = refusal(bytes);
    expect(error.code).toBe("invalid-file");
    expect(error.message).toMatch(message);
  });
});

describe("unusual files that must load", () => {
  it.each<readonly [string, Uint8Array, readonly (readonly [string, string, readonly number[]])[]]>(
    [
      ["A12 space behind the object", fileOf("{}\r \t\n"), []],
      ["A13 space on both sides", fileOf("\t\n{}\r "), []],
      [
        "A14 no elements",
        fileOf(`{${entry("t", "I32", "[2,0]", "[0,0]")}}`),
        [["t", "I32", [2, 0]]],
      ],
      ["A15 a scalar", fileOf(`{${entry("t", "I32", "[]", "[0,4]")}}`, 4), [["t", "I32", []]]],
      ["A16 nothing saved", fileOf("{}      "), []],
      ["A17 metadata only", fileOf('{"__metadata__":{"framework":"pt"}}     '), []],
      ["A18 no padding", good, [["test", "I32", [2, 2]]]],
      [
        "A20 four-bit elements",
        fileOf(`{${entry("t", "F4", "[1,2]", "[0,1]")}}`, 1),
        [["t", "F4", [1, 2]]],
      ],
      ["B8 a leading space", fileOf(` {${square}}`, 16), [["test", "I32", [2, 2]]]],
      [
        "B11 entries in reverse order",
        fileOf(`{${entry("b", "U8", "[4]", "[4,8]")},${entry("a", "U8", "[4]", "[0,4]")}}`, 8),
        [
          ["a", "U8", [4]],
          ["b", "U8", [4]],
        ],
      ],
      [
        "B17 no elements at the last offset",
        fileOf(`{${entry("a", "U8", "[4]", "[0,4]")},${entry("z", "F32", "[0]", "[4,4]")}}`, 4),
        [
          ["a", "U8", [4]],
          ["z", "F32", [0]],
        ],
      ],
      [
        "B19 four six-bit elements",
        fileOf(`{${entry("t", "F6_E3M2", "[4]", "[0,3]")}}`, 3),
        [["t", "F6_E3M2", [4]]],
      ],
      ["B27 no metadata", fileOf('{"__metadata__":null}'), []],
      ["B28 an empty name", fileOf(`{${entry("", "U8", "[1]", "[0,1]")}}`, 1), [["", "U8", [1]]]],
      [
        "B28 __proto__",
        fileOf(`{${entry("__proto__", "U8", "[1]", "[0,1]")}}`, 1),
        [["__proto__", "U8", [1]]],
      ],
      [
        "B28 a path",
        fileOf(`{${entry("../../x", "U8", "[1]", "[0,1]")}}`, 1),
        [["../../x", "U8", [1]]],
      ],
    ],
  )("%s", (_name, bytes, expected) => {
    const { entries } = header(bytes);
    expect(entries.map(({ name, dtype, shape }) => [name, dtype, shape])).toEqual(expected);
  });

  it("A19: reads a tensor behind a padded header", () => {
    const text = `{${entry("attn0", "F32", "[1,1,2,3]", "[0,24]")}}`.padEnd(72);
    const data = new Float32Array([1, 2, 3, 4, 5, 6]);
    asFile(fileOf(text, new Uint8Array(data.buffer)), (path) => {
      const model = openSafetensors(path);
      const got = new Float32Array(6);
      model.read("attn0", 0, new Uint8Array(got.buffer));
      model.close();
      expect(got).toEqual(data);
    });
  });

  it("B20: normalizes booleans when they are read", () => {
    asFile(
      fileOf(`{${entry("b", "BOOL", "[4]", "[0,4]")}}`, Buffer.from([0, 1, 2, 255])),
      (path) => {
        const model = openSafetensors(path);
        const got = new Uint8Array(4);
        model.read("b", 0, got);
        model.close();
        expect([...got]).toEqual([0, 1, 1, 1]);
      },
    );
  });

  it("B21: warns of an unknown field", () => {
    const { warnings, entries } = header(
      fileOf('{"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"extra":{"a":[1,{}]}}}', 1),
    );
    expect(entries).toHaveLength(1);
    expect(warnings).toEqual([expect.stringContaining('unknown field "extra"')]);
  });

  it("B27, A17: metadata", () => {
    expect(header(fileOf('{"__metadata__":null}')).metadata).toEqual({});
    const { metadata } = header(fileOf('{"__metadata__":{"format":"pt","__proto__":"x"}}'));
    expect(Object.entries(metadata)).toEqual([
      ["format", "pt"],
      ["__proto__", "x"],
    ]);
    expect(Object.getPrototypeOf(metadata)).toBe(Object.prototype);
  });

  it("B33: NaN and infinities are data", () => {
    const data = new Float32Array([Number.NaN, Number.POSITIVE_INFINITY]);
    asFile(
      fileOf(`{${entry("t", "F32", "[2]", "[0,8]")}}`, new Uint8Array(data.buffer)),
      (path) => {
        const model = openSafetensors(path);
        const got = new Float32Array(2);
        model.read("t", 0, new Uint8Array(got.buffer));
        model.close();
        expect(got).toEqual(data);
      },
    );
  });
});

describe("limits", () => {
  it("A27: refuses a header beyond 100 MB from its first eight bytes, whatever the option says", () => {
    inFolder((folder) => {
      const path = join(folder, "model.safetensors");
      const descriptor = openSync(path, "w");
      writeSync(descriptor, withLength(600_000_000n, "{"));
      ftruncateSync(descriptor, 700_000_000);
      closeSync(descriptor);
      expect(() => openSafetensors(path, { maxHeaderBytes: 1e9 })).toThrow(
        /at most 100000000 are read/,
      );
      expect(() => openSafetensors(path)).toThrow(/at most 16777216 are read/);
    });
  });

  it("F27: refuses a header of the format's largest size by default and reads it by option", () => {
    const text = "{}".padEnd(20_000_000);
    expect(refusal(fileOf(text)).message).toMatch(/at most 16777216/);
    expect(header(fileOf(text), { maxHeaderBytes: 100_000_000 }).entries).toEqual([]);
  });

  it("F27: refuses too many tensors by default and reads them by option", () => {
    const many = fileOf(repeat(200_001, (i) => entry(`${i}`, "U8", "[0]", "[0,0]")));
    expect(refusal(many).message).toMatch(/more than 200000 tensors/);
    expect(header(many, { maxTensors: 300_000 }).entries).toHaveLength(200_001);
  });

  it("A20, B19: names the tensor whose type cannot be merged", () => {
    for (const [dtype, shape, bytes] of [
      ["F4", "[1,2]", 1],
      ["F6_E2M3", "[4]", 3],
      ["F8_E4M3", "[1]", 1],
      ["C64", "[1]", 8],
    ] as const) {
      asFile(fileOf(`{${entry("w", dtype, shape, `[0,${bytes}]`)}}`, bytes), (path) => {
        expect(() => openSafetensors(path)).toThrow(
          expect.objectContaining({ code: "unsupported", where: { file: path, tensor: "w" } }),
        );
      });
    }
  });
});

describe("A31, A32: use after the end", () => {
  it("refuses reads outside a tensor, of part elements, of unknown tensors and after close", () => {
    asFile(good, (path) => {
      const model = openSafetensors(path);
      expect(() => model.read("test", 3, new Uint8Array(8))).toThrow(/element 3/);
      expect(() => model.read("test", -1, new Uint8Array(4))).toThrow(/element -1/);
      expect(() => model.read("test", 0.5, new Uint8Array(4))).toThrow(/element 0.5/);
      expect(() => model.read("test", 0, new Uint8Array(3))).toThrow(/3 bytes/);
      expect(() => model.read("tset", 0, new Uint8Array(4))).toThrow(
        expect.objectContaining({ code: "not-found", hint: expect.stringContaining('"test"') }),
      );
      model.close();
      model.close();
      expect(() => model.read("test", 0, new Uint8Array(4))).toThrow(/after close/);
    });
  });

  it("says that a file is missing, or is no file", () => {
    inFolder((folder) => {
      expect(() => openSafetensors(join(folder, "none"))).toThrow(
        expect.objectContaining({ code: "not-found" }),
      );
      expect(() => openSafetensors(folder)).toThrow(/not a regular file/);
    });
  });

  it("notices a change in place", () => {
    asFile(good, (path) => {
      const model = openSafetensors(path);
      writeFileSync(path, good.subarray(0, 40));
      expect(() => model.read("test", 0, new Uint8Array(16))).toThrow(
        expect.objectContaining({ code: "invalid-file" }),
      );
      model.close();
    });
  });
});

describe("F32: damaged copies of a real file", () => {
  const real = readFileSync("examples/digits/models/rotate/model.safetensors");
  const headerBytes = Number(real.readBigUInt64LE(0));

  it("refuses every truncation", () => {
    for (let size = 0; size < real.length; size += 1024) {
      expect(refusal(real.subarray(0, size)).code).toBe("invalid-file");
    }
  });

  it("refuses flipped header bits or still describes the file exactly", () => {
    const random = randomStream(1, "flip");
    for (let i = 0; i < 200; i++) {
      const copy = Buffer.from(real);
      const at = random.integer(8 + headerBytes);
      copy[at] = (copy[at] as number) ^ (1 << random.integer(8));
      try {
        const { entries } = header(copy);
        const covered = entries.reduce((sum, { bytes }) => sum + bytes, 0);
        expect(covered).toBe(real.length - 8 - headerBytes);
      } catch (error) {
        expect(error).toBeInstanceOf(MendelError);
      }
    }
  });
});

it("throws nothing but MendelError for any bytes", () => {
  const json = fc.string({ unit: fc.constantFrom(...'{}[]:,"0123456789.eE-+ \\utdypesha_ofnl\0') });
  fc.assert(
    fc.property(
      fc.oneof(
        json.map((text) => fileOf(text)),
        fc.uint8Array({ maxLength: 64 }),
      ),
      (bytes) => {
        try {
          header(bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(MendelError);
        }
      },
    ),
    { numRuns: 500 },
  );
});
