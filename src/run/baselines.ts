import type { ModelRef, Recipe } from "../recipes/recipe.ts";

/** A model everyone compares with: scored before the search, recorded as a trial. */
export interface Baseline {
  /** "base", a parent's name, "uniform", or "lambda=0.3". */
  readonly label: string;
  /** Parents are what relative constraints and "best parent" refer to. */
  readonly kind: "parent" | "base" | "uniform" | "lambda";
  readonly recipe: Recipe;
}

/** Scalings of the summed task vectors that are tried: enough to see where the hill is (Ilharco et al. 2023 grid 0…1). */
const LAMBDAS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1] as const;

const ref = (model: string): ModelRef => ({ model });

/** A recipe that gives one model back, except for tensors that are copied from the base. */
export function singleModelRecipe(model: string, common: RecipeCommon): Recipe {
  return {
    mergeMethod: "linear",
    body: { kind: "models", models: [{ model: ref(model), parameters: { weight: 1 } }] },
    parameters: { normalize: 0 },
    passthrough: {},
    ...common,
  };
}

/** What all recipes of one experiment share. */
export interface RecipeCommon {
  readonly seed: number;
  readonly freeze: readonly string[];
  readonly compat?: "mergekit";
}

function uniformRecipe(models: readonly string[], common: RecipeCommon): Recipe {
  const weight = 1 / models.length;
  return {
    mergeMethod: "linear",
    body: {
      kind: "models",
      models: models.map((model) => ({ model: ref(model), parameters: { weight } })),
    },
    parameters: { normalize: 1 },
    passthrough: {},
    ...common,
  };
}

function lambdaRecipe(
  base: string,
  experts: readonly string[],
  lambda: number,
  common: RecipeCommon,
): Recipe {
  return {
    mergeMethod: "task_arithmetic",
    baseModel: ref(base),
    body: {
      kind: "models",
      models: experts.map((model) => ({ model: ref(model), parameters: { weight: 1 } })),
    },
    parameters: { lambda },
    passthrough: {},
    ...common,
  };
}

/**
 * The baselines of an experiment, in the order they are recorded: the parents (every model that is not the base), the
 * base, the uniform soup (over the parents; with one parent, over it and the base), and a sweep of task-arithmetic scalings.
 */
export function baselinesOf(
  models: readonly string[],
  base: string | undefined,
  common: RecipeCommon,
): Baseline[] {
  const experts = models.filter((model) => model !== base);
  const soup = experts.length === 1 && base !== undefined ? [base, ...experts] : experts;
  const baselines: Baseline[] = experts.map((model) => ({
    label: model,
    kind: "parent",
    recipe: singleModelRecipe(model, common),
  }));
  if (base !== undefined) {
    baselines.push({ label: base, kind: "base", recipe: singleModelRecipe(base, common) });
  }
  baselines.push({ label: "uniform", kind: "uniform", recipe: uniformRecipe(soup, common) });
  if (base !== undefined) {
    for (const lambda of LAMBDAS) {
      const recipe = lambdaRecipe(base, experts, lambda, common);
      baselines.push({ label: `lambda=${lambda}`, kind: "lambda", recipe });
    }
  }
  return baselines;
}
