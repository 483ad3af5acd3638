import { createArena } from "./arena.ts";
import { keepLimit, uniformBits } from "./hash-uniform.ts";
import type { Kernels } from "./kernels.ts";
import { joinBase, withoutZeros } from "./weighted-terms.ts";

const bitsOfOne = new Uint32Array(1);
const floatOfOne = new Float32Array(bitsOfOne.buffer);

function floatOf(bits: number): number {
  bitsOfOne[0] = bits;
  return floatOfOne[0]!;
}

/** The integer view of an array: bits move through it untouched, NaN payloads included. */
function bitsOf(x: Float32Array): Uint32Array {
  return new Uint32Array(x.buffer, x.byteOffset, x.length);
}

/** float16 bits → float32 bits. */
function widenF16(half: number): number {
  const sign = (half & 0x8000) << 16;
  const exponent = (half >>> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 31) return (sign | 0x7f800000 | (fraction << 13)) >>> 0;
  const scale = exponent === 0 ? 2 ** -24 : 2 ** (exponent - 25);
  floatOfOne[0] = (exponent === 0 ? fraction : fraction + 1024) * scale;
  return (sign | bitsOfOne[0]!) >>> 0;
}

/** The integer nearest to a value ≥ 0, ties to even. */
function roundEven(value: number): number {
  const below = Math.floor(value);
  const rest = value - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
}

/** float32 bits → float16 bits, nearest even. */
function narrowF16(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00 | ((magnitude >>> 13) & 0x1ff);
  const value = floatOf(magnitude);
  if (value >= 65520) return sign | 0x7c00;
  if (value < 2 ** -14) return sign | roundEven(value * 2 ** 24);
  const exponent = (magnitude >>> 23) - 127;
  // In units of the last place; a carry to 2048 is the next power of two.
  const fraction = roundEven(value * 2 ** (10 - exponent)) - 1024;
  return sign | (((exponent + 15) << 10) + fraction);
}

/** float32 bits → bfloat16 bits, nearest even. */
function narrowBf16(bits: number): number {
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return roundEven(bits / 65536) & 0xffff;
}

const halves = (raw: Uint8Array): DataView =>
  new DataView(raw.buffer, raw.byteOffset, raw.byteLength);

/** Eight lanes of float64, joined in one fixed order: the reduction every kernel uses. */
function reduce(length: number, term: (i: number) => number): number {
  const lane = new Float64Array(8);
  for (let i = 0; i < length; i++) lane[i & 7] = lane[i & 7]! + term(i);
  const even = lane[0]! + lane[4]! + (lane[2]! + lane[6]!);
  const odd = lane[1]! + lane[5]! + (lane[3]! + lane[7]!);
  return even + odd;
}

function agrees(value: number, positive: boolean): boolean {
  return positive ? value > 0 : value < 0;
}

function weightedSum(weights: readonly number[], xs: readonly Float32Array[], out: Float32Array) {
  const terms = withoutZeros(weights, xs);
  const count = terms.xs.length;
  if (count === 0) {
    out.fill(0);
    return;
  }
  for (let i = 0; i < out.length; i++) {
    let sum = terms.weights[0]! * terms.xs[0]![i]!;
    for (let k = 1; k < count; k++) sum += terms.weights[k]! * terms.xs[k]![i]!;
    out[i] = sum;
  }
}

/**
 * The kernels in plain loops: the definition the WebAssembly ones are tested against, bit for bit. Far slower.
 *
 * @param options.bytes memory for arrays
 */
