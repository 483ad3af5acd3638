import type { Genome } from "../base/genome.ts";
import { middleOf } from "./axis-mapping.ts";
import type { Gene } from "./genes.ts";
import type { MethodInputs } from "./method-inputs.ts";

interface LabeledGenome {
  readonly label: string;
  readonly genome: Genome;
}

/** What a parameter has to be for a well-known recipe; `soft` ones stay at their start where the gene cannot be that. */
type Target = (parameter: string, model: string | undefined) => number | undefined;

/**
 * Genomes of recipes that every search should know: "uniform" (all models in equal parts) and each model alone, as far as
 * the genes' ranges, choices and fixed values can express them; with several methods, by the first that can.
 *
 * A model alone has weight 1 and the others 0 (or `t` at one end), nothing scaled and nothing dropped; the base alone has
 * weight 0 throughout. "uniform" is the same with weights 1/K over the K models that are not the base.
 */
export function initialGenomes(
  methods: readonly MethodInputs[],
  genes: readonly Gene[],
  start: readonly number[],
  offsets: ReadonlyMap<Gene, number>,
): LabeledGenome[] {
  const found = new Map<string, Genome>();
  const labels = ["uniform"];
  for (const { models, base } of methods) {
    labels.push(...models);
    if (base !== undefined) labels.push(base);
  }
  for (const label of new Set(labels)) {
    for (const [index, method] of methods.entries()) {
      const target = targetOf(label, method);
      if (target === undefined || !canExpress(label, method, genes, target)) continue;
      const values = [...start];
      if (methods.length > 1) values[0] = middleOf(index, methods.length);
      if (!place(values, method, genes, offsets, target, label)) continue;
      found.set(label, { kind: "vector", values });
      break;
    }
  }
  return distinct(found);
}

/** Neutral values of what would otherwise scale or thin out the result. */
const neutral: Readonly<Record<string, number>> = { lambda: 1, density: 1 };

function targetOf(label: string, { facts, models, base }: MethodInputs): Target | undefined {
  const isUniform = label === "uniform";
  if (!isUniform && !models.includes(label) && label !== base) return undefined;
  const has = (name: string, scope: "global" | "model") =>
    facts.parameters.some((known) => known.name === name && known.scope === scope);
  if (has("weight", "model")) {
    const experts = models.filter((model) => model !== base);
    // A single expert is averaged with its base.
    const share = 1 / (experts.length === 1 && base !== undefined ? 2 : experts.length);
    const rest = experts.length === 1 && base !== undefined ? share : 0;
    return (parameter, model) => {
      if (parameter !== "weight") return neutral[parameter];
      if (!isUniform) return model === undefined ? undefined : Number(model === label);
      return model === base && model !== undefined ? rest : share;
    };
  }
  if (has("t", "global") && models.length === 1) {
    const t = isUniform ? 0.5 : Number(label !== base);
    return (parameter) => (parameter === "t" ? t : neutral[parameter]);
  }
  return undefined;
}

/** Whether parameters that are not genes leave the recipe possible, and weights are not shared where they must differ. */
function canExpress(
  label: string,
  { facts, models }: MethodInputs,
  genes: readonly Gene[],
  target: Target,
): boolean {
  return facts.parameters.every((parameter) => {
    const gene = genes.find((candidate) => candidate.parameter === parameter.name);
    const value = gene === undefined ? parameter.default : gene.fixed;
    if (parameter.name === "weight" && gene !== undefined && !gene.per.model) {
      const weights = models.map((model) => target("weight", model));
      if (weights.some((weight) => weight !== weights[0])) return false;
      return gene.fixed === undefined || gene.fixed === weights[0];
    }
    if (value === undefined) return true;
    const wanted = target(parameter.name, models[0]);
    return wanted === undefined || value === wanted || label === "uniform";
  });
}

/** Writes the targets into a genome's coordinates; false when a gene cannot take what the recipe needs. */
function place(
  values: number[],
  method: MethodInputs,
  genes: readonly Gene[],
  offsets: ReadonlyMap<Gene, number>,
  target: Target,
  label: string,
): boolean {
  for (const gene of genes) {
    if (gene.fixed !== undefined || !gene.methods.has(method.facts.name)) continue;
    const offset = offsets.get(gene) as number;
    for (const [i, { model }] of gene.places.entries()) {
      if (model !== undefined && !method.models.includes(model)) continue;
      const wanted = target(gene.parameter, model ?? method.models[0]);
      if (wanted === undefined) continue;
      const coordinate = gene.mapping.encode(wanted);
      if (coordinate !== undefined) values[offset + i] = coordinate;
      else if (gene.parameter in neutral && label === "uniform") continue;
      else return false;
    }
  }
  return true;
}

/** The same genome once, under its first label. */
function distinct(genomes: ReadonlyMap<string, Genome>): LabeledGenome[] {
  const seen = new Set<string>();
  const list: LabeledGenome[] = [];
  for (const [label, genome] of genomes) {
    const key = JSON.stringify(genome);
    if (seen.has(key)) continue;
    seen.add(key);
    list.push({ label, genome });
  }
  return list;
}
