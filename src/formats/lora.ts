import { join, resolve } from "node:path";
import { MendelError } from "../base/errors.ts";
import { suggestion } from "../base/suggest.ts";
import { dtypeBytes, isFloat } from "../tensors/dtype.ts";
import type { ModelReader, ModelTensor } from "../tensors/model-reader.ts";
import { elementCount, formatShape, type Shape, sameShape } from "../tensors/shape.ts";
import { containedFile, hasEntry } from "./contained-file.ts";
import { decodeFloats } from "./decode-floats.ts";
import { MAX_CONFIG_BYTES, readModelJson } from "./hf-folder.ts";
import type { ScannedJson } from "./json-scanner.ts";
import { noSuchTensor, openSafetensors, type SafetensorsReader } from "./safetensors.ts";
import { showName } from "./safetensors-header.ts";

const CONFIG = "adapter_config.json";
const WEIGHTS = "adapter_model.safetensors";
/** Ranks in use are 4 to 512. */
const MAX_RANK = 65_536;
/** Scalings in use are below 1000; a huge one is a damaged file. */
const MAX_ALPHA = 1e6;
/** Elements computed at a time: bounds the working memory of a read. */
const BLOCK_ELEMENTS = 1 << 16;

/** A model with a LoRA adapter applied. */
export interface LoraReader extends ModelReader {
  readonly format: "lora";
  readonly base: ModelReader;
  /** Names of the base's tensors that the adapter changes, in the base's order. */
  readonly changed: readonly string[];
}

/** One low-rank change: W + scale · B·A. */
interface Change {
  readonly kind: "low-rank";
  readonly tensor: ModelTensor;
  readonly a: string;
  readonly b: string;
  readonly rank: number;
  readonly scale: number;
  /** The base holds the transpose of B·A. */
  readonly transposed: boolean;
}

/** A tensor that was trained in full beside the adapter. */
interface Replacement {
  readonly kind: "replacement";
  readonly tensor: ModelTensor;
  readonly stored: string;
}

/** Whether a folder holds a PEFT adapter. */
export function isLoraFolder(path: string): boolean {
  return hasEntry(path, CONFIG);
}

/**
 * Opens a PEFT LoRA adapter (Hu et al. 2021, arXiv:2106.09685) on top of its base: affected tensors read as
 * W + s·B·A with s = α/r, or α/√r for rsLoRA (Kalajdzievski 2023, arXiv:2312.03732); all others as the base has them.
 *
 * Sums run in float64 in ascending order of rank and are rounded once, to f32 (f64 where the base is f64): half-precision
 * bases would round most of a small change away.
 *
 * @param base stays open when the adapter is closed
 * @throws MendelError `not-found`; `invalid-file` for damaged files and absurd numbers; `mismatch` for a target that the base
 *   does not have or that has another shape; `unsupported` for other kinds of adapters
 */
export function openLora(path: string, base: ModelReader): LoraReader {
  const config = readConfig(path);
  const adapter = openSafetensors(containedFile(path, WEIGHTS, join(path, CONFIG)));
  try {
    const changes = planChanges(path, config, adapter, base);
    const tensors = new Map(
      [...base.tensors].map(([name, tensor]) => [name, changes.get(name)?.tensor ?? tensor]),
    );
    const compute = new ChangeReader(adapter, base);
    return {
      path,
      format: "lora",
      base,
      files: [...base.files, resolve(path, CONFIG), ...adapter.files],
      tensors,
      metadata: base.metadata,
      changed: [...changes.keys()],
      read: (name, start, target) => {
        const change = changes.get(name);
        if (change !== undefined) compute.read(change, start, target);
        else if (tensors.has(name)) base.read(name, start, target);
        else throw noSuchTensor(path, name, tensors.keys());
      },
      close: () => adapter.close(),
    };
  } catch (error) {
    adapter.close();
    throw error;
  }
}

