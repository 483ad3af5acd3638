import { MendelError } from "../base/errors.ts";
import type { Genome } from "../base/genome.ts";
import { suggestion } from "../base/suggest.ts";
import { type LayerStep, layerRecipe } from "../recipes/layer-path.ts";
import type { Recipe } from "../recipes/recipe.ts";
import { type AxisMapping, choiceAt, clamp, middleOf, rangeMapping } from "./axis-mapping.ts";
import type { LayersDefinition, LengthLimit } from "./layers-definition.ts";
import type { GeneValue, Space, SpaceContext } from "./space.ts";

/** A block of a model, and which of its repetitions. */
interface Slot {
  readonly model: string;
  readonly layer: number;
  /** From 0. */
  readonly repeat: number;
}

/** A chosen slot: what a step is made of before scales. */
interface Chosen extends Slot {
  /** Number among all slots, for its own scale. */
  readonly slot: number;
  /** How much the genome wants it, for length limits. */
  readonly strength: number;
}

/**
 * Scales are rounded to multiples of this (exact in binary): differences below it change no score that can be told apart, and
 * paths that differ in nothing else are answered from the store.
 */
const SCALE_STEP = 1 / 128;
/** Coordinates that begin at yes and no: with the usual step size of 0.2, two standard deviations from the threshold. */
const YES = 0.9;
const NO = 0.1;

/**
 * The space of paths through the blocks of several models of one shape.
 *
 * Every axis is one coordinate in [0, 1]. First come the genes of the path, `include` (above 1/2 is yes) or `choose` (as many
 * equal parts as there are models, and one for none), then the scales. Steps keep the order of the slots; what a length limit
 * forbids loses the slots that are wanted least. `decode` is defined on the whole cube, and equal paths give equal recipes.
 *
 * @param blocks number of blocks of each model
 * @throws MendelError `invalid-config` for unknown models and limits that nothing satisfies
 */
export function layersSpace(
  title: string,
  definition: LayersDefinition,
  context: SpaceContext,
  blocks: number,
  file: string,
): Space {
  const models = modelsOf(definition, context, file);
  const [first] = models as [string, ...string[]];
  const slots = slotsOf(definition, models, blocks);
  const limits = limitsOf(definition, blocks, slots.length, file);
  const path = definition.genes === "include" ? includeGenes(slots) : chooseGenes(slots, models);
  const scales = scaleGenes(definition, slots, models, blocks, path.axes.length);
  const own = slots.map(({ model, repeat }) => model === first && repeat === 0);
  const started = definition.start === "own" ? path.encode(own) : path.even;
  const axes = [...path.axes, ...scales.axes];
  const start = [...started, ...scales.start];

  const stepsOf = (genome: Genome): LayerStep[] => {
    if (genome.kind !== "vector" || genome.values.length !== axes.length) {
      throw new Error(`this space has genomes of ${axes.length} coordinates`);
    }
    const values = genome.values.map((value) => {
      if (Number.isNaN(value)) throw new Error("a coordinate of a genome is NaN");
      return clamp(value, 0, 1);
    });
    const chosen = withinLimits(path.decode(values), slots, limits);
    const fixed = (layer: number): Chosen => ({
      ...{ model: first, layer, repeat: 0, slot: -1, strength: 1 },
    });
    const walk =
      definition.ends === "fixed" ? [fixed(0), ...chosen, fixed(blocks - 1)] : [...chosen];
    return walk.map((step, at) => {
      // The embedding's own scale is what the first block was trained with.
      const scale = at === 0 ? 1 : scales.decode(values, walk[at - 1] as Chosen, step);
      return { model: { model: step.model }, layer: step.layer, scale };
    });
  };
  const common = {
    seed: context.seed,
    ...(context.compat === undefined ? {} : { compat: context.compat }),
  };
  const alone = models.map((model) => ({
    label: model === first || definition.ends === "free" ? model : `inner ${model}`,
    genome: {
      kind: "vector" as const,
      values: [
        ...path.encode(slots.map((slot) => slot.model === model && slot.repeat === 0)),
        ...scales.start,
      ],
    },
  }));
  return {
    title,
    genome: "vector",
    models,
    axes,
    start,
    levels: [...path.levels, ...scales.axes.map(() => undefined)],
    groups: new Map(),
    frozen: [],
    decode: (genome): Recipe => layerRecipe(stepsOf(genome), { model: first }, common),
    genes: (genome) => describe(stepsOf(genome)),
    initial: alone,
  };
}

function modelsOf(
  { from }: LayersDefinition,
  { models, base }: SpaceContext,
  file: string,
): readonly string[] {
  const ordered = base === undefined ? models : [base, ...models.filter((name) => name !== base)];
  const unknown = from?.find((name) => !models.includes(name));
  if (unknown !== undefined) {
    throw new MendelError("invalid-config", `from: there is no model named "${unknown}"`, {
      hint: suggestion(unknown, models),
      where: { file, key: "from" },
    });
  }
  return from ?? ordered;
}

