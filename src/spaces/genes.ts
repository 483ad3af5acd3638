import { suggestion } from "../base/suggest.ts";
import type { KeyPath } from "../base/yaml.ts";
import { wholeGroup } from "../recipes/tensor-groups.ts";
import { type AxisMapping, choiceMapping, rangeMapping } from "./axis-mapping.ts";
import type { MethodInputs } from "./method-inputs.ts";
import { checkRange, type GeneDefinition, type GenePer, type SpaceDefinition } from "./schema.ts";
import type { MethodFacts } from "./space.ts";

type ParameterFacts = MethodFacts["parameters"][number];
type Report = (path: KeyPath, message: string, hint?: string) => void;

/** A gene held against the methods that have its parameter: either fixed, or one axis per place. */
export interface Gene {
  readonly parameter: string;
  readonly scope: "global" | "model";
  /** Names of the methods it applies to. */
  readonly methods: ReadonlySet<string>;
  readonly fixed: number | undefined;
  readonly per: GenePer;
  /** One per axis, models first; empty for a fixed gene. */
  readonly places: readonly { readonly model?: string; readonly group?: string }[];
  readonly mapping: AxisMapping;
  /** Where every axis of the gene starts, in [0, 1]. */
  readonly startAt: number;
}

/**
 * Completes the genes of a space with the methods' facts, adds those that a method requires and the space does not list,
 * and reports what does not go together.
 */
export function resolveGenes(
  definition: SpaceDefinition,
  methods: readonly MethodInputs[],
  groups: readonly string[],
  report: Report,
): Gene[] {
  const genes: Gene[] = [];
  const resolve = (name: string, given: GeneDefinition | undefined): void => {
    const gene = resolveGene(name, given, methods, groups, report);
    if (gene !== undefined) genes.push(gene);
  };
  for (const [name, given] of definition.genes) {
    const known = new Set(methods.flatMap(({ facts }) => facts.parameters.map((p) => p.name)));
    if (known.has(name)) resolve(name, given);
    else {
      const which = methods.map(({ facts }) => facts.name).join(", ");
      report(["genes", name], `${which} has no parameter "${name}"`, suggestion(name, known));
    }
  }
  const required = new Set(
    methods.flatMap(({ facts }) =>
      facts.parameters.filter((p) => p.default === undefined && p.search).map((p) => p.name),
    ),
  );
  for (const name of required) if (!definition.genes.has(name)) resolve(name, undefined);
  for (const { facts } of methods) {
    for (const parameter of facts.parameters) {
      if (parameter.default !== undefined || parameter.search !== undefined) continue;
      if (definition.genes.has(parameter.name) || parameter.type === "list") continue;
      report(["genes"], `${facts.name} requires "${parameter.name}"`, "give it a gene or a value");
    }
  }
  return genes;
}

function resolveGene(
  parameter: string,
  given: GeneDefinition | undefined,
  methods: readonly MethodInputs[],
  groups: readonly string[],
  report: Report,
): Gene | undefined {
  const path: KeyPath = ["genes", parameter];
  const owners = methods.flatMap((method) => {
    const facts = method.facts.parameters.find((known) => known.name === parameter);
    return facts === undefined ? [] : [{ method, facts }];
  });
  const [owner] = owners;
  if (owner === undefined) throw new Error(`no method has ${parameter}`);
  const { facts } = owner;
  if (owners.some((other) => other.facts.type === "list")) {
    report(path, `"${parameter}" is a list and cannot be a gene`);
    return undefined;
  }
  const definition = withDefaults(given ?? defaultGene(facts), facts);
  const fits = owners.every((other) => withinFacts(definition, other.facts, path, report));
  if (!fits) return undefined;

  const base = {
    parameter,
    scope: facts.scope,
    methods: new Set(owners.map(({ method }) => method.facts.name)),
  };
  if (definition.kind === "value") {
    const never: AxisMapping = { decode: () => definition.value, encode: () => undefined };
    const per: GenePer = { model: false, group: false };
    const { value: fixed } = definition;
    return { ...base, fixed, per, places: [], mapping: never, startAt: 0 };
  }
  const models = [...new Set(owners.flatMap(({ method }) => method.models))];
  const counts = owners.map(({ method }) => method.models.length);
  const start = definition.start ?? startOf(definition, facts);
  const mapping =
    definition.kind === "choices"
      ? choiceMapping(definition.choices)
      : rangeMapping(
          definition.range,
          definition.scale,
          exactValues(definition.range, start, counts),
        );
  const startAt = mapping.encode(start);
  if (startAt === undefined) throw new Error(`the start ${start} of ${parameter} has no place`);
  const places = placesOf(definition.per, models, groups);
  return { ...base, fixed: undefined, per: definition.per, places, mapping, startAt };
}