interface LoraConfig {
  readonly file: string;
  readonly rank: number;
  readonly alpha: number;
  readonly rankStabilized: boolean;
  readonly fanInFanOut: boolean;
  readonly rankPattern: ReadonlyMap<string, number>;
  readonly alphaPattern: ReadonlyMap<string, number>;
}

function readConfig(path: string): LoraConfig {
  const file = containedFile(path, CONFIG, path);
  const config = readModelJson(file, MAX_CONFIG_BYTES);
  const fault = (key: string, expected: string): MendelError => {
    const shown = JSON.stringify(config[key], (_, value) =>
      typeof value === "bigint" ? String(value) : value,
    );
    return new MendelError(
      "invalid-file",
      `${file}: ${key} must be ${expected}, got ${shown ?? "nothing"}`,
      {
        where: { file, key },
      },
    );
  };
  const number = (
    key: string,
    value: ScannedJson | undefined,
    min: number,
    max: number,
  ): number => {
    if (typeof value !== "number" || !(value >= min && value <= max)) {
      throw fault(key, `a number from ${min} to ${max}`);
    }
    return value;
  };
  const rank = (key: string, value: ScannedJson | undefined): number => {
    if (!Number.isInteger(value)) throw fault(key, `a whole number from 1 to ${MAX_RANK}`);
    return number(key, value, 1, MAX_RANK);
  };
  const alpha = (key: string, value: ScannedJson | undefined): number =>
    number(key, value, -MAX_ALPHA, MAX_ALPHA);
  const flag = (key: string): boolean => {
    const value = config[key] ?? false;
    if (typeof value !== "boolean") throw fault(key, "true or false");
    return value;
  };
  const pattern = (
    key: string,
    read: (key: string, value: ScannedJson | undefined) => number,
  ): ReadonlyMap<string, number> => {
    const value = config[key] ?? {};
    if (typeof value !== "object" || Array.isArray(value)) throw fault(key, "an object");
    return new Map(
      Object.entries(value).map(([name, item]) => {
        if (!/^[\w.-]+$/.test(name))
          throw unsupported(file, `${key} with the pattern ${showName(name)}`);
        return [name, read(key, item)];
      }),
    );
  };
  if (config["peft_type"] !== "LORA") throw fault("peft_type", '"LORA"');
  if (flag("use_dora")) throw unsupported(file, "DoRA (use_dora)");
  if ((config["bias"] ?? "none") !== "none") throw unsupported(file, "trained biases (bias)");
  return {
    file,
    rank: rank("r", config["r"]),
    alpha: alpha("lora_alpha", config["lora_alpha"]),
    rankStabilized: flag("use_rslora"),
    fanInFanOut: flag("fan_in_fan_out"),
    rankPattern: pattern("rank_pattern", rank),
    alphaPattern: pattern("alpha_pattern", alpha),
  };
}

function unsupported(file: string, what: string): MendelError {
  return new MendelError("unsupported", `${file}: ${what} is not supported`, {
    where: { file },
    hint: "merge the adapter into its base with the library that made it, and use the result",
  });
}

/** A pattern names a module by its whole name or by its last parts; the longest that fits counts. */
function byPattern(patterns: ReadonlyMap<string, number>, module: string): number | undefined {
  const fitting = [...patterns.keys()].filter(
    (key) => module === key || module.endsWith(`.${key}`),
  );
  const [longest] = fitting.sort((a, b) => b.length - a.length);
  return longest === undefined ? undefined : patterns.get(longest);
}

const adapterKey =
  /^(?:base_model\.model\.)?(?<module>.+?)\.(?:lora_(?<side>[AB])(?:\.default)?\.weight|lora_embedding_(?<embedded>[AB])(?:\.default)?)$/;

