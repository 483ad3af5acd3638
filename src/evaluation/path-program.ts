import { MendelError } from "../base/errors.ts";
import { buildOnnx } from "../formats/onnx/onnx-builder.ts";
import type { OnnxReader } from "../formats/onnx/open-onnx.ts";
import { findBlocks } from "../graph/blocks.ts";
import type { GraphCut, GraphPiece } from "../graph/cut.ts";
import {
  declaredTypes,
  layOutWeights,
  pieceModel,
  pieceWeightsName,
  type ValueType,
} from "../graph/piece-model.ts";
import type { FedTensor } from "../graph/weight-feed.ts";
import { weightedGraph } from "../graph/weighted-graph.ts";
import type { WeightSource } from "../merge/materialize.ts";
import { type MergeInputs, modelIdOf } from "../merge/plan.ts";
import { layerPathOf } from "../recipes/layer-path.ts";
import type { Recipe } from "../recipes/recipe.ts";
import {
  createPieceSession,
  dtypeOfNative,
  type NativeFeeds,
  type NativeTensor,
  type PieceSession,
  scalarTensor,
  toNativeFeeds,
} from "./piece-session.ts";
import { feedNames, type PieceWeights, pieceWeights, weightsOfPiece } from "./piece-weights.ts";
import type { Program } from "./program.ts";
import { type Feeds, type Outputs, outputTensor } from "./session.ts";
import { type CacheCounts, StateCache } from "./state-cache.ts";

export interface PathOptions {
  /** Closed when the program is released. */
  readonly graph: OnnxReader;
  readonly inputs: MergeInputs;
  readonly source: WeightSource;
  /** Planned tensor name → name in the graph. */
  readonly names: ReadonlyMap<string, string>;
  /** Whose embedding and head serve recipes that name no other, and whose own path is checked. */
  readonly owner: string;
  /** Runs recipes that are no walks: baselines, merges. Opened when the first one comes. */
  readonly fallback: () => Promise<Program>;
  /** Memory for hidden states that candidates share. */
  readonly cacheBytes?: number;
}

/** A program that walks through blocks, and what it saved. */
export interface PathProgram extends Program {
  readonly kind: "path";
  /** Number of blocks of one model. */
  readonly blocks: number;
  /** Block runs so far: asked for, and answered from the states of earlier candidates. */
  readonly counts: CacheCounts;
}

/** One step with everything decided. */
interface Step {
  readonly model: string;
  readonly layer: number;
  readonly scale: number;
}

/** Hidden states of one worker; enough for the calibration set of a small model, little beside the weights of a large one. */
const CACHE_BYTES = 256 * 1024 * 1024;
/** Largest difference between a model in one piece and the same model cut, relative to the largest number of an output. */
const CUT_TOLERANCE = 1e-5;

/**
 * The program of layer space: the model is cut once into embedding, blocks and head; every block of every model becomes a
 * session when it is first walked through, and a candidate is a list of them. No candidate merges or creates anything.
 * Hidden states are kept, within bounds, so that candidates that begin alike compute the common part once.
 *
 * Before the first answer, the owner's own path is compared with its model in one piece on the very items.
 *
 * @throws MendelError `unsupported` when the graph has no blocks that can be cut; `mismatch` when cut and whole differ
 */
