import type { NativeFeeds, NativeTensor } from "./piece-session.ts";
import type { Feeds } from "./session.ts";

/** What a step of a walk is known by. */
export interface StepKey {
  readonly model: string;
  readonly layer: number;
  readonly scale: number;
}

/** Block runs: how many were asked for, and how many of them were answered by a state that was kept. */
export interface CacheCounts {
  asked: number;
  saved: number;
}

/** What the embedding makes of one minibatch. */
interface Start {
  readonly hidden: NativeTensor;
  readonly sides: NativeFeeds;
}

/** Hidden states of one minibatch behind one embedding. */
export interface BatchStates {
  /** The embedding's answer, computed once while there is room. */
  start(compute: () => Promise<Start>): Promise<Start>;
  /** The state after the longest beginning of a walk that is kept. Counts the walk's steps as asked for. */
  longest(
    steps: readonly StepKey[],
  ): { readonly state: NativeTensor; readonly length: number } | undefined;
  /** Offers the state after the first `length` steps. */
  keep(steps: readonly StepKey[], length: number, state: NativeTensor): void;
}

/**
 * Keeps hidden states by minibatch and walked prefix, so that candidates that begin alike share their beginning. Bounded:
 * the states that were not used for longest go first, and a state that alone would fill the room is not kept. A state that
 * is found equals the one that would be computed, bit for bit.
 */
export class StateCache {
  readonly counts: CacheCounts = { asked: 0, saved: 0 };
  readonly #limit: number;
  /** In order of use; the key is minibatch, embedding and prefix. */
  readonly #entries = new Map<string, Entry>();
  readonly #batches = new WeakMap<Feeds, number>();
  #nextBatch = 0;
  #bytes = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  of(feeds: Feeds, embedding: string): BatchStates {
    let batch = this.#batches.get(feeds);
    if (batch === undefined) {
      batch = this.#nextBatch++;
      this.#batches.set(feeds, batch);
    }
    const prefix = `${batch}\u001f${embedding}`;
    return {
      start: async (compute) => {
        const known = this.#use(prefix);
        if (known?.start !== undefined) return known.start;
        const start = await compute();
        const sides = Object.values(start.sides).reduce((sum, side) => sum + bytesOf(side), 0);
        this.#put(prefix, { start, bytes: bytesOf(start.hidden) + sides });
        return start;
      },
      longest: (steps) => {
        this.counts.asked += steps.length;
        const keys = keysOf(prefix, steps);
        for (let length = steps.length; length > 0; length--) {
          const state = this.#use(keys[length - 1]!)?.state;
          if (state === undefined) continue;
          this.counts.saved += length;
          return { state, length };
        }
        return undefined;
      },
      keep: (steps, length, state) => {
        this.#put(keysOf(prefix, steps.slice(0, length)).at(-1)!, { state, bytes: bytesOf(state) });
      },
    };
  }

  #use(key: string): Entry | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    return entry;
  }

  #put(key: string, entry: Entry): void {
    if (entry.bytes > this.#limit / 2 || this.#entries.has(key)) return;
    this.#entries.set(key, entry);
    this.#bytes += entry.bytes;
    for (const [oldest, { bytes }] of this.#entries) {
      if (this.#bytes <= this.#limit) return;
      this.#entries.delete(oldest);
      this.#bytes -= bytes;
    }
  }
}

interface Entry {
  readonly start?: Start;
  readonly state?: NativeTensor;
  readonly bytes: number;
}

/** Keys of all beginnings of a walk, the shortest first. */
function keysOf(prefix: string, steps: readonly StepKey[]): string[] {
  let key = prefix;
  return steps.map(({ model, layer, scale }) => {
    key += `\u001f${model}:${layer}*${scale}`;
    return key;
  });
}

function bytesOf(tensor: NativeTensor): number {
  const { data } = tensor;
  return Array.isArray(data) ? 0 : (data as { readonly byteLength: number }).byteLength;
}
