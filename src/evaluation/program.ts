import type { Recipe } from "../recipes/recipe.ts";
import type { Feeds, GraphSignature, Outputs } from "./session.ts";

/**
 * A model whose weights are made from recipes: what a search compiles once and runs for every candidate.
 *
 * Promises: `load` leaves nothing of the previous candidate behind; after it, equal recipes give equal outputs on equal
 * feeds, bit for bit, in every worker; a failed `load` leaves the program usable for the next one.
 */
export interface Program {
  /**
   * `slab`: weights computed into one block of memory; `basis`: weights summed inside the graph; `path`: a walk through blocks
   * of whole models; `fixed`: an existing model that ignores recipes.
   */
  readonly kind: "slab" | "basis" | "path" | "fixed";
  /** Data inputs and outputs; inputs that carry weights are not among them. */
  readonly signature: GraphSignature;
  /**
   * @throws MendelError when the recipe cannot be materialized; `non-finite` when its weights are not finite
   */
  load(recipe: Recipe): Promise<void>;
  /** Computes in the calling thread. @throws MendelError `mismatch` when ONNX Runtime fails */
  run(feeds: Feeds, outputs: readonly string[]): Promise<Outputs>;
  release(): Promise<void>;
}
