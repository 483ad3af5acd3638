import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Kernels } from "../../src/tensors/kernels.ts";
import { createPlainKernels } from "../../src/tensors/plain-kernels.ts";
import { createKernels } from "../../src/tensors/wasm-kernels.ts";
import { bitsOf, floatsOf } from "../support/bits.ts";

const bytes = 1 << 22;
const both = [createKernels({ bytes }), createPlainKernels({ bytes })];
const dtypes = ["f64", "f32", "f16", "bf16"] as const;
const width = { f64: 8, f32: 4, f16: 2, bf16: 2 } as const;

/** Any float32 bit pattern, with the corners of the format made likely. */
const anyBits = fc.oneof(
  fc.integer({ min: 0, max: 0xffffffff }),
  fc.constantFrom(
    ...[0, 1, 0x7fffff, 0x800000, 0x7f7fffff, 0x7f800000, 0x7f800001, 0x7fc12345, 0x3f800000],
    ...[0x80000000, 0x80000001, 0xff800000, 0xffc00001, 0x33000000, 0x33000001, 0x387fc000],
    ...[0x477fe000, 0x477fefff, 0x477ff000, 0x38800000, 0x3f808000, 0x3f818000, 0x387fffff],
  ),
);
/** Ordinary weights: many zeros, repeated magnitudes, both signs. */
const weightBits = fc.oneof(
  fc.float({ noNaN: true, noDefaultInfinity: true, min: -4, max: 4 }),
  fc.constantFrom(0, -0, 0.5, -0.5, 0.25, 1e-20, 2 ** -140),
);
const weights = fc.array(weightBits, { minLength: 0, maxLength: 37 });
const coefficient = fc.oneof(
  fc.double({ noNaN: true, min: -2, max: 2 }),
  fc.constantFrom(0, 1, -1, 0.5),
);

function load(kernels: Kernels, values: ArrayLike<number>): Float32Array {
  const array = kernels.float32(values.length);
  array.set(values);
  return array;
}

function loadBits(kernels: Kernels, bits: readonly number[]): Float32Array {
  const array = kernels.float32(bits.length);
  new Uint32Array(array.buffer, array.byteOffset, array.length).set(bits);
  return array;
}

/** Runs the same work on both implementations from a clean arena and expects one answer. */
function agree(work: (kernels: Kernels) => unknown): void {
  const answers = both.map((kernels) => {
    const mark = kernels.mark();
    const answer = work(kernels);
    kernels.release(mark);
    return answer;
  });
  expect(answers[0]).toEqual(answers[1]);
}

/** Several arrays of one length. */
const columns = fc.integer({ min: 0, max: 29 }).chain((length) =>
  fc.array(fc.array(weightBits, { minLength: length, maxLength: length }), {
    minLength: 1,
    maxLength: 5,
  }),
);

