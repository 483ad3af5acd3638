import { mkdirSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { MendelError } from "../base/errors.ts";
import { naturalOrder } from "../base/natural-order.ts";
import { type Dtype, dtypeBytes } from "../tensors/dtype.ts";
import { elementCount, type Shape } from "../tensors/shape.ts";
import { AtomicFile, writeFileAtomically } from "./atomic-file.ts";
import { DEFAULT_MAX_HEADER_BYTES, headerDtypeBits, showName } from "./safetensors-header.ts";

/** A tensor that is going to be written. */
export interface TensorSpec {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: Shape;
}

export interface SafetensorsWriterOptions {
  readonly metadata?: Readonly<Record<string, string>>;
  /**
   * "size" (default) puts wide types first, then names by code point, as the reference writer does, so that every tensor is
   * aligned; "given" keeps the caller's order.
   */
  readonly order?: "size" | "given";
  /**
   * Tensor bytes per file. When the model is larger, `name.safetensors` becomes `name-00001-of-00003.safetensors` and so on
   * with `name.safetensors.index.json`; tensors go to shards in natural order of names. One tensor is never split.
   */
  readonly maxShardBytes?: number;
}

interface Slot {
  readonly shard: Shard;
  readonly offset: number;
  readonly bytes: number;
  readonly elementBytes: number;
  written: number;
}

interface Shard {
  readonly file: AtomicFile;
  readonly bytes: number;
}

export interface WrittenFile {
  readonly path: string;
  readonly bytes: number;
}

/**
 * Writes safetensors in a stream: all names, types and shapes first, then the elements in any order of tensors, each tensor
 * from front to back in pieces of any size. Nothing appears under its name before `finish`.
 */
export class SafetensorsWriter {
  readonly #target: string;
  readonly #slots = new Map<string, Slot>();
  readonly #shards: Shard[] = [];
  #index: string | undefined;

  /**
   * @param target path of the file, or of the file that it would be without shards; its folder is made
   * @throws MendelError `unsupported` for names, types or headers that a reader would refuse; `resource`
   */
  constructor(
    target: string,
    tensors: readonly TensorSpec[],
    options: SafetensorsWriterOptions = {},
  ) {
    this.#target = target;
    checkSpecs(tensors, target);
    const groups = splitIntoShards(tensors, options.maxShardBytes ?? Number.POSITIVE_INFINITY);
    const names = shardNames(basename(target), groups.length);
    const layouts = groups.map((group, i) => {
      const order = options.order === "given" ? group : [...group].sort(bySizeThenName);
      return layOut(order, options.metadata ?? {}, join(dirname(target), names[i] as string));
    });
    mkdirSync(dirname(target), { recursive: true });
    try {
      for (const layout of layouts) this.#begin(layout);
    } catch (error) {
      this.discard();
      throw error;
    }
    if (groups.length > 1) this.#index = indexText(groups, names);
  }

  /**
   * Appends elements to a tensor.
   *
   * @param bytes whole elements, little-endian, row-major
   */
  write(name: string, bytes: Uint8Array): void {
    const slot = this.#slots.get(name);
    if (slot === undefined) throw new Error(`tensor ${name} was not announced`);
    if (slot.written + bytes.length > slot.bytes || bytes.length % slot.elementBytes !== 0) {
      throw new Error(
        `${bytes.length} bytes after ${slot.written} of ${slot.bytes} for tensor ${name}`,
      );
    }
    slot.shard.file.write(slot.offset + slot.written, bytes);
    slot.written += bytes.length;
  }

  /** Makes the files durable and visible; the index comes last. */
  finish(): readonly WrittenFile[] {
    for (const [name, slot] of this.#slots) {
      if (slot.written !== slot.bytes) {
        this.discard();
        throw new Error(`tensor ${name} got ${slot.written} of ${slot.bytes} bytes`);
      }
    }
    const files: WrittenFile[] = [];
    try {
      for (const { file, bytes } of this.#shards) {
        file.commit();
        files.push({ path: file.path, bytes });
      }
    } finally {
      this.discard();
    }
    if (this.#index !== undefined) {
      const path = `${this.#target}.index.json`;
      writeFileAtomically(path, this.#index);
      files.push({ path, bytes: Buffer.byteLength(this.#index) });
    }
    return files;
  }

  /** Gives up: removes everything that has no name yet. Safe to call twice and after `finish`. */
  discard(): void {
    for (const { file } of this.#shards) file.discard();
  }

  #begin(layout: Layout): void {
    const file = new AtomicFile(layout.path, layout.bytes);
    const shard: Shard = { file, bytes: layout.bytes };
    this.#shards.push(shard);
    file.write(0, layout.header);
    for (const { spec, offset, bytes } of layout.places) {
      const elementBytes = dtypeBytes[spec.dtype];
      this.#slots.set(spec.name, { shard, offset, bytes, elementBytes, written: 0 });
    }
  }
}

interface Layout {
  readonly path: string;
  readonly header: Uint8Array;
  readonly bytes: number;
  readonly places: readonly { spec: TensorSpec; offset: number; bytes: number }[];
}

function specBytes(spec: TensorSpec): number {
  return elementCount(spec.shape) * dtypeBytes[spec.dtype];
}

function checkSpecs(tensors: readonly TensorSpec[], target: string): void {
  const seen = new Set<string>();
  const refuse = (name: string, problem: string): MendelError =>
    new MendelError(
      "unsupported",
      `${target}: tensor ${showName(name)} cannot be written: ${problem}`,
      {
        where: { file: target, tensor: name },
      },
    );
  for (const { name, dtype, shape } of tensors) {
    if (seen.has(name)) throw refuse(name, "the name occurs twice");
    seen.add(name);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be there
    if (name === "__metadata__" || /[\u0000-\u001f\u007f]|\p{Surrogate}/u.test(name)) {
      throw refuse(name, "the format does not allow this name");
    }
    if (!Object.hasOwn(dtypeBytes, dtype)) throw refuse(name, `unknown dtype ${showName(dtype)}`);
    const sound = shape.every((dim) => Number.isSafeInteger(dim) && dim >= 0);
    if (!sound || !Number.isSafeInteger(elementCount(shape) * 8)) {
      throw refuse(name, `shape [${shape.join(", ")}]`);
    }
  }
}

function splitIntoShards(
  tensors: readonly TensorSpec[],
  maxBytes: number,
): readonly (readonly TensorSpec[])[] {
  const total = tensors.reduce((sum, spec) => sum + specBytes(spec), 0);
  if (total <= maxBytes) return [tensors];
  const shards: TensorSpec[][] = [];
  let room = 0;
  for (const spec of [...tensors].sort((a, b) => naturalOrder(a.name, b.name))) {
    const bytes = specBytes(spec);
    if (shards.length === 0 || bytes > room) {
      shards.push([]);
      room = maxBytes;
    }
    shards.at(-1)?.push(spec);
    room -= bytes;
  }
  return shards;
}

function shardNames(name: string, count: number): readonly string[] {
  if (count === 1) return [name];
  const stem = name.replace(/\.safetensors$/, "");
  const digits = (n: number): string => String(n).padStart(5, "0");
  return Array.from(
    { length: count },
    (_, i) => `${stem}-${digits(i + 1)}-of-${digits(count)}.safetensors`,
  );
}

/** Rank of a type in the reference writer's order, which is the order of `headerDtypeBits`. */
const rank: ReadonlyMap<string, number> = new Map(
  [...headerDtypeBits.keys()].map((key, i) => [key, i]),
);

function bySizeThenName(a: TensorSpec, b: TensorSpec): number {
  const byType =
    (rank.get(b.dtype.toUpperCase()) as number) - (rank.get(a.dtype.toUpperCase()) as number);
  if (byType !== 0) return byType;
  return Buffer.compare(Buffer.from(a.name), Buffer.from(b.name));
}

function layOut(
  order: readonly TensorSpec[],
  metadata: Readonly<Record<string, string>>,
  path: string,
): Layout {
  const members: string[] = [];
  if (Object.keys(metadata).length > 0) members.push(`"__metadata__":${JSON.stringify(metadata)}`);
  const places: { spec: TensorSpec; offset: number; bytes: number }[] = [];
  let end = 0;
  for (const spec of order) {
    const bytes = specBytes(spec);
    places.push({ spec, offset: end, bytes });
    const dtype = spec.dtype.toUpperCase();
    members.push(
      `${JSON.stringify(spec.name)}:{"dtype":"${dtype}","shape":[${spec.shape.join(",")}],"data_offsets":[${end},${end + bytes}]}`,
    );
    end += bytes;
  }
  const header = headerBytes(`{${members.join(",")}}`, path);
  return {
    path,
    header,
    bytes: header.length + end,
    places: places.map((place) => ({ ...place, offset: header.length + place.offset })),
  };
}

/** Length prefix and text, padded with spaces so that the data begin at a multiple of eight. */
function headerBytes(text: string, path: string): Uint8Array {
  const length = Math.ceil(Buffer.byteLength(text) / 8) * 8;
  if (length > DEFAULT_MAX_HEADER_BYTES) {
    const message = `${path}: a header of ${length} bytes, but at most ${DEFAULT_MAX_HEADER_BYTES} are written`;
    throw new MendelError("unsupported", message, {
      where: { file: path },
      hint: "shorten the metadata, or write more and smaller shards",
    });
  }
  const bytes = Buffer.alloc(8 + length, " ");
  bytes.writeBigUInt64LE(BigInt(length), 0);
  bytes.write(text, 8);
  return bytes;
}

/** The index that the Hugging Face libraries look for: which tensor is in which file. */
function indexText(groups: readonly (readonly TensorSpec[])[], names: readonly string[]): string {
  const total = groups.flat().reduce((sum, spec) => sum + specBytes(spec), 0);
  const map = groups
    .flatMap((group, i) => group.map((spec) => [spec.name, names[i]] as const))
    .sort(([a], [b]) => naturalOrder(a, b));
  const index = { metadata: { total_size: total }, weight_map: Object.fromEntries(map) };
  return `${JSON.stringify(index, null, 2)}\n`;
}
