import { MendelError } from "../base/errors.ts";
import type { Genome } from "../base/genome.ts";
import type { Json } from "../base/json.ts";
import { suggestion } from "../base/suggest.ts";
import { cmaEs } from "./cma-es.ts";
import { cmaEsMargin } from "./cma-es-margin.ts";
import { naturalNiches } from "./natural-niches.ts";
import type { Optimizer, OptimizerDefinition, OptimizerProblem } from "./optimizer.ts";
import { random } from "./random.ts";
import { checkSegments } from "./segment-genome.ts";
import { completeSettings } from "./settings.ts";

/** All optimizers by registered name. */
export const optimizers = {
  random,
  cma_es: cmaEs,
  cma_es_margin: cmaEsMargin,
  natural_niches: naturalNiches,
} as const satisfies Record<string, OptimizerDefinition>;

/**
 * The definition of a named optimizer.
 *
 * @throws MendelError `invalid-config` for an unknown name
 */
export function optimizerNamed(name: string): OptimizerDefinition {
  const registered: Readonly<Record<string, OptimizerDefinition>> = optimizers;
  const definition = Object.hasOwn(registered, name) ? registered[name] : undefined;
  if (definition !== undefined) return definition;
  throw new MendelError("invalid-config", `there is no optimizer "${name}"`, {
    hint: suggestion(name, Object.keys(registered)),
    where: { key: "optimizer.name" },
  });
}

/**
 * An optimizer ready to be asked.
 *
 * @param rawSettings as the user wrote them; what is left out takes its default
 * @param snapshot of the same optimizer and problem, to continue from
 * @throws MendelError `invalid-config` for an unknown name or setting, a value out of range, or a problem this optimizer
 *   cannot work on; `database` or `mismatch` for a snapshot that does not belong here
 */
export function createOptimizer(
  name: string,
  rawSettings: Readonly<Record<string, unknown>>,
  problem: OptimizerProblem,
  snapshot?: Json,
): Optimizer {
  const definition = optimizerNamed(name);
  const settings = completeSettings(definition, rawSettings);
  checkProblem(definition, problem);
  return definition.create(problem, settings, snapshot);
}

function checkProblem(definition: OptimizerDefinition, problem: OptimizerProblem): void {
  const kind: Genome["kind"] = problem.segments === undefined ? "vector" : "segments";
  if (!definition.genomes.includes(kind)) {
    const able = Object.values(optimizers).filter((other) => other.genomes.includes(kind));
    throw refusal(
      `the optimizer ${definition.name} works on ${definition.genomes.join(" or ")} genomes, the search space has ${kind}`,
      `optimizers for it: ${able.map((other) => other.name).join(", ")}`,
    );
  }
  if (problem.objectives > definition.objectives) {
    throw refusal(
      `the optimizer ${definition.name} ranks by ${definition.objectives} objective, there are ${problem.objectives}`,
      "combine the objectives into one (objective: mean, worst or product)",
    );
  }
  if (kind === "vector" && problem.axes.length === 0) {
    throw refusal(
      "the search space has no free gene: nothing to search",
      "give a gene a range or choices",
    );
  }
  if (kind === "vector" && problem.start.length !== problem.axes.length) {
    throw new Error(`${problem.start.length} start values for ${problem.axes.length} axes`);
  }
  for (const genome of problem.initial) checkInitial(problem, genome);
}

function checkInitial(problem: OptimizerProblem, genome: Genome): void {
  if (genome.kind === "segments") {
    if (problem.segments === undefined) throw new Error("a segments genome without geometry");
    checkSegments(genome, problem.segments);
    return;
  }
  if (problem.segments !== undefined) throw new Error("a vector genome in a space of segments");
  const inside = genome.values.every((value) => value >= 0 && value <= 1);
  if (genome.values.length !== problem.axes.length || !inside) {
    throw new Error(`an initial genome must have ${problem.axes.length} values in [0, 1]`);
  }
}

function refusal(message: string, hint: string): MendelError {
  return new MendelError("invalid-config", message, { hint, where: { key: "optimizer" } });
}
