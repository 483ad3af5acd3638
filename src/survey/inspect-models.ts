import { existsSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { MendelError } from "../base/errors.ts";
import { naturalOrder } from "../base/natural-order.ts";
import { suggestion } from "../base/suggest.ts";
import { hasEntry } from "../formats/contained-file.ts";
import { type HfReader, MAX_CONFIG_BYTES, readModelJson } from "../formats/hf-folder.ts";
import { formats, openModel } from "../formats/index.ts";
import type { ScannedJson } from "../formats/json-scanner.ts";
import { isLoraFolder, type LoraReader } from "../formats/lora.ts";
import type { OnnxValue } from "../formats/onnx/onnx-model.ts";
import type { OnnxReader } from "../formats/onnx/open-onnx.ts";
import { findLayers, kindOf, type TensorKind, tensorKinds } from "../recipes/tensor-groups.ts";
import { type Dtype, dtypeBytes } from "../tensors/dtype.ts";
import type { ModelFormat, ModelReader, ModelTensor } from "../tensors/model-reader.ts";
import { elementCount, type Shape } from "../tensors/shape.ts";
import { inspectMatch, type MatchInspection } from "./inspect-match.ts";
import { baseByName, modelNameOf, uniqueNames } from "./model-names.ts";

/** How much there is of something. */
export interface Amount {
  readonly tensors: number;
  /** Elements of the tensors. */
  readonly parameters: number;
  /** In stored dtype. */
  readonly bytes: number;
}

/** A stack of repeated blocks. */
export interface StackFacts {
  /** Name up to the block's number: "model.layers". */
  readonly stack: string;
  readonly blocks: number;
  readonly first: number;
  readonly last: number;
  /** Tensors in one block; undefined where blocks differ. */
  readonly tensorsPerBlock: number | undefined;
}

/** One tensor as its checkpoint's author would name and shape it, and how the file has it. */
export interface TensorFacts {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: Shape;
  /** Block it belongs to, as "model.layers.3". */
  readonly layer: string | undefined;
  readonly kind: TensorKind;
  /** Name in the file, where it is another. */
  readonly storedName: string | undefined;
  /** The file holds the transpose. */
  readonly transposed: boolean;
  /** Other names for the same weight. */
  readonly aliases: readonly string[];
}

/** What a model's config.json says of itself; what it does not say is absent. */
export interface ConfigFacts {
  readonly architecture?: string;
  readonly modelType?: string;
  readonly hiddenSize?: number;
  readonly layers?: number;
  readonly heads?: number;
  readonly keyValueHeads?: number;
  readonly intermediateSize?: number;
  readonly vocabulary?: number;
  readonly positions?: number;
  readonly tiedEmbeddings?: boolean;
  readonly dtype?: string;
}

/** An input or output of a graph. */
export interface ValueFacts {
  readonly name: string;
  readonly dtype: Dtype | undefined;
  /** Sizes, names of dynamic axes, "" for an axis of which nothing is said; undefined without a shape. */
  readonly shape: readonly (number | string)[] | undefined;
}

export interface GraphFacts {
  readonly irVersion: number;
  readonly producer: string;
  /** Operator set → version; the standard one is called "ai.onnx". */
  readonly opsets: Readonly<Record<string, number>>;
  readonly nodes: number;
  readonly inputs: readonly ValueFacts[];
  readonly outputs: readonly ValueFacts[];
  /** Equal for graphs that compute in the same way, whatever their names are. */
  readonly signature: string;
}

export interface AdapterFacts {
  /** Name of the model below it; undefined when the adapter was looked at alone. */
  readonly on: string | undefined;
  readonly baseModel?: string;
  readonly rank?: number;
  readonly alpha?: number;
  readonly targets?: readonly string[];
  /** Tensors of the model below that it changes. */
  readonly changed?: number;
}

/** What a model's headers tell. */
export interface ModelInspection {
  readonly name: string;
  readonly path: string;
  readonly format: ModelFormat;
  readonly formatTitle: string;
  readonly files: readonly { readonly path: string; readonly bytes: number }[];
  /** Configuration and tokenizer files beside the weights, names only. */
  readonly sideFiles: readonly string[];
  /** An ONNX graph in the same folder that can run these weights. */
  readonly graphBeside: string | undefined;
  readonly total: Amount;
  readonly dtypes: readonly ({ readonly dtype: Dtype } & Amount)[];
  readonly layers: readonly StackFacts[];
  readonly kinds: readonly ({ readonly kind: TensorKind } & Amount)[];
  readonly metadata: Readonly<Record<string, string>>;
  readonly config: ConfigFacts | undefined;
  readonly graph: GraphFacts | undefined;
  readonly adapter: AdapterFacts | undefined;
  readonly warnings: readonly string[];
  /** In natural order of names. */
  readonly tensors: readonly TensorFacts[];
}

export interface Inspection {
  readonly models: readonly ModelInspection[];
  /** How several models correspond; undefined for one. */
  readonly match: MatchInspection | undefined;
}

export interface InspectOptions {
  /** Name or path of the model that the others are held against; default: the one called base, else the first. */
  readonly reference?: string;
  /** Tensors that a merge would copy: globs, or `kind:` and a tensor kind. */
  readonly freeze?: readonly string[];
}

/**
 * Looks at models, reading headers only: time and memory do not grow with the weights.
 *
 * @param paths models as `openModel` takes them; `MODEL+ADAPTER` for a LoRA adapter on a model. An adapter folder among
 *   several models is taken on top of the first whole model; alone it is described without one.
 * @throws MendelError as `openModel`; `usage` for a reference that is not among the models
 */
export function inspectModels(paths: readonly string[], options: InspectOptions = {}): Inspection {
  const open: ModelReader[] = [];
  try {
    const opened = openAll(paths, open);
    const models = opened.map((model) => describe(model));
    const [first] = opened;
    if (first === undefined || opened.length < 2) return { models, match: undefined };
    const readers = new Map(opened.map(({ name, reader }) => [name, reader]));
    return {
      models,
      match: inspectMatch(readers, referenceOf(opened, options.reference), options.freeze),
    };
  } finally {
    for (const reader of open.reverse()) reader.close();
  }
}

interface OpenedModel {
  readonly name: string;
  readonly path: string;
  readonly reader: ModelReader;
  /** What it is, when `reader` is only a part of it: an adapter without its model. */
  readonly format: ModelFormat;
  /** Folder of the adapter, and the name of the model below it. */
  readonly adapter: { readonly folder: string; readonly on: string | undefined } | undefined;
}

/** An argument: a model, and possibly an adapter to put on it. */
interface Place {
  readonly path: string;
  readonly adapter: string | undefined;
}

function placeOf(text: string): Place {
  const plus = text.lastIndexOf("+");
  if (plus > 0 && !existsSync(text)) {
    return { path: text.slice(0, plus), adapter: text.slice(plus + 1) };
  }
  const isFolder = statSync(text, { throwIfNoEntry: false })?.isDirectory() === true;
  return isFolder && isLoraFolder(text)
    ? { path: "", adapter: text }
    : { path: text, adapter: undefined };
}

/** @param open gets every reader, also when opening a later one fails */
function openAll(paths: readonly string[], open: ModelReader[]): OpenedModel[] {
  const places = paths.map(placeOf);
  const names = uniqueNames(places.map(({ path, adapter }) => modelNameOf(adapter ?? path)));
  const opened = new Map<string, OpenedModel>();
  const openOne = (path: string, base?: ModelReader): ModelReader => {
    const reader = openModel(path, base === undefined ? {} : { base });
    open.push(reader);
    return reader;
  };
  places.forEach(({ path, adapter }, i) => {
    if (adapter !== undefined) return;
    const name = names[i] as string;
    const reader = openOne(path);
    opened.set(name, { name, path, reader, format: reader.format, adapter: undefined });
  });
  const [whole] = opened.values();
  places.forEach(({ path, adapter: folder }, i) => {
    if (folder === undefined) return;
    const name = names[i] as string;
    const base = path === "" ? whole?.reader : openOne(path);
    const reader =
      base === undefined
        ? openOne(join(folder, "adapter_model.safetensors"))
        : openOne(folder, base);
    const on = path === "" ? whole?.name : modelNameOf(path);
    const shown = path === "" ? folder : `${path}+${folder}`;
    opened.set(name, { name, path: shown, reader, format: "lora", adapter: { folder, on } });
  });
  return names.map((name) => opened.get(name) as OpenedModel);
}

function referenceOf(opened: readonly OpenedModel[], wanted: string | undefined): string {
  const names = opened.map(({ name }) => name);
  if (wanted === undefined) return baseByName(names) ?? (names[0] as string);
  const found = opened.find(({ name, path }) => name === wanted || path === wanted);
  if (found !== undefined) return found.name;
  throw new MendelError("usage", `the reference "${wanted}" is not among the models`, {
    hint: suggestion(wanted, names),
  });
}

function isHf(reader: ModelReader): reader is HfReader {
  return reader.format === "hf";
}

function isOnnx(reader: ModelReader): reader is OnnxReader {
  return reader.format === "onnx";
}

function isLora(reader: ModelReader): reader is LoraReader {
  return reader.format === "lora";
}

function describe({ name, path, reader, format, adapter }: OpenedModel): ModelInspection {
  const all = [...reader.tensors.values()].sort((a, b) => naturalOrder(a.name, b.name));
  const structure = findLayers(all.map((tensor) => tensor.name));
  const tensors = all.map((tensor): TensorFacts => {
    const place = structure.placeOf(tensor.name);
    return {
      name: tensor.name,
      dtype: tensor.dtype,
      shape: tensor.shape,
      layer: place === undefined ? undefined : `${place.stack}.${place.index}`,
      kind: kindOf(tensor.name, place),
      storedName: tensor.storedName === tensor.name ? undefined : tensor.storedName,
      transposed: tensor.transposed,
      aliases: tensor.aliases,
    };
  });
  return {
    name,
    path,
    format,
    formatTitle: formats[format].title,
    files: reader.files.map((file) => ({ path: file, bytes: statSync(file).size })),
    sideFiles: isHf(reader) ? reader.sideFiles.map((file) => basename(file)) : [],
    graphBeside:
      isHf(reader) && hasEntry(path, "model.onnx") ? join(path, "model.onnx") : undefined,
    total: amountOf(all),
    dtypes: [...groupBy(all, ({ dtype }) => dtype)].map(([dtype, members]) => ({
      dtype,
      ...amountOf(members),
    })),
    layers: [...structure.stacks].map(([stack, blocks]) => stackFacts(stack, blocks, tensors)),
    kinds: tensorKinds.flatMap((kind) => {
      const members = all.filter((_, i) => tensors[i]?.kind === kind);
      return members.length === 0 ? [] : [{ kind, ...amountOf(members) }];
    }),
    metadata: reader.metadata,
    config: isHf(reader) ? configFacts(reader) : undefined,
    graph: isOnnx(reader) ? graphFacts(reader) : undefined,
    adapter: adapter === undefined ? undefined : adapterFacts(adapter.folder, adapter.on, reader),
    warnings: reader.warnings ?? [],
    tensors,
  };
}

function amountOf(tensors: readonly ModelTensor[]): Amount {
  let parameters = 0;
  let bytes = 0;
  for (const { shape, dtype } of tensors) {
    const count = elementCount(shape);
    parameters += count;
    bytes += count * dtypeBytes[dtype];
  }
  return { tensors: tensors.length, parameters, bytes };
}

/** Members by key, the largest group first. */
function groupBy<T, K extends string>(items: readonly T[], keyOf: (item: T) => K): [K, T[]][] {
  const groups = new Map<K, T[]>();
  for (const item of items) {
    const key = keyOf(item);
    const members = groups.get(key);
    if (members === undefined) groups.set(key, [item]);
    else members.push(item);
  }
  return [...groups].sort(([a, x], [b, y]) => y.length - x.length || (a < b ? -1 : 1));
}

function stackFacts(
  stack: string,
  blocks: readonly number[],
  tensors: readonly TensorFacts[],
): StackFacts {
  const counts = new Map<string, number>();
  for (const { layer } of tensors) {
    if (layer !== undefined) counts.set(layer, (counts.get(layer) ?? 0) + 1);
  }
  const sizes = new Set(blocks.map((block) => counts.get(`${stack}.${block}`)));
  const [size] = sizes;
  return {
    stack,
    blocks: blocks.length,
    first: blocks[0] as number,
    last: blocks.at(-1) as number,
    tensorsPerBlock: sizes.size === 1 ? size : undefined,
  };
}

/** The same facts have several names; multimodal models keep those of the language part in `text_config`. */
const configKeys = {
  hiddenSize: ["hidden_size", "n_embd", "d_model", "dim"],
  heads: ["num_attention_heads", "n_head", "num_heads", "n_heads"],
  keyValueHeads: ["num_key_value_heads"],
  intermediateSize: ["intermediate_size", "n_inner", "d_ff", "ffn_dim"],
  vocabulary: ["vocab_size"],
  positions: ["max_position_embeddings", "n_positions", "max_seq_len"],
} as const;

function configFacts({ config, layers }: HfReader): ConfigFacts | undefined {
  if (Object.keys(config).length === 0) return undefined;
  const text = config["text_config"];
  const parts = isObject(text) ? [config, text] : [config];
  const find = (keys: readonly string[]): ScannedJson | undefined => {
    for (const part of parts) for (const key of keys) if (part[key] != null) return part[key];
    return undefined;
  };
  const architectures = config["architectures"];
  const architecture = Array.isArray(architectures) ? architectures[0] : undefined;
  const modelType = find(["model_type"]);
  const tied = find(["tie_word_embeddings"]);
  const dtype = find(["dtype", "torch_dtype"]);
  const numbers = Object.entries(configKeys).flatMap(([fact, keys]) => {
    const value = find(keys);
    return typeof value === "number" ? [[fact, value] as const] : [];
  });
  return {
    ...(typeof architecture === "string" ? { architecture } : {}),
    ...(typeof modelType === "string" ? { modelType } : {}),
    ...(layers === undefined ? {} : { layers }),
    ...Object.fromEntries(numbers),
    ...(typeof tied === "boolean" ? { tiedEmbeddings: tied } : {}),
    ...(typeof dtype === "string" ? { dtype } : {}),
  };
}

function isObject(
  value: ScannedJson | undefined,
): value is { readonly [key: string]: ScannedJson } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function graphFacts({ graph: model, signature }: OnnxReader): GraphFacts {
  const { graph } = model;
  const inner = new Set(graph.initializers.map((tensor) => tensor.name));
  return {
    irVersion: model.irVersion,
    producer: model.producer,
    opsets: Object.fromEntries(
      [...model.opsets].map(([domain, version]) => [domain === "" ? "ai.onnx" : domain, version]),
    ),
    nodes: graph.nodes.length,
    inputs: graph.inputs.filter(({ name }) => !inner.has(name)).map(valueFacts),
    outputs: graph.outputs.map(valueFacts),
    signature: signature.digest,
  };
}

function valueFacts({ name, dtype, shape }: OnnxValue): ValueFacts {
  return { name, dtype, shape };
}

function adapterFacts(folder: string, on: string | undefined, reader: ModelReader): AdapterFacts {
  const config = readModelJson(join(folder, "adapter_config.json"), MAX_CONFIG_BYTES);
  const { base_model_name_or_path: baseModel, r: rank, lora_alpha: alpha } = config;
  const modules = config["target_modules"];
  const targets = (Array.isArray(modules) ? modules : [modules]).filter(
    (target): target is string => typeof target === "string",
  );
  return {
    on,
    ...(typeof baseModel === "string" ? { baseModel } : {}),
    ...(typeof rank === "number" ? { rank } : {}),
    ...(typeof alpha === "number" ? { alpha } : {}),
    ...(targets.length === 0 ? {} : { targets }),
    ...(isLora(reader) ? { changed: reader.changed.length } : {}),
  };
}
