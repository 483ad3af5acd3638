import { existsSync, statSync } from "node:fs";
import { basename, dirname, extname, join, resolve } from "node:path";
import { MendelError } from "../base/errors.ts";
import { isGenericName, modelNameOf, shortName, stemOf, uniqueNames } from "./model-names.ts";
import { type FolderListing, walkFolder } from "./walk-folder.ts";

/** Something that can be opened as a model, found by its files' names; nothing has been read yet. */
export interface FoundModel {
  readonly id: string;
  readonly path: string;
  readonly kind: "model" | "adapter";
  /** ONNX file that runs these weights. */
  readonly graph: string | undefined;
  readonly tokenizer: string | undefined;
}

export interface LeftOut {
  readonly path: string;
  readonly reason: string;
}

export interface FoundModels {
  readonly models: readonly FoundModel[];
  /** ONNX files that look like a graph for other files' weights rather than a model of their own. */
  readonly graphs: readonly string[];
  /** Tokenizers that lie in no model's folder. */
  readonly tokenizers: readonly string[];
  readonly leftOut: readonly LeftOut[];
}

const INDEX = "model.safetensors.index.json";
const shard = /-\d{5}-of-\d{5}\.safetensors$/;
const pickled = /\.(bin|pt|pth|ckpt)$/;
/** Names that the experiment keeps for its baselines. */
const reserved = new Set(["uniform", "lambda"]);

type Draft = Omit<FoundModel, "id"> & { readonly name: string };

/**
 * Looks for models in a folder and the folders below it: Hugging Face and adapter folders, and files on their own. Files
 * of one name (`a.safetensors`, `a.onnx`) are one model and its graph.
 */
export function findModels(root: string): FoundModels {
  const drafts: Draft[] = [];
  const graphs: string[] = [];
  const tokenizers: string[] = [];
  const leftOut: LeftOut[] = [];
  for (const listing of walkFolder(resolve(root))) {
    const before = drafts.length;
    drafts.push(...modelsIn(listing));
    const found = drafts.slice(before);
    const tokenizer = tokenizerIn(listing);
    if (tokenizer !== undefined && found.length !== 1) tokenizers.push(tokenizer);
    const pickle = listing.files.find((name) => pickled.test(name));
    if (pickle !== undefined && found.length === 0) {
      leftOut.push({
        path: join(listing.path, pickle),
        reason:
          "pickled checkpoints run code when loaded and are never opened; convert it to safetensors",
      });
    }
  }
  const weights = drafts.filter(({ path }) => extname(path) !== ".onnx");
  const models = drafts.filter((draft) => {
    // "model.onnx" among named checkpoints runs them; it is not one more of them.
    const only =
      weights.length >= 2 && extname(draft.path) === ".onnx" && isGenericName(draft.path);
    const inOwnFolder = drafts.every(
      (other) => other === draft || dirname(other.path) !== dirname(draft.path),
    );
    if (only && !inOwnFolder) graphs.push(draft.path);
    return !only || inOwnFolder;
  });
  return { models: named(models), graphs, tokenizers, leftOut };
}

/** A model that the user names: a file or a folder. @throws MendelError `not-found` */
export function modelAt(id: string, given: string): FoundModel {
  const path = resolve(given);
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats === undefined) {
    throw new MendelError("not-found", `model ${id}: there is nothing at ${path}`, {
      where: { file: path },
    });
  }
  if (!stats.isDirectory()) {
    const twin = `${path.slice(0, -extname(path).length)}.onnx`;
    const graph = extname(path) === ".onnx" ? path : existsSync(twin) ? twin : undefined;
    return { id, path, kind: "model", graph, tokenizer: besides(dirname(path), "tokenizer.json") };
  }
  const adapter = existsSync(join(path, "adapter_config.json"));
  return {
    id,
    path,
    kind: adapter ? "adapter" : "model",
    graph: adapter ? undefined : besides(path, "model.onnx"),
    tokenizer: besides(path, "tokenizer.json"),
  };
}

function besides(folder: string, name: string): string | undefined {
  const path = join(folder, name);
  return existsSync(path) ? path : undefined;
}

function tokenizerIn({ path, files }: FolderListing): string | undefined {
  return files.includes("tokenizer.json") ? join(path, "tokenizer.json") : undefined;
}

function modelsIn(listing: FolderListing): Draft[] {
  const { path, files } = listing;
  const tokenizer = tokenizerIn(listing);
  if (files.includes("adapter_config.json")) {
    const name = basename(resolve(path));
    return [{ name, path, kind: "adapter", graph: undefined, tokenizer }];
  }
  const stems = new Map<string, { weights?: string; graph?: string }>();
  for (const name of files) {
    const ending = extname(name);
    const isWeights = ending === ".safetensors" && !shard.test(name);
    if (!isWeights && ending !== ".onnx" && name !== INDEX) continue;
    const stem = stemOf(name);
    const known = stems.get(stem) ?? {};
    stems.set(stem, ending === ".onnx" ? { ...known, graph: name } : { ...known, weights: name });
  }
  return [...stems].map(([, { weights, graph }]): Draft => {
    const file = join(path, weights ?? (graph as string));
    // A folder stands for its model when the configuration, shards or graph beside the weights belong to it.
    const wholeFolder =
      stems.size === 1 &&
      weights !== undefined &&
      isGenericName(file) &&
      (files.includes("config.json") || weights === INDEX || graph !== undefined);
    return {
      name: modelNameOf(file),
      path: wholeFolder ? path : file,
      kind: "model",
      graph: graph === undefined ? undefined : join(path, graph),
      tokenizer: stems.size === 1 ? tokenizer : undefined,
    };
  });
}

function named(drafts: readonly Draft[]): FoundModel[] {
  const names = drafts.map(({ name }) => {
    const short = shortName(name);
    return reserved.has(short) ? `${short}-model` : short;
  });
  return uniqueNames(names).map((id, i) => {
    const { name: _name, ...draft } = drafts[i] as Draft;
    return { id, ...draft };
  });
}