describe("both implementations agree bit for bit", () => {
  it("widens every stored float type", () => {
    for (const dtype of dtypes) {
      fc.assert(
        fc.property(fc.uint8Array({ maxLength: 21 * 8 }), (raw) => {
          const n = Math.floor(raw.length / width[dtype]);
          agree((kernels) => {
            // One byte of padding in front: stored tensors need not be aligned.
            const stored = kernels.bytes(n * width[dtype] + 1).subarray(1);
            stored.set(raw.subarray(0, stored.length));
            const out = kernels.float32(n);
            kernels.widen(dtype, stored, out);
            return [...new Uint32Array(out.buffer, out.byteOffset, n)];
          });
        }),
      );
    }
  });

  it("narrows to every stored float type", () => {
    for (const dtype of dtypes) {
      fc.assert(
        fc.property(fc.array(anyBits, { maxLength: 21 }), (bits) => {
          agree((kernels) => {
            const raw = kernels.bytes(bits.length * width[dtype]);
            kernels.narrow(dtype, loadBits(kernels, bits), raw);
            return [...raw];
          });
        }),
        { numRuns: 300 },
      );
    }
  });

  it("fills, copies, scales, adds and subtracts", () => {
    fc.assert(
      fc.property(weights, coefficient, (values, a) => {
        agree((kernels) => {
          const x = load(kernels, values);
          const y = load(
            kernels,
            values.map((value) => value * 1.7 + 0.3),
          );
          const out = kernels.float32(x.length);
          const results: number[][] = [];
          const keep = () => results.push(bitsOf(out));
          kernels.fill(out, a);
          keep();
          kernels.scale(a, x, out);
          keep();
          kernels.axpy(a, y, out);
          keep();
          kernels.subtract(x, y, out);
          keep();
          kernels.addScaled(x, a, y, out);
          keep();
          kernels.copy(y, out);
          keep();
          return results;
        });
      }),
    );
  });

  it("sums with weights", () => {
    fc.assert(
      fc.property(columns, fc.array(coefficient, { minLength: 5, maxLength: 5 }), (xs, w) => {
        agree((kernels) => {
          const arrays = xs.map((x) => load(kernels, x));
          const base = load(
            kernels,
            xs[0]!.map((value) => value / 3),
          );
          const out = kernels.float32(base.length);
          kernels.weightedSum(w.slice(0, arrays.length), arrays, out);
          const plain = bitsOf(out);
          kernels.weightedDeltaSum(w.slice(0, arrays.length), base, arrays, out);
          return [plain, bitsOf(out)];
        });
      }),
    );
  });

  it("reduces", () => {
    fc.assert(
      fc.property(weights, fc.array(anyBits, { maxLength: 19 }), (values, bits) => {
        agree((kernels) => {
          const x = load(kernels, values);
          const y = load(
            kernels,
            values.map((value) => value * 0.7 - 0.1),
          );
          return [
            kernels.dot(x, y),
            kernels.absoluteSum(x),
            kernels.countNonFinite(loadBits(kernels, bits)),
          ];
        });
      }),
    );
  });

  it("ranks magnitudes and keeps the largest", () => {
    fc.assert(
      fc.property(fc.array(anyBits, { maxLength: 40 }), fc.nat(5), (bits, ties) => {
        agree((kernels) => {
          const x = loadBits(kernels, bits);
          const high = kernels.counters(65_536);
          const low = kernels.counters(65_536);
          kernels.magnitudeHistogram(x, high);
          const threshold = (bits[0] ?? 0) & 0x7fffffff;
          kernels.magnitudeHistogramLow(x, threshold >>> 16, low);
          const out = kernels.float32(x.length);
          const left = kernels.keepLargest(x, threshold, ties, out);
          const counted = (h: Uint32Array) => [...h.entries()].filter(([, count]) => count > 0);
          return [counted(high), counted(low), left, bitsOf(out)];
        });
      }),
      { numRuns: 60 },
    );
  });

  it("draws masks and selects", () => {
    const uint32 = fc.integer({ min: 0, max: 0xffffffff });
    const share = fc.double({ min: 0, max: 1, noNaN: true });
    fc.assert(
      fc.property(weights, uint32, uint32, uint32, share, (values, k0, k1, start, p) => {
        agree((kernels) => {
          const x = load(kernels, values);
          const y = load(
            kernels,
            values.map((value) => value - 1),
          );
          const out = kernels.float32(x.length);
          kernels.keepRandom(x, k0, k1, start, p, out);
          const kept = bitsOf(out);
          kernels.selectNonzero(x, out, y, out);
          return [kept, bitsOf(out)];
        });
      }),
    );
  });

  it("elects signs", () => {
    const five = fc.array(coefficient, { minLength: 5, maxLength: 5 });
    fc.assert(
      fc.property(columns, five, five, fc.boolean(), coefficient, (xs, w, f, normalize, lambda) => {
        agree((kernels) => {
          const arrays = xs.map((x) => load(kernels, x));
          const base = load(
            kernels,
            xs[0]!.map((value, i) => (i % 3 === 0 ? value : value / 3)),
          );
          const out = kernels.float32(base.length);
          const some = w.slice(0, arrays.length);
          kernels.electAndMerge(some, arrays, normalize, out);
          const merged = bitsOf(out);
          kernels.electTowards(some, f, base, arrays, normalize, lambda, out);
          return [merged, bitsOf(out)];
        });
      }),
    );
  });
});

