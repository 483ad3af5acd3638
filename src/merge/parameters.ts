import { MendelError } from "../base/errors.ts";
import { closest, suggestion } from "../base/suggest.ts";
import { type LookupPlace, lookupList, lookupSetting } from "../recipes/lookup.ts";
import type { Recipe, Settings } from "../recipes/recipe.ts";
import type { MergeMethod, MethodParameter, TensorParameters } from "./method.ts";
import type { DraftTensor, Section } from "./sections.ts";

/**
 * Looks up every parameter of a method for one output tensor.
 *
 * @param baseIndex position of the base among the inputs: it gets defaults and needs nothing
 * @throws MendelError `invalid-config` for a required parameter without a value and for values out of range
 */
export function lookupParameters(
  method: MergeMethod,
  recipe: Recipe,
  draft: DraftTensor,
  baseIndex: number | undefined,
): TensorParameters {
  const { section, position } = draft;
  const shared = [section.settings, recipe.parameters];
  const globals = method.parameters.filter(({ scope }) => scope === "global");
  const perModel = method.parameters.filter(({ scope }) => scope === "model");
  const place = { tensor: draft.name, position };
  const global = valuesOf(globals, shared, place, "");
  const models = draft.inputs.map((input, k) => {
    if (k === baseIndex) return { numbers: defaultsOf(perModel), lists: {} };
    const own = { tensor: input.filterName, position };
    return valuesOf(perModel, [input.settings, ...shared], own, ` of ${input.modelId}`);
  });
  const parameters: TensorParameters = {
    global: global.numbers,
    models: models.map(({ numbers }) => numbers),
    ...(method.parameters.some(({ type }) => type === "list")
      ? { lists: { global: global.lists, models: models.map(({ lists }) => lists) } }
      : {}),
  };
  const problem = method.check?.(parameters);
  if (problem !== undefined) {
    throw new MendelError("invalid-config", `${method.name}: ${problem} (at ${draft.name})`, {
      where: { tensor: draft.name },
    });
  }
  return parameters;
}

interface Values {
  readonly numbers: Readonly<Record<string, number>>;
  readonly lists: Readonly<Record<string, readonly number[]>>;
}

function valuesOf(
  parameters: readonly MethodParameter[],
  levels: readonly Settings[],
  place: LookupPlace,
  owner: string,
): Values {
  const numbers: Record<string, number> = {};
  const lists: Record<string, readonly number[]> = {};
  for (const parameter of parameters) {
    const { name, type } = parameter;
    if (type === "list") {
      const list = lookupList(levels, name, place);
      if (list === undefined) throw missing(parameter, place, owner);
      for (const value of list) checkRange(parameter, value, place, owner);
      lists[name] = list;
      continue;
    }
    const value = lookupSetting(levels, name, place, type === "boolean") ?? parameter.default;
    if (value === undefined) throw missing(parameter, place, owner);
    checkRange(parameter, value, place, owner);
    numbers[name] = value;
  }
  return { numbers, lists };
}

function defaultsOf(parameters: readonly MethodParameter[]): Readonly<Record<string, number>> {
  return Object.fromEntries(
    parameters.flatMap(({ name, default: value }) => (value === undefined ? [] : [[name, value]])),
  );
}

function missing(parameter: MethodParameter, place: LookupPlace, owner: string): MendelError {
  return new MendelError(
    "invalid-config",
    `the parameter "${parameter.name}"${owner} has no value for ${place.tensor}`,
    {
      hint: `give ${parameter.name} a number, or end its conditional list with an entry without a filter`,
      where: { tensor: place.tensor, key: parameter.name },
    },
  );
}

function checkRange(
  parameter: MethodParameter,
  value: number,
  place: LookupPlace,
  owner: string,
): void {
  const { name, type } = parameter;
  const [low, high] = parameter.range;
  const inRange = value >= low && value <= high;
  if (inRange && (type !== "boolean" || value === 0 || value === 1)) return;
  const expected = type === "boolean" ? "true or false" : `a number from ${low} to ${high}`;
  throw new MendelError(
    "invalid-config",
    `the parameter "${name}"${owner} must be ${expected}; it is ${value} for ${place.tensor}`,
    { where: { tensor: place.tensor, key: name } },
  );
}

/** Parameters of mergekit's methods, wherever they are written: foreign to one method, but no slip of the finger. */
const mergekitParameters: readonly string[] = [
  ...["weight", "t", "density", "lambda", "normalize", "rescale", "int8_mask", "scale", "gamma"],
  ...["epsilon", "eps", "alpha", "r", "max_iter", "tol", "select_topk", "filter_wise"],
  ...["normalize_weights", "nuslerp_flatten", "nuslerp_row_wise"],
];

/**
 * Finds settings that no parameter of the method reads. mergekit ignores them all; a name one slip away from a parameter of
 * the method is refused, except under `compat`.
 *
 * @returns one sentence per setting without effect
 * @throws MendelError `invalid-config` for a misspelt parameter
 */
export function unusedSettings(
  method: MergeMethod,
  recipe: Recipe,
  sections: readonly Section[],
): readonly string[] {
  const warnings = new Set<string>();
  const known = method.parameters.map(({ name }) => name);
  const globals = new Set(
    method.parameters.filter(({ scope }) => scope === "global").map(({ name }) => name),
  );
  const inspect = (settings: Settings, owner: string | undefined): void => {
    const where = owner === undefined ? "" : ` under ${owner}`;
    for (const name of Object.keys(settings)) {
      if (known.includes(name)) {
        if (owner === undefined || !globals.has(name)) continue;
        warnings.add(`"${name}"${where} has no effect: it holds for all models, so set it above`);
        continue;
      }
      const foreign = mergekitParameters.includes(name) || recipe.compat === "mergekit";
      if (!foreign && closest(name, known) !== undefined) {
        throw new MendelError(
          "invalid-config",
          `${method.name} has no parameter "${name}"${where}`,
          { hint: suggestion(name, known), where: { key: name } },
        );
      }
      warnings.add(`"${name}"${where} has no effect: ${method.name} has no such parameter`);
    }
  };
  inspect(recipe.parameters, undefined);
  for (const section of sections) {
    inspect(section.settings, undefined);
    for (const { modelId, settings } of section.sources) inspect(settings, modelId);
  }
  return [...warnings];
}