function planChanges(
  path: string,
  config: LoraConfig,
  adapter: SafetensorsReader,
  base: ModelReader,
): ReadonlyMap<string, Change | Replacement> {
  const pairs = new Map<string, { a?: string; b?: string; embedding: boolean }>();
  const planned = new Map<string, Change | Replacement>();
  for (const key of adapter.tensors.keys()) {
    const { module, side, embedded } = adapterKey.exec(key)?.groups ?? {};
    if (module === undefined) {
      const change = planReplacement(path, key, adapter, base);
      planned.set(change.tensor.name, change);
      continue;
    }
    const pair = pairs.get(module) ?? { embedding: embedded !== undefined };
    pairs.set(module, { ...pair, [(side ?? embedded) === "A" ? "a" : "b"]: key });
  }
  for (const [module, pair] of pairs) {
    const change = planPair(path, module, pair, config, adapter, base);
    planned.set(change.tensor.name, change);
  }
  const order = [...base.tensors.keys()].filter((name) => planned.has(name));
  return new Map(order.map((name) => [name, planned.get(name) as Change | Replacement]));
}

function planPair(
  path: string,
  module: string,
  pair: { readonly a?: string; readonly b?: string; readonly embedding: boolean },
  config: LoraConfig,
  adapter: SafetensorsReader,
  base: ModelReader,
): Change {
  const target = findTarget(path, `${module}.weight`, base);
  const { a, b } = pair;
  const fault = (problem: string): MendelError =>
    new MendelError("mismatch", `${path}: the adapter for ${showName(module)} ${problem}`, {
      where: { file: path, tensor: target.name },
    });
  if (a === undefined || b === undefined)
    throw fault(`has no ${a === undefined ? "A" : "B"} matrix`);
  const down = adapter.tensors.get(a) as ModelTensor;
  const up = adapter.tensors.get(b) as ModelTensor;
  if (!isFloat(down.dtype) || !isFloat(up.dtype) || !isFloat(target.dtype)) {
    throw fault("is not of a float type");
  }
  const rank = byPattern(config.rankPattern, module) ?? config.rank;
  const alpha = byPattern(config.alphaPattern, module) ?? config.alpha;
  const transposed = pair.embedding || config.fanInFanOut;
  const fits =
    down.shape[0] === rank &&
    up.shape[1] === rank &&
    up.shape.slice(2).every((dim) => dim === 1) &&
    sameShape(productShape(down.shape, up.shape, transposed), target.shape);
  if (!fits) {
    throw fault(
      `does not fit: A ${formatShape(down.shape)}, B ${formatShape(up.shape)}, rank ${rank}, tensor ${formatShape(target.shape)}`,
    );
  }
  const tensor: ModelTensor = { ...target, dtype: target.dtype === "f64" ? "f64" : "f32" };
  const scale = alpha / (config.rankStabilized ? Math.sqrt(rank) : rank);
  return { kind: "low-rank", tensor, a, b, rank, scale, transposed };
}

/** Shape of B·A; a convolution's A carries the kernel, which B does not touch. */
function productShape(down: Shape, up: Shape, transposed: boolean): Shape {
  const shape = [up[0] ?? 0, ...down.slice(1)];
  return transposed ? shape.reverse() : shape;
}

function planReplacement(
  path: string,
  key: string,
  adapter: SafetensorsReader,
  base: ModelReader,
): Replacement {
  const target = findTarget(path, key.replace(/^base_model\.model\./, ""), base);
  const stored = adapter.tensors.get(key) as ModelTensor;
  if (!sameShape(stored.shape, target.shape)) {
    const message = `${path}: ${showName(key)} has shape ${formatShape(stored.shape)}, the base has ${formatShape(target.shape)}`;
    throw new MendelError("mismatch", message, { where: { file: path, tensor: target.name } });
  }
  return { kind: "replacement", tensor: { ...target, dtype: stored.dtype }, stored: key };
}

function findTarget(path: string, name: string, base: ModelReader): ModelTensor {
  const tensor =
    base.tensors.get(name) ??
    [...base.tensors.values()].find(({ aliases }) => aliases.includes(name));
  if (tensor !== undefined) return tensor;
  const known = [...base.tensors.keys()];
  throw new MendelError(
    "mismatch",
    `${path} changes ${showName(name)}, which ${base.path} does not have`,
    {
      where: { file: path, tensor: name },
      hint: `is it an adapter of this model? ${suggestion(name, known.slice(0, 20))}`,
    },
  );
}

