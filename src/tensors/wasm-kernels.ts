import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { MendelError } from "../base/errors.ts";
import { createArena } from "./arena.ts";
import { keepLimit } from "./hash-uniform.ts";
import type { Kernels } from "./kernels.ts";
import { joinBase, withoutZeros } from "./weighted-terms.ts";

/** The module's exports; pointers are byte offsets, lengths count elements. */
interface KernelExports {
  heapBase(): number;
  widenF16(raw: number, out: number, n: number): void;
  widenBf16(raw: number, out: number, n: number): void;
  widenF64(raw: number, out: number, n: number): void;
  narrowF16(values: number, raw: number, n: number): void;
  narrowBf16(values: number, raw: number, n: number): void;
  narrowF64(values: number, raw: number, n: number): void;
  fill(out: number, value: number, n: number): void;
  scale(a: number, x: number, out: number, n: number): void;
  axpy(a: number, x: number, out: number, n: number): void;
  subtract(x: number, y: number, out: number, n: number): void;
  addScaled(base: number, a: number, x: number, out: number, n: number): void;
  weightedSum(count: number, pointers: number, weights: number, out: number, n: number): void;
  dot(x: number, y: number, n: number): number;
  absoluteSum(x: number, n: number): number;
  countNonFinite(x: number, n: number): number;
  magnitudeHistogram(x: number, histogram: number, n: number): void;
  magnitudeHistogramLow(x: number, upper: number, histogram: number, n: number): void;
  keepLargest(x: number, threshold: number, ties: number, out: number, n: number): number;
  keepRandom(
    x: number,
    k0: number,
    k1: number,
    start: number,
    limit: number,
    out: number,
    n: number,
  ): void;
  selectNonzero(mask: number, x: number, y: number, out: number, n: number): void;
  electAndMerge(
    count: number,
    pointers: number,
    weights: number,
    normalize: number,
    out: number,
    n: number,
  ): void;
  electTowards(
    count: number,
    pointers: number,
    weights: number,
    strengths: number,
    normalize: number,
    lambda: number,
    base: number,
    out: number,
    n: number,
  ): void;
}

const pageBytes = 65_536;
/** WebAssembly's 32-bit address space. */
const largestMemory = 65_536 * pageBytes;

/** Beside the compiled file; a source run (tests) finds the built module in `dist/`. */
const places = ["./kernels.wasm", "../../dist/tensors/kernels.wasm"];

let compiled: WasmModule | undefined;

/** The module, compiled once per thread. */
function kernelModule(): WasmModule {
  if (compiled !== undefined) return compiled;
  const path = places
    .map((place) => fileURLToPath(new URL(place, import.meta.url)))
    .find(existsSync);
  if (path === undefined) {
    throw new MendelError("internal", "kernels.wasm is missing from this installation", {
      hint: "build it with `npm run build`, or install the package again",
    });
  }
  compiled = new WebAssembly.Module(readFileSync(path));
  return compiled;
}

/**
 * Kernels over a fresh WebAssembly memory of a fixed size.
 *
 * @param options.bytes memory for arrays; rounded up to whole 64 KiB pages
 * @throws MendelError `resource` when the memory cannot be had
 */
