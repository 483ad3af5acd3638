import type { Program } from "./program.ts";
import { createSession } from "./session.ts";

/**
 * An existing ONNX file as a program: its own weights, whatever the recipe. For parents, teachers and exported models.
 *
 * @throws MendelError `invalid-file` when ONNX Runtime refuses the file
 */
export async function openFixedProgram(path: string): Promise<Program> {
  const session = await createSession(path);
  return {
    kind: "fixed",
    signature: session.signature,
    load: () => Promise.resolve(),
    run: session.run,
    release: session.release,
  };
}
