import { MendelError } from "../base/errors.ts";
import type { OnnxReader } from "../formats/onnx/open-onnx.ts";
import { buildWeightFeed, type FedTensor, type FeedKind } from "../graph/weight-feed.ts";
import { type CompiledTensor, compileRecipe } from "../merge/compile.ts";
import { kernelBytesFor, materializeTensor, type WeightSource } from "../merge/materialize.ts";
import type { MergeInputs } from "../merge/plan.ts";
import { layerPathOf } from "../recipes/layer-path.ts";
import type { Recipe } from "../recipes/recipe.ts";
import { dtypeBytes, isFloat } from "../tensors/dtype.ts";
import type { Kernels } from "../tensors/kernels.ts";
import { elementCount } from "../tensors/shape.ts";
import { createKernels } from "../tensors/wasm-kernels.ts";
import type { Program } from "./program.ts";
import { createSession, type Feeds, type FeedTensor, type ModelSession } from "./session.ts";

export interface SlabOptions {
  /** The ONNX model whose graph runs the candidates. */
  readonly graph: OnnxReader;
  /** Its id among the models, when it is one of them: it may call tensors by other names. */
  readonly graphId: string | undefined;
  readonly inputs: MergeInputs;
  readonly source: WeightSource;
  readonly feed: FeedKind;
}

/** Where a merged tensor goes: its place in the slab, in the layout the graph wants. */
interface SlabTensor {
  readonly fed: FedTensor;
  readonly words: Float32Array | Float64Array | Uint16Array;
  /** Rows and columns of the logical matrix when the graph holds its transpose. */
  readonly transpose: { readonly rows: number; readonly columns: number } | undefined;
}

/** Kernel memory to begin with; recipes that need more get a larger instance. */
const FIRST_KERNEL_BYTES = 16 * 1024 * 1024;

/**
 * The general program: kernels compute every weight of a candidate into one block of memory that is reused from candidate to
 * candidate, and the graph reads it there: as inputs of one session that lives on, or copied into a fresh session as external
 * data. No candidate touches the file system.
 *
 * @throws MendelError `mismatch` when graph and models do not fit; what building the graph throws
 */
export async function openSlabProgram(options: SlabOptions): Promise<Program> {
  const { graph, inputs, source, feed } = options;
  const names = graphNames(options);
  const built = buildWeightFeed(graph, { feed, names: names.values() });
  const slab = new ArrayBuffer(built.slabBytes);
  const fedByName = new Map(built.tensors.map((fed) => [fed.name, fed]));
  const places = new Map(
    [...names].map(([planned, name]) => [planned, slabTensor(slab, fedByName.get(name)!)]),
  );
  const external = [
    ...(built.weightsPath === undefined
      ? []
      : [{ path: built.weightsPath, data: new Uint8Array(slab) }]),
    ...built.externalData,
  ];
  const weightFeeds: Feeds =
    feed === "inputs"
      ? Object.fromEntries(built.tensors.map((fed) => [fed.graphName, feedTensor(slab, fed)]))
      : {};
  let kernels = createKernels({ bytes: FIRST_KERNEL_BYTES });
  let kernelBytes = FIRST_KERNEL_BYTES;
  // Planned name → origin of the copy that lies in the slab: what is only copied is written once.
  const copied = new Map<string, string>();
  let session: ModelSession | undefined = await createSession(built.model, external);
  const weightInputs = new Set(Object.keys(weightFeeds));
  const signature = {
    inputs: session.signature.inputs.filter(({ name }) => !weightInputs.has(name)),
    outputs: session.signature.outputs,
  };
  return {
    kind: "slab",
    signature,
    async load(recipe) {
      const compiled = compileFor(recipe, inputs, places);
      const needed = kernelBytesFor(compiled);
      if (needed > kernelBytes) {
        kernels = createKernels({ bytes: needed });
        kernelBytes = needed;
      }
      compiled.tensors.forEach((tensor, index) => {
        const place = places.get(tensor.name);
        if (place === undefined) return;
        const origin = originOf(tensor);
        if (origin !== undefined && copied.get(tensor.name) === origin) return;
        copied.delete(tensor.name);
        const mark = kernels.mark();
        const store = storeInto(place, kernels);
        materializeTensor(compiled, index, { kernels, source, store });
        kernels.release(mark);
        if (origin !== undefined) copied.set(tensor.name, origin);
      });
      if (feed === "session") {
        await session?.release();
        session = undefined;
        session = await createSession(built.model, external);
      }
    },
    run(feeds, outputs) {
      if (session === undefined) throw new Error("no candidate is loaded");
      return session.run({ ...feeds, ...weightFeeds }, outputs);
    },
    async release() {
      await session?.release();
      session = undefined;
    },
  };
}

/**
 * Planned tensor name → name in the graph, for all float tensors that the graph has.
 *
 * @throws MendelError `mismatch` when a merged tensor is missing in the graph (it would be searched without effect) or has
 *   another shape there
 */
