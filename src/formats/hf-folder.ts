import { existsSync, readdirSync } from "node:fs";
import { basename, join } from "node:path";
import { MendelError, messageOf } from "../base/errors.ts";
import { naturalOrder } from "../base/natural-order.ts";
import type { ModelReader, ModelTensor } from "../tensors/model-reader.ts";
import { containedFile, hasEntry } from "./contained-file.ts";
import { decodeUtf8, parseJson, type ScannedJson } from "./json-scanner.ts";
import { withFile } from "./random-access-file.ts";
import { openSafetensorsFiles, type SafetensorsReader } from "./safetensors.ts";
import { type SafetensorsLimits, showName } from "./safetensors-header.ts";

/** Configurations are a few kilobytes; some list thousands of labels. */
export const MAX_CONFIG_BYTES = 4 * 1024 * 1024;
/** An index line takes about 100 bytes: room for several hundred thousand tensors. */
export const MAX_INDEX_BYTES = 64 * 1024 * 1024;
const MAX_CONFIG_DEPTH = 64;

const WEIGHTS = "model.safetensors";
/** Where decoder models keep their output layer. */
const OUTPUT = "lm_head.weight";
const INDEX = `${WEIGHTS}.index.json`;

/** Files beside the weights that make a folder usable; code is not among them. */
const sideFilePatterns: readonly RegExp[] = [
  /^(config|generation_config|special_tokens_map|added_tokens|preprocessor_config|processor_config|chat_template)\.json$/,
  /^(image|video)_(preprocessor|processor)_config\.json$/,
  /^chat_template\.jinja$/,
  /^tokenizer[\w.-]*\.(json|model|txt)$/,
  /^(vocab|merges)\.(json|txt)$/,
  /^(spiece|sentencepiece[\w.-]*)\.model$/,
  /^[\w-]+\.tiktoken$/,
];

/** A Hugging Face folder opened for reading. */
export interface HfReader extends ModelReader {
  readonly format: "hf";
  /** `config.json` as it is; empty when there is none. */
  readonly config: Readonly<Record<string, ScannedJson>>;
  /** Absolute paths of configuration, tokenizer and template files, for an export to copy. */
  readonly sideFiles: readonly string[];
  /** Number of layers that the configuration states. */
  readonly layers: number | undefined;
  /** Whether the configuration says that the output layer is the input embedding. */
  readonly tiedEmbeddings: boolean;
  /** Oddities that do not make the model unusable. */
  readonly warnings: readonly string[];
}

/** Whether a folder holds safetensors weights. */
export function isHfFolder(path: string): boolean {
  return findWeights(path) !== undefined;
}

/**
 * Opens a folder with `config.json` and `model.safetensors`, or shards with their index.
 *
 * @throws MendelError `not-found` when the folder or a shard is missing; `invalid-file` for damaged or hostile content, an
 *   index that names a path, a tensor that is in two shards or not in its own; `unsupported`
 */
export function openHfFolder(path: string, limits: SafetensorsLimits = {}): HfReader {
  const weights = findWeights(path);
  if (weights === undefined) throw noWeights(path);
  const config = readConfig(path);
  const index = weights.kind === "shards" ? readIndex(path, weights.name) : undefined;
  const names = index === undefined ? [weights.name] : index.shards;
  const files = names.map((name) => containedFile(path, name, join(path, weights.name)));
  const opened = openSafetensorsFiles(path, "hf", files, limits);
  try {
    const warnings = [...opened.warnings];
    if (index !== undefined) checkAgainstIndex(index, opened, warnings);
    const tiedEmbeddings = config["tie_word_embeddings"] === true;
    return {
      ...opened,
      format: "hf",
      tensors: tiedEmbeddings ? aliasOutput(opened.tensors) : opened.tensors,
      config,
      sideFiles: findSideFiles(path, warnings),
      layers: layersOf(config),
      tiedEmbeddings,
      warnings,
    };
  } catch (error) {
    opened.close();
    throw error;
  }
}

/** A JSON configuration file of a model folder. */
export function readModelJson(
  path: string,
  maxBytes: number,
): Readonly<Record<string, ScannedJson>> {
  const text = withFile(path, (file) => {
    if (file.size > maxBytes) {
      const message = `${path}: ${file.size} bytes, but at most ${maxBytes} are read`;
      throw new MendelError("invalid-file", message, { where: { file: path } });
    }
    const bytes = new Uint8Array(file.size);
    file.read(0, bytes);
    return decodeUtf8(bytes, path);
  });
  const value = parseJson({ text, file: path, line: 1, maxDepth: MAX_CONFIG_DEPTH, python: true });
  if (!isObject(value)) {
    throw new MendelError("invalid-file", `${path}: expected an object`, { where: { file: path } });
  }
  return value;
}

function isObject(
  value: ScannedJson | undefined,
): value is { readonly [key: string]: ScannedJson } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

type Weights = { readonly kind: "single" | "shards"; readonly name: string };

function findWeights(path: string): Weights | undefined {
  if (hasEntry(path, WEIGHTS)) return { kind: "single", name: WEIGHTS };
  if (hasEntry(path, INDEX)) return { kind: "shards", name: INDEX };
  const others = listFolder(path).filter(
    (name) => name.endsWith(".safetensors") && name !== "adapter_model.safetensors",
  );
  const [only] = others;
  return others.length === 1 && only !== undefined ? { kind: "single", name: only } : undefined;
}

