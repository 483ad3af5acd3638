import type { Dtype } from "../../src/tensors/dtype.ts";
import { dtypeBytes } from "../../src/tensors/dtype.ts";
import { createPlainKernels } from "../../src/tensors/plain-kernels.ts";

/** The values of stored float bytes, by the plain cast. */
export function valuesOf(dtype: Dtype, bytes: Uint8Array): Float32Array {
  if (dtype !== "f64" && dtype !== "f32" && dtype !== "f16" && dtype !== "bf16") {
    throw new Error(`${dtype} is not a float`);
  }
  const values = new Float32Array(bytes.length / dtypeBytes[dtype]);
  createPlainKernels({ bytes: 0 }).widen(dtype, bytes, values);
  return values;
}
