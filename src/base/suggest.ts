import levenshtein from "fast-levenshtein";

/**
 * The known name closest to `word`, when it is close enough to be a slip of the finger.
 *
 * @returns the suggestion, or undefined when nothing is within a third of the word's length (at least 2 edits).
 */
export function closest(word: string, known: Iterable<string>): string | undefined {
  const limit = Math.max(2, Math.floor(word.length / 3));
  let best: string | undefined;
  let bestDistance = limit + 1;
  for (const name of known) {
    const edits = levenshtein.get(word.toLowerCase(), name.toLowerCase());
    if (edits < bestDistance) {
      best = name;
      bestDistance = edits;
    }
  }
  return best;
}

/** "did you mean …?" plus the full list, as a hint for an unknown name. */
export function suggestion(word: string, known: Iterable<string>): string {
  const names = [...known];
  const near = closest(word, names);
  const list = names.length === 0 ? "nothing is defined" : `known: ${names.join(", ")}`;
  return near === undefined ? list : `did you mean "${near}"? ${list}`;
}
