import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  bodyOf,
  concatBytes,
  encodeBytes,
  encodeFloat,
  encodeNumber,
  encodeVarint,
  memorySource,
  type WireField,
  WireReader,
} from "../../../src/formats/onnx/wire.ts";

function fieldsIn(bytes: Uint8Array): { reader: WireReader; fields: WireField[] } {
  const reader = new WireReader(memorySource(bytes));
  return { reader, fields: [...reader.fields({ start: 0, end: bytes.length })] };
}

describe("varints", () => {
  // https://protobuf.dev/programming-guides/encoding/ gives the first two.
  it.each<[number | bigint, number[]]>([
    [1, [0x01]],
    [150, [0x96, 0x01]],
    [0, [0x00]],
    [-1, [...Array(9).fill(0xff), 0x01]],
    [2 ** 31, [0x80, 0x80, 0x80, 0x80, 0x08]],
  ])("%s is %j", (value, bytes) => {
    expect([...encodeVarint(value)]).toEqual(bytes);
  });

  it("come back as they were, signed and unsigned, as numbers wherever those are exact", () => {
    fc.assert(
      fc.property(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), (value) => {
        const { reader, fields } = fieldsIn(encodeNumber(3, value));
        const back = reader.int64(fields[0]!);
        expect(BigInt(back)).toBe(value);
        const safe = value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER;
        expect(typeof back).toBe(safe ? "number" : "bigint");
      }),
    );
  });
});

describe("messages", () => {
  it("are lists of fields whose spans cover them without gaps", () => {
    const field = fc.oneof(
      fc
        .tuple(fc.nat(), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }))
        .map(([n, value]) => encodeNumber((n % 9999) + 1, value)),
      fc.tuple(fc.nat(), fc.uint8Array()).map(([n, value]) => encodeBytes((n % 9999) + 1, value)),
      fc.tuple(fc.nat(), fc.float()).map(([n, value]) => encodeFloat((n % 9999) + 1, value)),
    );
    fc.assert(
      fc.property(fc.array(field), (encoded) => {
        const whole = concatBytes(encoded);
        const { reader, fields } = fieldsIn(whole);
        expect(fields.map((part) => reader.bytes(part))).toEqual(encoded);
      }),
    );
  });

  it("are read the same through a window that is smaller than they are", () => {
    const long = "x".repeat(60_000);
    const bytes = concatBytes(Array.from({ length: 5 }, (_, i) => encodeBytes(1, `${i}${long}`)));
    const { reader, fields } = fieldsIn(bytes);
    expect(fields.map((part) => reader.string(part)[0])).toEqual(["0", "1", "2", "3", "4"]);
    expect(reader.bytes(bodyOf(fields[4]!)).length).toBe(60_001);
  });
});
