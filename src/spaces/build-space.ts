import { MendelError } from "../base/errors.ts";
import type { Genome } from "../base/genome.ts";
import { naturalOrder } from "../base/natural-order.ts";
import { type ConfigProblem, configError, formatKey } from "../base/schema.ts";
import { suggestion } from "../base/suggest.ts";
import type { KeyPath } from "../base/yaml.ts";
import type { Recipe, RecipeModel, Setting } from "../recipes/recipe.ts";
import { groupTensors, selectTensors, unmatchedPattern } from "../recipes/tensor-groups.ts";
import { choiceAt, clamp, middleOf } from "./axis-mapping.ts";
import { type Gene, resolveGenes } from "./genes.ts";
import { groupFilters } from "./group-filters.ts";
import { initialGenomes } from "./initial-genomes.ts";
import { layersSpace } from "./layers-space.ts";
import { type MethodInputs, methodInputs } from "./method-inputs.ts";
import type { SpaceDefinition } from "./schema.ts";
import { segmentsMethod, segmentsSpace } from "./segments-space.ts";
import type { GeneValue, Space, SpaceContext } from "./space.ts";

/** Switches whose defaults differ between methods and tools: recipes always say them. */
const alwaysWritten = ["normalize", "rescale", "lambda"];

/**
 * Holds a space's definition against the models and methods of an experiment and makes it ready to decode.
 *
 * Every axis is one coordinate in [0, 1]: the method where there are several, then for each gene one per model and group
 * it is `per`, models first. `decode` is defined for every point of the unit cube (coordinates outside are clipped), and the
 * declared starts, the ends of ranges and the weights of `initial` decode exactly.
 *
 * @throws MendelError `invalid-config` that names every key that is wrong, `mismatch` when no tensor is left to merge
 */
export function buildSpace(definition: SpaceDefinition, context: SpaceContext): Space {
  if (definition.layers !== undefined) {
    const { title, layers, source } = definition;
    if (context.blocks === undefined) throw new Error("a space of layers needs their number");
    return layersSpace(title, layers, context, context.blocks, source.file);
  }
  const problems: ConfigProblem[] = [];
  const report = (path: KeyPath, message: string, hint?: string): void => {
    const line = definition.source.lineOf(path);
    problems.push({ key: formatKey(path), line, message, hint });
  };
  const giveUp = (): void => {
    if (problems.length > 0) throw configError(definition.source.file, problems);
  };
  /** Runs a step that throws a MendelError about one key, and gives the error this file's name and line. */
  const attempt = <T>(path: KeyPath, step: () => T): T | undefined => {
    try {
      return step();
    } catch (error) {
      if (!(error instanceof MendelError)) throw error;
      const group = /^groups\.(.+)$/.exec(error.where?.key ?? "")?.[1];
      report(group === undefined ? path : ["groups", group], error.message, error.hint);
      return undefined;
    }
  };

  const freeze = resolveFreeze(definition, context, attempt);
  const methods = resolveMethods(definition, context, report);
  if (freeze.patterns.length > 0 && methods.some(({ base }) => base === undefined)) {
    const hint = "name one of the models as base in the experiment";
    report(["freeze"], "freeze copies tensors from the base, but there is none", hint);
  }
  giveUp();
  const frozen = new Set(freeze.tensors);
  const merged = context.tensors.filter((name) => !frozen.has(name)).sort(naturalOrder);
  if (merged.length === 0) {
    throw new MendelError("mismatch", "no tensor is left to merge", {
      hint: "freeze fewer tensors, or look at the coverage that `mendel validate` prints",
      where: { file: definition.source.file, key: "freeze" },
    });
  }
  const common: RecipeCommon = {
    seed: context.seed,
    freeze: freeze.patterns,
    ...(context.compat === undefined ? {} : { compat: context.compat }),
  };
  const first = methods[0] as MethodInputs;
  if (methods.some(({ facts }) => facts.name === segmentsMethod)) {
    checkSegmentsDefinition(definition, report);
    giveUp();
    return segmentsSpace(definition.title, first, merged, freeze.tensors, common);
  }
  const all = attempt(["groups"], () => groupTensors(merged, definition.groups)) ?? new Map();
  const groups = searchableGroups(all, new Set(context.identical));
  if (all.size > 0 && groups.size === 0) {
    throw new MendelError("mismatch", "the models are identical: there is nothing to search", {
      hint: "look at what `mendel inspect` says of them",
    });
  }
  const genes = resolveGenes(definition, methods, [...groups.keys()], report);
  giveUp();
  return vectorSpace(definition, methods, genes, groups, freeze.tensors, common);
}

/** Groups in which at least one tensor differs between models: in the others no gene could change anything. */
function searchableGroups(
  groups: ReadonlyMap<string, readonly string[]>,
  identical: ReadonlySet<string>,
): Map<string, readonly string[]> {
  return new Map([...groups].filter(([, names]) => names.some((name) => !identical.has(name))));
}

/** What every recipe of a space has in common. */
export type RecipeCommon = Pick<Recipe, "seed" | "freeze" | "compat">;

function resolveFreeze(
  definition: SpaceDefinition,
  context: SpaceContext,
  attempt: <T>(path: KeyPath, step: () => T) => T | undefined,
): { readonly patterns: readonly string[]; readonly tensors: readonly string[] } {
  const all = [...new Set([...context.tensors, ...(context.frozen ?? [])])].sort(naturalOrder);
  const tensors = new Set(context.frozen ?? []);
  const patterns: string[] = [];
  for (const [i, pattern] of definition.freeze.entries()) {
    attempt(["freeze", i], () => {
      const matched = selectTensors(all, pattern);
      if (matched.length === 0) throw unmatchedPattern(all, pattern, "freeze");
      for (const name of matched) tensors.add(name);
      // Recipes know globs only.
      patterns.push(...(pattern.startsWith("kind:") ? matched : [pattern]));
    });
  }
  return { patterns, tensors: [...tensors].sort(naturalOrder) };
}

