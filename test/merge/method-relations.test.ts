import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { mergeMethods } from "../../src/merge/index.ts";
import type { MergeMethod } from "../../src/merge/method.ts";
import { bitsOf } from "../support/bits.ts";
import { type MethodRun, runMethod } from "../support/run-method.ts";

const element = fc.oneof(
  fc.float({ noNaN: true, noDefaultInfinity: true, min: -3, max: 3 }),
  fc.constantFrom(0, 1e-12, -1e-20, 0.5, -0.5),
);
/** A base and some experts of one length. */
const models = fc
  .tuple(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 4 }))
  .chain(([length, count]) =>
    fc.array(fc.array(element, { minLength: length, maxLength: length }), {
      minLength: count + 1,
      maxLength: count + 1,
    }),
  );
const run = (
  method: MergeMethod,
  inputs: readonly (readonly number[])[],
  rest: Partial<MethodRun>,
) => runMethod(method, { inputs, baseIndex: 0, blockLength: 16, ...rest });
/** Numbers without the sign of zero: x − base does not tell +0 from −0. */
const unsigned = (values: ArrayLike<number>): number[] => Array.from(values, (value) => value + 0);
const { linear, slerp, task_arithmetic, ties, dare_linear, dare_ties, segments } = mergeMethods;

describe("endpoints", () => {
  it("task arithmetic with weight 1 of one expert is that expert, bit for bit", () => {
    fc.assert(
      fc.property(models, (inputs) => {
        const weight = inputs.slice(1).map((_, k) => (k === 0 ? 1 : 0));
        const merged = run(task_arithmetic, inputs, { values: { weight } });
        expect(bitsOf(merged)).toEqual(bitsOf(Float32Array.from(inputs[1]!)));
        const none = run(task_arithmetic, inputs, { values: { weight: 0 } });
        expect(bitsOf(none)).toEqual(bitsOf(Float32Array.from(inputs[0]!)));
      }),
    );
  });

  it("linear with weights 1 and 0 is that model, bit for bit", () => {
    fc.assert(
      fc.property(models, (inputs) => {
        const weight = inputs.map((_, k) => (k === 1 ? 1 : 0));
        const merged = runMethod(linear, { inputs, values: { weight } });
        expect(bitsOf(merged)).toEqual(bitsOf(Float32Array.from(inputs[1]!)));
      }),
    );
  });

  it("slerp at 0 and 1 is the base and the other model, bit for bit", () => {
    fc.assert(
      fc.property(models, (all) => {
        const inputs = all.slice(0, 2);
        for (const t of [0, 1]) {
          const merged = run(slerp, inputs, { values: { t } });
          expect(bitsOf(merged)).toEqual(bitsOf(Float32Array.from(inputs[t]!)));
        }
      }),
    );
  });

  it("ties and dare_ties of one whole expert are that expert, bit for bit", () => {
    fc.assert(
      fc.property(models, (all) => {
        const inputs = all.slice(0, 2);
        const expert = bitsOf(Float32Array.from(inputs[1]!));
        // Normalizing takes the weight away, so any weight will do.
        const normalized = run(ties, inputs, { values: { weight: 0.37, density: 1 } });
        expect(bitsOf(normalized)).toEqual(expert);
        expect(bitsOf(run(dare_ties, inputs, { values: { weight: 1 } }))).toEqual(expert);
      }),
    );
  });

  it("election returns an expert exactly where it alone has changed something", () => {
    fc.assert(
      fc.property(models, (inputs) => {
        const base = inputs[0]!;
        const second = base.map((value, i) => (i % 2 === 0 ? value : value + 1));
        const third = base.map((value, i) => (i % 2 === 0 ? value - 1 : value));
        const merged = run(ties, [base, second, third], { values: { weight: [0.3, 0.9] } });
        const expected = base.map((_, i) => (i % 2 === 0 ? third[i]! : second[i]!));
        expect(unsigned(merged)).toEqual(unsigned(Float32Array.from(expected)));
      }),
    );
  });

  it("dropped elements are the base's", () => {
    fc.assert(
      fc.property(models, fc.double({ min: 0.05, max: 0.95, noNaN: true }), (all, density) => {
        const inputs = all.slice(0, 2);
        const merged = run(dare_linear, inputs, { values: { weight: 0.7, density } });
        const ownRescaled = run(dare_linear, inputs, { values: { weight: 0.7 / density } });
        merged.forEach((value, i) => {
          const near = (x: number): boolean => Math.abs(value - x) <= 1e-6 * Math.abs(x) + 1e-30;
          expect(value === Math.fround(inputs[0]![i]!) || near(ownRescaled[i]!)).toBe(true);
        });
      }),
    );
  });
});

