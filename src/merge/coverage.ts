import type { MatchReport } from "./matching.ts";

/** What becomes of the output's tensors, counted, and of those that cannot be merged, named. */
export interface Coverage {
  readonly merged: number;
  readonly copied: number;
  readonly refused: readonly { readonly tensor: string; readonly reason: string }[];
}

/** The coverage of a matching: every tensor of the output in exactly one of the three. */
export function coverageOf(report: MatchReport): Coverage {
  const refused = report.refused.map(({ tensor, reason }) => ({ tensor, reason }));
  const names = new Set(refused.map(({ tensor }) => tensor));
  const fitting = report.plan.tensors.filter(({ name }) => !names.has(name));
  return {
    merged: fitting.filter(({ action }) => action === "merge").length,
    copied: fitting.filter(({ action }) => action === "copy").length,
    refused,
  };
}

/** More than this on a screen is read by nobody; models of different families refuse every tensor. */
const maxRefusals = 20;

/**
 * A coverage in a few lines for people: the counts; the reasons for copies, the most frequent first; every refusal; what
 * is left unused.
 */
export function coverageText(report: MatchReport): string {
  const { merged, copied, refused } = coverageOf(report);
  const lines = [`${merged} tensors merged, ${copied} copied, ${refused.length} refused`];
  const copies = report.plan.tensors.filter(({ action }) => action === "copy");
  for (const [reason, count] of counted(copies.map((tensor) => tensor.reason))) {
    lines.push(`  copied ${count}: ${reason}`);
  }
  for (const { tensor, reason } of refused.slice(0, maxRefusals)) {
    lines.push(`  refused ${tensor}: ${reason}`);
  }
  if (refused.length > maxRefusals)
    lines.push(`  and ${refused.length - maxRefusals} more refused`);
  const unused = report.fates.filter(({ fate }) => fate === "unused");
  for (const [reason, count] of counted(
    unused.map((entry) => `${entry.reason} (${entry.model})`),
  )) {
    lines.push(`  unused ${count}: ${reason}`);
  }
  return lines.join("\n");
}

function counted(reasons: readonly string[]): [string, number][] {
  const counts = new Map<string, number>();
  for (const reason of reasons) counts.set(reason, (counts.get(reason) ?? 0) + 1);
  return [...counts].sort(([a, x], [b, y]) => y - x || (a < b ? -1 : 1));
}
