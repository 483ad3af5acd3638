import { isConditional } from "./canonical.ts";
import type { FilteredSetting, Setting, Settings } from "./recipe.ts";

/**
 * mergekit's parameter lookup: which value a parameter has for one tensor.
 *
 * Levels are consulted from the most specific to the most general (source, slice, recipe); the first that says anything
 * about the tensor wins, so a conditional list without a matching entry and an empty list fall through to the next level.
 */
export interface LookupPlace {
  /** Name that filters are matched against. */
  readonly tensor: string;
  /** Position within the layers, 0 … 1: where a gradient is evaluated. */
  readonly position: number;
}

/** How near to a list element a gradient position counts as being on it: more than rounding, less than any real step. */
const snap = 1e-9;

/**
 * The gradient position of layer `index` of `count`: 0 for the first, 1 for the last, 1 for the only one.
 * Tensors outside of the layers have position 0.
 */
export function gradientPosition(index: number, count: number): number {
  return count > 1 ? index / (count - 1) : 1;
}

/**
 * The value of a number parameter.
 *
 * @param levels settings maps from the most specific to the most general
 * @param stepped the parameter is boolean: a list is a step function and is never interpolated
 * @returns undefined when no level has a value for this tensor
 */
export function lookupSetting(
  levels: readonly (Settings | undefined)[],
  name: string,
  place: LookupPlace,
  stepped = false,
): number | undefined {
  return firstOf(levels, name, (setting) => evaluate(setting, place, stepped));
}

/** The value of a list parameter: the list itself, not a gradient. A number is a list of one. */
export function lookupList(
  levels: readonly (Settings | undefined)[],
  name: string,
  place: LookupPlace,
): readonly number[] | undefined {
  return firstOf(levels, name, (setting) => {
    const value = isConditional(setting) ? matching(setting, place.tensor) : setting;
    return typeof value === "number" ? [value] : value;
  });
}

function firstOf<T>(
  levels: readonly (Settings | undefined)[],
  name: string,
  read: (setting: Setting) => T | undefined,
): T | undefined {
  for (const level of levels) {
    if (level === undefined || !Object.hasOwn(level, name)) continue;
    const value = read(level[name] as Setting);
    if (value !== undefined) return value;
  }
  return undefined;
}

function evaluate(setting: Setting, place: LookupPlace, stepped: boolean): number | undefined {
  const value = isConditional(setting) ? matching(setting, place.tensor) : setting;
  if (value === undefined || typeof value === "number") return value;
  return evaluateGradient(value, place.position, stepped);
}

/** The value of the first entry whose filter is absent, "*" or part of the name. */
function matching(
  entries: readonly FilteredSetting[],
  tensor: string,
): number | readonly number[] | undefined {
  const entry = entries.find(
    ({ filter }) => filter === undefined || filter === "*" || tensor.includes(filter),
  );
  return entry?.value;
}

/** Linear interpolation between the elements, exact at each of them; undefined for an empty list. */
function evaluateGradient(
  values: readonly number[],
  position: number,
  stepped: boolean,
): number | undefined {
  const last = values.length - 1;
  const exact = position * last;
  const nearest = Math.round(exact);
  const s = Math.abs(exact - nearest) <= snap ? nearest : exact;
  const lower = Math.min(Math.max(Math.trunc(s), 0), last);
  const fraction = s - lower;
  const from = values[lower];
  if (from === undefined || fraction === 0 || stepped) return from;
  const to = values[Math.min(last, lower + 1)] as number;
  return (1 - fraction) * from + fraction * to;
}
