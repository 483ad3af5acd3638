import { MendelError } from "../../src/base/errors.ts";

/** The error for users that a piece of work ends with; anything else is a failure of the test. */
export function refusalOf(work: () => unknown): MendelError {
  try {
    work();
  } catch (thrown) {
    if (thrown instanceof MendelError) return thrown;
    throw thrown;
  }
  throw new Error("nothing was refused");
}
