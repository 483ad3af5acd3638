import type { Kernels } from "../tensors/kernels.ts";
import type { Shape } from "../tensors/shape.ts";

/** One parameter of a merge method, said once: validation and search axes derive from it, and a test holds the docs to it. */
export interface MethodParameter {
  /** mergekit's spelling. */
  readonly name: string;
  readonly description: string;
  /** One value per tensor, or one per tensor and non-base model. */
  readonly scope: "global" | "model";
  readonly type: "number" | "boolean" | "list";
  /** Absent means required. */
  readonly default?: number;
  /** What recipes may hold, inclusive. */
  readonly range: readonly [number, number];
  /** What a search explores unless told otherwise. */
  readonly search?: {
    readonly range: readonly [number, number];
    readonly scale: "linear" | "log" | "logit";
    readonly start: number;
  };
}

/** Parameter values of one tensor, already looked up. A boolean is 0 or 1. */
export interface TensorParameters {
  readonly global: Readonly<Record<string, number>>;
  /** One record per input in input order; the base's record holds defaults only. */
  readonly models: readonly Readonly<Record<string, number>>[];
  /** Raw lists of `list` parameters (segment breaks and weights), by name; per-model lists under `models[i]`. */
  readonly lists?: {
    readonly global: Readonly<Record<string, readonly number[]>>;
    readonly models: readonly Readonly<Record<string, readonly number[]>>[];
  };
}

/** One tensor of one source. Elements arrive as float32, in logical layout. */
export interface SourceTensor {
  /** Identity of the source in recipes and in the seeds of random masks. */
  readonly modelId: string;
  /**
   * Writes elements [start, start + out.length) as float32 into `out`, which lies in kernel memory.
   * @throws MendelError `non-finite` never: finiteness is checked when sources are admitted.
   */
  load(start: number, out: Float32Array): void;
}

/** Everything a method may look at for one output tensor. */
export interface TensorJob {
  readonly name: string;
  readonly shape: Shape;
  /** Number of elements. */
  readonly length: number;
  /** Inputs in recipe order. When the method has a base and it is among them, `baseIndex` is its position. */
  readonly inputs: readonly SourceTensor[];
  readonly baseIndex: number | undefined;
  readonly parameters: TensorParameters;
  readonly seed: number;
  /** Follow mergekit where it departs from the paper. */
  readonly compat: boolean;
  /** Flat position of this tensor's first element among all merged elements (natural order of names), for `segments`. */
  readonly offset: number;
  readonly kernels: Kernels;
  /** Elements per block; a fixed constant, so that reductions have one order on every machine. */
  readonly blockLength: number;
  /**
   * Stores one finished block: `values` (float32, in kernel memory) are elements [start, start + values.length).
   * Blocks may be stored in any order, each exactly once.
   */
  store(start: number, values: Float32Array): void;
}

/** What can be said of a job without looking at elements. */
export type JobFacts = Pick<
  TensorJob,
  "name" | "shape" | "length" | "baseIndex" | "parameters" | "seed" | "compat" | "offset"
> & { readonly inputs: readonly Pick<SourceTensor, "modelId">[] };

/** What a basis needs to know of a tensor: the facts, and the Gram matrix in place of the elements. */
export interface BasisJob extends JobFacts {
  /** ⟨θ_a, θ_b⟩ of two inputs as flat vectors, float64. */
  gram(a: number, b: number): number;
}

/** An array that a method derives from an input whatever the coefficients: made once, summed for every candidate. */
export interface DerivedEntry {
  /** Tells apart what is made from one input (and the base) in different ways: structural parameters and seeds, as text. */
  readonly key: string;
  /** Stores the elements with `job.store`, each exactly once. */
  make(job: TensorJob): void;
}

/** One summand of W = Σ c·S. */
export interface BasisTerm {
  readonly input: number;
  readonly coefficient: number;
  /** Absent: the input as it is. */
  readonly derived?: DerivedEntry;
}

/**
 * A merge method.
 *
 * Promises that types cannot make: `merge` is a pure function of the job (same job, same bytes, on every machine); it
 * reads inputs and never writes them; it covers every element of the output exactly once; it uses memory per block or
 * per tensor, never per model; it allocates kernel memory only between `kernels.mark()` and `kernels.release()`.
 */
export interface MergeMethod {
  /** Registered name, mergekit's spelling. */
  readonly name: string;
  readonly title: string;
  readonly description: string;
  /** Paper or origin, with a link. */
  readonly reference: string;
  /** `required`: must have one and it is not counted as an input; `optional`; `none`: a base is refused. */
  readonly base: "required" | "optional" | "none";
  /**
   * What a `base_model` that is not listed under `models` means to a method without a base: an `input` like the others
   * (mergekit's rule, the default), only the `donor` of copied tensors, or a donor that mergekit averages in.
   */
  readonly unlistedBase?: "input" | "donor" | "input under compat";
  /** With slices: tensors outside of the layers are the base's, where there is one. */
  readonly outerFromBase?: boolean;
  /** Allowed number of inputs besides the base, inclusive. */
  readonly inputs: readonly [number, number];
  readonly parameters: readonly MethodParameter[];
  /** Whether results depend on the recipe's seed and on the identities of the models. */
  readonly randomMasks?: boolean;
  /**
   * Cross-parameter rules for one tensor, beyond ranges (weights that sum to zero, for instance).
   * @returns what is wrong, or undefined
   */
  check?(parameters: TensorParameters): string | undefined;
  /**
   * The same tensor as a weighted sum of arrays that do not depend on the coefficients, where the method is linear in them
   * (or knows them from the Gram matrix). Agrees with `merge` up to rounding.
   *
   * @returns undefined where these parameters allow no such form
   */
  basis?(job: BasisJob): readonly BasisTerm[] | undefined;
  merge(job: TensorJob): void;
}
