import type { VerbEntry } from "../verb.ts";

/** Every verb, in the order help lists them. One file and one line each. */
export const verbs = {} as const satisfies Record<string, VerbEntry>;
