import { describe, expect, it } from "vitest";
import { parseNpy } from "../../src/formats/npy.ts";
import { npyHeader, npyOf } from "../hostile/zip-bytes.ts";

/** Bytes of `values` written by `write` at `step` bytes each. */
function bytesOf(
  step: number,
  values: readonly number[],
  write: (view: DataView, at: number, value: number) => void,
): Uint8Array {
  const view = new DataView(new ArrayBuffer(step * values.length));
  values.forEach((value, i) => {
    write(view, step * i, value);
  });
  return new Uint8Array(view.buffer);
}

describe("parseNpy", () => {
  it.each([
    [
      "f8",
      "f64",
      8,
      [1.5, -2, 1e300],
      (v: DataView, at: number, x: number, le: boolean) => v.setFloat64(at, x, le),
    ],
    [
      "f4",
      "f32",
      4,
      [1.5, -2, 0.25],
      (v: DataView, at: number, x: number, le: boolean) => v.setFloat32(at, x, le),
    ],
    [
      "i4",
      "i32",
      4,
      [1, -2, 2147483647],
      (v: DataView, at: number, x: number, le: boolean) => v.setInt32(at, x, le),
    ],
    [
      "u4",
      "u32",
      4,
      [1, 2, 4294967295],
      (v: DataView, at: number, x: number, le: boolean) => v.setUint32(at, x, le),
    ],
    [
      "i2",
      "i16",
      2,
      [1, -2, 32767],
      (v: DataView, at: number, x: number, le: boolean) => v.setInt16(at, x, le),
    ],
    [
      "u2",
      "u16",
      2,
      [1, 2, 65535],
      (v: DataView, at: number, x: number, le: boolean) => v.setUint16(at, x, le),
    ],
    [
      "i8",
      "i64",
      8,
      [1, -2, 3],
      (v: DataView, at: number, x: number, le: boolean) => v.setBigInt64(at, BigInt(x), le),
    ],
    [
      "u8",
      "u64",
      8,
      [1, 2, 3],
      (v: DataView, at: number, x: number, le: boolean) => v.setBigUint64(at, BigInt(x), le),
    ],
    ["i1", "i8", 1, [1, -2, 127], (v: DataView, at: number, x: number) => v.setInt8(at, x)],
    ["u1", "u8", 1, [1, 2, 255], (v: DataView, at: number, x: number) => v.setUint8(at, x)],
  ] as const)("reads %s in both byte orders", (code, dtype, step, values, write) => {
    for (const order of ["<", ">"]) {
      const data = bytesOf(step, values, (view, at, value) =>
        write(view, at, value, order === "<"),
      );
      const array = parseNpy(npyOf(npyHeader(`${order}${code}`, "(3,)"), data), "x.npy");
      expect(array.dtype).toBe(dtype);
      expect(Array.from(array.data, Number)).toEqual(values);
    }
  });

  it("widens half precision exactly", () => {
    // 1, -2, smallest subnormal, largest finite, infinity, NaN
    const bits = [0x3c00, 0xc000, 0x0001, 0x7bff, 0x7c00, 0x7e00];
    const data = bytesOf(2, bits, (view, at, value) => view.setUint16(at, value, true));
    const array = parseNpy(npyOf(npyHeader("<f2", "(6,)"), data), "x.npy");
    expect(array.dtype).toBe("f32");
    expect([...array.data]).toEqual([1, -2, 2 ** -24, 65504, Number.POSITIVE_INFINITY, Number.NaN]);
  });

  it("normalizes booleans", () => {
    const array = parseNpy(npyOf(npyHeader("|b1", "(3,)"), Buffer.from([0, 1, 7])), "x.npy");
    expect(array.dtype).toBe("bool");
    expect([...array.data]).toEqual([0, 1, 1]);
  });

  it("turns Fortran order into row-major order", () => {
    // numpy.arange(24).reshape(2, 3, 4) stored with fortran_order=True
    const stored = [
      0, 12, 4, 16, 8, 20, 1, 13, 5, 17, 9, 21, 2, 14, 6, 18, 10, 22, 3, 15, 7, 19, 11, 23,
    ];
    const array = parseNpy(
      npyOf(npyHeader("|u1", "(2, 3, 4)", "True"), Buffer.from(stored)),
      "x.npy",
    );
    expect(array.shape).toEqual([2, 3, 4]);
    expect([...array.data]).toEqual(Array.from({ length: 24 }, (_, i) => i));
  });

  it("reads scalars, empty arrays, versions 2 and 3, and keys in any order", () => {
    expect(parseNpy(npyOf(npyHeader("|u1", "()"), 1), "x.npy").shape).toEqual([]);
    expect(parseNpy(npyOf(npyHeader("<f4", "(0, 5)"), 0), "x.npy").data).toHaveLength(0);
    for (const version of [2, 3]) {
      expect(parseNpy(npyOf(npyHeader("|u1", "(2,)"), 2, version), "x.npy").data).toHaveLength(2);
    }
    const header = "{'shape': (2L,), 'fortran_order': False, 'descr': \"|u1\"}";
    expect(parseNpy(npyOf(header, 2), "x.npy").shape).toEqual([2]);
  });
});
