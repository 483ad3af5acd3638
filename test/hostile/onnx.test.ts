import {
  chmodSync,
  linkSync,
  mkdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MendelError } from "../../src/base/errors.ts";
import {
  buildOnnx,
  type GraphSpec,
  type ModelSpec,
  type NodeSpec,
  type TensorSpec,
} from "../../src/formats/onnx/onnx-builder.ts";
import { openOnnx } from "../../src/formats/onnx/open-onnx.ts";
import { concatBytes, encodeBytes, encodeNumber } from "../../src/formats/onnx/wire.ts";
import { dtypeBytes } from "../../src/tensors/dtype.ts";
import { elementCount } from "../../src/tensors/shape.ts";
import { example, freshFolder, writeModel } from "../formats/onnx/onnx-files.ts";
import { tinyTransformer } from "../formats/onnx/tiny-transformer.ts";

type Entries = readonly (readonly [string, string])[];

/** A folder with a model beside a secret outside of it, and everything a location could be tricked with inside. */
function trap(): string {
  const outside = freshFolder();
  writeFileSync(join(outside, "secret"), new Uint8Array(64));
  const folder = join(outside, "model");
  mkdirSync(join(folder, "sub"), { recursive: true });
  writeFileSync(join(folder, "w.bin"), new Uint8Array(64));
  writeFileSync(join(folder, "a..b.bin"), new Uint8Array(64));
  writeFileSync(join(folder, "sub", "w.bin"), new Uint8Array(64));
  symlinkSync("../secret", join(folder, "link-out"));
  symlinkSync("w.bin", join(folder, "link-in"));
  symlinkSync("..", join(folder, "folder-out"));
  symlinkSync("sub", join(folder, "folder-in"));
  linkSync(join(outside, "secret"), join(folder, "hard-link"));
  for (const name of ["#w.bin", "back\\slash", "new\nline", "c:", "*"]) {
    writeFileSync(join(folder, name), new Uint8Array(64));
  }
  return folder;
}

/** Opens a model in `folder` whose only weight (four floats) has these external entries. */
function openWith(folder: string, external: Entries, tensor: Partial<TensorSpec> = {}): void {
  const weight = { name: "w", dtype: "f32", shape: [4], store: { external }, ...tensor } as const;
  openBytes(folder, buildOnnx({ ...addModel, initializers: [weight] }));
}

function openBytes(folder: string, bytes: Uint8Array): void {
  const path = join(folder, "model.onnx");
  writeFileSync(path, bytes);
  openOnnx(path).close();
}

const addModel: ModelSpec = {
  nodes: [{ op: "Add", inputs: ["x", "w"], outputs: ["y"] }],
  inputs: [{ name: "x", dtype: "f32", shape: [4] }],
  outputs: [{ name: "y", dtype: "f32", shape: [4] }],
};

const refused = (text: string) =>
  expect.objectContaining({ code: "invalid-file", message: expect.stringContaining(text) });

describe("external data locations", () => {
  it.each(["w.bin", "sub/w.bin", "a..b.bin", "#w.bin"])("accepts %j", (location) => {
    expect(() => openWith(trap(), [["location", location]])).not.toThrow();
  });

  it.each([
    ["", "is empty"],
    ["../secret", 'part ".."'],
    ["sub/../../secret", 'part ".."'],
    ["sub/../w.bin", 'part ".."'],
    ["./w.bin", 'part "."'],
    ["sub/./w.bin", 'part "."'],
    ["sub//w.bin", "empty part"],
    ["sub/", "empty part"],
    ["/etc/passwd", "absolute"],
    ["//server/share", "absolute"],
    ["w.bin\0junk", "NUL"],
    ["w.bin\0", "NUL"],
    ["new\nline", "control character"],
    ["w.bin\u007f", "control character"],
    ["back\\slash", "backslash"],
    ["..\\secret", "backslash"],
    ["c:", "colon"],
    ["file:///etc/passwd", "colon"],
    ["*/_ORT_MEM_ADDR_/*", "must not have"],
    ["*", "must not have"],
    [`${"a".repeat(256)}`, "longer than 255"],
    [`${"a/".repeat(600)}b`, "longer than 1024"],
    ["missing.bin", "does not exist"],
    ["w.bin/x", "cannot be reached"],
    ["sub", "not a regular file"],
    ["link-out", "symbolic link"],
    ["link-in", "symbolic link"],
    ["folder-out/secret", "symbolic link"],
    ["folder-in/w.bin", "symbolic link"],
    ["hard-link", "hard links"],
  ])("refuses %j: %s", (location, reason) => {
    expect(() => openWith(trap(), [["location", location]])).toThrow(refused(reason));
  });

  it("accepts hard links only where they are allowed", () => {
    const folder = trap();
    const weight = { name: "w", dtype: "f32", shape: [4] } as const;
    const store = { external: [["location", "hard-link"]] } as const;
    const path = join(folder, "model.onnx");
    writeFileSync(path, buildOnnx({ ...addModel, initializers: [{ ...weight, store }] }));
    expect(() => openOnnx(path)).toThrow(refused("hard links"));
    openOnnx(path, { allowHardLinks: true }).close();
  });

  it("does not look in the working directory", () => {
    // The tests run in the project folder, which has this file.
    expect(() => openWith(trap(), [["location", "package.json"]])).toThrow(
      refused("does not exist"),
    );
  });

  it("refuses a location that is not UTF-8", () => {
    const bytes = Buffer.from(
      buildOnnx({
        ...addModel,
        initializers: [
          { name: "w", dtype: "f32", shape: [4], store: { external: [["location", "ZZZZ"]] } },
        ],
      }),
    );
    bytes[bytes.indexOf("ZZZZ")] = 0xff;
    expect(() => openBytes(trap(), bytes)).toThrow(refused("not UTF-8"));
  });
});

