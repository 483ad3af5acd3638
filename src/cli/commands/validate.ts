import { exitStatusOf } from "../../base/errors.ts";
import type { ProgramChoice } from "../../evaluation/executor.ts";
import { validate as check, type Problem } from "../../run/validate.ts";
import type { Output } from "../output.ts";
import { formatBytes, formatDuration } from "../table.ts";
import type { Verb } from "../verb.ts";

function problemText(problem: Problem): string {
  const hint = problem.hint === undefined ? "" : `\n  hint: ${problem.hint}`;
  return `${problem.severity}: ${problem.message}${hint}`;
}

/** What runs the candidates, with the seconds that each way took in the probe. */
function programText({ program, feed, probe }: ProgramChoice): string {
  const seconds = (["basis", "inputs", "session"] as const).flatMap((way) => {
    const measured = probe[way];
    return measured === undefined ? [] : [`${way} ${measured.toPrecision(2)} s`];
  });
  const why = probe.noBasis === undefined ? "" : `; no basis: ${probe.noBasis}`;
  return `${program}${program === "slab" ? `, fed as ${feed}` : ""} (${seconds.join(", ")}${why})`;
}

/** Validates and reports; shared with `run --dry-run`. @returns the exit status */
export async function validateExperiment(
  output: Output,
  file: string,
  changes: readonly string[],
): Promise<number> {
  const report = await check(file, changes);
  for (const problem of report.problems) output.print(problemText(problem));
  if (report.coverage !== undefined) {
    const { merged, copied, refused } = report.coverage;
    output.print(`tensors: ${merged} merged, ${copied} copied, ${refused.length} refused`);
  }
  if (report.program !== undefined) output.print(`program: ${programText(report.program)}`);
  if (report.forecast !== undefined) {
    const { memoryBytes, diskBytes, secondsPerEvaluation, secondsTotal } = report.forecast;
    const total =
      secondsTotal === undefined
        ? ""
        : `, ${formatDuration(secondsTotal)} for the search (baselines and finalists come on top)`;
    output.print(
      `forecast: ${secondsPerEvaluation.toFixed(3)} s per evaluation${total}; memory ${formatBytes(memoryBytes)}; database ${formatBytes(diskBytes)}`,
    );
  }
  if (report.ok) output.print(`ok; start it with: mendel run ${file}`);
  output.emit("validate", report);
  if (report.ok) return 0;
  const code =
    report.problems.find(({ severity }) => severity === "error")?.code ?? "invalid-config";
  return exitStatusOf(code === "coverage" ? "mismatch" : code);
}

export const validate: Verb = {
  examples: ["validate examples/digits/experiment.yml", "validate experiment.yml --json"],
  configure(command) {
    const collect = (value: string, earlier: string[]): string[] => [...earlier, value];
    command
      .argument("<experiment>", "experiment file, or a folder with experiment.yml")
      .option("--set <key=value>", "change a key of the experiment (repeatable)", collect, []);
  },
  run: ({ output, args, options }) =>
    validateExperiment(output, args[0] as string, options["set"] as string[]),
};
