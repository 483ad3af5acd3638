import { describe, expect, it } from "vitest";
import { accuracy } from "../../src/evaluation/metrics/accuracy.ts";
import { crossEntropy } from "../../src/evaluation/metrics/cross-entropy.ts";
import { expOfMinus } from "../../src/evaluation/metrics/exp.ts";
import { metrics } from "../../src/evaluation/metrics/index.ts";
import { kl } from "../../src/evaluation/metrics/kl.ts";
import { mae } from "../../src/evaluation/metrics/mae.ts";
import type {
  LabelItem,
  Metric,
  TeacherItem,
  ValueItem,
} from "../../src/evaluation/metrics/metric.ts";
import { mse } from "../../src/evaluation/metrics/mse.ts";
import { perplexity } from "../../src/evaluation/metrics/perplexity.ts";
import { r2 } from "../../src/evaluation/metrics/r2.ts";
import { argmax, logSumExp } from "../../src/evaluation/metrics/softmax.ts";
import { metricResult, ratioMean, ScoreBoard } from "../../src/evaluation/score-board.ts";

function labeled(output: number[], labels: number[]): LabelItem {
  const width = output.length / labels.length;
  return {
    rows: labels.length,
    width,
    output: Float32Array.from(output),
    start: 0,
    labels: Int32Array.from(labels),
  };
}

function sum(metric: Metric, item: LabelItem & Partial<ValueItem & TeacherItem>): number {
  return metric.measure.sum(item as LabelItem & ValueItem & TeacherItem);
}

describe("softmax helpers", () => {
  it("survives outputs whose exponentials overflow or vanish", () => {
    expect(logSumExp(Float32Array.of(1000, 1000), 0, 2)).toBeCloseTo(1000 + Math.log(2), 9);
    expect(logSumExp(Float32Array.of(-1e30, -1e30), 0, 2)).toBe(Math.fround(-1e30));
  });

  it("takes the lowest of equal classes", () => {
    expect(argmax(Float32Array.of(1, 3, 3, 2), 0, 4)).toBe(1);
    expect(argmax(Float32Array.of(9, 0, 0, 0), 1, 3)).toBe(0);
  });
});

describe("label metrics", () => {
  // softmax of (ln 1, ln 2, ln 5) is (1/8, 2/8, 5/8): worked by hand.
  const item = labeled([Math.log(1), Math.log(2), Math.log(5)], [1]);

  it("cross-entropy is −ln of the label's probability", () => {
    expect(sum(crossEntropy, item)).toBeCloseTo(Math.log(4), 6);
  });

  it("accuracy counts rows", () => {
    expect(sum(accuracy, labeled([1, 2, 5, 1, 0, 0], [2, 1]))).toBe(1);
  });

  it("does not change when all outputs of a row are shifted", () => {
    const shifted = labeled([8, 8 + Math.log(2), 8 + Math.log(5)], [1]);
    expect(sum(crossEntropy, shifted)).toBeCloseTo(sum(crossEntropy, item), 5);
  });
});

describe("teacher metrics", () => {
  it("KL of (1/2, 1/2) from (1/4, 3/4) is ½ ln 2 + ½ ln ⅔", () => {
    const item = {
      ...labeled([Math.log(1), Math.log(3)], [0]),
      teacher: Float32Array.of(0, 0),
    };
    expect(sum(kl, item)).toBeCloseTo(0.5 * Math.log(2) + 0.5 * Math.log(2 / 3), 6);
  });
});

describe("value metrics", () => {
  // y = (1, 2, 3, 4), f = (1, 2, 3, 8): errors 0, 0, 0, 4; variation 5 around 2.5.
  const targets = [1, 2, 3, 4];
  const outputs = [1, 2, 3, 8];
  const items = targets.map((target, i) => ({
    ...labeled([outputs[i]!], [0]),
    target: Float64Array.of(target),
    targetMean: Float64Array.of(2.5),
  }));
  const score = (metric: Metric): number | undefined => {
    const board = new ScoreBoard(metric, items.length);
    items.forEach((item, i) => {
      const weight = metric.measure.needs === "values" ? metric.measure.weight?.(item) : undefined;
      board.set(i, sum(metric, item), weight ?? 1);
    });
    return board.result().value;
  };

  it("mse, mae and r2 of a worked example", () => {
    expect(score(mse)).toBe(4);
    expect(score(mae)).toBe(1);
    expect(score(r2)).toBeCloseTo(1 - 16 / 5, 12);
  });
});

