import { digestOf } from "../base/hash.ts";
import type { Split } from "../evaluation/executor.ts";
import type { EvaluationOpening } from "../store/rows.ts";
import type { PreparedExperiment } from "./prepare.ts";

/**
 * The evaluations of one recipe on one split, with keys that promise equal scores: recipe, contents of the models,
 * evaluator with the contents of its data, split, and how candidates are run.
 */
export function evaluationKeys(
  prepared: PreparedExperiment,
  recipeSha256: string,
  split: Split,
): EvaluationOpening[] {
  return prepared.evaluators.map(({ name }) => ({
    evaluator: name,
    split,
    evalKey: digestOf([
      recipeSha256,
      prepared.digests.models,
      prepared.digests.evaluators[name] ?? "",
      split,
      prepared.digests.program,
    ]),
  }));
}