export async function openPathProgram(options: PathOptions): Promise<PathProgram> {
  const cut = findBlocks(
    weightedGraph(options.graph, feedNames(options.graph, options.names.values())),
  );
  const weights = pieceWeights({ ...options, reader: options.graph });
  const whole = await openWhole(cut, weights, options.owner);
  const types = typesOf(cut, whole);
  const hidden = hiddenTypeOf(cut, types);
  const pieces = new PieceSessions(cut, weights, types, hidden);
  const cache = new StateCache(options.cacheBytes ?? CACHE_BYTES);
  const signature = {
    inputs: [...whole.inputs]
      .filter(([name]) => !cut.graph.weights.has(name))
      .map(([name, facts]) => ({ name, ...facts })),
    outputs: cut.graph.model.graph.outputs.map(({ name }) => ({
      name,
      ...(whole.outputs.get(name) ?? { type: "float32", shape: [] }),
    })),
  };
  let unchecked: PieceSession | undefined = whole;
  let fallback: Program | undefined;
  let current: { readonly kind: "path"; readonly path: Walk } | { readonly kind: "fallback" };
  current = { kind: "fallback" };

  const walk = async (
    { outer, steps }: Walk,
    feeds: Feeds,
    outputs: readonly string[],
  ): Promise<NativeFeeds> => {
    const data = toNativeFeeds(feeds);
    const states = cache.of(feeds, outer.embedding);
    const start = await states.start(async () => {
      const session = await pieces.embedding(outer.embedding);
      const made = await session.run(data, [cut.boundaries[0]!, ...cut.sides]);
      return { hidden: made[cut.boundaries[0]!]!, sides: made };
    });
    const values = { ...data, ...start.sides };
    let state = start.hidden;
    const kept = states.longest(steps);
    if (kept !== undefined) state = kept.state;
    for (let at = kept?.length ?? 0; at < steps.length; at++) {
      const step = steps[at]!;
      const block = await pieces.block(step.model, step.layer);
      const entering =
        step.scale === 1
          ? state
          : await pieces.scaled(state, scalarTensor(hidden.dtype, step.scale));
      const made = await block.run(
        { ...pick(values, cut.blocks[0]!.reads), [cut.boundaries[0]!]: entering },
        [cut.boundaries[1]!],
      );
      state = made[cut.boundaries[1]!]!;
      states.keep(steps, at + 1, state);
    }
    const head = await pieces.head(outer.head);
    const last = cut.boundaries.at(-1)!;
    return head.run({ ...pick(values, cut.head.reads), [last]: state }, outputs);
  };

  const checkOnce = async (feeds: Feeds): Promise<void> => {
    if (unchecked === undefined) return;
    const session = unchecked;
    unchecked = undefined;
    try {
      const outputs = signature.outputs.map(({ name }) => name);
      const expected = await session.run(toNativeFeeds(feeds), outputs);
      const actual = await walk(ownPath(options.owner, cut.blocks.length), feeds, outputs);
      for (const name of outputs) compare(cut, name, expected[name]!, actual[name]!);
    } finally {
      await session.release();
    }
  };

  return {
    kind: "path",
    blocks: cut.blocks.length,
    signature,
    counts: cache.counts,
    async load(recipe) {
      const path = walkOf(recipe, options, cut.blocks.length);
      if (path !== undefined) {
        current = { kind: "path", path };
        return;
      }
      fallback ??= await options.fallback();
      await fallback.load(recipe);
      current = { kind: "fallback" };
    },
    async run(feeds, outputs): Promise<Outputs> {
      if (current.kind === "fallback") {
        if (fallback === undefined) throw new Error("no candidate is loaded");
        return fallback.run(feeds, outputs);
      }
      await checkOnce(feeds);
      const made = await walk(current.path, feeds, outputs);
      return Object.fromEntries(outputs.map((name) => [name, outputTensor(name, made[name])]));
    },
    async release() {
      await unchecked?.release();
      unchecked = undefined;
      await pieces.release();
      options.graph.close();
      await fallback?.release();
      fallback = undefined;
    },
  };
}

/** A walk and whose embedding and head it begins and ends with. */
interface Walk {
  readonly outer: { readonly embedding: string; readonly head: string };
  readonly steps: readonly Step[];
}

function ownPath(model: string, blocks: number): Walk {
  return {
    outer: { embedding: model, head: model },
    steps: Array.from({ length: blocks }, (_, layer) => ({ model, layer, scale: 1 })),
  };
}

/** @throws MendelError `invalid-config` for a model or a layer that is not there */
function walkOf(recipe: Recipe, { inputs }: PathOptions, blocks: number): Walk | undefined {
  const path = layerPathOf(recipe);
  if (path === undefined) return undefined;
  const steps = path.steps.map(({ model, layer, scale }) => ({
    model: modelIdOf(model),
    layer,
    scale,
  }));
  const known = new Set(inputs.tensors.flatMap(({ sources }) => [...sources.keys()]));
  const [first] = steps;
  const last = steps.at(-1);
  if (first === undefined || last === undefined) {
    throw new MendelError("invalid-config", "the path has no step", {
      hint: "a model needs at least one block",
    });
  }
  for (const { model, layer, scale } of steps) {
    if (!known.has(model)) {
      throw new MendelError("invalid-config", `the path names the model "${model}"`, {
        hint: `models here: ${[...known].join(", ")}`,
      });
    }
    if (layer >= blocks) {
      throw new MendelError(
        "invalid-config",
        `the path asks for layer ${layer} of ${model}, but there are ${blocks} (0 to ${blocks - 1})`,
      );
    }
    if (!Number.isFinite(scale)) {
      throw new MendelError("invalid-config", `the scale ${scale} of a step is not finite`);
    }
  }
  const outer = path.outer === undefined ? undefined : modelIdOf(path.outer);
  return { outer: { embedding: outer ?? first.model, head: outer ?? last.model }, steps };
}

