import type { Genome } from "../base/genome.ts";
import type { Recipe } from "../recipes/recipe.ts";
import { wholeGroup } from "../recipes/tensor-groups.ts";
import type { MethodInputs } from "./method-inputs.ts";
import type { Space } from "./space.ts";

/** The merge method whose recipes hold weights that are piecewise constant over all parameters in a row. */
export const segmentsMethod = "segments";

/**
 * The space of M2N2: no axes; a genome is breaks in the flat parameter index and each model's share between them, and the
 * optimizer (`natural_niches`) makes genomes by crossing others.
 */
export function segmentsSpace(
  title: string,
  { models, base }: MethodInputs,
  merged: readonly string[],
  frozen: readonly string[],
  common: Pick<Recipe, "seed" | "freeze" | "compat">,
): Space {
  const segmentsOf = (genome: Genome) => {
    if (genome.kind !== "segments" || genome.coefficients.length !== models.length) {
      throw new Error(`this space has segments of ${models.length} models`);
    }
    return genome;
  };
  const everywhere = (shares: readonly number[]): Genome => ({
    kind: "segments",
    breaks: [0],
    coefficients: shares.map((share) => [share]),
  });
  const experts = models.filter((model) => model !== base);
  const soup = experts.length > 1 ? experts : models;
  const initial = [
    {
      label: "uniform",
      genome: everywhere(models.map((model) => (soup.includes(model) ? 1 / soup.length : 0))),
    },
    ...models.map((label) => ({
      label,
      genome: everywhere(models.map((model) => Number(model === label))),
    })),
  ];
  return {
    title,
    genome: "segments",
    models,
    axes: [],
    start: [],
    groups: new Map([[wholeGroup, merged]]),
    frozen,
    decode: (genome) => {
      const { breaks, coefficients } = segmentsOf(genome);
      return {
        mergeMethod: segmentsMethod,
        body: {
          kind: "models",
          models: models.map((model, k) => ({
            model: { model },
            parameters: { weights: coefficients[k] as readonly number[] },
          })),
        },
        ...(base === undefined ? {} : { baseModel: { model: base } }),
        parameters: { breaks },
        passthrough: {},
        ...common,
      };
    },
    genes: (genome) => {
      const { breaks, coefficients } = segmentsOf(genome);
      return models.flatMap((model, k) =>
        breaks.map((from, s) => ({
          name: "share",
          value: coefficients[k]?.[s] as number,
          model,
          group: `from ${from}`,
        })),
      );
    },
    initial,
  };
}