/** Factors of one change, decoded: the change is left · right, left [rows, rank], right [rank, columns]. */
interface Factors {
  readonly left: Float64Array;
  readonly right: Float64Array;
  readonly columns: number;
}

/** Computes changed tensors block by block; keeps the factors of the tensor that was read last. */
class ChangeReader {
  readonly #adapter: ModelReader;
  readonly #base: ModelReader;
  #last: { readonly change: Change; readonly factors: Factors } | undefined;

  constructor(adapter: ModelReader, base: ModelReader) {
    this.#adapter = adapter;
    this.#base = base;
  }

  read(change: Change | Replacement, start: number, target: Uint8Array): void {
    if (change.kind === "replacement") {
      this.#adapter.read(change.stored, start, target);
      return;
    }
    const width = dtypeBytes[change.tensor.dtype];
    const count = target.length / width;
    if (!Number.isInteger(count) || start + count > elementCount(change.tensor.shape)) {
      throw new Error(
        `read of ${target.length} bytes from element ${start} of ${change.tensor.name}`,
      );
    }
    const view = new DataView(target.buffer, target.byteOffset, target.length);
    for (let done = 0; done < count; done += BLOCK_ELEMENTS) {
      const block = Math.min(BLOCK_ELEMENTS, count - done);
      const values = this.#baseValues(change.tensor.name, start + done, block);
      addProduct(values, start + done, this.#factors(change), change);
      for (let i = 0; i < block; i++) {
        const value = values[i] as number;
        if (width === 8) view.setFloat64(8 * (done + i), value, true);
        else view.setFloat32(4 * (done + i), value, true);
      }
    }
  }

  #baseValues(name: string, start: number, count: number): Float64Array {
    const { dtype } = this.#base.tensors.get(name) as ModelTensor;
    const bytes = new Uint8Array(count * dtypeBytes[dtype]);
    this.#base.read(name, start, bytes);
    return decodeFloats(bytes, dtype);
  }

  #factors(change: Change): Factors {
    if (this.#last?.change === change) return this.#last.factors;
    const a = this.#matrix(change.a);
    const b = this.#matrix(change.b);
    const { rank } = change;
    const factors = change.transposed
      ? { left: transpose(a, rank), right: transpose(b, b.length / rank), columns: b.length / rank }
      : { left: b, right: a, columns: a.length / rank };
    this.#last = { change, factors };
    return factors;
  }

  #matrix(key: string): Float64Array {
    const { shape, dtype } = this.#adapter.tensors.get(key) as ModelTensor;
    const bytes = new Uint8Array(elementCount(shape) * dtypeBytes[dtype]);
    this.#adapter.read(key, 0, bytes);
    return decodeFloats(bytes, dtype);
  }
}

/** Adds scale · (left · right), flat from element `start`, to `values`; every sum in ascending order of rank. */
function addProduct(
  values: Float64Array,
  start: number,
  { left, right, columns }: Factors,
  { rank, scale }: Change,
): void {
  const sums = new Float64Array(columns);
  let at = 0;
  while (at < values.length) {
    const row = Math.floor((start + at) / columns);
    const first = (start + at) % columns;
    const end = Math.min(columns, first + values.length - at);
    sums.fill(0);
    for (let k = 0; k < rank; k++) {
      const factor = left[row * rank + k] as number;
      for (let j = first; j < end; j++) {
        sums[j] = (sums[j] as number) + factor * (right[k * columns + j] as number);
      }
    }
    for (let j = first; j < end; j++, at++) {
      values[at] = (values[at] as number) + scale * (sums[j] as number);
    }
  }
}

/** [rows, n / rows] to [n / rows, rows]. */
function transpose(matrix: Float64Array, rows: number): Float64Array {
  const columns = matrix.length / rows;
  const result = new Float64Array(matrix.length);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) result[j * rows + i] = matrix[i * columns + j] as number;
  }
  return result;
}
