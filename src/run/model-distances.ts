import { matchModels } from "../merge/matching.ts";
import type { PlannedTensor } from "../merge/plan.ts";
import { dtypeBytes } from "../tensors/dtype.ts";
import type { ModelReader, ModelTensor } from "../tensors/model-reader.ts";
import { elementCount } from "../tensors/shape.ts";
import { floatLoader } from "./float-loader.ts";

/** How far models are from each other, by a sample of their weights. */
export interface Distances {
  /** Sum of the squared distances of a model to all others. */
  sum(id: string): number;
  /** Whether two models hold the same values throughout; reads all of them where the sample shows no difference. */
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
      (squared.get(key(a, b)) ?? 0) === 0 &&
      tensors.every((tensor) => equalThroughout(models, tensor, a, b, load)),
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
  models: ReadonlyMap<string, ModelReader>,
  tensor: PlannedTensor,
  a: string,
  b: string,
  load: ReturnType<typeof floatLoader>,
): boolean {
  const [nameA, nameB] = [nameIn(tensor, a), nameIn(tensor, b)];
  const dtype = tensorOf(models, a, nameA).dtype;
  const sameDtype = dtype === tensorOf(models, b, nameB).dtype;
  const count = elementCount(tensor.shape);
  for (let start = 0; start < count; start += BLOCK) {
    const length = Math.min(BLOCK, count - start);
    if (sameDtype) {
      const [x, y] = [nameA, nameB].map((name, i) => {
        const bytes = new Uint8Array(length * dtypeBytes[dtype]);
        models.get(i === 0 ? a : b)?.read(name, start, bytes);
        return bytes;
      });
      if (Buffer.compare(x!, y!) !== 0) return false;
    } else {
      const [x, y] = [new Float32Array(length), new Float32Array(length)];
      load(a, nameA, start, x);
      load(b, nameB, start, y);
      if (squaredDistance(x, y) !== 0) return false;
    }
  }
  return true;
}
