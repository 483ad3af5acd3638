import type { z } from "zod";
import { MendelError } from "../base/errors.ts";
import type { Json } from "../base/json.ts";

/**
 * The state inside a snapshot.
 *
 * @throws MendelError `database` when it is not a snapshot of this optimizer: damaged, or written by another one
 */
export function parseSnapshot<S extends z.ZodType>(
  optimizer: string,
  schema: S,
  snapshot: Json,
): z.output<S> {
  const result = schema.safeParse(snapshot);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  throw new MendelError(
    "database",
    `the saved state is not one of the optimizer ${optimizer}: ${issue?.path.join(".") ?? ""} ${issue?.message ?? ""}`,
    { hint: "the run's record is damaged, or it was made with another optimizer or version" },
  );
}

/** A saved vector must have the length that the problem gives it. */
export function expectLength(
  optimizer: string,
  what: string,
  actual: number,
  expected: number,
): void {
  if (actual === expected) return;
  throw new MendelError(
    "mismatch",
    `the saved state of ${optimizer} has ${actual} ${what}, the problem has ${expected}`,
    { hint: "a run can be continued only with the search space it was started with" },
  );
}