export function createKernels(options: { readonly bytes: number }): Kernels {
  const module = kernelModule();
  const memory = allocateMemory(options.bytes + pageBytes);
  const instance = new WebAssembly.Instance(module, { env: { memory } });
  const wasm = instance.exports as Record<keyof KernelExports, unknown> as KernelExports;
  const buffer = memory.buffer;
  const arena = createArena(wasm.heapBase(), buffer.byteLength);

  const at = (view: Float32Array | Uint8Array | Uint32Array): number => {
    if (view.buffer !== buffer) throw new Error("array does not lie in kernel memory");
    return view.byteOffset;
  };
  const same = (out: Float32Array, ...xs: readonly Float32Array[]): number => {
    for (const x of xs) if (x.length !== out.length) throw new Error("array lengths differ");
    return out.length;
  };
  const room = (dtypeBytes: number, raw: Uint8Array, values: Float32Array): number => {
    if (raw.length !== values.length * dtypeBytes) throw new Error("byte length does not fit");
    return values.length;
  };
  const float64 = (values: readonly number[]): number => {
    const offset = arena.allocate(values.length * 8);
    new Float64Array(buffer, offset, values.length).set(values);
    return offset;
  };
  const pointers = (xs: readonly Float32Array[]): number => {
    const offset = arena.allocate(xs.length * 4);
    new Uint32Array(buffer, offset, xs.length).set(xs.map(at));
    return offset;
  };
  /** Runs `work` and gives back the argument arrays it allocated. */
  const withArguments = (work: () => void): void => {
    const mark = arena.mark();
    try {
      work();
    } finally {
      arena.release(mark);
    }
  };

  const weightedSum: Kernels["weightedSum"] = (weights, xs, out) => {
    const n = same(out, ...xs);
    const terms = withoutZeros(weights, xs);
    if (terms.weights.length === 0) wasm.fill(at(out), 0, n);
    else {
      withArguments(() => {
        const arrays = pointers(terms.xs);
        wasm.weightedSum(terms.xs.length, arrays, float64(terms.weights), at(out), n);
      });
    }
  };

  return {
    memory: buffer,
    float32: (length) => new Float32Array(buffer, arena.allocate(length * 4), length),
    bytes: (length) => new Uint8Array(buffer, arena.allocate(length), length),
    counters: (length) => new Uint32Array(buffer, arena.allocate(length * 4), length).fill(0),
    mark: arena.mark,
    release: arena.release,
    widen(dtype, raw, out) {
      if (dtype === "f32") {
        room(4, raw, out);
        new Uint8Array(buffer, at(out), raw.length).set(raw);
      } else if (dtype === "f64") wasm.widenF64(at(raw), at(out), room(8, raw, out));
      else if (dtype === "f16") wasm.widenF16(at(raw), at(out), room(2, raw, out));
      else wasm.widenBf16(at(raw), at(out), room(2, raw, out));
    },
    narrow(dtype, values, raw) {
      if (dtype === "f32") {
        room(4, raw, values);
        raw.set(new Uint8Array(buffer, at(values), raw.length));
      } else if (dtype === "f64") wasm.narrowF64(at(values), at(raw), room(8, raw, values));
      else if (dtype === "f16") wasm.narrowF16(at(values), at(raw), room(2, raw, values));
      else wasm.narrowBf16(at(values), at(raw), room(2, raw, values));
    },
    fill: (out, value) => wasm.fill(at(out), value, out.length),
    copy(x, out) {
      same(out, x);
      // Bytes, so that no NaN is touched on the way.
      new Uint8Array(buffer, at(out), out.byteLength).set(
        new Uint8Array(buffer, at(x), x.byteLength),
      );
    },
    scale: (a, x, out) => wasm.scale(a, at(x), at(out), same(out, x)),
    axpy: (a, x, out) => wasm.axpy(a, at(x), at(out), same(out, x)),
    subtract: (x, y, out) => wasm.subtract(at(x), at(y), at(out), same(out, x, y)),
    addScaled: (base, a, x, out) => wasm.addScaled(at(base), a, at(x), at(out), same(out, base, x)),
    weightedSum,
    weightedDeltaSum(weights, base, xs, out) {
      const terms = joinBase(weights, base, xs);
      weightedSum(terms.weights, terms.xs, out);
    },
    dot: (x, y) => wasm.dot(at(x), at(y), same(x, y)),
    absoluteSum: (x) => wasm.absoluteSum(at(x), x.length),
    countNonFinite: (x) => wasm.countNonFinite(at(x), x.length),
    magnitudeHistogram: (x, histogram) => wasm.magnitudeHistogram(at(x), at(histogram), x.length),
    magnitudeHistogramLow: (x, upper, histogram) =>
      wasm.magnitudeHistogramLow(at(x), upper, at(histogram), x.length),
    keepLargest: (x, threshold, ties, out) =>
      wasm.keepLargest(at(x), threshold, ties, at(out), same(out, x)) >>> 0,
    keepRandom: (x, k0, k1, start, p, out) =>
      wasm.keepRandom(at(x), k0, k1, start, keepLimit(p), at(out), same(out, x)),
    selectNonzero: (mask, x, y, out) =>
      wasm.selectNonzero(at(mask), at(x), at(y), at(out), same(out, mask, x, y)),
    electAndMerge(weights, deltas, normalize, out) {
      const n = same(out, ...deltas);
      withArguments(() => {
        const arrays = pointers(deltas);
        const count = deltas.length;
        wasm.electAndMerge(count, arrays, float64(weights), normalize ? 1 : 0, at(out), n);
      });
    },
    electTowards(weights, factors, base, xs, normalize, lambda, out) {
      const n = same(out, base, ...xs);
      withArguments(() => {
        const strengths = float64(weights.map((weight, k) => weight * (factors[k] as number)));
        wasm.electTowards(
          xs.length,
          pointers(xs),
          float64(weights),
          strengths,
          normalize ? 1 : 0,
          lambda,
          at(base),
          at(out),
          n,
        );
      });
    },
  };
}

function allocateMemory(bytes: number): WasmMemory {
  const pages = Math.ceil(bytes / pageBytes);
  const tooMuch = (cause?: unknown): MendelError =>
    new MendelError("resource", `cannot allocate ${bytes} bytes of kernel memory`, {
      hint: "use fewer workers, or free some memory",
      cause,
    });
  if (!(pages > 0 && pages * pageBytes <= largestMemory)) throw tooMuch();
  try {
    return new WebAssembly.Memory({ initial: pages, maximum: pages });
  } catch (cause) {
    throw tooMuch(cause);
  }
}
