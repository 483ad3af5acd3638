import { Tensor } from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { PairSums } from "../../src/evaluation/block-influence.ts";

const state = (...rows: readonly number[][]): Tensor =>
  new Tensor("float32", Float32Array.from(rows.flat()), [1, rows.length, rows[0]!.length]);

describe("the influence of blocks", () => {
  it("is that of the worked example", () => {
    const sums = new PairSums(2);
    sums.add([state([1, 0], [1, 1]), state([1, 0.5], [0.5, 1.5])], {}, 1);
    const { influence, angles } = sums.influence();
    expect(influence[0]).toBeCloseTo(0.105573, 6);
    expect(angles[0]![0]).toBeCloseTo(0.147584, 6);
  });

  it("does not count padding, nor the rows that fill a batch", () => {
    const mask = { type: "int64" as const, dims: [1, 3], data: BigInt64Array.of(1n, 1n, 0n) };
    const sums = new PairSums(2);
    const before = state([1, 0], [1, 1], [1, 0]);
    const after = state([1, 0.5], [0.5, 1.5], [-1, 0]);
    sums.add([before, after], { attention_mask: mask }, 1);
    expect(sums.influence().influence[0]).toBeCloseTo(0.105573, 6);
  });

  it("is nothing for a block that only scales", () => {
    const sums = new PairSums(3);
    sums.add([state([1, 2]), state([3, 6]), state([-2, 1])], {}, 1);
    const { influence, angles } = sums.influence();
    expect(influence[0]).toBeCloseTo(0, 12);
    expect(influence[1]).toBeCloseTo(1, 12);
    expect(angles[1]![0]).toBeCloseTo(0.5, 12);
  });
});
