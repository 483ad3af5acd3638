import { describe, expect, it } from "vitest";
import { baselinesOf, singleModelRecipe } from "../../src/run/baselines.ts";

const common = { seed: 3, freeze: ["*.bias"] };

function shape(models: readonly string[], base?: string) {
  return baselinesOf(models, base, common).map(({ kind, label }) => `${kind} ${label}`);
}

describe("which models everyone is compared with", () => {
  const sweep = [0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1].map((lambda) => `lambda lambda=${lambda}`);

  it("parents in the experiment's order, the base, the soup, the scalings", () => {
    expect(shape(["base", "b", "a"], "base")).toEqual([
      "parent b",
      "parent a",
      "base base",
      "uniform uniform",
      ...sweep,
    ]);
  });

  it("no scalings and no base where there is none", () => {
    expect(shape(["b", "a"])).toEqual(["parent b", "parent a", "uniform uniform"]);
  });
});

describe("their recipes", () => {
  const [a, , base, uniform, , half] = baselinesOf(["base", "a", "b"], "base", common).map(
    ({ recipe }) => recipe,
  );

  it("a parent is itself, with frozen tensors as in every candidate", () => {
    expect(a).toEqual(singleModelRecipe("a", common));
    expect(base).toEqual(singleModelRecipe("base", common));
    expect(a?.freeze).toEqual(["*.bias"]);
    expect(a?.seed).toBe(3);
  });

  it("the soup is the equal mean of the models that are not the base", () => {
    expect(uniform?.mergeMethod).toBe("linear");
    expect(uniform?.body).toEqual({
      kind: "models",
      models: [
        { model: { model: "a" }, parameters: { weight: 0.5 } },
        { model: { model: "b" }, parameters: { weight: 0.5 } },
      ],
    });
  });

  it("with one expert the soup is over it and the base", () => {
    const soup = baselinesOf(["base", "a"], "base", common).find(({ kind }) => kind === "uniform");
    expect(soup?.recipe.body).toMatchObject({
      models: [{ model: { model: "base" } }, { model: { model: "a" } }],
    });
  });

  it("a scaling adds that much of every expert's change to the base", () => {
    expect(half).toMatchObject({
      mergeMethod: "task_arithmetic",
      baseModel: { model: "base" },
      parameters: { lambda: 0.2 },
    });
  });
});
