/**
 * Element-wise arithmetic on weights in WebAssembly SIMD. Every result is defined to the last bit: element-wise float32
 * operations are single IEEE operations in the order written here, reductions run in float64 over a fixed number of lanes.
 *
 * All array arguments must be views over this instance's memory (see `alloc`); lengths of one call must agree.
 */
export interface Kernels {
  /** The instance's memory; views stay valid for the instance's life because it never grows. */
  readonly memory: ArrayBuffer;
  /** A fresh, uninitialized, 16-byte-aligned block. @throws MendelError `resource` when the memory is used up. */
  float32(length: number): Float32Array;
  bytes(length: number): Uint8Array;
  /** A histogram: `length` counters, all zero. */
  counters(length: number): Uint32Array;
  /** Everything allocated after `mark` is freed by `release(mark)`. */
  mark(): number;
  release(mark: number): void;

  /**
   * out[i] = float32 of the i-th element of `raw` (f16, bf16 by value; f64 rounded to nearest even; f32 copied). NaN stays NaN
   * of its sign: bf16 and f16 keep the payload, f64 becomes the quiet NaN.
   */
  widen(dtype: "f64" | "f32" | "f16" | "bf16", raw: Uint8Array, out: Float32Array): void;
  /** raw = values rounded to nearest even in the dtype. NaN becomes a quiet NaN of its sign. */
  narrow(dtype: "f64" | "f32" | "f16" | "bf16", values: Float32Array, raw: Uint8Array): void;

  fill(out: Float32Array, value: number): void;
  copy(x: Float32Array, out: Float32Array): void;
  /** out = a·x, one float32 multiplication with a rounded to float32. */
  scale(a: number, x: Float32Array, out: Float32Array): void;
  /** out = out + a·x: float32 multiply, then float32 add. */
  axpy(a: number, x: Float32Array, out: Float32Array): void;
  /** out = x − y. */
  subtract(x: Float32Array, y: Float32Array, out: Float32Array): void;
  /**
   * out = float32(Σ_k w_k·x_k), accumulated in float64 in the order given, rounded once. Zero weights are left out, and the
   * sum starts with its first product: a single weight of 1 copies its array bit for bit. No weights: zeros.
   */
  weightedSum(weights: readonly number[], xs: readonly Float32Array[], out: Float32Array): void;
  /**
   * out = base + Σ_k w_k·(x_k − base), computed as float32(Σ_k w_k·x_k + (1 − Σ_k w_k)·base) in float64, experts in the
   * order given, rounded once. Zero coefficients are left out, so that coefficients 1 and 0 return a parent bit for bit.
   */
  weightedDeltaSum(
    weights: readonly number[],
    base: Float32Array,
    xs: readonly Float32Array[],
    out: Float32Array,
  ): void;
  /** Σ x·y in float64 (products of float32 are exact in float64). */
  dot(x: Float32Array, y: Float32Array): number;
  /** Σ |x| in float64. */
  absoluteSum(x: Float32Array): number;
  /** Number of NaN and infinite elements. */
  countNonFinite(x: Float32Array): number;

  /**
   * Adds to `histogram` (65,536 uint32 counts) the upper 16 bits of |x|'s bit pattern (sign cleared): magnitude order of
   * float32 is integer order of these bits.
   */
  magnitudeHistogram(x: Float32Array, histogram: Uint32Array): void;
  /** The same for the lower 16 bits of those elements whose upper 16 bits equal `upper`. */
  magnitudeHistogramLow(x: Float32Array, upper: number, histogram: Uint32Array): void;
  /**
   * Magnitude selection: out = x where |x|'s bits > `threshold`, or == `threshold` while `ties` last; else 0.
   * @returns how many ties are left for the next block
   */
  keepLargest(x: Float32Array, threshold: number, ties: number, out: Float32Array): number;
  /** out = x where u(start + i) < p, else 0; u is the stateless hash of `hash-uniform.ts` with keys k0, k1. */
  keepRandom(
    x: Float32Array,
    k0: number,
    k1: number,
    start: number,
    p: number,
    out: Float32Array,
  ): void;
  /**
   * Sign election and disjoint merge of TIES on deltas: with v_k = w_k·d_k, sign = (Σ v_k ≥ 0 ? + : −),
   * out = Σ_{sgn(v_k)=sign} v_k, divided by Σ_{sgn(v_k)=sign} w_k when `normalize` (0 → 1). Float64 inside, rounded once.
   */
  electAndMerge(
    weights: readonly number[],
    deltas: readonly Float32Array[],
    normalize: boolean,
    out: Float32Array,
  ): void;
  /**
   * TIES steps 2 to 4 without forming deltas: experts arrive as whole weights, equal to the base where they abstain.
   * With s_k = w_k·f_k the vote of an expert is s_k·(x_k − base); over those of the elected sign (Σ ≥ 0 elects +)
   * out = lambda·Σ s_k·x_k / N + (1 − lambda·Σ s_k / N)·base, N = Σ w_k of the agreeing (0 → 1) when `normalize`, else 1.
   * Float64 inside, rounded once. An element that one expert owns at strength 1 is that expert's, exactly.
   */
  electTowards(
    weights: readonly number[],
    factors: readonly number[],
    base: Float32Array,
    xs: readonly Float32Array[],
    normalize: boolean,
    lambda: number,
    out: Float32Array,
  ): void;
  /** out = x where mask ≠ 0, else y. */
  selectNonzero(mask: Float32Array, x: Float32Array, y: Float32Array, out: Float32Array): void;
  /** out = float32(base + a·x) with float64 inside. */
  addScaled(base: Float32Array, a: number, x: Float32Array, out: Float32Array): void;
}
