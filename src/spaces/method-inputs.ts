import { segmentsMethod } from "./segments-space.ts";
import type { MethodFacts, SpaceContext } from "./space.ts";

/** A method with the models it merges. */
export interface MethodInputs {
  readonly facts: MethodFacts;
  /** Short names, in the experiment's order; without a base that only task vectors are taken against. */
  readonly models: readonly string[];
  readonly base: string | undefined;
}

/**
 * Who is merged with whom.
 *
 * A method that needs a base merges the other models; without a declared base a method for exactly two models takes the
 * first as its base. A method without a base merges all models in order, the experiment's base as one of them; segments
 * are cut from the others, as long as there are two.
 *
 * @returns the inputs, or what is wrong
 */
export function methodInputs(facts: MethodFacts, context: SpaceContext): MethodInputs | string {
  const [fewest, most] = facts.inputs;
  const { base } = context;
  const all = context.models;
  const experts = all.filter((model) => model !== base);
  const fits = (models: readonly string[]) => models.length >= fewest && models.length <= most;
  if (facts.base === "required") {
    if (base === undefined) {
      const [first, second] = all;
      if (most === 1 && all.length === 2 && first !== undefined && second !== undefined) {
        return { facts, models: [second], base: first };
      }
      return `${facts.name} needs a base: name one of the models as base in the experiment`;
    }
    if (fits(experts)) return { facts, models: experts, base };
    return `${facts.name} merges ${countText(facts)} besides the base, this experiment has ${experts.length}`;
  }
  if (facts.base === "optional" && base !== undefined && fits(experts)) {
    return { facts, models: experts, base };
  }
  // Niches belong to specialists; a base that knows a little of everything has none.
  if (facts.name === segmentsMethod && experts.length > 1 && fits(experts)) {
    return { facts, models: experts, base };
  }
  if (fits(all)) return { facts, models: all, base: facts.base === "none" ? base : undefined };
  if (fits(experts)) return { facts, models: experts, base: undefined };
  return `${facts.name} merges ${countText(facts)}, this experiment has ${all.length}`;
}

function countText({ inputs: [fewest, most] }: MethodFacts): string {
  const models = (count: number) => `${count} model${count === 1 ? "" : "s"}`;
  if (fewest === most) return `exactly ${models(fewest)}`;
  return Number.isFinite(most) ? `${fewest} to ${models(most)}` : `at least ${models(fewest)}`;
}
