/** A path as the paper's genome says it: blocks by number over all models, and the factor on what enters each of them. */
export interface PublishedPath {
  readonly blocks: readonly number[];
  readonly scales: readonly number[];
}

/**
 * Decodes a genome of the evolutionary-merging paper (Akiba et al. 2025, Nature Machine Intelligence 7; arXiv 2403.13187): the
 * blocks of all models in order, repeated, make T slots; the genome holds T − 2 indicators and M² scale offsets. The path is
 * the first model's first block, the block t mod M of every slot t = 1 … T − 2 whose indicator is above 0, and the first
 * model's last block; going from block i to block j multiplies by 1 + S[i][j], and the first block's factor is 1.
 *
 * @param blocks M, over all models
 * @param own number of blocks of the first model
 */
export function decodePublished(
  genome: readonly number[],
  blocks: number,
  own: number,
  repeats: number,
): PublishedPath {
  const slots = blocks * repeats;
  if (genome.length !== publishedLength(blocks, repeats)) {
    throw new Error(`a genome of ${blocks} blocks and ${repeats} repeats has another length`);
  }
  const path = [0];
  for (let t = 1; t <= slots - 2; t++) if (genome[t - 1]! > 0) path.push(t % blocks);
  path.push(own - 1);
  const offset = slots - 2;
  const scales = path.map((block, at) =>
    at === 0 ? 1 : 1 + genome[offset + path[at - 1]! * blocks + block]!,
  );
  return { blocks: path, scales };
}

/** T − 2 + M². */
export function publishedLength(blocks: number, repeats: number): number {
  return blocks * repeats - 2 + blocks * blocks;
}
