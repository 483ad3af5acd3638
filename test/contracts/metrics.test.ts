import { readdirSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { metricNamesOf, metrics } from "../../src/evaluation/metrics/index.ts";
import type {
  LabelItem,
  Metric,
  TeacherItem,
  ValueItem,
} from "../../src/evaluation/metrics/metric.ts";
import { ScoreBoard } from "../../src/evaluation/score-board.ts";

const all: readonly Metric[] = Object.values(metrics);
const rows = fc.integer({ min: 1, max: 4 });
const width = fc.integer({ min: 2, max: 6 });
const value = fc.float({ min: -50, max: 50, noNaN: true });

/** An item whose shape suits any metric; `needs` picks what is read. */
interface AnyItem extends LabelItem, ValueItem, TeacherItem {}

const anyItem: fc.Arbitrary<AnyItem> = fc.tuple(rows, width).chain(([r, w]) =>
  fc.record({
    rows: fc.constant(r),
    width: fc.constant(w),
    output: floats(r * w),
    teacher: floats(r * w),
    labels: fc
      .array(fc.integer({ min: 0, max: w - 1 }), { minLength: r, maxLength: r })
      .map((labels) => Int32Array.from(labels)),
    target: floats(r * w).map((values) => Float64Array.from(values)),
    targetMean: fc.constant(new Float64Array(w)),
    start: fc.constant(0),
  }),
);

function floats(length: number): fc.Arbitrary<Float32Array> {
  return fc
    .array(value, { minLength: length, maxLength: length })
    .map((values) => Float32Array.from(values));
}

/** Sum and weight of an item, whatever the metric needs. */
function measure(metric: Metric, item: AnyItem): readonly [number, number] {
  const { measure: how } = metric;
  if (how.needs === "values") return [how.sum(item), how.weight?.(item) ?? item.rows];
  return [how.sum(item), item.rows];
}

/** What a perfect model would output. */
function perfect(item: AnyItem, metric: Metric): AnyItem {
  if (metric.measure.needs === "teacher") return { ...item, output: item.teacher };
  if (metric.measure.needs === "values") {
    return { ...item, output: Float32Array.from(item.target) };
  }
  const output = new Float32Array(item.rows * item.width).fill(-1000);
  item.labels.forEach((label, row) => {
    output[row * item.width + label] = 1000;
  });
  return { ...item, output };
}

describe.each(all.map((metric) => [metric.name, metric] as const))("metric %s", (name, metric) => {
  it("is registered under its own name and for at least one task", () => {
    expect(Object.entries(metrics).find(([, candidate]) => candidate === metric)?.[0]).toBe(name);
    expect(metric.tasks.length).toBeGreaterThan(0);
    for (const task of metric.tasks) expect(metricNamesOf(task)).toContain(name);
  });

  it("stays within its bounds and is finite for finite items", () => {
    fc.assert(
      fc.property(anyItem, (item) => {
        const [sum, weight] = measure(metric, item);
        fc.pre(weight > 0);
        expect(Number.isFinite(sum)).toBe(true);
        const mean = sum / weight;
        const reported = metric.transform?.value(mean) ?? mean;
        expect(reported).toBeGreaterThanOrEqual(metric.bounds[0]);
        expect(reported).toBeLessThanOrEqual(metric.bounds[1]);
      }),
    );
  });

  it("turns item scores into fitness within [0, 1] that never contradicts its direction", () => {
    fc.assert(
      fc.property(anyItem, anyItem, (a, b) => {
        const scores = [a, b].map((item) => {
          const [sum, weight] = measure(metric, item);
          return sum / weight;
        }) as [number, number];
        fc.pre(scores.every(Number.isFinite));
        const [x, y] = scores.map((score) => metric.itemFitness(score)) as [number, number];
        expect(Math.min(x, y)).toBeGreaterThanOrEqual(0);
        expect(Math.max(x, y)).toBeLessThanOrEqual(1);
        // An item score is the mean before the transform, so the transform's slope counts too.
        const turned = (metric.transform?.slope(scores[0]) ?? 1) < 0;
        const higher = (metric.direction === "higher") !== turned;
        if (scores[0] > scores[1]) {
          if (higher) expect(x).toBeGreaterThanOrEqual(y);
          else expect(x).toBeLessThanOrEqual(y);
        }
      }),
    );
  });

  it("gives a perfect model the best value of all", () => {
    fc.assert(
      fc.property(anyItem, (item) => {
        const board = (candidate: AnyItem): number | undefined => {
          const [sum, weight] = measure(metric, candidate);
          const scores = new ScoreBoard(metric, 1);
          scores.set(0, sum, weight);
          return scores.result().value;
        };
        const best = board(perfect(item, metric));
        const other = board(item);
        fc.pre(best !== undefined && other !== undefined);
        if (metric.direction === "higher") expect(best).toBeGreaterThanOrEqual(other);
        else expect(best).toBeLessThanOrEqual(other);
      }),
    );
  });

  it("does not write to what it is given", () => {
    fc.assert(
      fc.property(anyItem, (item) => {
        const before = structuredClone(item);
        measure(metric, item);
        expect(item).toEqual(before);
      }),
    );
  });
});

it("every metric file is in the registry", () => {
  const helpers = new Set(["exp.ts", "index.ts", "metric.ts", "softmax.ts"]);
  const files = readdirSync(new URL("../../src/evaluation/metrics", import.meta.url))
    .filter((file) => !helpers.has(file))
    .map((file) => file.replace(".ts", "").replaceAll("-", "_"));
  expect(files.sort()).toEqual(Object.keys(metrics).sort());
});
