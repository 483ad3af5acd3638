import { MendelError } from "../../base/errors.ts";
import { suggestion } from "../../base/suggest.ts";
import { parseSize } from "../../base/units.ts";
import type { RecipeDtype } from "../../recipes/recipe.ts";
import { mergeModels } from "../../run/merge-models.ts";
import type { OutputFormat } from "../../run/write-model.ts";
import { formatBytes, formatDuration, formatTable } from "../table.ts";
import type { Verb } from "../verb.ts";

const formats = ["onnx", "safetensors", "hf"] as const satisfies readonly OutputFormat[];
const dtypes = ["float32", "float16", "bfloat16"] as const satisfies readonly RecipeDtype[];

/** One of a few words, or a usage error with a suggestion. */
function oneOf<T extends string>(
  flag: string,
  value: unknown,
  allowed: readonly T[],
): T | undefined {
  if (value === undefined) return undefined;
  const found = allowed.find((candidate) => candidate === value);
  if (found !== undefined) return found;
  throw new MendelError("usage", `${flag} does not know "${value}"`, {
    hint: suggestion(String(value), allowed),
  });
}

/** --format, --dtype and --shard-size as checked values; shared with `export`. */
export function outputOptions(options: Readonly<Record<string, unknown>>) {
  const shard = options["shardSize"] as string | undefined;
  const shardBytes = shard === undefined ? undefined : parseSize(shard);
  if (shard !== undefined && (shardBytes === undefined || shardBytes <= 0)) {
    throw new MendelError("usage", `--shard-size expects a size such as 2G, got "${shard}"`);
  }
  return {
    format: oneOf("--format", options["format"], formats),
    dtype: oneOf("--dtype", options["dtype"], dtypes),
    shardBytes,
  };
}

export const merge: Verb = {
  examples: ["merge recipe.yml merged", "merge recipe.yml merged.onnx --dtype float16"],
  configure(command) {
    command
      .argument("<recipe>", "recipe in mergekit's YAML")
      .argument("<out>", "folder or file to write")
      .option("--format <format>", "onnx, safetensors or hf (default: as the models are)")
      .option(
        "--dtype <dtype>",
        "float32, float16 or bfloat16 (default: as the recipe or the models say)",
      )
      .option("--shard-size <size>", "most bytes of weights per safetensors file, such as 2G")
      .option("--graph <file>", "ONNX file whose graph an ONNX output gets")
      .option("--compat <name>", "mergekit: follow the reference where it departs from the papers")
      .option("--seed <n>", "seed of random masks");
  },
  async run({ output, args, options }) {
    const seed = options["seed"] === undefined ? undefined : Number(options["seed"]);
    if (seed !== undefined && !Number.isSafeInteger(seed)) {
      throw new MendelError("usage", `--seed expects a whole number, got "${options["seed"]}"`);
    }
    const result = await mergeModels({
      recipe: args[0] as string,
      out: args[1] as string,
      ...outputOptions(options),
      graph: options["graph"] as string | undefined,
      compat: oneOf("--compat", options["compat"], ["mergekit"]),
      seed,
    });
    for (const warning of result.warnings) output.warn(`warning: ${warning}`);
    const { merged, copied, refused } = result.coverage;
    output.print(`tensors: ${merged} merged, ${copied} copied, ${refused.length} refused`);
    const rows = result.files.map(({ path, bytes, sha256 }) => [
      path,
      formatBytes(bytes),
      sha256.slice(0, 16),
    ]);
    output.print(
      formatTable(
        [{ title: "file" }, { title: "size", align: "right" }, { title: "sha256" }],
        rows,
      ),
    );
    output.print(
      `${formatDuration(result.seconds)}, peak memory ${formatBytes(result.peakRssBytes)}`,
    );
    output.emit("merge", result);
    return 0;
  },
};