describe("external data extents", () => {
  const at = (offset: string, length?: string): Entries => [
    ["location", "w.bin"],
    ["offset", offset],
    ...(length === undefined ? [] : ([["length", length]] as const)),
  ];

  it.each([
    ["0", "16"],
    ["48", "16"],
    ["48", undefined],
  ])("accepts offset %s, length %s of 64 bytes", (offset, length) => {
    expect(() => openWith(trap(), at(offset, length))).not.toThrow();
  });

  it.each([
    [at("49"), "beyond the 64 bytes"],
    [at("64", "16"), "beyond the 64 bytes"],
    [at("9007199254740991", "16"), "beyond the 64 bytes"],
    [at("-1"), "not a byte count"],
    [at("+1"), "not a byte count"],
    [at("1.0"), "not a byte count"],
    [at("1e1"), "not a byte count"],
    [at("0x10"), "not a byte count"],
    [at(" 1"), "not a byte count"],
    [at(""), "not a byte count"],
    [at("٣"), "not a byte count"],
    [at("9007199254740993"), "not a byte count"],
    [at("18446744073709551616"), "not a byte count"],
    [at("0", "1152921504606846976"), "not a byte count"],
    [at("0", "-1"), "not a byte count"],
    [at("0", "15"), "needs 16 bytes"],
    [at("0", "17"), "needs 16 bytes"],
    [at("0", "0"), "needs 16 bytes"],
    [[], "no location"],
    [[...at("0"), ["location", "w.bin"]], "twice"],
    [[...at("0"), ["offset", "0"]], "twice"],
    [[...at("0"), ["mode", "w"]], "unknown key"],
    [[...at("0"), ["__proto__", "x"]], "unknown key"],
    [[...at("0"), ["basepath", "/etc"]], "unknown key"],
    [[...at("0"), ["checksum", "zz"]], "SHA-1"],
  ] satisfies [Entries, string][])("refuses %j: %s", (entries, reason) => {
    expect(() => openWith(trap(), entries)).toThrow(refused(reason));
  });

  it("names model and tensor", () => {
    const folder = trap();
    expect(() => openWith(folder, at("49"))).toThrow(
      expect.objectContaining({ where: { file: join(folder, "model.onnx"), tensor: "w" } }),
    );
  });

  it("refuses shapes whose size is not a safe integer", () => {
    const shape = [2 ** 31, 2 ** 31];
    expect(() => openWith(trap(), at("0"), { shape })).toThrow(refused("too large"));
  });

  it("refuses data that is embedded and external at once", () => {
    const external = encodeBytes(
      13,
      concatBytes([encodeBytes(1, "location"), encodeBytes(2, "w.bin")]),
    );
    const head = [encodeNumber(1, 4), encodeNumber(2, 1), encodeBytes(8, "w"), external];
    const raw = encodeBytes(9, new Uint8Array(16));
    const marked = encodeNumber(14, 1);
    expect(() => openBytes(trap(), modelWith([...head, raw, marked]))).toThrow(refused("both"));
    expect(() => openBytes(trap(), modelWith([...head, raw]))).toThrow(refused("not marked"));
    expect(() => openBytes(trap(), modelWith([...head, marked, marked]))).toThrow(
      refused("repeats"),
    );
  });
});

