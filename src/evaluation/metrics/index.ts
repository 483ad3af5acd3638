import { accuracy } from "./accuracy.ts";
import { crossEntropy } from "./cross-entropy.ts";
import { kl } from "./kl.ts";
import { mae } from "./mae.ts";
import type { Metric, Task } from "./metric.ts";
import { mse } from "./mse.ts";
import { nll } from "./nll.ts";
import { perplexity } from "./perplexity.ts";
import { r2 } from "./r2.ts";
import { top1Agreement } from "./top1-agreement.ts";

/** All built-in metrics, by the name that evaluator files use. */
export const metrics = {
  accuracy,
  cross_entropy: crossEntropy,
  nll,
  perplexity,
  mse,
  mae,
  r2,
  kl,
  top1_agreement: top1Agreement,
} as const satisfies Readonly<Record<string, Metric>>;

export type MetricName = keyof typeof metrics;

/** The metric of a name, or undefined. */
export function findMetric(name: string): Metric | undefined {
  return Object.hasOwn(metrics, name) ? metrics[name as MetricName] : undefined;
}

/** Names of the metrics a task can be scored with, in registry order. */
export function metricNamesOf(task: Task): readonly string[] {
  return Object.values<Metric>(metrics)
    .filter((metric) => metric.tasks.includes(task))
    .map((metric) => metric.name);
}
