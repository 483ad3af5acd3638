import type { ProgramChoice } from "./executor.ts";
import { runtimeRecord } from "./session.ts";

/**
 * A fresh session per candidate must be clearly faster to be chosen: it also costs memory, and the probe is one
 * measurement on a busy machine. The same holds for a slab against a basis, whose weights are shared by all workers.
 */
const CLEAR_ADVANTAGE = 0.9;

/**
 * Chooses program and feed from what the probe measured.
 *
 * @param wanted a program to prefer wherever it was measured; `path` is no matter of speed
 * @throws Error when the probe measured no slab: every program needs one for what it cannot do itself
 */
export function chooseProgram(
  probe: ProgramChoice["probe"],
  wanted: "auto" | "slab" | "basis" | "path" = "auto",
): ProgramChoice {
  const { inputs, session, basis } = probe;
  if (inputs === undefined && session === undefined) throw new Error("the probe measured nothing");
  const feed =
    inputs === undefined || (session !== undefined && session < CLEAR_ADVANTAGE * inputs)
      ? "session"
      : "inputs";
  if (wanted === "path") return { program: "path", feed, probe, runtime: runtimeRecord() };
  const slab = feed === "inputs" ? inputs! : session!;
  const faster = basis !== undefined && CLEAR_ADVANTAGE * basis <= slab;
  const program =
    basis !== undefined && (wanted === "basis" || (wanted === "auto" && faster)) ? "basis" : "slab";
  return { program, feed, probe, runtime: runtimeRecord() };
}
