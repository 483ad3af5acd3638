import type { WeightSource } from "../merge/materialize.ts";
import type { MergePlan, PlannedTensor } from "../merge/plan.ts";
import { dtypeBytes } from "../tensors/dtype.ts";
import { elementCount } from "../tensors/shape.ts";

/** Bytes compared at a time; the first block of tensors that differ almost always tells. */
const BLOCK = 1 << 18;

/** Names of merged tensors whose stored bytes are the same in every model that has them. */
export function identicalTensors(plan: MergePlan, source: WeightSource): string[] {
  return plan.tensors
    .filter((tensor) => tensor.action === "merge" && isIdentical(tensor, source))
    .map(({ name }) => name);
}

function isIdentical({ sources, shape }: PlannedTensor, source: WeightSource): boolean {
  const [first, ...others] = sources;
  if (first === undefined || others.length === 0) return false;
  const dtype = source.dtypeOf(first[0], first[1].name);
  if (others.some(([id, { name }]) => source.dtypeOf(id, name) !== dtype)) return false;
  const width = dtypeBytes[dtype];
  const length = elementCount(shape);
  const step = Math.floor(BLOCK / width);
  for (let start = 0; start < length; start += step) {
    const bytes = Math.min(step, length - start) * width;
    const expected = Buffer.alloc(bytes);
    const got = Buffer.alloc(bytes);
    source.read(first[0], first[1].name, start, expected);
    for (const [id, { name }] of others) {
      source.read(id, name, start, got);
      if (!got.equals(expected)) return false;
    }
  }
  return true;
}