describe("tensors in hidden places are checked like any other", () => {
  const store = { external: [["location", "../secret"]] } as const;
  const evil: TensorSpec = { name: "evil", dtype: "f32", shape: [4], store };
  const constant: NodeSpec = {
    op: "Constant",
    inputs: [],
    outputs: ["c"],
    attributes: { value: { tensor: evil } },
  };
  const inner: GraphSpec = { nodes: [], inputs: [], outputs: [], initializers: [evil] };
  const around = (graph: GraphSpec): GraphSpec => ({
    nodes: [{ op: "Loop", inputs: [], outputs: [], attributes: { body: { graph } } }],
    inputs: [],
    outputs: [],
  });
  const fine = { ...addModel, initializers: [floats("w")] };

  it.each<[string, ModelSpec]>([
    ["a node attribute", { ...fine, nodes: [...fine.nodes, constant] }],
    ["a subgraph's initializer", { ...fine, nodes: [...fine.nodes, ...around(inner).nodes] }],
    [
      "a subgraph of a subgraph",
      { ...fine, nodes: [...fine.nodes, ...around(around(inner)).nodes] },
    ],
    [
      "an attribute in a subgraph",
      {
        ...fine,
        nodes: [...fine.nodes, ...around({ ...inner, nodes: [constant], initializers: [] }).nodes],
      },
    ],
  ])("%s", (_, spec) => {
    expect(() => openBytes(trap(), buildOnnx(spec))).toThrow(refused('part ".."'));
  });

  const evilBytes = concatBytes([
    encodeNumber(1, 4),
    encodeNumber(2, 1),
    encodeBytes(13, concatBytes([encodeBytes(1, "location"), encodeBytes(2, "../secret")])),
    encodeNumber(14, 1),
  ]);
  const attribute = (number: number) =>
    concatBytes([encodeBytes(1, "value"), encodeBytes(number, evilBytes)]);
  const holder = (number: number) =>
    encodeBytes(7, concatBytes([encodeBytes(4, "Holder"), encodeBytes(5, attribute(number))]));

  it.each([
    ["a function", encodeBytes(25, holder(5))],
    ["a function's attribute default", encodeBytes(25, encodeBytes(11, attribute(5)))],
    ["training info", encodeBytes(20, encodeBytes(2, encodeBytes(5, evilBytes)))],
    ["a list of tensors", encodeBytes(25, holder(10))],
  ])("%s", (_, extra) => {
    expect(() => openBytes(trap(), concatBytes([buildOnnx(fine), extra]))).toThrow(
      refused('part ".."'),
    );
  });

  it.each([
    ["values of a sparse initializer", encodeBytes(1, evilBytes)],
    ["indices of a sparse initializer", encodeBytes(2, evilBytes)],
  ])("%s", (_, sparse) => {
    const graph = encodeBytes(7, encodeBytes(15, sparse));
    expect(() => openBytes(trap(), concatBytes([encodeNumber(1, 8), graph]))).toThrow(
      refused('part ".."'),
    );
  });
});

