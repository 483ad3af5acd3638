import { createHash } from "node:crypto";
import { MendelError } from "../base/errors.ts";
import { type Dtype, dtypeBytes, isFloat } from "../tensors/dtype.ts";
import type { Kernels } from "../tensors/kernels.ts";
import { forEachBlock } from "./blocks.ts";
import type {
  CompiledInput,
  CompiledRecipe,
  CompiledTensor,
  CopiedTensor,
  MergedTensor,
} from "./compile.ts";
import type { SourceTensor } from "./method.ts";

/** Where weights come from: open model files, shared memory, a cache. Tensors are named as in the model itself. */
export interface WeightSource {
  /** Dtype in which `read` delivers a tensor. */
  dtypeOf(modelId: string, tensorName: string): Dtype;
  /** Fills `target` with elements from `start` on, row-major, little-endian, in the dtype of `dtypeOf`. */
  read(modelId: string, tensorName: string, start: number, target: Uint8Array): void;
}

/** Elements per block: one megabyte of float32. Part of what a recipe's bytes are, because reductions go block by block. */
export const blockLength = 1 << 18;

/** Arrays of one block that a method may hold besides one per input, and room for a histogram and argument lists. */
const spareBlocks = 6;
const spareBytes = 1 << 20;

/** Kernel memory that any tensor of a recipe needs. */
export function kernelBytesFor(compiled: CompiledRecipe): number {
  let most = 0;
  for (const tensor of compiled.tensors) {
    const inputs = tensor.action === "merge" ? tensor.inputs.length : 1;
    const blocks = inputs + spareBlocks;
    most = Math.max(most, (Math.min(tensor.length, blockLength) + 4) * 4 * blocks);
  }
  return most + spareBytes;
}

/** What materializing needs besides the recipe. */
export interface MaterializeTools {
  readonly kernels: Kernels;
  readonly source: WeightSource;
}

type FloatDtype = "f64" | "f32" | "f16" | "bf16";

/**
 * Computes one output tensor as float32, block by block. Copied tensors are delivered like merged ones.
 *
 * @param store receives finished blocks, each element exactly once; `values` lie in kernel memory and are only valid during
 *   the call
 * @throws MendelError `non-finite` naming the tensor when a merged element is NaN or infinite
 */
export function materializeTensor(
  compiled: CompiledRecipe,
  index: number,
  tools: MaterializeTools & {
    readonly store: (start: number, values: Float32Array) => void;
  },
): void {
  const tensor = tensorAt(compiled, index);
  const { kernels } = tools;
  const mark = kernels.mark();
  try {
    if (tensor.action === "merge") mergeTensor(compiled, tensor, tools);
    else {
      const { dtype } = tensor.source.tensor;
      if (!isFloat(dtype)) throw new Error(`${tensor.name} is ${dtype}: copy its bytes instead`);
      const block = kernels.float32(Math.min(blockLength, tensor.length));
      const load = loaderOf(compiled, tensor.source, tensor.length, tools, undefined);
      forEachBlock({ length: tensor.length, blockLength }, (start, length) => {
        const values = block.subarray(0, length);
        load(start, values);
        tools.store(start, values);
      });
    }
  } finally {
    kernels.release(mark);
  }
}

/**
 * Computes one output tensor in the dtype in which it is written. Copies whose dtype does not change are copied byte by byte.
 *
 * @param write receives the bytes of elements [start, …), each exactly once; only valid during the call
 * @throws MendelError as `materializeTensor`
 */
export function materializeBytes(
  compiled: CompiledRecipe,
  index: number,
  tools: MaterializeTools & {
    readonly write: (start: number, bytes: Uint8Array) => void;
  },
): void {
  const tensor = tensorAt(compiled, index);
  if (tensor.action === "copy" && copiesBytes(tensor, tools.source)) {
    copyBytes(tensor, tools);
    return;
  }
  const { kernels } = tools;
  const dtype = tensor.dtype as FloatDtype;
  const mark = kernels.mark();
  try {
    const bytes = kernels.bytes(Math.min(blockLength, tensor.length) * dtypeBytes[dtype]);
    materializeTensor(compiled, index, {
      ...tools,
      store(start, values) {
        const target = bytes.subarray(0, values.length * dtypeBytes[dtype]);
        kernels.narrow(dtype, values, target);
        tools.write(start, target);
      },
    });
  } finally {
    kernels.release(mark);
  }
}

/**
 * SHA-256 over name, shape and elements of every tensor in natural order of names: one digest per recipe, on every machine.
 * Float tensors count as the float32 they were computed in, before any rounding to a written dtype; others as their bytes.
 */
