import type { NpyData } from "../formats/npy.ts";
import type { FeedTensor } from "./session.ts";

/** A zeroed array for the elements of a graph input. */
export function allocate(type: FeedTensor["type"], length: number): FeedTensor["data"] {
  switch (type) {
    case "float32":
      return new Float32Array(length);
    case "float64":
      return new Float64Array(length);
    case "float16":
    case "uint16":
      return new Uint16Array(length);
    case "int64":
      return new BigInt64Array(length);
    case "int32":
      return new Int32Array(length);
    case "int16":
      return new Int16Array(length);
    case "int8":
      return new Int8Array(length);
    case "uint8":
    case "bool":
      return new Uint8Array(length);
  }
}

/**
 * Writes numbers as elements of a graph input: rounded for float inputs, exact for integers, 0 and 1 for bool.
 *
 * @returns false when an element does not survive: fractions or overflow in integer inputs, NaN or infinity anywhere
 */
export function convert(
  type: FeedTensor["type"],
  source: NpyData,
  target: FeedTensor["data"],
  start: number,
): boolean {
  for (let i = 0; i < source.length; i++) {
    const value = Number(source[i]!);
    if (type === "float16") target[start + i] = halfBits(value);
    else if (target instanceof BigInt64Array) {
      if (!Number.isSafeInteger(value)) return false;
      target[start + i] = BigInt(value);
    } else {
      target[start + i] = value;
      const isFloat = target instanceof Float32Array || target instanceof Float64Array;
      if (!isFloat && target[start + i] !== value) return false;
      if (type === "bool" && value !== 0 && value !== 1) return false;
    }
    if (!Number.isFinite(value)) return false;
  }
  return true;
}

/** float16 bit pattern of a number, rounded to nearest, ties to even. */
function halfBits(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  if (magnitude >= 65520) return sign | 0x7c00;
  const exponent = Math.max(-14, Math.floor(Math.log2(Math.max(magnitude, 2 ** -24))));
  const scaled = magnitude / 2 ** (exponent - 10);
  const floor = Math.floor(scaled);
  const rest = scaled - floor;
  const rounded = rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
  // For normal numbers `rounded` carries the implicit bit, 1024; adding lets a rounding carry reach the exponent.
  return sign | (rounded + (exponent + 14) * 1024);
}