describe("malformed models", () => {
  const inside = (levels: number): GraphSpec => ({
    nodes:
      levels === 0
        ? []
        : [{ op: "If", inputs: [], outputs: [], attributes: { g: { graph: inside(levels - 1) } } }],
    inputs: [],
    outputs: [],
  });

  it("accepts subgraphs twenty levels deep and refuses more", () => {
    expect(() => openBytes(trap(), buildOnnx(inside(20)))).not.toThrow();
    expect(() => openBytes(trap(), buildOnnx(inside(30)))).toThrow(refused("nested deeper"));
  });

  it.each<[string, Uint8Array, string]>([
    ["an empty file", new Uint8Array(0), "no graph"],
    ["text", Buffer.from("version https://git-lfs.github.com/spec/v1\n"), ""],
    ["a zip", Buffer.from("PK\u0003\u0004 and so on and on"), ""],
    ["two graphs", concatBytes([buildOnnx(addModel), buildOnnx(addModel)]), "two graphs"],
    ["a group", Buffer.from([0x0b, 0x0c]), "wire type 3"],
    ["field number zero", Buffer.from([0x00, 0x00]), "no valid tag"],
    ["an endless varint", new Uint8Array(20).fill(0xff), "longer than ten bytes"],
    ["a length past the end", Buffer.from([0x3a, 0x7f, 0x00]), "past its message"],
    ["a length of 2^63", Buffer.from([0x3a, ...Array(9).fill(0x80), 0x01]), "absurd"],
    ["a number where a message belongs", Buffer.from([0x38, 0x01]), "wire type 0"],
    ["a name of 64 KiB and one byte", buildOnnx(named("n".repeat(65537))), "65537 bytes"],
    ["a negative dimension", modelWith([encodeNumber(1, -1), encodeNumber(2, 1)]), "dimension -1"],
    [
      "dimensions that overflow",
      modelWith([...Array(5).fill(encodeNumber(1, 65536)), encodeNumber(2, 1)]),
      "too large",
    ],
    [
      "too few raw bytes",
      modelWith([encodeNumber(1, 4), encodeNumber(2, 1), encodeBytes(9, "abc")]),
      "needs 16",
    ],
    ["no data", modelWith([encodeNumber(1, 4), encodeNumber(2, 1)]), "no data"],
    ["segments", modelWith([encodeBytes(3, encodeNumber(1, 0))]), "segments"],
    [
      "one name for two weights",
      buildOnnx({ ...addModel, initializers: [floats("w"), floats("w")] }),
      "twice",
    ],
    [
      "one name for two values",
      buildOnnx({ ...addModel, nodes: [...addModel.nodes, ...addModel.nodes] }),
      "twice",
    ],
    [
      "a function that calls itself",
      concatBytes([buildOnnx(addModel), callingFunction("f", "g"), callingFunction("g", "f")]),
      "calls itself",
    ],
  ])("%s", (_, bytes, reason) => {
    expect(() => openBytes(trap(), bytes)).toThrow(refused(reason));
  });

  it("accepts functions that call others", () => {
    const bytes = concatBytes([
      buildOnnx(addModel),
      callingFunction("f", "g"),
      callingFunction("g", "Relu"),
    ]);
    expect(() => openBytes(trap(), bytes)).not.toThrow();
  });

  it("refuses a typed tensor with too few or too many values when it is read", () => {
    for (const count of [3, 5]) {
      const packed = encodeBytes(7, new Uint8Array(count));
      const table = [encodeNumber(1, 4), encodeNumber(2, 7), encodeBytes(8, "w"), packed];
      const reader = openOnnx(writeModel(modelWith(table)));
      const [tensor] = reader.graph.graph.initializers;
      expect(() => reader.readStored(tensor!, 0, new Uint8Array(32))).toThrow(refused("values"));
      reader.close();
    }
  });

  it("says not-found for a missing file and refuses folders", () => {
    const folder = trap();
    expect(() => openOnnx(join(folder, "no.onnx"))).toThrow(
      expect.objectContaining({ code: "not-found" }),
    );
    expect(() => openOnnx(folder)).toThrow(refused("not a regular file"));
  });
});

describe("damage", () => {
  const original = readFileSync(example("digits-cnn/models/base/model.onnx"));
  const transformer = buildOnnx(tinyTransformer("folded"));

  /** Opens and reads everything; anything but success or a MendelError is a failure. */
  function survive(folder: string, bytes: Uint8Array): "opened" | "refused" {
    const path = join(folder, "damaged.onnx");
    writeFileSync(path, bytes);
    try {
      const reader = openOnnx(path);
      try {
        for (const { name, shape, dtype } of reader.tensors.values()) {
          reader.read(name, 0, new Uint8Array(elementCount(shape) * dtypeBytes[dtype]));
        }
      } finally {
        reader.close();
      }
      return "opened";
    } catch (error) {
      expect(error).toBeInstanceOf(MendelError);
      return "refused";
    }
  }

  it("truncation at any byte of a small model is refused or harmless", () => {
    const folder = freshFolder();
    const outcomes = { opened: 0, refused: 0 };
    for (let length = 0; length < transformer.length; length += 13) {
      outcomes[survive(folder, transformer.subarray(0, length))]++;
    }
    // What follows the graph (opset, metadata) is short: nearly every cut hits the graph.
    expect(outcomes.refused).toBeGreaterThan(transformer.length / 13 - 5);
  });

  it("truncation at any KiB of a real model is refused", () => {
    const folder = freshFolder();
    for (let length = 0; length < original.length - 64; length += 1024) {
      expect(survive(folder, original.subarray(0, length))).toBe("refused");
    }
  });

  it.each([
    ["a real model", original],
    ["a transformer", transformer],
  ])("bit flips in %s never crash", (_, bytes) => {
    const folder = freshFolder();
    const flip = fc.record({
      position: fc.nat({ max: bytes.length * 8 - 1 }),
      second: fc.nat({ max: bytes.length * 8 - 1 }),
    });
    fc.assert(
      fc.property(flip, ({ position, second }) => {
        const damaged = Uint8Array.from(bytes);
        for (const bit of [position, second]) damaged[bit >> 3]! ^= 1 << (bit & 7);
        survive(folder, damaged);
      }),
      { numRuns: 400, seed: 3 },
    );
  });

  it("random bytes never crash", () => {
    const folder = freshFolder();
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        survive(folder, bytes);
      }),
      { numRuns: 300, seed: 4 },
    );
  });
});