describe("means and errors", () => {
  it("is s/√n with unit weights", () => {
    const { mean, standardError } = ratioMean([1, 2, 3, 6], [1, 1, 1, 1]);
    expect(mean).toBe(3);
    // Deviations −2, −1, 0, 3: s² = 14/3.
    expect(standardError).toBeCloseTo(Math.sqrt(14 / 3 / 4), 12);
  });

  it("weighs items: two copies of a text are not more certain than their tokens", () => {
    const { mean } = ratioMean([10, 1], [10, 1]);
    expect(mean).toBe(1);
    expect(ratioMean([10, 4], [10, 2]).mean).toBeCloseTo(14 / 12, 12);
  });

  it("knows no error of a single item", () => {
    expect(ratioMean([1], [1]).standardError).toBeUndefined();
  });

  it("perplexity is exp of the mean, with its error by the delta method and no item scores", () => {
    const board = new ScoreBoard(perplexity, 2);
    board.set(0, 2, 2);
    board.set(1, 6, 2);
    const plain = ratioMean([2, 6], [2, 2]);
    const result = board.result();
    expect(result.value).toBeCloseTo(Math.exp(2), 12);
    expect(result.standardError).toBeCloseTo(Math.exp(2) * plain.standardError!, 12);
    expect(result).not.toHaveProperty("itemScores");
  });

  it("does not depend on the order in which batches arrive", () => {
    const scores = [0.1, 0.7, 0.2, 1e-17, 123.4];
    const inOrder = new ScoreBoard(crossEntropy, scores.length);
    for (const [i, score] of scores.entries()) inOrder.set(i, score, 1);
    const backwards = new ScoreBoard(crossEntropy, scores.length);
    for (const i of [...scores.keys()].reverse()) backwards.set(i, scores[i]!, 1);
    expect(backwards.result()).toEqual(inOrder.result());
  });

  it("names what is not a number instead of giving one", () => {
    expect(metricResult("m", Number.NaN, 1, 2, [1, 2])).toMatchObject({
      kind: "nan",
      value: undefined,
      standardError: undefined,
    });
    expect(metricResult("m", Number.POSITIVE_INFINITY, undefined, 2, undefined).kind).toBe("pinf");
    expect(metricResult("m", Number.NEGATIVE_INFINITY, undefined, 2, undefined).kind).toBe("ninf");
    expect(metricResult("m", 1, 0, 2, [1, Number.NaN])).not.toHaveProperty("itemScores");
  });
});

describe("expOfMinus", () => {
  it("agrees with Math.exp to 12 digits", () => {
    let worst = 0;
    for (let x = 0; x < 700; x += 0.0137) {
      worst = Math.max(worst, Math.abs(expOfMinus(x) / Math.exp(-x) - 1));
    }
    expect(worst).toBeLessThan(1e-12);
  });

  it("is exact at 0, vanishes far away and passes NaN on", () => {
    expect(expOfMinus(0)).toBe(1);
    expect(expOfMinus(1e38)).toBe(0);
    expect(expOfMinus(Number.POSITIVE_INFINITY)).toBe(0);
    expect(expOfMinus(Number.NaN)).toBeNaN();
  });
});

it("metrics read an item from its start, wherever it lies in a batch", () => {
  const alone = labeled([1, 2, 5, 4, 0, 0], [2, 1]);
  const inside = {
    ...alone,
    output: Float32Array.of(9, 9, 9, ...alone.output, -9, -9, -9),
    start: 3,
    target: Float64Array.from({ length: 6 }, (_, i) => i),
    targetMean: Float64Array.of(1, 2, 3),
    teacher: Float32Array.of(3, 2, 1, 0, 1, 2),
  };
  const outside = { ...inside, output: alone.output, start: 0 };
  for (const metric of Object.values<Metric>(metrics)) {
    expect(sum(metric, inside)).toBe(sum(metric, outside));
  }
});