export function createPlainKernels(options: { readonly bytes: number }): Kernels {
  const memory = new ArrayBuffer(options.bytes);
  const arena = createArena(0, options.bytes);
  return {
    memory,
    float32: (length) => new Float32Array(memory, arena.allocate(length * 4), length),
    bytes: (length) => new Uint8Array(memory, arena.allocate(length), length),
    counters: (length) => new Uint32Array(memory, arena.allocate(length * 4), length).fill(0),
    mark: arena.mark,
    release: arena.release,
    widen(dtype, raw, out) {
      const view = halves(raw);
      const bits = bitsOf(out);
      for (let i = 0; i < out.length; i++) {
        if (dtype === "f32") bits[i] = view.getUint32(i * 4, true);
        else if (dtype === "bf16") bits[i] = view.getUint16(i * 2, true) << 16;
        else if (dtype === "f16") bits[i] = widenF16(view.getUint16(i * 2, true));
        else {
          const value = view.getFloat64(i * 8, true);
          const sign = view.getUint32(i * 8 + 4, true) & 0x80000000;
          if (Number.isNaN(value)) bits[i] = sign | 0x7fc00000;
          else out[i] = value;
        }
      }
    },
    narrow(dtype, values, raw) {
      const view = halves(raw);
      const bits = bitsOf(values);
      for (let i = 0; i < values.length; i++) {
        if (dtype === "f32") view.setUint32(i * 4, bits[i]!, true);
        else if (dtype === "bf16") view.setUint16(i * 2, narrowBf16(bits[i]!), true);
        else if (dtype === "f16") view.setUint16(i * 2, narrowF16(bits[i]!), true);
        else if (Number.isNaN(values[i])) {
          view.setUint32(i * 8, 0, true);
          view.setUint32(i * 8 + 4, (bits[i]! & 0x80000000) | 0x7ff80000, true);
        } else view.setFloat64(i * 8, values[i]!, true);
      }
    },
    fill(out, value) {
      out.fill(value);
    },
    copy(x, out) {
      bitsOf(out).set(bitsOf(x));
    },
    scale(a, x, out) {
      const factor = Math.fround(a);
      for (let i = 0; i < out.length; i++) out[i] = factor * x[i]!;
    },
    axpy(a, x, out) {
      const factor = Math.fround(a);
      for (let i = 0; i < out.length; i++) out[i] = out[i]! + Math.fround(factor * x[i]!);
    },
    subtract(x, y, out) {
      for (let i = 0; i < out.length; i++) out[i] = x[i]! - y[i]!;
    },
    addScaled(base, a, x, out) {
      for (let i = 0; i < out.length; i++) out[i] = base[i]! + a * x[i]!;
    },
    weightedSum,
    weightedDeltaSum(weights, base, xs, out) {
      const terms = joinBase(weights, base, xs);
      weightedSum(terms.weights, terms.xs, out);
    },
    dot: (x, y) => reduce(x.length, (i) => x[i]! * y[i]!),
    absoluteSum: (x) => reduce(x.length, (i) => Math.abs(x[i]!)),
    countNonFinite: (x) => x.reduce((count, value) => count + (Number.isFinite(value) ? 0 : 1), 0),
    magnitudeHistogram(x, histogram) {
      for (const bits of bitsOf(x)) {
        const bin = (bits & 0x7fffffff) >>> 16;
        histogram[bin] = histogram[bin]! + 1;
      }
    },
    magnitudeHistogramLow(x, upper, histogram) {
      for (const bits of bitsOf(x)) {
        if ((bits & 0x7fffffff) >>> 16 !== upper) continue;
        histogram[bits & 0xffff] = histogram[bits & 0xffff]! + 1;
      }
    },
    keepLargest(x, threshold, ties, out) {
      const bits = bitsOf(x);
      const kept = bitsOf(out);
      let left = ties;
      for (let i = 0; i < out.length; i++) {
        const magnitude = bits[i]! & 0x7fffffff;
        const tie = magnitude === threshold && left > 0;
        if (tie) left--;
        kept[i] = tie || magnitude > threshold ? bits[i]! : 0;
      }
      return left;
    },
    keepRandom(x, k0, k1, start, p, out) {
      const limit = keepLimit(p);
      const bits = bitsOf(x);
      const kept = bitsOf(out);
      for (let i = 0; i < out.length; i++) {
        kept[i] = uniformBits({ k0, k1 }, start + i) < limit ? bits[i]! : 0;
      }
    },
    selectNonzero(mask, x, y, out) {
      const left = bitsOf(x);
      const right = bitsOf(y);
      const chosen = bitsOf(out);
      for (let i = 0; i < out.length; i++) chosen[i] = mask[i] !== 0 ? left[i]! : right[i]!;
    },
    electAndMerge(weights, deltas, normalize, out) {
      for (let i = 0; i < out.length; i++) {
        let sum = 0;
        for (let k = 0; k < deltas.length; k++) sum += weights[k]! * deltas[k]![i]!;
        const positive = sum >= 0;
        let total = 0;
        let share = 0;
        for (let k = 0; k < deltas.length; k++) {
          const value = weights[k]! * deltas[k]![i]!;
          total += agrees(value, positive) ? value : 0;
          share += agrees(value, positive) ? weights[k]! : 0;
        }
        out[i] = normalize ? total / (share === 0 ? 1 : share) : total;
      }
    },
    electTowards(weights, factors, base, xs, normalize, lambda, out) {
      const strengths = weights.map((weight, k) => weight * factors[k]!);
      for (let i = 0; i < out.length; i++) {
        const origin = base[i]!;
        let sum = 0;
        for (let k = 0; k < xs.length; k++) sum += strengths[k]! * (xs[k]![i]! - origin);
        const positive = sum >= 0;
        let total = 0;
        let taken = 0;
        let share = 0;
        for (let k = 0; k < xs.length; k++) {
          const expert = xs[k]![i]!;
          if (!agrees(strengths[k]! * (expert - origin), positive)) continue;
          total += strengths[k]! * expert;
          taken += strengths[k]!;
          share += weights[k]!;
        }
        const divisor = normalize && share !== 0 ? share : 1;
        out[i] = (lambda * total) / divisor + (1 - (lambda * taken) / divisor) * origin;
      }
    },
  };
}