/** All slots that a genome decides about, in the order of steps. */
function slotsOf(
  { repeats, order, ends, genes }: LayersDefinition,
  models: readonly string[],
  blocks: number,
): readonly Slot[] {
  const layers = Array.from({ length: blocks }, (_, layer) => layer);
  const rounds = Array.from({ length: repeats }, (_, repeat) => repeat);
  if (order === "model") {
    const all = rounds.flatMap((repeat) =>
      models.flatMap((model) => layers.map((layer) => ({ model, layer, repeat }))),
    );
    // The paper's T − 2: the first and the last slot give way to the first model's first and last block.
    return ends === "fixed" ? all.slice(1, -1) : all;
  }
  const inner = genes === "choose" && ends === "fixed" ? layers.slice(1, -1) : layers;
  const all = inner.flatMap((layer) =>
    rounds.flatMap((repeat) => models.map((model) => ({ model, layer, repeat }))),
  );
  const isEnd = ({ model, layer, repeat }: Slot): boolean =>
    model === models[0] && repeat === 0 && (layer === 0 || layer === blocks - 1);
  return ends === "fixed" ? all.filter((slot) => !isEnd(slot)) : all;
}

interface Limits {
  readonly shortest: number;
  readonly longest: number;
}

/** Limits on the number of chosen slots. */
function limitsOf(
  { shortest, longest, ends }: LayersDefinition,
  blocks: number,
  slots: number,
  file: string,
): Limits {
  const outside = ends === "fixed" ? 2 : 0;
  const steps = (limit: LengthLimit): number =>
    limit.kind === "steps" ? limit.steps : Math.floor(limit.times * blocks);
  // A path of no block at all is no model.
  const least = Math.max(shortest === undefined ? 0 : steps(shortest) - outside, 1 - outside, 0);
  const most = longest === undefined ? slots : Math.min(slots, steps(longest) - outside);
  if (most >= least && most >= 0 && outside + most > 0) return { shortest: least, longest: most };
  const fixed = outside > 0 ? `the first and last block take ${outside} steps` : "";
  throw new MendelError(
    "invalid-config",
    `length: no path satisfies it: at least ${least + outside} and at most ${most + outside} steps`,
    { hint: fixed || "raise length.max", where: { file, key: "length" } },
  );
}

/** The genes that choose slots. */
interface PathGenes {
  readonly axes: readonly string[];
  /** Number of values of each axis. */
  readonly levels: readonly number[];
  /** Coordinates without a preference. */
  readonly even: readonly number[];
  encode(wanted: readonly boolean[]): readonly number[];
  decode(values: readonly number[]): readonly Chosen[];
}

function slotName({ model, layer, repeat }: Slot): string {
  return repeat === 0 ? `${model}:${layer}` : `${model}:${layer} (${repeat + 1})`;
}

function includeGenes(slots: readonly Slot[]): PathGenes {
  return {
    axes: slots.map((slot) => `include[${slotName(slot)}]`),
    levels: slots.map(() => 2),
    even: slots.map(() => 0.5),
    encode: (wanted) => wanted.map((yes) => (yes ? YES : NO)),
    decode: (values) =>
      slots.map((slot, i) => ({ ...slot, slot: i, strength: (values[i] as number) - 0.5 })),
  };
}

/** Neighboring slots of one depth and repetition are one gene: none of them, or one of their models. */
function chooseGenes(slots: readonly Slot[], models: readonly string[]): PathGenes {
  const places: { readonly layer: number; readonly repeat: number; readonly slots: number[] }[] =
    [];
  slots.forEach(({ layer, repeat }, i) => {
    const last = places.at(-1);
    if (last !== undefined && last.layer === layer && last.repeat === repeat) last.slots.push(i);
    else places.push({ layer, repeat, slots: [i] });
  });
  return {
    axes: places.map(({ layer, repeat }) =>
      repeat === 0 ? `block[${layer}]` : `block[${layer} (${repeat + 1})]`,
    ),
    levels: places.map((place) => place.slots.length + 1),
    even: places.map(() => 0.5),
    encode: (wanted) =>
      places.map((place) => {
        const at = place.slots.findIndex((slot) => wanted[slot]);
        return middleOf(at + 1, place.slots.length + 1);
      }),
    decode: (values) =>
      places.flatMap((place, p) => {
        const choice = choiceAt(values[p] as number, place.slots.length + 1);
        return place.slots.map((slot, k) => ({
          ...(slots[slot] as Slot),
          slot,
          // A limit takes repetitions away before first visits, later depths before earlier ones.
          strength:
            choice === k + 1 ? 1 / (1 + place.repeat * places.length + p) : -1 - k / models.length,
        }));
      }),
  };
}