describe.each([
  ["WebAssembly", both[0]!],
  ["plain", both[1]!],
])("%s kernels", (_, kernels) => {
  it("round to nearest even", () => {
    // 1 + 2^-8 and 1 + 3·2^-8 lie half-way between neighbors of bfloat16: down to 1, up to 1 + 2^-6.
    const bf16 = kernels.bytes(4);
    kernels.narrow("bf16", load(kernels, [1 + 2 ** -8, 1 + 3 * 2 ** -8]), bf16);
    expect([...bf16]).toEqual([0x80, 0x3f, 0x82, 0x3f]);
    // float16: 65519.996 is the last value that does not overflow; 2^-25 is half of the smallest step, a tie to zero.
    const f16 = kernels.bytes(10);
    const values = [65519.996, 65520, 2 ** -25, 2 ** -25 * 1.0000001, 1 + 3 * 2 ** -11];
    kernels.narrow("f16", load(kernels, values), f16);
    expect([...new Uint16Array(f16.slice().buffer)]).toEqual([0x7bff, 0x7c00, 0, 1, 0x3c02]);
  });

  it("return every 16-bit value unchanged after a round trip", () => {
    const patterns = Uint16Array.from({ length: 65_536 }, (_unused, i) => i);
    for (const dtype of ["f16", "bf16"] as const) {
      const mark = kernels.mark();
      const raw = kernels.bytes(131_072);
      raw.set(new Uint8Array(patterns.buffer));
      const wide = kernels.float32(65_536);
      kernels.widen(dtype, raw, wide);
      kernels.narrow(dtype, wide, raw);
      const back = new Uint16Array(raw.slice().buffer);
      const exponent = dtype === "f16" ? 0x7c00 : 0x7f80;
      const quietBit = dtype === "f16" ? 0x200 : 0x40;
      const expected = patterns.map((bits) =>
        (bits & 0x7fff) > exponent ? bits | quietBit : bits,
      );
      expect(back).toEqual(expected);
      kernels.release(mark);
    }
  });

  it("return a parent bit for bit at coefficients 1 and 0", () => {
    const base = loadBits(kernels, [0x3f800000, 0x80000000, 0, 0x00000001, 0xbf9d70a4]);
    const expert = loadBits(kernels, [0x1e3ce508, 0, 0x80000000, 0x80000003, 0x3c23d70a]);
    const out = kernels.float32(5);
    kernels.weightedDeltaSum([1, 0], base, [expert, base], out);
    expect(bitsOf(out)).toEqual(bitsOf(expert));
    kernels.weightedDeltaSum([0, 0], base, [expert, base], out);
    expect(bitsOf(out)).toEqual(bitsOf(base));
    kernels.electTowards([0.7], [1], base, [expert], true, 1, out);
    // At zero the sign is not a difference: +0 and −0 are one weight.
    expect([...out].map((value) => value + 0)).toEqual([...expert].map((value) => value + 0));
  });

  it("take ties in index order", () => {
    const x = load(kernels, [0.5, -1, 0.5, -0.5, 2, 0.5]);
    const out = kernels.float32(6);
    const [half] = bitsOf(floatsOf([0x3f000000]));
    expect(kernels.keepLargest(x, half!, 2, out)).toBe(0);
    expect([...out]).toEqual([0.5, -1, 0.5, 0, 2, 0]);
  });

  it("refuse arrays from elsewhere, wrong lengths and too much memory", () => {
    const x = kernels.float32(4);
    if (kernels === both[0]) {
      expect(() => kernels.absoluteSum(new Float32Array(4))).toThrow(/kernel memory/);
      expect(() => kernels.subtract(x, kernels.float32(5), x)).toThrow(/lengths differ/);
    }
    expect(() => kernels.float32(bytes)).toThrow(/kernel memory is used up/);
    expect(() => kernels.release(-1)).toThrow(/no such mark/);
  });

  it("hand out aligned blocks", () => {
    kernels.bytes(3);
    expect(kernels.float32(1).byteOffset % 16).toBe(0);
  });
});
