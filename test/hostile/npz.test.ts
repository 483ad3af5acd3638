import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MendelError } from "../../src/base/errors.ts";
import { randomStream } from "../../src/base/random.ts";
import { parseNpy } from "../../src/formats/npy.ts";
import { readNpz } from "../../src/formats/npz.ts";
import { inFolderAsync } from "./safetensors-bytes.ts";
import { npyHeader, npyOf, type ZipEntry, zipOf } from "./zip-bytes.ts";

const small = npyOf(npyHeader("|u1", "(4,)"), 4);

function read(bytes: Uint8Array, maxBytes?: number): ReturnType<typeof readNpz> {
  return inFolderAsync(async (folder) => {
    const path = join(folder, "data.npz");
    writeFileSync(path, bytes);
    return await readNpz(path, maxBytes === undefined ? {} : { maxBytes });
  });
}

async function refusal(bytes: Uint8Array, maxBytes?: number): Promise<MendelError> {
  try {
    await read(bytes, maxBytes);
  } catch (error) {
    if (error instanceof MendelError) return error;
    throw error;
  }
  throw new Error("was accepted");
}

function npyRefusal(bytes: Uint8Array): MendelError {
  try {
    parseNpy(bytes, "x.npy");
  } catch (error) {
    if (error instanceof MendelError) return error;
    throw error;
  }
  throw new Error("was accepted");
}

