import { matchModels } from "../merge/matching.ts";
import type { PlannedTensor } from "../merge/plan.ts";
import { floatLoader } from "../run/float-loader.ts";
import type { Dtype } from "../tensors/dtype.ts";
import type { Kernels } from "../tensors/kernels.ts";
import type { ModelReader, ModelTensor } from "../tensors/model-reader.ts";
import { elementCount } from "../tensors/shape.ts";
import { createKernels } from "../tensors/wasm-kernels.ts";

/** How far models are from each other, by a sample of their weights. */
export interface Distances {
  /** Sum of the squared distances of a model to all others. */
  sum(id: string): number;
  /**
   * Whether two models hold the same values throughout, up to the rounding of one of them to half precision. Reads on until
   * a difference shows.
   */
  equal(a: string, b: string): boolean;
}

/** Elements looked at in every tensor: distances need no more to tell a base from its experts. */
const SAMPLE = 2048;
/** Elements compared at a time. */
const BLOCK = 1 << 16;

/** Measures models that fit together; they stay open as long as the result is used. */
export function measureDistances(models: ReadonlyMap<string, ModelReader>): Distances {
  const ids = [...models.keys()];
  const { plan } = matchModels({ models, reference: ids[0] as string });
  const tensors = plan.tensors.filter(
    ({ action, sources }) => action === "merge" && ids.every((id) => sources.has(id)),
  );
  const load = floatLoader({
    dtypeOf: (id, name) => tensorOf(models, id, name).dtype,
    read: (id, name, start, target) => models.get(id)?.read(name, start, target),
  });
  const round = roundingBy(createKernels({ bytes: BLOCK * 6 + (1 << 16) }));
  const squared = new Map<string, number>();
  const key = (a: string, b: string): string => `${a}\n${b}`;
  const add = (a: string, b: string, value: number): void => {
    squared.set(key(a, b), (squared.get(key(a, b)) ?? 0) + value);
  };
  for (const tensor of tensors) {
    const length = Math.min(SAMPLE, elementCount(tensor.shape));
    const values = ids.map((id) => {
      const out = new Float32Array(length);
      load(id, nameIn(tensor, id), 0, out);
      return out;
    });
    ids.forEach((a, i) => {
      for (const [j, b] of ids.entries()) {
        if (j > i) {
          const distance = squaredDistance(values[i]!, values[j]!);
          add(a, b, distance);
          add(b, a, distance);
        }
      }
    });
  }
  return {
    sum: (id) => ids.reduce((sum, other) => sum + (squared.get(key(id, other)) ?? 0), 0),
    equal: (a, b) =>
      tensors.every((tensor) => {
        const sides = [a, b].map((id) => ({ id, name: nameIn(tensor, id) }));
        const dtypes = sides.map(({ id, name }) => tensorOf(models, id, name).dtype);
        const half = dtypes[0] === dtypes[1] ? undefined : dtypes.find(isHalf);
        return equalThroughout(elementCount(tensor.shape), (start, length) =>
          sides.map(({ id, name }, i) => {
            const out = new Float32Array(length);
            load(id, name, start, out);
            return half === undefined || dtypes[i] === half ? out : round(out, half);
          }),
        );
      }),
  };
}

type Half = "f16" | "bf16";

function isHalf(dtype: Dtype): dtype is Half {
  return dtype === "f16" || dtype === "bf16";
}

/** A function that rounds values to a half-precision type. */
function roundingBy(kernels: Kernels): (values: Float32Array, dtype: Half) => Float32Array {
  const [wide, raw] = [kernels.float32(BLOCK), kernels.bytes(2 * BLOCK)];
  return (values, dtype) => {
    const [staged, bytes] = [wide.subarray(0, values.length), raw.subarray(0, 2 * values.length)];
    staged.set(values);
    kernels.narrow(dtype, staged, bytes);
    kernels.widen(dtype, bytes, staged);
    return staged.slice();
  };
}

function tensorOf(models: ReadonlyMap<string, ModelReader>, id: string, name: string): ModelTensor {
  const tensor = models.get(id)?.tensors.get(name);
  if (tensor === undefined) throw new Error(`model ${id} has no tensor ${name}`);
  return tensor;
}

function nameIn(tensor: PlannedTensor, id: string): string {
  return tensor.sources.get(id)?.name ?? tensor.name;
}

function squaredDistance(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i]! - b[i]!) ** 2;
  return sum;
}

function equalThroughout(
  count: number,
  read: (start: number, length: number) => readonly Float32Array[],
): boolean {
  for (let start = 0; start < count; start += BLOCK) {
    const [x, y] = read(start, Math.min(BLOCK, count - start));
    if (!x!.every((value, i) => value === y![i])) return false;
  }
  return true;
}