/** The owner's model in one piece, with the values that cross cuts among its outputs. */
export function openWhole(
  cut: GraphCut,
  weights: PieceWeights,
  owner: string,
): Promise<PieceSession> {
  const { graph } = cut;
  const all = [...graph.weights.values()];
  const outputs = new Set([
    ...graph.model.graph.outputs.map(({ name }) => name),
    ...cut.boundaries,
    ...cut.sides,
  ]);
  const types = declaredTypes(graph.model);
  const initializers = graph.model.graph.initializers.map(({ name }) => name);
  const model = pieceModel(graph, {
    nodes: graph.model.graph.nodes.map((node) => ({ node })),
    inputs: dataInputs(cut, types),
    outputs: [...outputs].map((name) => ({ name, ...typeIn(types, name) })),
    weights: placed(all),
    constants: initializers.filter((name) => !graph.weights.has(name)),
  });
  const data = weights.bytesOf(owner, all, all);
  return createPieceSession(model, { path: pieceWeightsName, data });
}

function dataInputs(cut: GraphCut, types: ReadonlyMap<string, ValueType>) {
  const initializers = new Set(cut.graph.model.graph.initializers.map(({ name }) => name));
  return cut.graph.model.graph.inputs
    .filter(({ name }) => !initializers.has(name))
    .map(({ name }) => {
      const type = types.get(name);
      if (type !== undefined) return { name, type };
      throw new MendelError("unsupported", `the graph input "${name}" is not a tensor of numbers`);
    });
}

function typeIn(types: ReadonlyMap<string, ValueType>, name: string) {
  const type = types.get(name);
  return type === undefined ? {} : { type };
}

function placed(like: readonly FedTensor[]) {
  const { offsets } = layOutWeights(like);
  return like.map((fed, i) => ({
    name: fed.graphName,
    like: fed,
    data:
      fed.byteLength === 0
        ? ({ kind: "embedded", bytes: { length: 0, chunks: () => [] } } as const)
        : ({
            kind: "external",
            location: pieceWeightsName,
            offset: offsets[i]!,
            length: fed.byteLength,
          } as const),
  }));
}

/**
 * Types of everything that crosses a cut, as the runtime infers them: sizes that it knows let it work out shapes once and not
 * in every run.
 */
function typesOf(cut: GraphCut, whole: PieceSession): ReadonlyMap<string, ValueType> {
  const types = new Map(declaredTypes(cut.graph.model));
  for (const name of [...cut.boundaries, ...cut.sides]) {
    const facts = whole.outputs.get(name);
    const dtype = dtypeOfNative(facts?.type ?? "");
    if (dtype === undefined) {
      throw new MendelError(
        "unsupported",
        `${cut.graph.path}: the value "${name}" crosses a cut, but its type ${facts?.type} cannot`,
        { where: { file: cut.graph.path } },
      );
    }
    types.set(name, { dtype, shape: facts?.shape.map(known) ?? [] });
  }
  return types;
}

function known(dim: number | string): number | string {
  return typeof dim === "number" && dim <= 0 ? "" : dim;
}

interface HiddenType extends ValueType {
  readonly dtype: "f32" | "f64" | "f16";
}

function hiddenTypeOf(cut: GraphCut, types: ReadonlyMap<string, ValueType>): HiddenType {
  const { dtype, shape } = types.get(cut.boundaries[0]!)!;
  if (dtype === "f32" || dtype === "f64" || dtype === "f16") return { dtype, shape };
  throw new MendelError("unsupported", `the hidden state of ${cut.graph.path} is ${dtype}`);
}

function pick(values: NativeFeeds, names: readonly string[]): NativeFeeds {
  return Object.fromEntries(names.map((name) => [name, values[name]!]));
}

/** Sessions of all pieces, each created when it is first wanted. */
class PieceSessions {
  readonly #cut: GraphCut;
  readonly #weights: PieceWeights;
  readonly #types: ReadonlyMap<string, ValueType>;
  readonly #hidden: HiddenType;
  readonly #sessions = new Map<string, Promise<PieceSession>>();

  constructor(
    cut: GraphCut,
    weights: PieceWeights,
    types: ReadonlyMap<string, ValueType>,
    hidden: HiddenType,
  ) {
    this.#cut = cut;
    this.#weights = weights;
    this.#types = types;
    this.#hidden = hidden;
  }