function defaultGene(facts: ParameterFacts): GeneDefinition {
  const per: GenePer = { model: facts.scope === "model", group: true };
  return { kind: "range", range: undefined, scale: undefined, start: undefined, per };
}

type CompleteGene =
  | Exclude<GeneDefinition, { kind: "range" }>
  | {
      readonly kind: "range";
      readonly range: readonly [number, number];
      readonly scale: "linear" | "log" | "logit";
      readonly start: number | undefined;
      readonly per: GenePer;
    };

/** Fills in range, scale and start from the parameter's facts; a switch without choices can be off or on. */
function withDefaults(gene: GeneDefinition, facts: ParameterFacts): CompleteGene {
  if (gene.kind !== "range") return gene;
  if (facts.type === "boolean" && gene.range === undefined) {
    return { kind: "choices", choices: [0, 1], start: gene.start, per: gene.per };
  }
  const range = gene.range ?? facts.search?.range ?? facts.range;
  const scale = gene.scale ?? fittingScale(facts.search?.scale, range);
  return { ...gene, range, scale };
}

/** The facts' scale where the user's range lies in its domain. */
function fittingScale(
  scale: "linear" | "log" | "logit" = "linear",
  [low, high]: readonly [number, number],
) {
  if (scale === "log" && low <= 0) return "linear";
  if (scale === "logit" && (low < 0 || high > 1)) return "linear";
  return scale;
}

/** Whether a gene's values are values that the parameter may have, and its `per` makes sense for it. */
function withinFacts(
  gene: CompleteGene,
  facts: ParameterFacts,
  path: KeyPath,
  report: Report,
): boolean {
  let fine = true;
  const complain = (key: string, message: string, hint?: string): void => {
    fine = false;
    report([...path, key], message, hint);
  };
  const [low, high] = facts.range;
  const allowed = `${facts.name} takes ${facts.type === "boolean" ? "false or true" : `numbers from ${low} to ${high}`}`;
  const takes = (value: number): boolean =>
    facts.type === "boolean" ? value === 0 || value === 1 : value >= low && value <= high;
  if (gene.kind === "value") {
    if (!takes(gene.value)) complain("value", `${allowed}, got ${gene.value}`);
    return fine;
  }
  if (gene.per.model && facts.scope === "global") {
    complain("per", `${facts.name} is one value for all models`, "leave out model");
  }
  if (gene.kind === "choices") {
    const odd = gene.choices.find((choice) => !takes(choice));
    if (odd !== undefined) complain("choices", `${allowed}, got ${odd}`);
    if (gene.start !== undefined && !gene.choices.includes(gene.start)) {
      complain("start", `the start ${gene.start} is not one of ${gene.choices.join(", ")}`);
    }
    return fine;
  }
  if (facts.type === "boolean") {
    complain("range", `${facts.name} is a switch`, "write choices: [false, true]");
    return false;
  }
  checkRange(gene.range, gene.scale, gene.start, complain);
  if (fine && (gene.range[0] < low || gene.range[1] > high)) {
    complain("range", `${allowed}, got [${gene.range.join(", ")}]`);
  }
  return fine;
}

/** The facts' start or default where the gene can take it, else the middle of the range or the first choice. */
function startOf(gene: Exclude<CompleteGene, { kind: "value" }>, facts: ParameterFacts): number {
  const wanted = [facts.search?.start, facts.default];
  if (gene.kind === "choices") {
    const found = wanted.find((value) => value !== undefined && gene.choices.includes(value));
    return found ?? (gene.choices[0] as number);
  }
  const [low, high] = gene.range;
  const found = wanted.find((value) => value !== undefined && value >= low && value <= high);
  return found ?? rangeMapping(gene.range, gene.scale, []).decode(0.5);
}

/** Values that must decode bit for bit: the start, and what well-known recipes are made of. */
function exactValues(
  [low, high]: readonly [number, number],
  start: number,
  counts: readonly number[],
): number[] {
  const known = [start, 0, 1, 0.5, ...counts.map((count) => 1 / count)];
  return known
    .concat(counts.map((count) => 1 / Math.max(1, count - 1)))
    .filter((value) => value >= low && value <= high);
}

function placesOf(per: GenePer, models: readonly string[], groups: readonly string[]) {
  const whole = groups.length === 1 && groups[0] === wholeGroup;
  const groupPlaces =
    per.group && !whole ? groups.map((group) => ({ group })) : [{} as { group?: string }];
  if (!per.model) return groupPlaces;
  return models.flatMap((model) => groupPlaces.map((place) => ({ model, ...place })));
}
