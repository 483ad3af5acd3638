import { existsSync, readFileSync } from "node:fs";
import { dirname, extname, join, resolve } from "node:path";
import { MendelError } from "../base/errors.ts";
import { digestOf, sha256OfFile } from "../base/hash.ts";
import { type OnnxReader, openOnnx } from "../formats/onnx/open-onnx.ts";
import { OpenModels } from "../formats/open-models.ts";
import { type CompiledRecipe, compileRecipe } from "../merge/compile.ts";
import { type Coverage, coverageOf } from "../merge/coverage.ts";
import { type MatchReport, matchModels } from "../merge/matching.ts";
import { modelIdOf } from "../merge/plan.ts";
import { foldScales } from "../recipes/fold-scales.ts";
import { layerPathOf } from "../recipes/layer-path.ts";
import { mapModelRefs } from "../recipes/map-model-refs.ts";
import { parseRecipes } from "../recipes/parse.ts";
import type { Recipe, RecipeDtype } from "../recipes/recipe.ts";
import type { ModelReader } from "../tensors/model-reader.ts";
import { placesOf } from "./recipe-models.ts";
import { type OutputFormat, type WrittenFile, writeModel } from "./write-model.ts";
import { writePath } from "./write-path.ts";

export interface MergeOptions {
  /** mergekit YAML. */
  readonly recipe: string;
  /** Folder or file to write. */
  readonly out: string;
  readonly format?: OutputFormat | undefined;
  readonly dtype?: RecipeDtype | undefined;
  readonly shardBytes?: number | undefined;
  /** ONNX file whose graph an ONNX output gets. */
  readonly graph?: string | undefined;
  readonly compat?: "mergekit" | undefined;
  readonly seed?: number | undefined;
}

export interface MergeResult {
  readonly files: readonly WrittenFile[];
  readonly coverage: Coverage;
  readonly warnings: readonly string[];
  readonly seconds: number;
  readonly peakRssBytes: number;
}

/** Models whose random masks must not depend on how the recipe spells their paths get the digest of their files. */
async function identitiesOf(
  compiled: CompiledRecipe,
  models: OpenModels,
): Promise<Map<string, string>> {
  const identities = new Map<string, string>();
  if (!compiled.method.randomMasks) return identities;
  for (const [id, reader] of models.readers) {
    const digests: string[] = [];
    for (const file of reader.files) digests.push(await sha256OfFile(file));
    identities.set(id, digestOf(digests));
  }
  return identities;
}

/** A recipe of a multi-document file with the names of finished intermediates replaced by where they are. */
function withIntermediates(recipe: Recipe, made: ReadonlyMap<string, string>): Recipe {
  return mapModelRefs(recipe, (ref) => ({ ...ref, model: made.get(ref.model) ?? ref.model }));
}

function withOptions(recipe: Recipe, options: MergeOptions): Recipe {
  return {
    ...recipe,
    ...(options.dtype === undefined ? {} : { outDtype: options.dtype }),
    ...(options.compat === undefined ? {} : { compat: options.compat }),
    ...(options.seed === undefined ? {} : { seed: options.seed }),
  };
}

/** The format as asked for, as the output's name says, or that of the model the result stands in for. */
function formatOf(options: MergeOptions, models: OpenModels, reference: string): OutputFormat {
  if (options.format !== undefined) return options.format;
  if (extname(options.out) === ".onnx" || options.graph !== undefined) return "onnx";
  if (extname(options.out) === ".safetensors") return "safetensors";
  const { format } = models.require(reference);
  return format === "onnx" || format === "hf" ? format : format === "lora" ? "hf" : "safetensors";
}

/** The graph of an ONNX output: as asked for, else that of the reference, else of the first ONNX model. */
function graphFor(
  options: MergeOptions,
  models: OpenModels,
  reference: string,
  match: MatchReport,
) {
  if (options.graph !== undefined) {
    const reader = openOnnx(options.graph);
    return {
      reader,
      nameIn: (tensor: string) => (reader.find(tensor) === undefined ? undefined : tensor),
    };
  }
  const order = [reference, ...models.readers.keys()];
  const id = order.find((candidate) => models.require(candidate).format === "onnx");
  if (id === undefined) return undefined;
  const names = new Map(
    match.plan.tensors.map(({ name, sources }) => [name, sources.get(id)?.name]),
  );
  return {
    reader: models.require(id) as OnnxReader,
    nameIn: (tensor: string) => names.get(tensor),
  };
}

