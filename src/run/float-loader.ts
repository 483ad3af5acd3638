import type { WeightSource } from "../merge/materialize.ts";
import { dtypeBytes } from "../tensors/dtype.ts";
import { createKernels } from "../tensors/wasm-kernels.ts";

/** Elements staged at a time. */
const BLOCK = 1 << 16;

/**
 * Reads elements of float tensors as float32 into ordinary arrays.
 *
 * @returns a function of model id, the model's own tensor name, first element, and the array to fill
 */
export function floatLoader(
  source: WeightSource,
): (model: string, tensor: string, start: number, out: Float32Array) => void {
  const kernels = createKernels({ bytes: BLOCK * 16 + (1 << 16) });
  const raw = kernels.bytes(BLOCK * 8);
  const wide = kernels.float32(BLOCK);
  return (model, tensor, start, out) => {
    const dtype = source.dtypeOf(model, tensor);
    if (dtype !== "f64" && dtype !== "f32" && dtype !== "f16" && dtype !== "bf16") {
      throw new Error(`${tensor} of ${model} is ${dtype}, not a float`);
    }
    for (let done = 0; done < out.length; done += BLOCK) {
      const length = Math.min(BLOCK, out.length - done);
      const bytes = raw.subarray(0, length * dtypeBytes[dtype]);
      source.read(model, tensor, start + done, bytes);
      kernels.widen(dtype, bytes, wide.subarray(0, length));
      out.set(wide.subarray(0, length), done);
    }
  };
}
