import type { ProgramChoice } from "./executor.ts";
import { runtimeRecord } from "./session.ts";

/**
 * A fresh session per candidate must be clearly faster to be chosen: it also costs memory, and the probe is one
 * measurement on a busy machine.
 */
const SESSION_ADVANTAGE = 0.9;

/** Chooses the feed from what the probe measured. @throws Error when it measured nothing */
export function chooseProgram(probe: ProgramChoice["probe"]): ProgramChoice {
  const { inputs, session } = probe;
  if (inputs === undefined && session === undefined) throw new Error("the probe measured nothing");
  const feed =
    inputs === undefined || (session !== undefined && session < SESSION_ADVANTAGE * inputs)
      ? "session"
      : "inputs";
  return { program: "slab", feed, probe, runtime: runtimeRecord() };
}
