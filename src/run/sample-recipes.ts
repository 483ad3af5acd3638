import type { Recipe } from "../recipes/recipe.ts";
import type { Space } from "../spaces/space.ts";

/** A gene with more choices than this does not show all of them to the programs; a range always shows another value. */
const STEPS = 16;
/** The methods of a space share the first coordinate evenly; more than these do not show all of them. */
const MAX_METHODS = 8;
/** Segments of the sample of a piecewise space: a few generations of one break each. */
const SEGMENTS = 8;

/**
 * Recipes of a space that show what candidates are going to be like: every method, and of every gene with choices each choice
 * for each model and group.
 */
export function sampleRecipes(space: Space): readonly Recipe[] {
  if (space.genome === "segments") return [segmentSample(space)];
  const methods = space.axes[0] === "method" ? MAX_METHODS : 1;
  const recipes: Recipe[] = [];
  for (let step = 0; step < STEPS; step++) {
    // All genes move together: choices do not depend on one another.
    const at = (step + 0.5) / STEPS;
    for (let method = 0; method < methods; method++) {
      const values = space.axes.map((axis, i) =>
        i === 0 && axis === "method" ? (method + 0.5) / MAX_METHODS : at,
      );
      recipes.push(space.decode({ kind: "vector", values }));
    }
  }
  return recipes;
}

function segmentSample(space: Space): Recipe {
  const breaks = Array.from({ length: SEGMENTS }, (_, s) => s);
  const share = 1 / space.models.length;
  return space.decode({
    kind: "segments",
    breaks,
    coefficients: space.models.map((_, k) => breaks.map((s) => share * (1 + ((s + k) % 2) / 8))),
  });
}
