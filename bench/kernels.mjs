// Compares the WebAssembly kernels with their plain twins on one core and prints JSON: milliseconds per call (the best of
// several), gigabytes moved per second, and the ratio. Run `npm run build` first, then `node bench/kernels.mjs [elements]`.
import { createPlainKernels } from "../dist/tensors/plain-kernels.js";
import { createKernels } from "../dist/tensors/wasm-kernels.js";

const length = Number(process.argv[2] ?? 1 << 20);
const repeats = 7;
/** Working set of the largest case: eight arrays of float32, raw bytes and a histogram. */
const bytes = length * 4 * 12 + (1 << 21);

/** Name → setup that returns the work of one call and the bytes it reads and writes. */
const cases = {
  "widen bf16": (k, a) => [() => k.widen("bf16", a.raw, a.out), length * 6],
  "widen f16": (k, a) => [() => k.widen("f16", a.raw, a.out), length * 6],
  "narrow bf16": (k, a) => [() => k.narrow("bf16", a.x[0], a.raw), length * 6],
  "narrow f16": (k, a) => [() => k.narrow("f16", a.x[0], a.raw), length * 6],
  "weighted sum of 3": (k, a) => [() => k.weightedSum([0.6, 0.3, 0.1], a.x, a.out), length * 16],
  "bf16 sum of 3": (k, a) => [
    () => {
      for (const x of a.x) k.widen("bf16", a.raw, x);
      k.weightedSum([0.6, 0.3, 0.1], a.x, a.out);
      k.narrow("bf16", a.out, a.raw);
    },
    length * 8,
  ],
  axpy: (k, a) => [() => k.axpy(0.3, a.x[0], a.out), length * 12],
  dot: (k, a) => [() => k.dot(a.x[0], a.x[1]), length * 8],
  "absolute sum": (k, a) => [() => k.absoluteSum(a.x[0]), length * 4],
  "magnitude histogram": (k, a) => [() => k.magnitudeHistogram(a.x[0], a.bins), length * 4],
  "keep largest": (k, a) => [() => k.keepLargest(a.x[0], 0x3e800000, 3, a.out), length * 8],
  "keep random": (k, a) => [() => k.keepRandom(a.x[0], 1, 2, 0, 0.5, a.out), length * 8],
  "elect and merge 3": (k, a) => [
    () => k.electAndMerge([0.6, 0.3, 0.1], a.x, true, a.out),
    length * 16,
  ],
  "elect towards 3": (k, a) => [
    () => k.electTowards([0.6, 0.3, 0.1], [1, 1, 1], a.base, a.x, true, 1, a.out),
    length * 20,
  ],
};

function arrays(kernels) {
  const wave = (frequency) => {
    const x = kernels.float32(length);
    for (let i = 0; i < length; i++) x[i] = ((i * frequency) % 1009) / 1009 - 0.5;
    return x;
  };
  const x = [3, 7, 11].map(wave);
  const raw = kernels.bytes(length * 2);
  kernels.narrow("bf16", x[0], raw);
  return { x, raw, base: wave(5), out: kernels.float32(length), bins: kernels.counters(65_536) };
}

function best(work) {
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < repeats; i++) {
    const start = performance.now();
    work();
    least = Math.min(least, performance.now() - start);
  }
  return least;
}

const result = { elements: length, node: process.version, arch: process.arch, kernels: {} };
for (const [name, setup] of Object.entries(cases)) {
  const [fast, slow] = [createKernels, createPlainKernels].map((create) => {
    const kernels = create({ bytes });
    const [work, moved] = setup(kernels, arrays(kernels));
    return { milliseconds: best(work), moved };
  });
  result.kernels[name] = {
    wasmMs: Number(fast.milliseconds.toFixed(3)),
    plainMs: Number(slow.milliseconds.toFixed(3)),
    wasmGBps: Number((fast.moved / fast.milliseconds / 1e6).toFixed(2)),
    ratio: Number((slow.milliseconds / fast.milliseconds).toFixed(1)),
  };
}
console.log(JSON.stringify(result, null, 2));
