import type { FilteredSetting, Setting } from "../recipes/recipe.ts";

/**
 * Writes one value per group of tensors as one mergekit setting.
 *
 * mergekit's filters are plain substrings of tensor names and the first match wins, so groups are translated once into an
 * ordered list of substrings that gives every tensor its own group, and only the values change from recipe to recipe.
 */
export interface GroupFilters {
  /** @param values one per group, in the order of the groups */
  settingOf(values: readonly number[]): Setting;
}

interface Entry {
  /** Absent: everything that is left. */
  readonly filter?: string;
  readonly group: number;
}

/** Looking for words that a group's names share is quadratic; beyond this many groups they differ by number anyway. */
const maxGroupsWithWords = 16;

/**
 * Finds filters for a grouping: substrings that only the group's own names contain where there are any ("model.layers.3.",
 * "self_attn"), whole names otherwise; the group that needs most filters is what is left at the end.
 *
 * @param groups every tensor in exactly one of them
 */
export function groupFilters(groups: readonly (readonly string[])[]): GroupFilters {
  const entries = orderedEntries(groups);
  verify(entries, groups);
  return {
    settingOf(values) {
      const [first = 0] = values;
      if (values.every((value) => value === first)) return first;
      return entries.map(({ filter, group }): FilteredSetting => {
        const value = values[group] as number;
        return filter === undefined ? { value } : { filter, value };
      });
    },
  };
}

function orderedEntries(groups: readonly (readonly string[])[]): readonly Entry[] {
  const all = groups.flat();
  const filters = groups.map((members) => {
    const own = new Set(members);
    const others = all.filter((name) => !own.has(name));
    const isPure = (text: string) => !others.some((name) => name.includes(text));
    return cover(members, isPure, groups.length <= maxGroupsWithWords);
  });
  const counts = filters.map(({ pure, whole }) => pure.length + whole.length);
  const most = counts.lastIndexOf(Math.max(...counts));
  const listed = filters.flatMap((found, group) => (group === most ? [] : [{ group, ...found }]));
  // Filters that match their own group alone are right in any order. A whole name may be part of another name, so the
  // longer one is asked first, and those of the remaining group are asked too where they could be taken for another's.
  const whole = listed.flatMap((found) => found.whole.map((filter) => ({ filter, ...found })));
  const guarded = (groups[most] ?? []).filter((name) =>
    whole.some(({ filter }) => name.includes(filter)),
  );
  const names: Entry[] = [
    ...whole.map(({ filter, group }) => ({ filter, group })),
    ...guarded.map((filter) => ({ filter, group: most })),
  ];
  names.sort((a, b) => (b.filter as string).length - (a.filter as string).length);
  return [
    ...listed.flatMap(({ group, pure }) => pure.map((filter) => ({ filter, group }))),
    ...names,
    { group: most },
  ];
}

interface Cover {
  /** Substrings of names of this group and of no other. */
  readonly pure: readonly string[];
  /** Whole names that are part of another group's name. */
  readonly whole: readonly string[];
}

/** The fewest substrings we can find without searching long: a shared beginning, a shared word, else part by part. */
function cover(
  members: readonly string[],
  isPure: (text: string) => boolean,
  withWords: boolean,
): Cover {
  const [first] = members;
  if (first === undefined) return { pure: [], whole: [] };
  if (members.length === 1) {
    return isPure(first) ? { pure: [first], whole: [] } : { pure: [], whole: [first] };
  }
  const prefix = commonPrefix(members);
  if (prefix !== "" && isPure(prefix)) return { pure: [prefix], whole: [] };
  const word = withWords ? sharedWord(members, isPure) : undefined;
  if (word !== undefined) return { pure: [word], whole: [] };
  const parts = new Map<string, string[]>();
  for (const name of members) {
    const next = name.slice(prefix.length).split(/(?<=[./])/)[0] as string;
    parts.set(next, [...(parts.get(next) ?? []), name]);
  }
  const covers = [...parts.values()].map((part) => cover(part, isPure, false));
  return {
    pure: covers.flatMap((found) => found.pure),
    whole: covers.flatMap((found) => found.whole),
  };
}

/** Longest common beginning that ends with a separator. */
function commonPrefix(names: readonly string[]): string {
  let prefix = names[0] as string;
  for (const name of names) {
    while (!name.startsWith(prefix)) prefix = prefix.slice(0, -1);
  }
  return prefix.slice(0, Math.max(prefix.lastIndexOf("."), prefix.lastIndexOf("/")) + 1);
}

/** The longest word, or run of words, that all the names contain and no other name does. */
function sharedWord(
  names: readonly string[],
  isPure: (text: string) => boolean,
): string | undefined {
  const shortest = names.reduce((a, b) => (b.length < a.length ? b : a));
  const separators = [...shortest.matchAll(/[._/]/g)].map((match) => match.index);
  const candidates = new Set<string>();
  for (const from of [0, ...separators.map((at) => at + 1)]) {
    for (const to of [...separators, shortest.length]) candidates.add(shortest.slice(from, to));
  }
  return [...candidates]
    .filter((text) => text.length > 1 && names.every((name) => name.includes(text)))
    .sort((a, b) => b.length - a.length || (a < b ? -1 : 1))
    .find(isPure);
}

/** The promise of this file, checked for every tensor. */
function verify(entries: readonly Entry[], groups: readonly (readonly string[])[]): void {
  for (const [group, members] of groups.entries()) {
    for (const name of members) {
      const found = entries.find(({ filter }) => filter === undefined || name.includes(filter));
      if (found?.group !== group) {
        throw new Error(`filters put ${name} into group ${found?.group}, not ${group}`);
      }
    }
  }
}