describe("relations between methods", () => {
  it("ties at density 1 with agreeing signs is the weighted sum", () => {
    fc.assert(
      fc.property(models, (inputs) => {
        const base = inputs[0]!;
        const agreeing = inputs.slice(1).map((x) => x.map((v, i) => base[i]! + Math.abs(v) + 0.25));
        const weight = agreeing.map((_, k) => 0.2 + 0.3 * k);
        const values = { weight, normalize: 0 };
        const elected = run(ties, [base, ...agreeing], { values });
        const summed = run(task_arithmetic, [base, ...agreeing], { values });
        expect(bitsOf(elected)).toEqual(bitsOf(summed));
      }),
    );
  });

  it("dare at p = 1 is task arithmetic", () => {
    fc.assert(
      fc.property(models, fc.boolean(), (inputs, compat) => {
        const weight = inputs.slice(1).map((_, k) => 0.5 - 0.2 * k);
        const values = { weight, density: 1, lambda: 0.9 };
        const dropped = run(dare_linear, inputs, { values, compat });
        expect(bitsOf(dropped)).toEqual(bitsOf(run(task_arithmetic, inputs, { values })));
      }),
    );
  });

  it("slerp of parallel tensors is linear interpolation", () => {
    fc.assert(
      fc.property(models, fc.double({ min: 0, max: 1, noNaN: true }), (inputs, t) => {
        const a = inputs[0]!.map((value) => value + 4);
        const b = a.map((value) => value * 1.5);
        const arc = run(slerp, [a, b], { values: { t } });
        const line = runMethod(linear, {
          inputs: [a, b],
          values: { weight: [1 - t, t], normalize: 0 },
        });
        expect(bitsOf(arc)).toEqual(bitsOf(line));
      }),
    );
  });

  it("segments with one segment is the plain weighted sum", () => {
    fc.assert(
      fc.property(models, (inputs) => {
        const weight = inputs.map((_, k) => 0.7 - 0.4 * k);
        const lists = { global: { breaks: [0] }, models: weight.map((w) => ({ weights: [w] })) };
        const one = runMethod(segments, { inputs, lists, offset: 123 });
        const plain = runMethod(linear, { inputs, values: { weight, normalize: 0 } });
        expect(bitsOf(one)).toEqual(bitsOf(plain));
      }),
    );
  });

  it("ties keeps exactly ⌊density·n⌋ elements, at least one, the largest, the first of equals", () => {
    const magnitude = fc.constantFrom(0.25, 0.5, 1, 2);
    const deltas = fc.array(fc.tuple(magnitude, fc.boolean()), { minLength: 1, maxLength: 50 });
    fc.assert(
      fc.property(deltas, fc.double({ min: 0.001, max: 0.999, noNaN: true }), (signed, density) => {
        const delta = signed.map(([size, minus]) => (minus ? -size : size));
        const base = delta.map(() => 0);
        const count = Math.max(1, Math.trunc(density * delta.length));
        const kept = delta
          .map((value, i) => ({ size: Math.abs(value), i }))
          .sort((a, b) => b.size - a.size || a.i - b.i)
          .slice(0, count)
          .map(({ i }) => i);
        const merged = run(ties, [base, delta], { values: { weight: 1, density } });
        expect([...merged]).toEqual(delta.map((value, i) => (kept.includes(i) ? value : 0)));
      }),
    );
  });

  it("masks of one seed are nested in the density", () => {
    const base = Array.from({ length: 100 }, () => 0);
    const expert = base.map((_, i) => i + 1);
    const keptAt = (density: number): Set<number> => {
      const values = { weight: 1, density, rescale: 0 };
      const merged = run(dare_linear, [base, expert], { values, seed: 5 });
      return new Set([...merged.entries()].filter(([, value]) => value !== 0).map(([i]) => i));
    };
    const sets = [0.1, 0.3, 0.5, 0.9].map(keptAt);
    for (const [k, larger] of sets.slice(1).entries()) {
      for (const i of sets[k]!) expect(larger.has(i)).toBe(true);
      expect(larger.size).toBeGreaterThan(sets[k]!.size);
    }
  });
});
