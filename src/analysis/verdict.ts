import type { PairedTest } from "./paired-test.ts";

/** What a paired test says about the first model. */
export type Verdict = "better" | "worse" | "unclear";

/** Both the interval and the p-value must agree before a difference is called one. */
const LEVEL = 0.05;

/**
 * Better or worse only when the 95 % interval leaves zero out and p < 0.05; everything else is unclear.
 *
 * @param direction +1 where larger scores are better, −1 where smaller are
 */
export function verdictOf(
  test: Pick<PairedTest, "interval" | "pValue" | "meanDifference">,
  direction: 1 | -1,
): Verdict {
  const { interval, pValue, meanDifference } = test;
  if (interval === undefined || !(pValue < LEVEL)) return "unclear";
  if (interval.low <= 0 && interval.high >= 0) return "unclear";
  return meanDifference * direction > 0 ? "better" : "worse";
}
