import { findBlocks } from "../graph/blocks.ts";
import { weightedGraph } from "../graph/weighted-graph.ts";
import type { Split } from "./executor.ts";
import { openGraph, prepareHost } from "./host-setup.ts";
import { openWhole } from "./path-program.ts";
import { type NativeTensor, toNativeFeeds } from "./piece-session.ts";
import { feedNames, pieceWeights } from "./piece-weights.ts";
import type { EvaluationPlan } from "./plan.ts";
import { prepareSplit } from "./prepared-split.ts";
import { type Feeds, outputTensor } from "./session.ts";
import { weightSourceOf } from "./shared-weights.ts";
import { graphNames } from "./slab-program.ts";
import { createSplitLoader } from "./split-data.ts";

/** How much blocks turn the hidden state, averaged over all positions that are not padding. */
export interface BlockInfluence {
  readonly blocks: number;
  /** Per block 1 − cos(h_l, h_{l+1}): near 0 for a block that hardly changes anything (Men et al. 2024, ShortGPT). */
  readonly influence: readonly number[];
  /**
   * angles[n − 1][l] is the angular distance arccos(cos(h_l, h_{l+n})) / π of n blocks from l on, from 0 to 1 (Gromov et al. 2024,
   * The unreasonable ineffectiveness of the deeper layers).
   */
  readonly angles: readonly (readonly number[])[];
}

/**
 * Runs the items of a split through the first model of a plan and measures its hidden states at every cut.
 *
 * @throws MendelError `unsupported` when its graph has no blocks; what opening models and data throws
 */
export async function blockInfluence(plan: EvaluationPlan, split: Split): Promise<BlockInfluence> {
  const { inputs, weights } = await prepareHost(plan);
  const { reader, modelId } = openGraph(plan);
  try {
    const names = graphNames({ graph: reader, graphId: modelId, inputs });
    const cut = findBlocks(weightedGraph(reader, feedNames(reader, names.values())));
    const source = weightSourceOf(weights);
    const owner = plan.base ?? Object.keys(plan.models)[0]!;
    const whole = await openWhole(cut, pieceWeights({ reader, inputs, source, names }), owner);
    const blocks = cut.blocks.length;
    const sums = new PairSums(blocks + 1);
    const signature = {
      inputs: [...whole.inputs].map(([name, facts]) => ({ name, ...facts })),
      outputs: cut.graph.model.graph.outputs.map(({ name }) => ({
        name,
        ...whole.outputs.get(name)!,
      })),
    };
    const loader = createSplitLoader();
    for (const evaluator of plan.evaluators) {
      const data = await loader.load(evaluator, split);
      for (const { feeds, items } of prepareSplit(evaluator, split, data, signature).batches) {
        const states = await whole.run(toNativeFeeds(feeds), cut.boundaries);
        sums.add(
          cut.boundaries.map((name) => states[name]!),
          feeds,
          items.length,
        );
      }
    }
    await whole.release();
    return sums.influence();
  } finally {
    reader.close();
  }
}

/** Sums over positions of the cosine and the angle between every two hidden states. */
export class PairSums {
  readonly #count: number;
  readonly #cosines: Float64Array;
  readonly #angles: Float64Array;
  #positions = 0;

  constructor(count: number) {
    this.#count = count;
    this.#cosines = new Float64Array(count * count);
    this.#angles = new Float64Array(count * count);
  }

  /** @param items rows of the batch that are no filling */
  add(states: readonly NativeTensor[], feeds: Feeds, items: number): void {
    const arrays = states.map((state) => outputTensor("hidden state", state).data);
    const { dims } = states[0]!;
    const width = dims.at(-1)!;
    const perItem = dims.slice(1, -1).reduce((product, dim) => product * dim, 1);
    const mask = maskOf(feeds, items * perItem);
    for (let position = 0; position < items * perItem; position++) {
      if (mask?.(position) === false) continue;
      this.#addPosition(arrays, position * width, width);
    }
  }

  #addPosition(arrays: readonly Float32Array[], start: number, width: number): void {
    const n = this.#count;
    const norms = arrays.map((state) => Math.sqrt(dot(state, state, start, width)));
    for (let i = 0; i < n; i++) {
      for (let j = i + 1; j < n; j++) {
        const product = norms[i]! * norms[j]!;
        const cosine = product === 0 ? 1 : dot(arrays[i]!, arrays[j]!, start, width) / product;
        this.#cosines[i * n + j]! += cosine;
        this.#angles[i * n + j]! += Math.acos(Math.min(1, Math.max(-1, cosine))) / Math.PI;
      }
    }
    this.#positions += 1;
  }

  influence(): BlockInfluence {
    const n = this.#count;
    const mean = (sums: Float64Array, i: number, j: number): number =>
      sums[i * n + j]! / this.#positions;
    const blocks = n - 1;
    return {
      blocks,
      influence: Array.from({ length: blocks }, (_, l) => 1 - mean(this.#cosines, l, l + 1)),
      angles: Array.from({ length: blocks }, (_, k) =>
        Array.from({ length: blocks - k }, (__, l) => mean(this.#angles, l, l + k + 1)),
      ),
    };
  }
}

function dot(a: Float32Array, b: Float32Array, start: number, width: number): number {
  let sum = 0;
  for (let i = start; i < start + width; i++) sum += a[i]! * b[i]!;
  return sum;
}

/** Whether a position holds a token, where the graph is told so and the hidden state has a row per token. */
function maskOf(feeds: Feeds, positions: number): ((position: number) => boolean) | undefined {
  const mask = feeds["attention_mask"];
  if (mask === undefined || mask.data.length < positions) return undefined;
  return (position) => Number(mask.data[position]) !== 0;
}