export function graphNames({
  graph,
  graphId,
  inputs,
}: Pick<SlabOptions, "graph" | "graphId" | "inputs">): ReadonlyMap<string, string> {
  const names = new Map<string, string>();
  for (const planned of inputs.tensors) {
    const own = graphId === undefined ? undefined : planned.sources.get(graphId);
    const name = own?.name ?? planned.name;
    const weight = graph.find(name);
    if (weight !== undefined && isFloat(weight.dtype)) {
      const same = elementCount(weight.shape) === elementCount(planned.shape);
      if (!same) throw shapeMismatch(graph, name, planned.shape, weight.shape);
      names.set(planned.name, name);
    } else if (planned.action === "merge") {
      throw new MendelError(
        "mismatch",
        `the graph ${graph.path} has no weight "${name}", so merging it could not be evaluated`,
        {
          hint: "choose a graph of the same architecture, or freeze the tensor if it takes no part in inference",
          where: { file: graph.path, tensor: name },
        },
      );
    }
  }
  if (names.size === 0) {
    throw new MendelError("mismatch", `the graph ${graph.path} shares no weight with the models`, {
      where: { file: graph.path },
    });
  }
  return names;
}

function shapeMismatch(
  graph: OnnxReader,
  tensor: string,
  planned: readonly number[],
  own: readonly number[],
): MendelError {
  return new MendelError(
    "mismatch",
    `tensor "${tensor}" has shape [${planned.join(", ")}] in the models but [${own.join(", ")}] in the graph`,
    { where: { file: graph.path, tensor } },
  );
}

/** Compiles a recipe and checks that it makes exactly the graph's weights. */
function compileFor(
  recipe: Recipe,
  inputs: MergeInputs,
  places: ReadonlyMap<string, SlabTensor>,
): ReturnType<typeof compileRecipe> {
  if (layerPathOf(recipe)?.steps.some(({ scale }) => scale !== 1)) {
    throw new MendelError("unsupported", "factors on the hidden state are no part of weights", {
      hint: "only a program that walks through layers can evaluate this recipe",
    });
  }
  const compiled = compileRecipe(recipe, inputs);
  const made = new Set(compiled.tensors.map((tensor) => tensor.name));
  const missing = [...places.keys()].find((name) => !made.has(name));
  const surplus = compiled.tensors.find(
    (tensor) => tensor.action === "merge" && !places.has(tensor.name),
  );
  const odd = missing ?? surplus?.name;
  if (odd === undefined) return compiled;
  throw new MendelError(
    "unsupported",
    `the recipe makes ${missing === undefined ? "the extra" : "no"} tensor "${odd}": its layers are not those of the graph`,
    { hint: "only recipes with the graph's own number of layers can be evaluated by it" },
  );
}

function originOf(tensor: CompiledTensor): string | undefined {
  return tensor.action === "copy"
    ? `${tensor.source.modelId}\u0000${tensor.source.tensor.name}`
    : undefined;
}

function slabTensor(slab: ArrayBuffer, fed: FedTensor): SlabTensor {
  const length = fed.byteLength / dtypeBytes[fed.dtype];
  const [columns, rows] = fed.shape;
  return {
    fed,
    words: wordsOf(slab, fed, length),
    transpose:
      fed.transposed && rows !== undefined && columns !== undefined ? { rows, columns } : undefined,
  };
}

function wordsOf(slab: ArrayBuffer, fed: FedTensor, length: number): SlabTensor["words"] {
  switch (fed.dtype) {
    case "f32":
      return new Float32Array(slab, fed.offset, length);
    case "f64":
      return new Float64Array(slab, fed.offset, length);
    case "f16":
    case "bf16":
      return new Uint16Array(slab, fed.offset, length);
    default:
      throw new Error(`${fed.name} is ${fed.dtype}; only floats are fed`);
  }
}

function feedTensor(slab: ArrayBuffer, fed: FedTensor): FeedTensor {
  const data = wordsOf(slab, fed, fed.byteLength / dtypeBytes[fed.dtype]);
  if (data instanceof Float32Array) return { type: "float32", dims: fed.shape, data };
  if (data instanceof Float64Array) return { type: "float64", dims: fed.shape, data };
  return { type: "float16", dims: fed.shape, data };
}

/** Receives blocks of a tensor in logical layout and puts them where and how the graph wants them. */
function storeInto(
  { fed, words, transpose }: SlabTensor,
  kernels: Kernels,
): (start: number, values: Float32Array) => void {
  return (start, values) => {
    const mark = kernels.mark();
    const elements =
      fed.dtype === "bf16" || fed.dtype === "f16" ? narrowed(fed.dtype, values, kernels) : values;
    if (transpose === undefined) words.set(elements, start);
    else scatter(elements, start, words, transpose);
    kernels.release(mark);
  };
}

function narrowed(dtype: "bf16" | "f16", values: Float32Array, kernels: Kernels): Uint16Array {
  const bytes = kernels.bytes(2 * values.length);
  kernels.narrow(dtype, values, bytes);
  return new Uint16Array(bytes.buffer, bytes.byteOffset, values.length);
}

/** Element (r, c) of the logical rows × columns matrix goes to (c, r). */
function scatter(
  elements: Float32Array | Uint16Array,
  start: number,
  words: SlabTensor["words"],
  { rows, columns }: { readonly rows: number; readonly columns: number },
): void {
  let row = Math.floor(start / columns);
  let column = start - row * columns;
  for (let i = 0; i < elements.length; i++) {
    words[column * rows + row] = elements[i]!;
    column += 1;
    if (column === columns) {
      column = 0;
      row += 1;
    }
  }
}