  embedding(model: string): Promise<PieceSession> {
    const { embedding, boundaries, sides } = this.#cut;
    return this.#once(`embedding ${model}`, () =>
      this.#open(model, embedding, embedding, {
        inputs: dataInputs(this.#cut, this.#types),
        outputs: [boundaries[0]!, ...sides],
      }),
    );
  }

  /** The structure of the first block with the weights of another one: all blocks compute the same. */
  block(model: string, layer: number): Promise<PieceSession> {
    const { blocks, boundaries } = this.#cut;
    const [first] = blocks;
    return this.#once(`block ${model} ${layer}`, () =>
      this.#open(model, first!, blocks[layer]!, {
        inputs: [{ name: boundaries[0]!, type: this.#hidden }, ...this.#reads(first!)],
        outputs: [boundaries[1]!],
      }),
    );
  }

  head(model: string): Promise<PieceSession> {
    const { head, boundaries, graph } = this.#cut;
    const last = boundaries.at(-1)!;
    return this.#once(`head ${model}`, () =>
      this.#open(model, head, head, {
        inputs: [{ name: last, type: this.#types.get(last)! }, ...this.#reads(head)],
        outputs: graph.model.graph.outputs.map(({ name }) => name),
      }),
    );
  }

  /** The hidden state times a number. Most steps need none of it, so blocks are not made for it. */
  async scaled(state: NativeTensor, scale: NativeTensor): Promise<NativeTensor> {
    const { dtype, shape } = this.#hidden;
    const session = await this.#once("scale", () =>
      createPieceSession(
        buildOnnx({
          inputs: [
            { name: "state", dtype, shape },
            { name: "scale", dtype, shape: [] },
          ],
          nodes: [{ op: "Mul", inputs: ["state", "scale"], outputs: ["scaled"] }],
          outputs: [{ name: "scaled", dtype, shape }],
        }),
      ),
    );
    return (await session.run({ state, scale }, ["scaled"]))["scaled"]!;
  }

  async release(): Promise<void> {
    const open = [...this.#sessions.values()];
    this.#sessions.clear();
    for (const opening of open) {
      const session = await opening.catch(() => undefined);
      await session?.release();
    }
  }

  #reads({ reads }: GraphPiece) {
    return reads.map((name) => ({ name, type: this.#types.get(name)! }));
  }

  #once(key: string, open: () => Promise<PieceSession>): Promise<PieceSession> {
    const known = this.#sessions.get(key);
    if (known !== undefined) return known;
    const fresh = open();
    this.#sessions.set(key, fresh);
    return fresh;
  }

  #open(
    model: string,
    structure: GraphPiece,
    own: GraphPiece,
    ends: {
      readonly inputs: readonly { readonly name: string; readonly type: ValueType }[];
      readonly outputs: readonly string[];
    },
  ): Promise<PieceSession> {
    const { graph } = this.#cut;
    const like = weightsOfPiece(structure, graph.weights);
    const bytes = pieceModel(graph, {
      nodes: structure.nodes.map((node) => ({ node })),
      inputs: ends.inputs,
      outputs: ends.outputs.map((name) => ({ name, ...typeIn(this.#types, name) })),
      weights: placed(like),
      constants: structure.constants,
    });
    const data = this.#weights.bytesOf(model, like, weightsOfPiece(own, graph.weights));
    return createPieceSession(bytes, { path: pieceWeightsName, data });
  }
}

/** @throws MendelError `mismatch` where the cut model answers otherwise than the whole one */
function compare(cut: GraphCut, name: string, expected: NativeTensor, actual: NativeTensor): void {
  const want = outputTensor(name, expected).data;
  const have = outputTensor(name, actual).data;
  let largest = 0;
  let difference = want.length === have.length ? 0 : Number.POSITIVE_INFINITY;
  for (let i = 0; i < want.length; i++) {
    largest = Math.max(largest, Math.abs(want[i]!));
    const gap = Math.abs(want[i]! - have[i]!);
    if (!(gap <= difference)) difference = gap;
  }
  // Written so that NaN fails.
  if (difference <= CUT_TOLERANCE * Math.max(1, largest)) return;
  throw new MendelError(
    "mismatch",
    `${cut.graph.path}: cut into blocks, the model answers otherwise: "${name}" differs by ${difference.toExponential(1)}`,
    {
      hint: "its blocks cannot be walked one by one; search in parameter space instead",
      where: { file: cut.graph.path },
    },
  );
}
