import type { Dtype } from "../tensors/dtype.ts";

/** IEEE binary16 bits as a double, exactly; NaN payloads are not kept. */
export function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 0x1f) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/**
 * Little-endian floats of any width as doubles, exactly.
 *
 * @param bytes whole elements of a float type
 */
export function decodeFloats(bytes: Uint8Array, dtype: Dtype): Float64Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  switch (dtype) {
    case "f64":
      return decode(bytes.length / 8, (i) => view.getFloat64(8 * i, true));
    case "f32":
      return decode(bytes.length / 4, (i) => view.getFloat32(4 * i, true));
    case "f16":
      return decode(bytes.length / 2, (i) => halfToNumber(view.getUint16(2 * i, true)));
    case "bf16": {
      const word = new DataView(new ArrayBuffer(4));
      return decode(bytes.length / 2, (i) => {
        word.setUint32(0, view.getUint16(2 * i, true) << 16);
        return word.getFloat32(0);
      });
    }
    default:
      throw new Error(`not a float type: ${dtype}`);
  }
}

function decode(length: number, element: (i: number) => number): Float64Array {
  const values = new Float64Array(length);
  for (let i = 0; i < length; i++) values[i] = element(i);
  return values;
}
