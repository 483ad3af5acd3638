import type { Genome } from "../base/genome.ts";
import type { Recipe } from "../recipes/recipe.ts";

/** The facts of a merge method that a space needs: plain data, taken from the method registry by the caller. */
export interface MethodFacts {
  readonly name: string;
  readonly base: "required" | "optional" | "none";
  /** Allowed number of inputs besides the base, inclusive. */
  readonly inputs: readonly [number, number];
  readonly parameters: readonly {
    readonly name: string;
    readonly scope: "global" | "model";
    readonly type: "number" | "boolean" | "list";
    readonly default?: number;
    readonly range: readonly [number, number];
    readonly search?: {
      readonly range: readonly [number, number];
      readonly scale: "linear" | "log" | "logit";
      readonly start: number;
    };
  }[];
}

/** What is to be merged, as the space sees it. */
export interface SpaceContext {
  /** Short names of all models, in the experiment's order. */
  readonly models: readonly string[];
  /** Short name of the base, when there is one. */
  readonly base: string | undefined;
  /** Logical names of the tensors that would be merged, in natural order. */
  readonly tensors: readonly string[];
  /** Logical names of tensors that matching already copies because of the space's own freeze patterns. */
  readonly frozen?: readonly string[];
  /** Those of `tensors` whose elements are the same in every model: groups of only such tensors get no genes. */
  readonly identical?: readonly string[];
  readonly methods: readonly MethodFacts[];
  /** Seed of random masks. */
  readonly seed: number;
  /** Passed on to every recipe. */
  readonly compat?: "mergekit";
  /** Number of repeated blocks of every model; needed by spaces of kind `layers`. */
  readonly blocks?: number;
}

/** One gene of a genome, decoded, for people. */
export interface GeneValue {
  readonly name: string;
  readonly value: number | string;
  readonly model?: string;
  readonly group?: string;
}

/** A search space, ready to decode: genome in, recipe out, and back where that is possible. */
export interface Space {
  readonly title: string;
  /** Kind of genome it decodes. */
  readonly genome: Genome["kind"];
  /** Short names of the models whose weights are mixed, in the order of `segments` coefficients; without a task-vector base. */
  readonly models: readonly string[];
  /** Axis names such as "weight[rotate, layers.0]"; empty for `segments`. */
  readonly axes: readonly string[];
  readonly start: readonly number[];
  /** Per axis, how many values it takes (equal parts of [0, 1]); undefined for a continuous one. Absent: not told. */
  readonly levels?: readonly (number | undefined)[];
  /** Group name → tensors, in order; every merged tensor that differs between models is in exactly one group. */
  readonly groups: ReadonlyMap<string, readonly string[]>;
  /** Copied from the base. */
  readonly frozen: readonly string[];
  decode(genome: Genome): Recipe;
  genes(genome: Genome): readonly GeneValue[];
  /** Genomes of well-known recipes that the space can express: "uniform", each model alone (label = its name). */
  readonly initial: readonly { readonly label: string; readonly genome: Genome }[];
}
