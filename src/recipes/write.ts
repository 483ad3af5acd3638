import { Document, type Node, Pair, Scalar, YAMLMap, YAMLSeq } from "yaml";
import { isConditional } from "./canonical.ts";
import { writeModelRef } from "./model-ref.ts";
import type { Extra, ModelRef, Recipe, RecipeModel, Setting, Settings } from "./recipe.ts";

export interface WriteOptions {
  /** Put before the document, one comment line per line of text. */
  readonly comment?: string;
}

/** Parameters that mergekit documents as booleans; 0 and 1 are written as such. */
const booleanParameters = new Set([
  "normalize",
  "rescale",
  "int8_mask",
  "nuslerp_flatten",
  "nuslerp_row_wise",
  "normalize_weights",
  "filter_wise",
]);

/**
 * A recipe as mergekit YAML that people like to read: short things on one line, long lists one entry a line, numbers in
 * the shortest spelling that reads back to the same double.
 *
 * Reading the text gives the recipe back, except that -0 becomes 0. Text that YAML 1.1 readers (mergekit's is one) would
 * take for something else is quoted.
 *
 * @throws Error for a parameter that is not finite: parsing and decoding never produce one
 */
export function writeRecipe(recipe: Recipe, options: WriteOptions = {}): string {
  const root = new YAMLMap();
  const put = (key: string, value: unknown): void => {
    if (value !== undefined) root.items.push(new Pair(new Scalar(key), toNode(value)));
  };
  put("name", recipe.name);
  put("merge_method", recipe.mergeMethod);
  put("base_model", refNode(recipe.baseModel));
  if (recipe.body.kind === "models") {
    put("models", listOf(recipe.body.models.map((entry) => modelNode(entry))));
  } else {
    const slices = recipe.body.slices.map((slice) =>
      mapOf({
        sources: listOf(slice.sources.map((source) => modelNode(source, source.layerRange))),
        base_model: refNode(slice.baseModel),
        parameters: settingsNode(slice.parameters),
        ...slice.extra,
      }),
    );
    put("slices", listOf(slices));
  }
  put("parameters", settingsNode(recipe.parameters));
  put("dtype", recipe.dtype);
  put("out_dtype", recipe.outDtype);
  for (const [key, value] of Object.entries(recipe.passthrough)) put(key, value);
  if (recipe.seed !== 0) put("seed", recipe.seed);
  put("compat", recipe.compat);
  if (recipe.freeze.length > 0) put("freeze", recipe.freeze);
  for (const [key, value] of Object.entries(recipe.extra ?? {})) put(key, value);

  const document = new Document(root, { version: "1.2", schema: "core", compat: "yaml-1.1" });
  if (options.comment !== undefined) {
    document.commentBefore = options.comment
      .split("\n")
      .map((line) => (line === "" ? "" : ` ${line}`))
      .join("\n");
  }
  return document.toString({ lineWidth: 0, minContentWidth: 0, flowCollectionPadding: false });
}

function modelNode(entry: RecipeModel, layerRange?: readonly [number, number]): YAMLMap {
  return mapOf({
    model: refNode(entry.model),
    layer_range: layerRange === undefined ? undefined : inline(toNode(layerRange)),
    parameters: settingsNode(entry.parameters),
    ...entry.extra,
  });
}

function refNode(ref: ModelRef | undefined): Node | undefined {
  return ref === undefined ? undefined : inline(toNode(writeModelRef(ref)));
}

function settingsNode(settings: Settings): YAMLMap | undefined {
  const entries = Object.entries(settings);
  if (entries.length === 0) return undefined;
  return mapOf(
    Object.fromEntries(
      entries.map(([name, setting]) => [name, settingNode(setting, booleanParameters.has(name))]),
    ),
  );
}

function settingNode(setting: Setting, asBoolean: boolean): Node {
  if (typeof setting === "number") return numberNode(setting, asBoolean);
  if (!isConditional(setting)) return gradientNode(setting, asBoolean);
  const entries = setting.map(({ filter, value }) =>
    inline(
      mapOf({
        filter,
        value:
          typeof value === "number" ? numberNode(value, asBoolean) : gradientNode(value, asBoolean),
      }),
    ),
  );
  return listOf(entries);
}

function gradientNode(values: readonly number[], asBoolean: boolean): Node {
  return inline(listOf(values.map((value) => numberNode(value, asBoolean))));
}

function numberNode(value: number, asBoolean: boolean): Scalar {
  if (!Number.isFinite(value)) throw new Error(`a recipe cannot hold ${value}`);
  if (asBoolean && (value === 0 || value === 1)) return new Scalar(value === 1);
  const node = new Scalar(value === 0 ? 0 : value);
  // Digits alone would be read as an integer, and integers beyond 2^53 are refused where they could have lost digits.
  if (Math.abs(value) > Number.MAX_SAFE_INTEGER) node.format = "EXP";
  return node;
}

function mapOf(members: Readonly<Record<string, unknown>> | Extra): YAMLMap {
  const map = new YAMLMap();
  for (const [key, value] of Object.entries(members)) {
    if (value !== undefined) map.items.push(new Pair(new Scalar(key), toNode(value)));
  }
  return map;
}

function listOf(items: readonly Node[]): YAMLSeq {
  const list = new YAMLSeq();
  list.items.push(...items);
  return list;
}

function inline<N extends Node>(node: N): N {
  if (node instanceof YAMLMap || node instanceof YAMLSeq) node.flow = true;
  return node;
}

/** Nodes pass; plain data becomes nodes, numbers with the care above. */
function toNode(value: unknown): Node {
  if (value instanceof Scalar || value instanceof YAMLMap || value instanceof YAMLSeq) return value;
  if (typeof value === "number") return numberNode(value, false);
  if (Array.isArray(value)) return listOf(value.map((item) => toNode(item)));
  if (value !== null && typeof value === "object") return mapOf({ ...value });
  return new Scalar(value);
}
