import type { OnnxReader } from "../formats/onnx/open-onnx.ts";
import type { GraphPiece } from "../graph/cut.ts";
import { layOutWeights } from "../graph/piece-model.ts";
import type { FedTensor } from "../graph/weight-feed.ts";
import { type CompiledRecipe, compileRecipe } from "../merge/compile.ts";
import { kernelBytesFor, materializeTensor, type WeightSource } from "../merge/materialize.ts";
import type { MergeInputs } from "../merge/plan.ts";
import type { Recipe } from "../recipes/recipe.ts";
import { dtypeBytes, isFloat } from "../tensors/dtype.ts";
import type { Kernels } from "../tensors/kernels.ts";
import { createKernels } from "../tensors/wasm-kernels.ts";

/** Where the graph's weights come from: the models of a plan. */
export interface PieceWeightsOptions {
  readonly reader: OnnxReader;
  readonly inputs: MergeInputs;
  readonly source: WeightSource;
  /** Planned tensor name → name in the graph. */
  readonly names: ReadonlyMap<string, string>;
}

/** Fills the weights of a piece with those of any model. */
export interface PieceWeights {
  /**
   * Elements of the weights in the graph's layout and type, laid out as `layOutWeights` says.
   *
   * @param like the piece whose shape is wanted, weights in order of role
   * @param own the piece whose weights are wanted: another block of the same structure, or the same
   * @throws MendelError `mismatch` when the model has no such tensor
   */
  bytesOf(
    model: string,
    like: readonly FedTensor[],
    own: readonly FedTensor[],
  ): Uint8Array<ArrayBuffer>;
}

/** Reads weights of whole models piece by piece; nothing is kept but plans. */
export function pieceWeights(options: PieceWeightsOptions): PieceWeights {
  const { reader, inputs, source, names } = options;
  const plannedOf = new Map([...names].map(([planned, name]) => [name, planned]));
  const compiled = new Map<string, Compiled>();
  const compiledFor = (model: string): Compiled => {
    const known = compiled.get(model);
    if (known !== undefined) return known;
    const recipe = compileRecipe(wholeModel(model), inputs);
    const made = {
      recipe,
      kernels: createKernels({ bytes: kernelBytesFor(recipe) }),
      indexOf: new Map(recipe.tensors.map(({ name }, index) => [name, index])),
    };
    compiled.set(model, made);
    return made;
  };
  return {
    bytesOf(model, like, own) {
      const { offsets, bytes } = layOutWeights(like);
      const slab = new Uint8Array(new ArrayBuffer(bytes));
      own.forEach((fed, role) => {
        const target = slab.subarray(offsets[role]!, offsets[role]! + fed.byteLength);
        const planned = plannedOf.get(fed.name);
        const { recipe, kernels, indexOf } = compiledFor(model);
        const index = planned === undefined ? undefined : indexOf.get(planned);
        if (index === undefined) readOwn(reader, fed, target);
        else {
          const mark = kernels.mark();
          materializeTensor(recipe, index, {
            kernels,
            source,
            store: storer(fed, target, kernels),
          });
          kernels.release(mark);
        }
      });
      return slab;
    },
  };
}

interface Compiled {
  readonly recipe: CompiledRecipe;
  readonly kernels: Kernels;
  readonly indexOf: ReadonlyMap<string, number>;
}

/** The recipe that gives one model back bit for bit. */
function wholeModel(model: string): Recipe {
  return {
    mergeMethod: "linear",
    body: { kind: "models", models: [{ model: { model }, parameters: { weight: 1 } }] },
    parameters: { normalize: 0 },
    seed: 0,
    freeze: [],
    passthrough: {},
  };
}

/** A weight of the graph that no model shares with it stays as it is. */
function readOwn(reader: OnnxReader, fed: FedTensor, target: Uint8Array): void {
  const weight = reader.find(fed.name);
  if (weight === undefined) throw new Error(`the graph lost its weight ${fed.name}`);
  reader.readStored(weight.tensor, 0, target);
}

/** Receives blocks of a tensor in logical layout and puts them where and how the graph wants them. */
function storer(
  fed: FedTensor,
  target: Uint8Array,
  kernels: Kernels,
): (start: number, values: Float32Array) => void {
  const length = target.length / dtypeBytes[fed.dtype];
  const words =
    fed.dtype === "f32"
      ? new Float32Array(target.buffer, target.byteOffset, length)
      : fed.dtype === "f64"
        ? new Float64Array(target.buffer, target.byteOffset, length)
        : new Uint16Array(target.buffer, target.byteOffset, length);
  // Stored as [columns, rows] of the logical matrix.
  const [columns = 1, rows = 1] = fed.shape;
  return (start, values) => {
    const mark = kernels.mark();
    const elements = words instanceof Uint16Array ? narrowed(fed, values, kernels) : values;
    if (!fed.transposed) words.set(elements, start);
    else {
      for (let i = 0; i < elements.length; i++) {
        const at = start + i;
        const row = Math.floor(at / columns);
        words[(at - row * columns) * rows + row] = elements[i]!;
      }
    }
    kernels.release(mark);
  };
}

function narrowed({ dtype }: FedTensor, values: Float32Array, kernels: Kernels): Uint16Array {
  if (dtype !== "f16" && dtype !== "bf16") throw new Error(`${dtype} weights are not narrowed`);
  const bytes = kernels.bytes(2 * values.length);
  kernels.narrow(dtype, values, bytes);
  return new Uint16Array(bytes.buffer, bytes.byteOffset, values.length);
}

/** Names of all float weights of a graph: those that models share with it as they call them, the others as it does. */
export function feedNames(graph: OnnxReader, shared: Iterable<string>): string[] {
  const fed = new Set(shared);
  const stored = new Set([...fed].map((name) => graph.find(name)?.storedName));
  for (const { name, dtype, storedName } of graph.tensors.values()) {
    if (isFloat(dtype) && !fed.has(name) && !stored.has(storedName)) fed.add(name);
  }
  return [...fed];
}

/** The weights of a piece, in order of role. */
export function weightsOfPiece(
  piece: GraphPiece,
  weights: ReadonlyMap<string, FedTensor>,
): readonly FedTensor[] {
  return piece.weights.map((name) => weights.get(name)!);
}