describe("files that change while they are open", () => {
  it.each<[string, (path: string) => void]>([
    ["truncated", (path) => truncateSync(path, 100)],
    [
      "overwritten in place",
      (path) => {
        writeFileSync(path, new Uint8Array(readFileSync(path).length));
        utimesSync(path, 1, 1);
      },
    ],
  ])("%s: reading fails and never gives other weights", (_, change) => {
    const path = writeModel(readFileSync(example("digits/models/base/model.onnx")));
    chmodSync(path, 0o600);
    const reader = openOnnx(path);
    const target = new Uint8Array(16);
    reader.read("layers.0.bias", 0, target);
    change(path);
    expect(() => reader.read("layers.0.bias", 0, target)).toThrow(refused(path));
    reader.close();
  });

  it("external data too", () => {
    const folder = trap();
    const store = { external: [["location", "w.bin"]] } as const;
    const weight = { name: "w", dtype: "f32", shape: [4], store } as const;
    const path = join(folder, "model.onnx");
    writeFileSync(path, buildOnnx({ ...addModel, initializers: [weight] }));
    const reader = openOnnx(path);
    truncateSync(join(folder, "w.bin"), 8);
    expect(() => reader.read("w", 0, new Uint8Array(16))).toThrow(refused("w.bin"));
    reader.close();
  });

  it("a link that comes and goes is never followed", async () => {
    const folder = trap();
    writeFileSync(join(folder, "..", "secret"), new Uint8Array(64).fill(0x53));
    const store = { external: [["location", "w.bin"]] } as const;
    const weight = { name: "w", dtype: "f32", shape: [4], store } as const;
    const path = join(folder, "model.onnx");
    writeFileSync(path, buildOnnx({ ...addModel, initializers: [weight] }));
    const swapper = new Worker(
      `const fs = require("node:fs");
       const { folder } = require("node:worker_threads").workerData;
       const file = folder + "/w.bin";
       for (;;) {
         fs.rmSync(folder + "/next", { force: true });
         fs.symlinkSync("../secret", folder + "/next");
         fs.renameSync(folder + "/next", file);
         fs.writeFileSync(folder + "/next", new Uint8Array(64));
         fs.renameSync(folder + "/next", file);
       }`,
      { eval: true, workerData: { folder } },
    );
    await new Promise((resolve) => swapper.once("online", resolve));
    const outcomes = { opened: 0, refused: 0 };
    try {
      // Both ends of the swap must have been seen often enough for the moments between them to be hit.
      while (outcomes.opened < 20 || outcomes.refused < 20) {
        const target = new Uint8Array(16).fill(1);
        try {
          const reader = openOnnx(path);
          reader.read("w", 0, target);
          reader.close();
        } catch (error) {
          expect(error).toBeInstanceOf(MendelError);
          outcomes.refused++;
          continue;
        }
        outcomes.opened++;
        expect(target).toEqual(new Uint8Array(16));
      }
    } finally {
      await swapper.terminate();
    }
  });

  it("a replacement by rename leaves the reader on the old content", () => {
    const path = writeModel(readFileSync(example("digits/models/base/model.onnx")));
    const reader = openOnnx(path);
    const before = new Uint8Array(16);
    reader.read("layers.0.bias", 0, before);
    const other = `${path}.new`;
    writeFileSync(other, readFileSync(example("digits/models/invert/model.onnx")));
    renameSync(other, path);
    const after = new Uint8Array(16);
    reader.read("layers.0.bias", 0, after);
    expect(after).toEqual(before);
    reader.close();
  });
});

function floats(name: string): TensorSpec {
  return { name, dtype: "f32", shape: [4], elements: [1, 2, 3, 4] };
}

function named(name: string): ModelSpec {
  return { ...addModel, nodes: [{ ...addModel.nodes[0]!, name }] };
}

/** A model whose only initializer has these encoded fields. */
function modelWith(tensor: readonly Uint8Array[]): Uint8Array {
  return concatBytes([encodeNumber(1, 8), encodeBytes(7, encodeBytes(5, concatBytes(tensor)))]);
}

/** A function (field 25) in the domain "own" with one node that calls another. */
function callingFunction(name: string, called: string): Uint8Array {
  const node = concatBytes([encodeBytes(4, called), encodeBytes(7, "own")]);
  return encodeBytes(
    25,
    concatBytes([encodeBytes(1, name), encodeBytes(7, node), encodeBytes(10, "own")]),
  );
}
