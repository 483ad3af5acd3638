import { describe, expect, it } from "vitest";
import { type Constraint, parseConstraint } from "../../src/run/constraints.ts";
import { refusalOf } from "../support/refusal.ts";

const metrics = new Map([
  ["digits-rotate", ["accuracy", "cross_entropy"]],
  ["v1.0_b", ["f1"]],
]);

const parse = (text: string): Constraint => parseConstraint(text, metrics, "experiment.yml");

describe("what is read", () => {
  it.each<[string, Partial<Constraint>]>([
    [
      "digits-rotate.accuracy >= 0.8",
      {
        evaluator: "digits-rotate",
        metric: "accuracy",
        relation: ">=",
        bound: 0.8,
        relativeToParent: false,
      },
    ],
    ["digits-rotate.cross_entropy<=1.5e0", { metric: "cross_entropy", relation: "<=", bound: 1.5 }],
    ["  digits-rotate.accuracy   >=   1 ", { bound: 1 }],
    ["digits-rotate.accuracy >= -0.25", { bound: -0.25, relativeToParent: false }],
    ["digits-rotate.accuracy >= 1e-3", { bound: 0.001 }],
    ["digits-rotate.accuracy >= 1e+2", { bound: 100 }],
    ["digits-rotate.accuracy >= .5", { bound: 0.5 }],
    ["digits-rotate.accuracy >= parent", { bound: 0, relativeToParent: true }],
    ["digits-rotate.accuracy >= parent - 0.01", { bound: -0.01, relativeToParent: true }],
    ["digits-rotate.accuracy >= parent-0.01", { bound: -0.01, relativeToParent: true }],
    ["digits-rotate.cross_entropy <= parent + 1e-2", { bound: 0.01, relativeToParent: true }],
    ["v1.0_b.f1 >= 0.5", { evaluator: "v1.0_b", metric: "f1" }],
  ])("%s", (text, expected) => {
    expect(parse(text)).toMatchObject({ text, ...expected });
  });
});

describe("what is refused", () => {
  it.each([
    "",
    "accuracy >= 0.8",
    "digits-rotate.accuracy",
    "digits-rotate.accuracy > 0.8",
    "digits-rotate.accuracy = 0.8",
    "digits-rotate.accuracy == 0.8",
    "digits-rotate.accuracy >= ",
    "digits-rotate.accuracy >= high",
    "digits-rotate.accuracy >= parent * 2",
    "digits-rotate.accuracy >= parent 0.1",
    "digits-rotate.accuracy >= 0.8 and more",
    "0.8 <= digits-rotate.accuracy",
  ])("%j, with an example of what may be written", (text) => {
    const error = refusalOf(() => parse(text));
    expect(error.code).toBe("invalid-config");
    expect(error.where).toEqual({ file: "experiment.yml", key: "constraints" });
    expect(error.message).toContain(`"${text}"`);
    expect(error.hint).toContain("evaluator.metric >= 0.8");
  });

  it.each(["1e999", "1e", "--1", "1.2.3", "e", "+"])("the number %s", (number) => {
    for (const text of [
      `digits-rotate.accuracy >= ${number}`,
      `digits-rotate.accuracy >= parent - ${number}`,
    ]) {
      expect(refusalOf(() => parse(text)).code).toBe("invalid-config");
    }
  });

  it("an evaluator that is not there, suggesting the one that is", () => {
    const error = refusalOf(() => parse("digit-rotate.accuracy >= 0.5"));
    expect(error.message).toContain('no evaluator named "digit-rotate"');
    expect(error.hint).toContain('did you mean "digits-rotate"?');
  });

  it("a metric that is not recorded, suggesting one that is", () => {
    const error = refusalOf(() => parse("digits-rotate.acuracy >= 0.5"));
    expect(error.message).toContain('has no metric "acuracy"');
    expect(error.hint).toContain('did you mean "accuracy"?');
  });
});