/** Whose configuration and tokenizer a Hugging Face output gets: the reference's, else the first folder's. */
function donorOf(models: OpenModels, reference: string): ModelReader | undefined {
  const order = [reference, ...models.readers.keys()].map((id) => models.require(id));
  return order.find(({ format }) => format === "hf");
}

/**
 * The recipe that makes the weights of a walk through layers: factors on the hidden state are folded into them.
 *
 * @throws MendelError `unsupported` where they cannot be
 */
function weightsRecipe(given: Recipe, format: OutputFormat, match: MatchReport): Recipe {
  if (format === "onnx" || layerPathOf(given) === undefined) return given;
  const names = match.plan.tensors.map(({ name }) => name);
  const folded = given.mergeMethod === "passthrough" ? given : foldScales(given, names);
  if (typeof folded !== "string") return folded;
  throw new MendelError("unsupported", `${format} cannot hold this walk: ${folded}`, {
    hint: "write it as onnx, which can",
  });
}

async function mergeOne(given: Recipe, folder: string, out: string, options: MergeOptions) {
  const models = OpenModels.open(placesOf(given, folder));
  try {
    const [first] = models.readers.keys();
    const base = given.baseModel === undefined ? undefined : modelIdOf(given.baseModel);
    const reference = base ?? (first as string);
    const format = formatOf({ ...options, out }, models, reference);
    const match = matchModels({
      models: models.readers,
      reference,
      ...(base === undefined ? {} : { base }),
      freeze: given.freeze,
    });
    const recipe = weightsRecipe(given, format, match);
    const draft = compileRecipe(recipe, match.plan);
    const compiled = compileRecipe(recipe, {
      ...match.plan,
      identities: await identitiesOf(draft, models),
    });
    const graph = format === "onnx" ? graphFor(options, models, reference, match) : undefined;
    const walk = layerPathOf(recipe);
    const dtype = recipe.outDtype ?? recipe.dtype ?? "float32";
    if (walk !== undefined && graph !== undefined && dtype === "float32") {
      const own = [...models.readers].find(([, reader]) => reader === graph.reader);
      const files = await writePath({
        path: walk,
        graph: graph.reader,
        graphId: own?.[0],
        inputs: match.plan,
        source: models,
        out,
      });
      return { files, coverage: coverageOf(match), warnings: compiled.warnings };
    }
    const files = await writeModel({
      compiled,
      source: models,
      format,
      out,
      shardBytes: options.shardBytes,
      graph,
      donor: donorOf(models, reference),
    });
    return { files, coverage: coverageOf(match), warnings: compiled.warnings };
  } finally {
    models.close();
  }
}

/**
 * Merges as a recipe says, without a search: streams tensor by tensor, so models larger than memory can be merged. A file
 * with several recipes is worked off in the order of their use of each other; intermediates are kept beside the result.
 *
 * @throws MendelError naming recipe line, model or tensor
 */
export async function mergeModels(options: MergeOptions): Promise<MergeResult> {
  const started = performance.now();
  const file = resolve(options.recipe);
  if (!existsSync(file)) {
    throw new MendelError("not-found", `no recipe at ${file}`, { where: { file } });
  }
  const { recipes, warnings } = parseRecipes(readFileSync(file, "utf8"), file);
  const results = [];
  const made = new Map<string, string>();
  for (const recipe of recipes) {
    const last = recipe === recipes.at(-1);
    const out = last ? options.out : join(options.out, "intermediate", recipe.name as string);
    if (recipe.name !== undefined) made.set(recipe.name, out);
    const ready = withOptions(withIntermediates(recipe, made), options);
    results.push(
      await mergeOne(ready, dirname(file), out, last ? options : { ...options, format: undefined }),
    );
  }
  const final = results.at(-1) as Awaited<ReturnType<typeof mergeOne>>;
  return {
    ...final,
    warnings: [...warnings, ...final.warnings],
    seconds: (performance.now() - started) / 1000,
    peakRssBytes: process.resourceUsage().maxRSS * 1024,
  };
}