function listFolder(path: string): readonly string[] {
  return existsSync(path) ? readdirSync(path).sort(naturalOrder) : [];
}

function noWeights(path: string): MendelError {
  const where = { file: path };
  if (!existsSync(path))
    return new MendelError("not-found", `there is no folder ${path}`, { where });
  const names = listFolder(path);
  const shards = names.filter((name) => name.endsWith(".safetensors"));
  if (shards.length > 1) {
    const message = `${path} holds ${shards.length} safetensors files but no ${INDEX}`;
    return new MendelError("invalid-file", message, {
      where,
      hint: `name the one to use: ${shards.slice(0, 3).join(", ")}`,
    });
  }
  const pickled = names.find((name) => /\.(bin|pt|pth|ckpt)$/.test(name));
  if (pickled !== undefined) {
    return new MendelError("unsupported", `${path} holds only pickled weights (${pickled})`, {
      where,
      hint: "pickled checkpoints run code when loaded and are never opened; convert to safetensors first",
    });
  }
  return new MendelError("not-found", `${path} holds no model`, {
    where,
    hint: `expected ${WEIGHTS}, ${INDEX}, model.onnx or adapter_config.json`,
  });
}

function readConfig(path: string): Readonly<Record<string, ScannedJson>> {
  if (!hasEntry(path, "config.json")) return {};
  return readModelJson(containedFile(path, "config.json", path), MAX_CONFIG_BYTES);
}

interface ShardIndex {
  /** Path of the index, for messages. */
  readonly path: string;
  readonly shards: readonly string[];
  readonly shardOf: ReadonlyMap<string, string>;
  readonly totalSize: ScannedJson | undefined;
}

function readIndex(folder: string, name: string): ShardIndex {
  const path = containedFile(folder, name, folder);
  const index = readModelJson(path, MAX_INDEX_BYTES);
  const map = index["weight_map"];
  if (!isObject(map)) {
    throw new MendelError("invalid-file", `${path}: weight_map must be an object`, {
      where: { file: path, key: "weight_map" },
    });
  }
  const shardOf = new Map<string, string>();
  for (const [tensor, shard] of Object.entries(map)) {
    if (typeof shard !== "string") {
      throw new MendelError(
        "invalid-file",
        `${path}: the shard of ${showName(tensor)} must be a name`,
        {
          where: { file: path, tensor },
        },
      );
    }
    shardOf.set(tensor, shard);
  }
  const shards = [...new Set(shardOf.values())].sort(naturalOrder);
  const metadata = index["metadata"];
  const totalSize = isObject(metadata) ? metadata["total_size"] : undefined;
  return { path, shards, shardOf, totalSize };
}

function checkAgainstIndex(index: ShardIndex, opened: SafetensorsReader, warnings: string[]): void {
  for (const [tensor, shard] of index.shardOf) {
    const file = opened.fileOf.get(tensor);
    const actual = file === undefined ? undefined : basename(file);
    if (actual === shard) continue;
    const found = actual === undefined ? "is in no shard" : `is in ${actual}`;
    const message = `${index.path}: tensor ${showName(tensor)} should be in ${shard} but ${found}`;
    throw new MendelError("invalid-file", message, { where: { file: index.path, tensor } });
  }
  for (const tensor of opened.tensors.keys()) {
    if (!index.shardOf.has(tensor)) {
      warnings.push(`${index.path} does not list tensor ${showName(tensor)}, which a shard holds`);
    }
  }
  // Published indices are often wrong here (shared tensors counted twice), and nothing depends on it.
  if (index.totalSize !== undefined && index.totalSize !== opened.dataBytes) {
    warnings.push(
      `${index.path}: total_size is ${String(index.totalSize)}, the shards hold ${opened.dataBytes} bytes`,
    );
  }
}

/** With tied embeddings the output layer is not stored; its name then means the input embedding. */
function aliasOutput(tensors: ReadonlyMap<string, ModelTensor>): ReadonlyMap<string, ModelTensor> {
  const inputs = [...tensors.keys()].filter((name) =>
    /(^|\.)(embed_tokens|wte)\.weight$/.test(name),
  );
  const [input] = inputs;
  const tensor = input === undefined ? undefined : tensors.get(input);
  if (inputs.length !== 1 || tensor === undefined || tensors.has(OUTPUT)) return tensors;
  return new Map(tensors).set(tensor.name, { ...tensor, aliases: [OUTPUT] });
}

/**
 * Absolute paths of the configuration, tokenizer and template files in a model's folder, in natural order; links that leave
 * the folder are left out and reported.
 */
export function findSideFiles(path: string, warnings: string[] = []): readonly string[] {
  const names = listFolder(path).filter((name) =>
    sideFilePatterns.some((pattern) => pattern.test(name)),
  );
  return names.flatMap((name) => {
    try {
      return [containedFile(path, name, path)];
    } catch (error) {
      warnings.push(messageOf(error));
      return [];
    }
  });
}

/** The number of layers under any of its usual names, also where it sits in the text part of a multimodal model. */
function layersOf(config: Readonly<Record<string, ScannedJson>>): number | undefined {
  const text = config["text_config"];
  for (const part of isObject(text) ? [config, text] : [config]) {
    for (const key of ["num_hidden_layers", "n_layer", "num_layers", "n_layers"]) {
      const value = part[key];
      if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
    }
  }
  return undefined;
}