describe("F33: hostile archives", () => {
  const zeros = npyOf(npyHeader("|u1", "(30000000,)"), 30_000_000);
  it.each<readonly [string, readonly ZipEntry[], RegExp]>([
    [
      "a bomb of 1000:1",
      [{ name: "a.npy", data: zeros }],
      /30000128 bytes out of \d+ \(\d+:1, at most 200:1/,
    ],
    [
      "a huge declared size",
      [{ name: "a.npy", data: small, declaredSize: 0xfffffffe }],
      /at most 200:1/,
    ],
    [
      "a declared size that is too small",
      [{ name: "a.npy", data: small, declaredSize: 100 }],
      /too many bytes|needs 132 bytes/,
    ],
    [
      "a declared size that is too large",
      [{ name: "a.npy", data: small, declaredSize: 500 }],
      /needs 132 bytes, the file has 500|not enough/,
    ],
    ["a parent folder in a name", [{ name: "../a.npy", data: small }], /\.\./],
    ["a parent folder in the middle", [{ name: "x/../a.npy", data: small }], /\.\./],
    ["an absolute name", [{ name: "/a.npy", data: small }], /absolute/],
    ["a drive letter", [{ name: "C:a.npy", data: small }], /absolute/],
    ["a backslash", [{ name: "x\\a.npy", data: small }], /backslash|invalid characters|path/],
    ["a NUL in a name", [{ name: "a\0.npy", data: small }], /control character/],
    ["a folder", [{ name: "x/", data: new Uint8Array(0), store: true }], /path/],
    [
      "a duplicate",
      [
        { name: "a.npy", data: small },
        { name: "a.npy", data: small },
      ],
      /occurs twice/,
    ],
    ["encryption", [{ name: "a.npy", data: small, flags: 1 }], /encrypted/],
    ["a symbolic link", [{ name: "a.npy", data: small, unixMode: 0o120777 }], /symbolic link/],
    ["an unknown compression", [{ name: "a.npy", data: small, method: 93 }], /method 93/],
    ["a wrong checksum", [{ name: "a.npy", data: small, crc: 1 }], /checksum/],
    ["a file that is no array", [{ name: "a.pkl", data: small }], /not a \.npy array/],
    [
      "an array that is none",
      [{ name: "a.npy", data: Buffer.from("cos\nsystem\n") }],
      /not a \.npy file/,
    ],
    [
      "overlapping entries",
      [
        { name: "a.npy", data: small },
        { name: "b.npy", data: small, offset: 0 },
      ],
      /overlaps|another name/,
    ],
    [
      "another name in the local header",
      [{ name: "a.npy", data: small, localName: "b.npy" }],
      /another name/,
    ],
    ["an offset outside", [{ name: "a.npy", data: small, offset: 99_999 }], /./],
  ])("refuses %s", async (_name, entries, message) => {
    const error = await refusal(zipOf(entries));
    expect(error.code).toBe("invalid-file");
    expect(error.message).toMatch(message);
  });

  it("refuses entries that share one compressed body", async () => {
    const one = { name: "a.npy", data: small, store: true } as const;
    const error = await refusal(
      zipOf([one, { ...one, localName: "a.npy", offset: 0, name: "b.npy" }]),
    );
    expect(error.message).toMatch(/overlaps/);
  });

  it("refuses too many entries and too many bytes", async () => {
    const many = Array.from({ length: 10_001 }, (_, i) => ({
      name: `${i}.npy`,
      data: new Uint8Array(0),
      store: true,
    }));
    expect((await refusal(zipOf(many))).message).toMatch(/10001 entries, but at most 10000/);
    const two = [
      { name: "a.npy", data: small },
      { name: "b.npy", data: small },
    ];
    expect((await refusal(zipOf(two), 200)).message).toMatch(/more than 200 bytes of arrays/);
    expect((await read(zipOf(two), 300)).size).toBe(2);
  });

  it("lets small constant arrays be compressed as far as they go", async () => {
    const labels = npyOf(npyHeader("<i8", "(100000,)"), 800_000);
    const arrays = await read(zipOf([{ name: "label.npy", data: labels }]));
    expect(arrays.get("label")?.data).toHaveLength(100_000);
  });

  it("refuses what is no archive, and every truncation of a real one", async () => {
    const real = readFileSync("examples/digits/data/invert.search.npz");
    expect((await refusal(Buffer.from("not a zip"))).code).toBe("invalid-file");
    for (let size = 0; size < real.length; size += 512) {
      expect((await refusal(real.subarray(0, size))).code).toBe("invalid-file");
    }
  });

  it("notices flipped bits or reads the same numbers", async () => {
    const real = readFileSync("examples/digits/data/invert.search.npz");
    const before = await read(real);
    const random = randomStream(1, "flip");
    for (let i = 0; i < 100; i++) {
      const copy = Buffer.from(real);
      const at = random.integer(copy.length);
      copy[at] = (copy[at] as number) ^ (1 << random.integer(8));
      try {
        const after = await read(copy);
        expect([...after.values()]).toEqual([...before.values()]);
      } catch (error) {
        expect(error).toBeInstanceOf(MendelError);
      }
    }
  });
});

describe("F34: hostile arrays", () => {
  it.each<readonly [string, Uint8Array, RegExp]>([
    ["objects", npyOf(npyHeader("|O", "(1,)"), 8), /element type "\|O"/],
    ["text", npyOf(npyHeader("<U4", "(1,)"), 16), /element type/],
    ["dates", npyOf(npyHeader("<M8[s]", "(1,)"), 8), /element type/],
    [
      "structures",
      npyOf("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", 4),
      /structured/,
    ],
    ["no byte order", npyOf(npyHeader("f4", "(1,)"), 4), /element type/],
    ["code instead of a literal", npyOf("__import__('os').system('id')"), /expected \{/],
    [
      "code as a value",
      npyOf("{'descr': '<f4', 'fortran_order': False, 'shape': (exit(),), }"),
      /expected a dimension/,
    ],
    ["code as a key", npyOf("{f(): 1}"), /expected a string/],
    ["something behind the header", npyOf(`${npyHeader("<f4", "(1,)")}; x`, 4), /expected the end/],
    [
      "an extra key",
      npyOf("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': 1}", 4),
      /unknown or repeated key "x"/,
    ],
    [
      "a repeated key",
      npyOf("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", 4),
      /repeated key/,
    ],
    ["a missing key", npyOf("{'descr': '<f4', 'shape': (1,)}", 4), /are needed/],
    [
      "10^12 elements",
      npyOf(npyHeader("<f8", "(1000000000000,)")),
      /needs 8000000000\d+ bytes, the file has/,
    ],
    [
      "more than can be counted",
      npyOf(npyHeader("<f8", "(1000000000000, 1000000000000)")),
      /more elements/,
    ],
    [
      "a zero that hides it",
      npyOf(npyHeader("<f8", "(0, 1000000000000, 1000000000000)")),
      /more elements/,
    ],
    [
      "a huge dimension",
      npyOf(npyHeader("<f8", "(18446744073709551616,)")),
      /expected a dimension/,
    ],
    ["a negative dimension", npyOf(npyHeader("<f8", "(-1,)")), /expected a dimension/],
    ["a fractional dimension", npyOf(npyHeader("<f8", "(1.5,)")), /expected a dimension/],
    [
      "too many dimensions",
      npyOf(npyHeader("|u1", `(${"1,".repeat(33)})`), 1),
      /more than 32 dimensions/,
    ],
    ["trailing bytes", npyOf(npyHeader("|u1", "(4,)"), 5), /needs \d+ bytes, the file has/],
    ["missing bytes", npyOf(npyHeader("|u1", "(4,)"), 3), /needs \d+ bytes, the file has/],
    ["a long header", npyOf(npyHeader("|u1", "(4,)").padEnd(10_100), 4), /at most 10000 are read/],
    [
      "a header beyond 4 GB",
      Buffer.from("934e554d50590200ffffffff", "hex"),
      /a header of 4294967295/,
    ],
    ["a header beyond the file", Buffer.from("934e554d505901007600", "hex"), /cut short/],
    ["version 4", npyOf(npyHeader("|u1", "(4,)"), 4).fill(4, 6, 7), /version 4/],
    ["nothing", new Uint8Array(0), /not a \.npy file/],
    ["a pickle", Buffer.from("80049500000000", "hex"), /not a \.npy file/],
  ])("refuses %s", (_name, bytes, message) => {
    const error = npyRefusal(bytes);
    expect(["invalid-file", "unsupported"]).toContain(error.code);
    expect(error.message).toMatch(message);
  });

  it("throws nothing but MendelError for any header", () => {
    const text = fc.string({
      unit: fc.constantFrom(..."{}'\":,() descrfotan_shpTFl<>|=fiu0123489LO[]"),
    });
    fc.assert(
      fc.property(text, fc.boolean(), (header, wide) => {
        try {
          parseNpy(npyOf(header, 8, wide ? 2 : 1), "x.npy");
        } catch (error) {
          expect(error).toBeInstanceOf(MendelError);
        }
      }),
      { numRuns: 500 },
    );
  });
});