/** Chosen slots in order; where a limit is broken, the strongest stay or the strongest others join. */
function withinLimits(
  all: readonly Chosen[],
  slots: readonly Slot[],
  { shortest, longest }: Limits,
): readonly Chosen[] {
  const wanted = all.filter(({ strength }) => strength > 0).length;
  const count = Math.min(longest, Math.max(shortest, wanted));
  if (count === wanted) return all.filter(({ strength }) => strength > 0);
  const strongest = [...all].sort((a, b) => b.strength - a.strength || a.slot - b.slot);
  const kept = new Set(strongest.slice(0, Math.min(count, slots.length)).map(({ slot }) => slot));
  return all.filter(({ slot }) => kept.has(slot));
}

/** The genes of the factors on the hidden state. */
interface ScaleGenes {
  readonly axes: readonly string[];
  readonly start: readonly number[];
  decode(values: readonly number[], before: Chosen, step: Chosen): number;
}

function scaleGenes(
  { scale, ends }: LayersDefinition,
  slots: readonly Slot[],
  models: readonly string[],
  blocks: number,
  offset: number,
): ScaleGenes {
  if (scale.per === "none") return { axes: [], start: [], decode: () => 1 };
  const [low, high] = scale.range;
  const rounded = (value: number): number =>
    clamp(Math.round(value / SCALE_STEP) * SCALE_STEP, low, high);
  const mapping = rangeMapping(scale.range, "linear", [scale.start]);
  const startAt = mapping.encode(scale.start) as number;
  if (scale.per === "step") {
    const axes = slots.map((slot) => `scale[${slotName(slot)}]`);
    if (ends === "fixed") axes.push(`scale[${models[0]}:${blocks - 1}, last]`);
    return {
      axes,
      start: axes.map(() => startAt),
      decode: (values, _, { slot }) =>
        rounded(mapping.decode(values[offset + (slot < 0 ? slots.length : slot)] as number)),
    };
  }
  const names = models.flatMap((model) =>
    Array.from({ length: blocks }, (_, layer) => `${model}:${layer}`),
  );
  const blockOf = ({ model, layer }: Slot): number => models.indexOf(model) * blocks + layer;
  if (scale.rank === undefined) return fullPairs(names, blockOf, mapping, startAt, offset, rounded);
  return lowRankPairs(names, blockOf, scale.rank, scale, offset, rounded);
}

/** W, one factor per ordered pair of blocks. */
function fullPairs(
  names: readonly string[],
  blockOf: (slot: Slot) => number,
  mapping: AxisMapping,
  startAt: number,
  offset: number,
  rounded: (value: number) => number,
): ScaleGenes {
  const axes = names.flatMap((from) => names.map((to) => `scale[${from} → ${to}]`));
  return {
    axes,
    start: axes.map(() => startAt),
    decode: (values, before, step) =>
      rounded(
        mapping.decode(values[offset + blockOf(before) * names.length + blockOf(step)] as number),
      ),
  };
}

/** W = start + Σ_k u_k v_kᵀ, each entry of u and v within ±√(half the range): products stay about within the range. */
function lowRankPairs(
  names: readonly string[],
  blockOf: (slot: Slot) => number,
  rank: number,
  {
    range: [low, high],
    start,
  }: { readonly range: readonly [number, number]; readonly start: number },
  offset: number,
  rounded: (value: number) => number,
): ScaleGenes {
  const reach = Math.sqrt((high - low) / 2 / rank);
  const ks = Array.from({ length: rank }, (_, k) => k);
  const axes = ["from", "to"].flatMap((side) =>
    ks.flatMap((k) => names.map((name) => `scale ${side}[${name}, ${k + 1}]`)),
  );
  const entry = (values: readonly number[], side: number, k: number, block: number): number =>
    (2 * (values[offset + (side * rank + k) * names.length + block] as number) - 1) * reach;
  // All at zero nothing could be learned of one factor without the other; one side begins off zero.
  const begin = axes.map((_, i) => (i < axes.length / 2 ? 0.5 : 0.75));
  return {
    axes,
    start: begin,
    decode: (values, before, step) => {
      let sum = start;
      for (const k of ks) {
        sum += entry(values, 0, k, blockOf(before)) * entry(values, 1, k, blockOf(step));
      }
      return rounded(sum);
    },
  };
}

function describe(steps: readonly LayerStep[]): GeneValue[] {
  const parts: string[] = [];
  let run: { model: string; from: number; to: number } | undefined;
  const flush = (): void => {
    if (run !== undefined) {
      parts.push(`${run.model}:${run.from}${run.to > run.from ? `-${run.to}` : ""}`);
    }
  };
  for (const { model, layer } of steps) {
    if (run !== undefined && run.model === model.model && run.to + 1 === layer) run.to = layer;
    else {
      flush();
      run = { model: model.model, from: layer, to: layer };
    }
  }
  flush();
  return [
    { name: "path", value: parts.join(" ") },
    { name: "steps", value: steps.length },
    ...steps.flatMap(({ model, layer, scale }, at): GeneValue[] =>
      scale === 1
        ? []
        : [
            {
              name: "scale",
              value: scale,
              model: model.model,
              group: `step ${at + 1}, layer ${layer}`,
            },
          ],
    ),
  ];
}
