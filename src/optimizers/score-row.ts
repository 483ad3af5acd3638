import { MendelError } from "../base/errors.ts";
import type { ScoreRow } from "./niche-archive.ts";

const BITS_PER_DIGIT = 4;

/**
 * A row of scores as JSON: right/wrong scores as hexadecimal digits, four items each, the first item in the highest bit;
 * any other scores as numbers. An archive is saved after every generation, so its size matters.
 */
export function encodeScores(scores: ScoreRow): string | number[] {
  const values = Array.from(scores);
  if (!values.every((score) => score === 0 || score === 1)) return values;
  let text = "";
  for (let start = 0; start < values.length; start += BITS_PER_DIGIT) {
    let digit = 0;
    for (let bit = 0; bit < BITS_PER_DIGIT; bit++) digit = 2 * digit + (values[start + bit] ?? 0);
    text += digit.toString(16);
  }
  return text;
}

/**
 * Reverses `encodeScores`.
 *
 * @throws MendelError `database` when the text does not hold `items` scores
 */
export function decodeScores(encoded: string | readonly number[], items: number): Float64Array {
  const digits = Math.ceil(items / BITS_PER_DIGIT);
  const damaged =
    typeof encoded === "string"
      ? encoded.length !== digits || !/^[0-9a-f]*$/.test(encoded)
      : encoded.length !== items;
  if (damaged) {
    throw new MendelError("database", `a saved score row does not hold ${items} items`, {
      hint: "the run's record is damaged",
    });
  }
  if (typeof encoded !== "string") return Float64Array.from(encoded);
  return Float64Array.from({ length: items }, (_, j) => {
    const digit = Number.parseInt(encoded[Math.floor(j / BITS_PER_DIGIT)]!, 16);
    return (digit >> (BITS_PER_DIGIT - 1 - (j % BITS_PER_DIGIT))) & 1;
  });
}