function resolveMethods(
  definition: SpaceDefinition,
  context: SpaceContext,
  report: (path: KeyPath, message: string, hint?: string) => void,
): MethodInputs[] {
  const single = definition.methods.length === 1;
  return definition.methods.flatMap((name, i): MethodInputs[] => {
    const at = single ? ["method"] : ["method", i];
    const facts = context.methods.find((known) => known.name === name);
    if (facts === undefined) {
      const known = context.methods.map((method) => method.name);
      report(at, `unknown method "${name}"`, suggestion(name, known));
      return [];
    }
    if (name === segmentsMethod && !single) {
      report(
        at,
        `"${segmentsMethod}" cannot be one of several methods: its genomes are of another kind`,
      );
      return [];
    }
    const inputs = methodInputs(facts, context);
    if (typeof inputs !== "string") return [inputs];
    report(at, inputs);
    return [];
  });
}

function checkSegmentsDefinition(
  definition: SpaceDefinition,
  report: (path: KeyPath, message: string, hint?: string) => void,
): void {
  for (const name of definition.genes.keys()) {
    report(["genes", name], `"${segmentsMethod}" has no genes: the optimizer places the segments`);
  }
  if (definition.groups !== "whole") {
    report(["groups"], `"${segmentsMethod}" has no groups: segments end anywhere`, "leave it out");
  }
}

function vectorSpace(
  definition: SpaceDefinition,
  methods: readonly MethodInputs[],
  genes: readonly Gene[],
  groups: ReadonlyMap<string, readonly string[]>,
  frozen: readonly string[],
  common: RecipeCommon,
): Space {
  const methodAxes = methods.length > 1 ? 1 : 0;
  const filters = groupFilters([...groups.values()]);
  const offsets = new Map<Gene, number>();
  const axes: string[] = methodAxes === 1 ? ["method"] : [];
  const start: number[] = methodAxes === 1 ? [middleOf(0, methods.length)] : [];
  for (const gene of genes) {
    offsets.set(gene, axes.length);
    for (const place of gene.places) {
      axes.push(axisName(gene.parameter, place));
      start.push(gene.startAt);
    }
  }

  const valuesOf = (genome: Genome): readonly number[] => {
    if (genome.kind !== "vector" || genome.values.length !== axes.length) {
      throw new Error(`this space has genomes of ${axes.length} coordinates`);
    }
    return genome.values.map((value) => {
      if (Number.isNaN(value)) throw new Error("a coordinate of a genome is NaN");
      return clamp(value, 0, 1);
    });
  };
  const methodOf = (values: readonly number[]): MethodInputs =>
    methods[methodAxes === 1 ? choiceAt(values[0] as number, methods.length) : 0] as MethodInputs;
  const decoded = (gene: Gene, values: readonly number[]): number[] => {
    const offset = offsets.get(gene) as number;
    return gene.places.map((_, i) => gene.mapping.decode(values[offset + i] as number));
  };

  const decode = (genome: Genome): Recipe => {
    const values = valuesOf(genome);
    const method = methodOf(values);
    const global: Record<string, Setting> = {};
    const perModel = new Map(method.models.map((model) => [model, {} as Record<string, Setting>]));
    for (const name of alwaysWritten) {
      const parameter = method.facts.parameters.find((known) => known.name === name);
      if (parameter?.default !== undefined) global[name] = parameter.default;
    }
    for (const gene of genes) {
      if (!gene.methods.has(method.facts.name)) continue;
      if (gene.fixed !== undefined) {
        global[gene.parameter] = gene.fixed;
        continue;
      }
      const numbers = decoded(gene, values);
      const size = gene.per.group ? groups.size : 1;
      for (let at = 0; at < numbers.length; at += size) {
        const setting = filters.settingOf(numbers.slice(at, at + size));
        const model = gene.places[at]?.model;
        if (model === undefined) global[gene.parameter] = setting;
        else {
          const parameters = perModel.get(model);
          if (parameters !== undefined) parameters[gene.parameter] = setting;
        }
      }
    }
    const models = method.models.map(
      (model): RecipeModel => ({ model: { model }, parameters: perModel.get(model) ?? {} }),
    );
    return {
      mergeMethod: method.facts.name,
      body: { kind: "models", models },
      ...(method.base === undefined ? {} : { baseModel: { model: method.base } }),
      parameters: global,
      passthrough: {},
      ...common,
    };
  };

  const describe = (genome: Genome): GeneValue[] => {
    const values = valuesOf(genome);
    const method = methodOf(values);
    const listed: GeneValue[] =
      methodAxes === 1 ? [{ name: "method", value: method.facts.name }] : [];
    for (const gene of genes) {
      if (!gene.methods.has(method.facts.name)) continue;
      const numbers = decoded(gene, values);
      for (const [i, place] of gene.places.entries()) {
        if (place.model !== undefined && !method.models.includes(place.model)) continue;
        listed.push({ name: gene.parameter, value: numbers[i] as number, ...place });
      }
    }
    return listed;
  };

  const models = new Set(methods.flatMap((method) => method.models));
  return {
    title: definition.title,
    genome: "vector",
    models: [...models],
    axes,
    start,
    groups,
    frozen,
    decode,
    genes: describe,
    initial: initialGenomes(methods, genes, start, offsets),
  };
}

function axisName(parameter: string, place: Gene["places"][number]): string {
  const where = [place.model, place.group].filter((part) => part !== undefined);
  return where.length === 0 ? parameter : `${parameter}[${where.join(", ")}]`;
}
