import { MendelError } from "../base/errors.ts";
import { suggestion } from "../base/suggest.ts";
import type { Split } from "../evaluation/executor.ts";

/** Parsers for commander's options: what they throw names the option, what arrived and what was expected. */

/** A whole number from 1. */
export function positiveInteger(option: string): (text: string) => number {
  return (text) => {
    const value = /^\d{1,9}$/.test(text) ? Number(text) : 0;
    if (value > 0) return value;
    throw new MendelError("usage", `${option} expects a whole number from 1, got "${text}"`);
  };
}

/** One of a few words. */
export function oneOf<T extends string>(option: string, words: readonly T[]): (text: string) => T {
  return (text) => {
    const word = words.find((candidate) => candidate === text);
    if (word !== undefined) return word;
    throw new MendelError("usage", `${option} does not know "${text}"`, {
      hint: suggestion(text, words),
    });
  };
}

export const splitNames = ["search", "validation", "test"] as const;

const splits = ["search", "validation", "test"] as const satisfies readonly Split[];

/** @throws MendelError `usage` for a word that is no split */
export function splitOf(value: unknown): Split {
  const split = splits.find((candidate) => candidate === value);
  if (split !== undefined) return split;
  throw new MendelError("usage", `--split does not know "${value}"`, {
    hint: suggestion(String(value), splits),
  });
}
