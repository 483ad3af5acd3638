import { MendelError } from "../base/errors.ts";
import type { TrialScores } from "./score-trials.ts";

/** Evaluations looked at before failing can end a run; enough for a first generation to be unlucky. */
const WINDOW = 20;
/** Share of failures in the window beyond which the rest of the budget would be burnt for nothing. */
const LIMIT = 0.9;

/** Watches the newest evaluations and ends a run in which nearly all of them fail. */
export class FailureGuard {
  readonly #recent: (string | undefined)[] = [];

  note(scores: TrialScores): void {
    if (scores.state === "cancelled") return;
    this.#recent.push(
      scores.state === "failed" ? `${scores.failure}: ${scores.message}` : undefined,
    );
    if (this.#recent.length > WINDOW) this.#recent.shift();
  }

  /** @throws MendelError `too-many-failures` */
  check(): void {
    const failures = this.#recent.filter((failure) => failure !== undefined);
    if (this.#recent.length < WINDOW || failures.length < LIMIT * WINDOW) return;
    throw new MendelError(
      "too-many-failures",
      `${failures.length} of the last ${WINDOW} evaluations failed; the last one with ${failures.at(-1)}`,
      {
        hint: "`mendel status` lists failures by class; mend the cause, then `mendel resume`",
      },
    );
  }
}
