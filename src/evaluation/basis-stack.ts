import { closeSync, openSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { digestOf, sha256 } from "../base/hash.ts";
import type { OnnxReader } from "../formats/onnx/open-onnx.ts";
import {
  type BasisGraph,
  basisProblem,
  buildBasisGraph,
  type StackDtype,
} from "../graph/basis-graph.ts";
import { type BasisEntry, basisTerms, plainEntry, plainKey } from "../merge/basis.ts";
import { type CompiledInput, type CompiledRecipe, compileRecipe } from "../merge/compile.ts";
import { kernelBytesFor, materializeTensor, type WeightSource } from "../merge/materialize.ts";
import type { MergeInputs, PlannedTensor } from "../merge/plan.ts";
import type { Recipe } from "../recipes/recipe.ts";
import { type Dtype, dtypeBytes } from "../tensors/dtype.ts";
import type { Kernels } from "../tensors/kernels.ts";
import { elementCount } from "../tensors/shape.ts";
import { createKernels } from "../tensors/wasm-kernels.ts";
import { openCachedFolder } from "./stack-cache.ts";

export interface BasisStackOptions {
  readonly graph: OnnxReader;
  readonly inputs: MergeInputs;
  readonly source: WeightSource;
  /** Digest of all source weights. */
  readonly sourceDigest: string;
  /** Planned tensor name → name in the graph, of all float tensors that the graph has. */
  readonly names: ReadonlyMap<string, string>;
  /** Recipes like those to come: they say which derived entries are needed, and whose tensors are copied. Not empty. */
  readonly samples: readonly Recipe[];
  readonly cache?: string;
}

/** The entries of one planned tensor, in the order of its coefficients. */
export interface StackRow {
  readonly positions: ReadonlyMap<string, number>;
  readonly firstCoefficient: number;
  readonly entries: number;
}

export interface BasisStack {
  /** The model; its weights lie in a file beside it. */
  readonly modelPath: string;
  readonly coefficients: string;
  readonly coefficientCount: number;
  /** Planned tensor name → its stack. */
  readonly rows: ReadonlyMap<string, StackRow>;
  /** Planned tensor name → key of the one source that is the weight of every candidate. */
  readonly constants: ReadonlyMap<string, string>;
}

const modelName = "model.onnx";
const stackName = "stack.bin";
/** Changes whenever the same inputs give other files. */
const layoutVersion = 1;
/**
 * Models that are stored in 16 bits stay so in the stack when it would be larger than this in float32: widening takes a fifth
 * more time than the bandwidth it saves, so it must be worth the memory.
 */
const maxFloat32StackBytes = 2 ** 30;

/** Parts of a tensor exist twice while they are put together: above this, float32 without parts costs less private memory. */
const MAX_GLUED_BYTES = 64 * 2 ** 20;
/** Derived entries of all structural choices beyond this are not worth their disk: such recipes go through a slab. */
const MAX_DERIVED_BYTES = 4 * 2 ** 30;
/** So few samples may each ask for something else and still be all there are. */
const MAX_GRID = 2;

/** A tensor with all entries it may be a sum of, and the sample that asked for each. */
interface PlannedRow {
  readonly planned: PlannedTensor;
  readonly name: string;
  readonly entries: readonly SampledEntry[];
}

interface SampledEntry {
  readonly entry: BasisEntry;
  /** Derived entries are made from the job of the sample that asked for them. */
  readonly compiled: CompiledRecipe;
  readonly index: number;
}

/**
 * Why no stack can be made; undefined when it can. A stack serves recipes of methods that are linear in what differs from
 * candidate to candidate.
 */
export function stackProblem(
  options: Pick<BasisStackOptions, "graph" | "inputs" | "names" | "samples">,
): string | undefined {
  const compiled = options.samples.map((recipe) => compileRecipe(recipe, options.inputs));
  const rows = new Map(planRows(options, compiled).map((row) => [row.planned.name, row]));
  if (!compiled.some((recipe) => isServed(recipe, rows))) {
    const methods = [...new Set(compiled.map(({ method }) => method.name))].join(", ");
    return `${methods}: not linear in what differs from candidate to candidate`;
  }
  return basisProblem(options.graph, options.names.values());
}

/** Whether all merged tensors of a recipe are sums over the entries that are going to be in the stack. */
function isServed(compiled: CompiledRecipe, rows: ReadonlyMap<string, PlannedRow>): boolean {
  return compiled.tensors.every(({ name }, index) => {
    const row = rows.get(name);
    if (row === undefined) return true;
    const terms = basisTerms(compiled, index, () => 1);
    return terms?.every(({ entry }) => row.entries.some((own) => own.entry.key === entry.key));
  });
}

/**
 * Makes the stack of a graph and its models, or finds it in the cache: one file that all sessions map, and the model that
 * sums over it.
 *
 * @throws MendelError `unsupported` when the graph allows no stack; `resource` when the file cannot be written
 */
export function openBasisStack(options: BasisStackOptions): BasisStack {
  const { graph, inputs, names, samples, source, sourceDigest } = options;
  const compiled = samples.map((recipe) => compileRecipe(recipe, inputs));
  const rows = planRows(options, compiled);
  const constants = planConstants(options, compiled[0]!);
  const stored = storedDtypes(rows, source);
  const built = buildBasisGraph(graph, {
    stacked: rows.map(({ name, entries }, index) => ({
      name,
      entries: entries.length,
      stored: stored[index]!,
    })),
    constant: [...constants.keys()].map((planned) => names.get(planned)!),
    stackName,
  });
  const folder = openCachedFolder({
    digest: digestOf([
      layoutVersion,
      sourceDigest,
      sha256(built.model),
      rows.map(({ entries }) => entries.map(({ entry }) => entry.key)),
      [...constants.values()].map((source) => plainKey(source)),
    ]),
    files: [
      { name: modelName, bytes: built.model.length },
      { name: stackName, bytes: built.stackBytes },
    ],
    make: (fresh) => writeStack(fresh, { ...options, built, rows, constants }),
    ...(options.cache === undefined ? {} : { root: options.cache }),
  });
  return {
    modelPath: join(folder, modelName),
    coefficients: built.coefficients,
    coefficientCount: built.coefficientCount,
    rows: new Map(
      rows.map(({ planned, entries }, index) => [
        planned.name,
        {
          positions: new Map(entries.map(({ entry }, k) => [entry.key, k])),
          firstCoefficient: built.stacks[index]!.firstCoefficient,
          entries: entries.length,
        },
      ]),
    ),
    constants: new Map([...constants].map(([name, source]) => [name, plainKey(source)])),
  };
}

/** Every model's own tensor, and what the samples derive from them. */
function planRows(
  { inputs, names }: Pick<BasisStackOptions, "inputs" | "names">,
  samples: readonly CompiledRecipe[],
): readonly PlannedRow[] {
  const derived = derivedEntries(inputs, samples);
  return inputs.tensors.flatMap((planned): PlannedRow[] => {
    const name = names.get(planned.name);
    if (name === undefined || planned.action !== "merge") return [];
    const compiled = samples[0]!;
    const index = compiled.tensors.findIndex((tensor) => tensor.name === planned.name);
    const plain = [...planned.sources].map(([modelId, tensor]): SampledEntry => {
      return { entry: plainEntry({ modelId, tensor }), compiled, index };
    });
    return [{ planned, name, entries: [...plain, ...(derived.get(planned.name)?.values() ?? [])] }];
  });
}

/** Planned tensor name → entries by key. Empty when they are not from a grid, or too many. */
function derivedEntries(
  inputs: MergeInputs,
  samples: readonly CompiledRecipe[],
): ReadonlyMap<string, ReadonlyMap<string, SampledEntry>> {
  const derived = new Map<string, Map<string, SampledEntry>>();
  let askers = 0;
  for (const compiled of samples) {
    let asks = false;
    compiled.tensors.forEach((tensor, index) => {
      for (const { entry } of basisTerms(compiled, index, () => 1) ?? []) {
        if (entry.derived === undefined) continue;
        asks = true;
        const known = derived.get(tensor.name) ?? new Map<string, SampledEntry>();
        if (!known.has(entry.key)) known.set(entry.key, { entry, compiled, index });
        derived.set(tensor.name, known);
      }
    });
    if (asks) askers += 1;
  }
  let bytes = 0;
  for (const { name, shape } of inputs.tensors) {
    bytes += elementCount(shape) * dtypeBytes.f32 * (derived.get(name)?.size ?? 0);
  }
  // Every sample derives something else: the parameter is not from a grid, and candidates will ask for yet other values.
  const open = [...derived.values()].some(
    (entries) => askers > MAX_GRID && largestFamily(entries) >= askers,
  );
  return open || bytes > MAX_DERIVED_BYTES ? new Map() : derived;
}

/** Most entries that are derived from one source. */
function largestFamily(entries: ReadonlyMap<string, SampledEntry>): number {
  const counts = new Map<string, number>();
  for (const { entry } of entries.values()) {
    const key = plainKey(entry.source);
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  return Math.max(0, ...counts.values());
}

function planConstants(
  { inputs, names }: BasisStackOptions,
  sample: CompiledRecipe,
): ReadonlyMap<string, CompiledInput> {
  const made = new Map(sample.tensors.map((tensor) => [tensor.name, tensor]));
  const constants = new Map<string, CompiledInput>();
  for (const planned of inputs.tensors) {
    const tensor = made.get(planned.name);
    if (planned.action !== "copy" || !names.has(planned.name) || tensor === undefined) continue;
    if (tensor.action === "copy") constants.set(planned.name, tensor.source);
  }
  return constants;
}

function storedDtypes(rows: readonly PlannedRow[], source: WeightSource): readonly StackDtype[] {
  const elements = rows.reduce(
    (sum, { planned, entries }) => sum + elementCount(planned.shape) * entries.length,
    0,
  );
  const wide = elements * dtypeBytes.f32 <= maxFloat32StackBytes;
  return rows.map(({ planned, entries }): StackDtype => {
    const glued = elementCount(planned.shape) * dtypeBytes.f32;
    if (wide || glued > MAX_GLUED_BYTES || entries.some(({ entry }) => entry.derived !== undefined))
      return "f32";
    const dtypes = new Set(
      entries.map(({ entry }) => source.dtypeOf(entry.source.modelId, entry.source.tensor.name)),
    );
    const [only] = dtypes;
    return dtypes.size === 1 && (only === "f16" || only === "bf16") ? only : "f32";
  });
}

interface WriteOptions extends BasisStackOptions {
  readonly built: BasisGraph;
  readonly rows: readonly PlannedRow[];
  readonly constants: ReadonlyMap<string, CompiledInput>;
}

function writeStack(folder: string, options: WriteOptions): void {
  const { built, rows, constants, graph, source } = options;
  writeFileSync(join(folder, modelName), built.model);
  const file = openSync(join(folder, stackName), "wx", 0o600);
  try {
    const needed = Math.max(
      ...rows.flatMap(({ entries }) => entries.map(({ compiled }) => kernelBytesFor(compiled))),
      kernelBytesFor(compileRecipe(options.samples[0]!, options.inputs)),
    );
    const kernels = createKernels({ bytes: needed });
    rows.forEach(({ entries }, index) => {
      const stack = built.stacks[index]!;
      const width = dtypeBytes[stack.stored];
      entries.forEach((entry, k) => {
        const bytes = entryBytes(entry, stack, stack.stored, { kernels, source });
        for (const { start, length, offset } of stack.parts) {
          const own = bytes.subarray(start * width, (start + length) * width);
          writeAll(file, own, offset + k * length * width);
        }
      });
    });
    const compiled = compileRecipe(options.samples[0]!, options.inputs);
    [...constants].forEach(([name, origin], index) => {
      const place = built.constants[index]!;
      const at = compiled.tensors.findIndex((tensor) => tensor.name === name);
      const entry = { entry: plainEntry(origin), compiled, index: at };
      writeAll(file, entryBytes(entry, place, place.dtype, { kernels, source }), place.offset);
    });
    for (const { tensor, offset, byteLength } of built.kept) {
      const bytes = new Uint8Array(byteLength);
      graph.readStored(tensor, 0, bytes);
      writeAll(file, bytes, offset);
    }
  } finally {
    closeSync(file);
  }
}

function writeAll(file: number, bytes: Uint8Array, position: number): void {
  for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at, undefined, position + at);
}

/** All elements of an entry, in the graph's layout. */
function entryBytes(
  { entry, compiled, index }: SampledEntry,
  layout: { readonly shape: readonly number[]; readonly transposed: boolean },
  dtype: Dtype,
  tools: { readonly kernels: Kernels; readonly source: WeightSource },
): Uint8Array {
  if (dtype !== "f32" && dtype !== "f16" && dtype !== "bf16" && dtype !== "f64") {
    throw new Error(`stacks hold floats, not ${dtype}`);
  }
  const { kernels } = tools;
  const bytes = new Uint8Array(elementCount(layout.shape) * dtypeBytes[dtype]);
  materializeTensor(entryRecipe(entry, compiled, index), index, {
    ...tools,
    store(start, values) {
      const mark = kernels.mark();
      const block = kernels.bytes(values.length * dtypeBytes[dtype]);
      kernels.narrow(dtype, values, block);
      bytes.set(block, start * dtypeBytes[dtype]);
      kernels.release(mark);
    },
  });
  const [columns, rows] = layout.shape;
  return layout.transposed && rows !== undefined && columns !== undefined
    ? transpose(bytes, rows, columns, dtypeBytes[dtype])
    : bytes;
}

/** The sample's recipe with one tensor replaced by one entry of it. */
function entryRecipe(entry: BasisEntry, compiled: CompiledRecipe, index: number): CompiledRecipe {
  const { derived } = entry;
  if (derived !== undefined) {
    return { ...compiled, method: { ...compiled.method, merge: (job) => derived.make(job) } };
  }
  const tensors = [...compiled.tensors];
  const { name, shape, length, dtype, reason } = tensors[index]!;
  const { source } = entry;
  tensors[index] = { action: "copy", name, shape, length, dtype, reason, source };
  return { ...compiled, tensors };
}

/** rows × columns elements of `width` bytes, row by row → column by column. */
function transpose(bytes: Uint8Array, rows: number, columns: number, width: number): Uint8Array {
  const from = wordsOf(bytes, width);
  const out = new Uint8Array(bytes.length);
  const to = wordsOf(out, width);
  // Squares that fit the cache on both sides.
  const side = 32;
  for (let r0 = 0; r0 < rows; r0 += side) {
    for (let c0 = 0; c0 < columns; c0 += side) {
      const r1 = Math.min(rows, r0 + side);
      const c1 = Math.min(columns, c0 + side);
      for (let r = r0; r < r1; r++) {
        for (let c = c0; c < c1; c++) to[c * rows + r] = from[r * columns + c]!;
      }
    }
  }
  return out;
}

function wordsOf(bytes: Uint8Array, width: number): Uint16Array | Uint32Array | Float64Array {
  const { buffer, byteOffset, byteLength } = bytes;
  if (width === 2) return new Uint16Array(buffer, byteOffset, byteLength / 2);
  if (width === 4) return new Uint32Array(buffer, byteOffset, byteLength / 4);
  return new Float64Array(buffer, byteOffset, byteLength / 8);
}