export function weightsDigest(compiled: CompiledRecipe, tools: MaterializeTools): string {
  const hash = createHash("sha256");
  compiled.tensors.forEach((tensor, index) => {
    hash.update(`${JSON.stringify([tensor.name, tensor.shape])}\n`);
    if (tensor.action === "copy" && !isFloat(tensor.dtype)) {
      copyBytes(tensor, { ...tools, write: (_, bytes) => hash.update(bytes) });
      return;
    }
    const inOrder = ascending((bytes) => hash.update(bytes));
    materializeTensor(compiled, index, {
      ...tools,
      store: (start, values) => {
        inOrder(start, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
      },
    });
  });
  return hash.digest("hex");
}

/** Passes blocks of float32 on in ascending order; methods may finish them in any. */
function ascending(use: (bytes: Uint8Array) => void): (start: number, bytes: Uint8Array) => void {
  const waiting = new Map<number, Uint8Array>();
  let next = 0;
  const pass = (bytes: Uint8Array): void => {
    use(bytes);
    next += bytes.length / 4;
  };
  return (start, bytes) => {
    if (start !== next) {
      waiting.set(start, bytes.slice());
      return;
    }
    pass(bytes);
    for (let held = waiting.get(next); held !== undefined; held = waiting.get(next)) {
      waiting.delete(next);
      pass(held);
    }
  };
}

function tensorAt(compiled: CompiledRecipe, index: number): CompiledTensor {
  const tensor = compiled.tensors[index];
  if (tensor === undefined) throw new Error(`no tensor ${index} of ${compiled.tensors.length}`);
  return tensor;
}

function mergeTensor(
  compiled: CompiledRecipe,
  tensor: MergedTensor,
  tools: MaterializeTools & {
    readonly store: (start: number, values: Float32Array) => void;
  },
): void {
  const { kernels } = tools;
  // One staging area for all inputs: a load is finished before the next begins.
  const widest = Math.max(...tensor.inputs.map((input) => storedBytes(input, tools.source)));
  const raw = kernels.bytes(Math.min(blockLength, tensor.length) * widest);
  const inputs = tensor.inputs.map((input): SourceTensor => {
    const load = loaderOf(compiled, input, tensor.length, tools, raw);
    return { modelId: compiled.identities.get(input.modelId) ?? input.modelId, load };
  });
  compiled.method.merge({
    name: tensor.name,
    shape: tensor.shape,
    length: tensor.length,
    inputs,
    baseIndex: tensor.baseIndex,
    parameters: tensor.parameters,
    seed: compiled.seed,
    compat: compiled.compat,
    offset: tensor.offset,
    kernels,
    blockLength,
    store(start, values) {
      const bad = kernels.countNonFinite(values);
      if (bad > 0) throw nonFinite(compiled, tensor, bad);
      tools.store(start, values);
    },
  });
}

function nonFinite(compiled: CompiledRecipe, tensor: MergedTensor, count: number): MendelError {
  return new MendelError(
    "non-finite",
    `${compiled.method.name} made ${count} NaN or infinite elements in ${tensor.name}`,
    {
      hint: "the coefficients are too large for these weights, or a model holds such elements itself",
      where: { tensor: tensor.name },
    },
  );
}

function storedBytes({ modelId, tensor }: CompiledInput, source: WeightSource): number {
  return dtypeBytes[source.dtypeOf(modelId, tensor.name)];
}

/** Reads elements as float32 into kernel memory. */
function loaderOf(
  compiled: CompiledRecipe,
  input: CompiledInput,
  length: number,
  { kernels, source }: MaterializeTools,
  staging: Uint8Array | undefined,
): (start: number, out: Float32Array) => void {
  const { modelId, tensor } = input;
  const dtype = source.dtypeOf(modelId, tensor.name);
  if (!isFloat(dtype)) throw new Error(`${tensor.name} of ${modelId} is ${dtype}, not a float`);
  const stored = dtype as FloatDtype;
  const width = dtypeBytes[stored];
  const raw = staging ?? kernels.bytes(Math.min(blockLength, length) * width);
  const rounded = compiled.inputDtype;
  return (start, out) => {
    if (stored === "f32") {
      source.read(modelId, tensor.name, start, bytesOf(out));
    } else {
      const target = raw.subarray(0, out.length * width);
      source.read(modelId, tensor.name, start, target);
      kernels.widen(stored, target, out);
    }
    if (rounded === undefined || rounded === stored) return;
    const mark = kernels.mark();
    const narrow = kernels.bytes(out.length * dtypeBytes[rounded]);
    kernels.narrow(rounded, out, narrow);
    kernels.widen(rounded, narrow, out);
    kernels.release(mark);
  };
}

function bytesOf(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

function copiesBytes(tensor: CopiedTensor, source: WeightSource): boolean {
  return tensor.dtype === source.dtypeOf(tensor.source.modelId, tensor.source.tensor.name);
}

function copyBytes(
  tensor: CopiedTensor,
  tools: MaterializeTools & {
    readonly write: (start: number, bytes: Uint8Array) => void;
  },
): void {
  const { kernels, source } = tools;
  const { modelId, tensor: origin } = tensor.source;
  const width = dtypeBytes[source.dtypeOf(modelId, origin.name)];
  const mark = kernels.mark();
  try {
    const block = kernels.bytes(Math.min(blockLength, tensor.length) * width);
    forEachBlock({ length: tensor.length, blockLength }, (start, length) => {
      const bytes = block.subarray(0, length * width);
      source.read(modelId, origin.name, start, bytes);
      tools.write(start, bytes);
    });
  } finally {
    kernels.release(mark);
  }
}
