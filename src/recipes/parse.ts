import { z } from "zod";
import { MendelError } from "../base/errors.ts";
import { type ConfigProblem, configError, formatKey, parseWithSchema } from "../base/schema.ts";
import { closest } from "../base/suggest.ts";
import { type KeyPath, type ParsedYaml, parseYaml, parseYamlDocuments } from "../base/yaml.ts";
import { isConditional } from "./canonical.ts";
import { readModelRef } from "./model-ref.ts";
import type {
  Extra,
  FilteredSetting,
  ModelRef,
  Recipe,
  RecipeBody,
  RecipeDtype,
  RecipeModel,
  RecipeSlice,
  RecipeSource,
  Setting,
  Settings,
} from "./recipe.ts";

export interface ParsedRecipe {
  readonly recipe: Recipe;
  /** What was accepted but has no effect or was read in a charitable way, one sentence each, with file and line. */
  readonly warnings: readonly string[];
}

export interface ParsedRecipes {
  /** Every recipe after those whose result it uses; the one without a name last. */
  readonly recipes: readonly Recipe[];
  readonly warnings: readonly string[];
}

/**
 * Reads one recipe in mergekit's YAML.
 *
 * Checks the form only: that methods, models, layers and parameters exist is checked when the recipe is compiled against
 * models. Keys that mergekit ignores are warned about and kept (`extra`).
 *
 * @param file how messages name the text
 * @throws MendelError `invalid-config` naming every problem with its line; `unsupported` for mixture-of-experts and
 *   evolution documents and for architectures of several modules
 */
export function parseRecipe(text: string, file: string): ParsedRecipe {
  return readDocument(parseYaml(text, file));
}

/**
 * Reads a stream of recipes separated by `---`, in which a recipe may use another's result by its `name`.
 *
 * @throws MendelError as `parseRecipe`, and `invalid-config` for a name given twice, two recipes without a name, and
 *   recipes that use each other in a circle
 */
export function parseRecipes(text: string, file: string): ParsedRecipes {
  const documents = parseYamlDocuments(text, file).filter((document) => document.value !== null);
  if (documents.length === 0) {
    throw new MendelError("invalid-config", `${file}: no recipe in this file`, { where: { file } });
  }
  const read = documents.map((document) => ({ document, ...readDocument(document) }));
  const named = new Map<string, Recipe>();
  let unnamed = false;
  for (const { document, recipe } of read) {
    const { name } = recipe;
    const fault = (message: string) =>
      configError(file, [problemAt(document, name === undefined ? [] : ["name"], message)]);
    if (name === undefined && unnamed) throw fault("a second recipe without a name");
    if (name !== undefined && named.has(name)) throw fault(`a second recipe named "${name}"`);
    if (name === undefined) unnamed = true;
    else named.set(name, recipe);
  }
  const recipes = inOrderOfUse(
    read.map((entry) => entry.recipe),
    named,
    file,
  );
  return { recipes, warnings: read.flatMap((entry) => entry.warnings) };
}

/** Depth-first order of use; the document order decides where use does not. */
function inOrderOfUse(
  recipes: readonly Recipe[],
  named: ReadonlyMap<string, Recipe>,
  file: string,
): readonly Recipe[] {
  const done = new Set<Recipe>();
  const open = new Set<Recipe>();
  const visit = (recipe: Recipe): void => {
    if (done.has(recipe)) return;
    if (open.has(recipe)) {
      const circle = [...open].map((entry) => entry.name).join(", ");
      throw new MendelError("invalid-config", `${file}: recipes use each other: ${circle}`, {
        where: { file, key: "models" },
        hint: "a recipe can only use results that do not depend on itself",
      });
    }
    open.add(recipe);
    for (const used of modelsUsedBy(recipe)) {
      const other = named.get(used);
      if (other !== undefined) visit(other);
    }
    open.delete(recipe);
    done.add(recipe);
  };
  for (const recipe of recipes) if (recipe.name !== undefined) visit(recipe);
  for (const recipe of recipes) visit(recipe);
  return [...done];
}

/** Paths of all models a recipe refers to, adapters and tokenizer sources included. */
export function modelsUsedBy(recipe: Recipe): ReadonlySet<string> {
  const { body } = recipe;
  const refs: (ModelRef | undefined)[] = [recipe.baseModel];
  if (body.kind === "models") refs.push(...body.models.map((entry) => entry.model));
  else {
    for (const slice of body.slices) {
      refs.push(slice.baseModel, ...slice.sources.map((source) => source.model));
    }
  }
  const used = new Set<string>();
  for (const ref of refs) {
    if (ref === undefined) continue;
    used.add(ref.model);
    if (ref.lora !== undefined) used.add(ref.lora);
  }
  const tokenizer = recipe.passthrough["tokenizer"];
  const sources = [recipe.passthrough["tokenizer_source"]];
  if (isMapping(tokenizer)) sources.push(tokenizer["source"]);
  for (const source of sources) {
    if (typeof source === "string" && source !== "union" && source !== "base") used.add(source);
  }
  return used;
}

const dtypes = ["float32", "float16", "bfloat16", "float64", "int64"] as const;
const dtypeSchema = z.preprocess(
  (value) => (typeof value === "string" ? value.replace(/^torch\./, "") : value),
  z.enum(dtypes),
);
const settingsSchema = z.record(z.string(), z.unknown()).nullish();
const modelSchema = z.looseObject({ model: z.unknown().optional(), parameters: settingsSchema });
const sourceSchema = z.looseObject({
  model: z.unknown().optional(),
  layer_range: z
    .array(z.int().nonnegative())
    .length(2)
    .transform((range) => range as [number, number]),
  parameters: settingsSchema,
});
const sliceSchema = z.looseObject({
  sources: z.array(sourceSchema).min(1),
  base_model: z.unknown().optional(),
  parameters: settingsSchema,
});
const bodyShape = {
  models: z.array(modelSchema).nullish(),
  slices: z.array(sliceSchema).nullish(),
};
const moduleSchema = z.looseObject({ ...bodyShape, parameters: settingsSchema });
const patternsSchema = z
  .union([z.string().min(1), z.array(z.string().min(1))])
  .nullish()
  .transform((value) => (typeof value === "string" ? [value] : (value ?? [])));
const tokenSchema = z.looseObject({ source: z.unknown().optional(), force: z.boolean().nullish() });
const recipeSchema = z.looseObject({
  merge_method: z.string().min(1),
  ...bodyShape,
  modules: z.record(z.string(), moduleSchema).nullish(),
  base_model: z.unknown().optional(),
  parameters: settingsSchema,
  dtype: dtypeSchema.nullish(),
  out_dtype: dtypeSchema.nullish(),
  tokenizer_source: z.unknown().optional(),
  tokenizer: z
    .looseObject({
      source: z.unknown().optional(),
      tokens: z.record(z.string(), tokenSchema).nullish(),
      pad_to_multiple_of: z.int().positive().nullish(),
    })
    .nullish(),
  chat_template: z.string().nullish(),
  name: z.string().min(1).nullish(),
  seed: z.int().nonnegative().nullish(),
  compat: z.literal("mergekit").nullish(),
  freeze: patternsSchema,
});

type BodyInput = Pick<z.output<typeof moduleSchema>, "models" | "slices">;
type ModelInput = z.output<typeof modelSchema>;
type SliceInput = z.output<typeof sliceSchema>;

const passthroughKeys = ["tokenizer_source", "tokenizer", "chat_template"];

function readDocument(parsed: ParsedYaml): ParsedRecipe {
  refuseOtherDocuments(parsed);
  const input = parseWithSchema(recipeSchema, parsed);
  const reader = new DocumentReader(parsed);
  const recipe = reader.recipe(input);
  if (reader.problems.length > 0) {
    const inOrder = [...reader.problems].sort((a, b) => (a.line ?? 0) - (b.line ?? 0));
    throw configError(parsed.file, inOrder);
  }
  return { recipe, warnings: reader.warnings };
}

/** mergekit has more kinds of documents than recipes; they are recognized by their keys. */
function refuseOtherDocuments(parsed: ParsedYaml): void {
  const { value, file } = parsed;
  if (!isMapping(value)) return;
  const has = (key: string): boolean => Object.hasOwn(value, key);
  const refuse = (what: string, key: string, hint: string): never => {
    const line = parsed.lineOf([key]);
    throw new MendelError("unsupported", `${file} is ${what}, not a merge recipe`, {
      hint,
      where: { file, key, ...(line === undefined ? {} : { line }) },
    });
  };
  if (has("experts") || has("gate_mode")) {
    const key = has("experts") ? "experts" : "gate_mode";
    refuse("a mixture-of-experts configuration", key, "only merges of weights are supported");
  }
  if (has("genome") && !has("merge_method")) {
    const hint = "write an experiment with a search space instead; `mendel init` makes one";
    refuse("a configuration of an evolutionary search", "genome", hint);
  }
}

/** Turns one document that has the right shape into a recipe, and collects what is wrong or without effect. */
class DocumentReader {
  readonly problems: ConfigProblem[] = [];
  readonly warnings: string[] = [];
  private readonly parsed: ParsedYaml;

  constructor(parsed: ParsedYaml) {
    this.parsed = parsed;
  }

  recipe(input: z.output<typeof recipeSchema>): Recipe {
    const { body, shared } = this.chooseBody(input);
    this.checkTokenizer(input);
    const baseModel = this.optionalRef(input.base_model, ["base_model"]);
    const parameters = this.settings(input.parameters, ["parameters"]);
    const passthrough: Record<string, unknown> = {};
    for (const key of passthroughKeys) if (input[key] != null) passthrough[key] = input[key];
    return {
      mergeMethod: input.merge_method,
      body,
      ...(baseModel === undefined ? {} : { baseModel }),
      parameters: shared === undefined ? parameters : overlay(shared, parameters),
      ...(input.dtype == null ? {} : { dtype: input.dtype satisfies RecipeDtype }),
      ...(input.out_dtype == null ? {} : { outDtype: input.out_dtype satisfies RecipeDtype }),
      seed: input.seed ?? 0,
      ...(input.compat == null ? {} : { compat: input.compat }),
      freeze: input.freeze,
      ...(input.name == null ? {} : { name: input.name }),
      passthrough,
      ...this.extra(input, Object.keys(recipeSchema.shape), []),
    };
  }

  /** Exactly one of models, slices and modules; of modules only the one that single-module architectures have. */
  private chooseBody(input: z.output<typeof recipeSchema>): {
    readonly body: RecipeBody;
    readonly shared?: Settings;
  } {
    const given = [...this.bodyKeys(input), ...(input.modules == null ? [] : ["modules"])];
    if (given.length !== 1 || given[0] !== "modules") {
      return { body: this.body(input, given, []) };
    }
    const modules = Object.entries(input.modules ?? {});
    const [first] = modules;
    const foreign = modules.find(([name]) => name !== "default");
    if (foreign !== undefined) {
      const line = this.parsed.lineOf(["modules", foreign[0]]);
      const message = `${this.parsed.file}: the module "${foreign[0]}" is not supported`;
      throw new MendelError("unsupported", message, {
        hint: 'only architectures of one module, called "default", can be merged; write one recipe per module file instead',
        where: {
          file: this.parsed.file,
          key: formatKey(["modules", foreign[0]]),
          ...(line === undefined ? {} : { line }),
        },
      });
    }
    if (first === undefined) return { body: this.body(input, [], []) };
    const path = ["modules", "default"];
    const module = first[1];
    this.extra(module, Object.keys(moduleSchema.shape), path);
    return {
      body: this.body(module, this.bodyKeys(module), path),
      shared: this.settings(module.parameters, [...path, "parameters"]),
    };
  }

  private bodyKeys(input: BodyInput): string[] {
    const filled = (list: readonly unknown[] | null | undefined) => (list?.length ?? 0) > 0;
    return [
      ...(filled(input.models) ? ["models"] : []),
      ...(filled(input.slices) ? ["slices"] : []),
    ];
  }

  private body(input: BodyInput, given: readonly string[], path: KeyPath): RecipeBody {
    const empty: RecipeBody = { kind: "models", models: [] };
    const choices = path.length === 0 ? "models, slices, modules" : "models, slices";
    if (given.length === 0) {
      this.problem(path, `expected one of ${choices} with at least one entry, got none`);
      return empty;
    }
    if (given.length > 1) {
      const second = [...path, given[1] as string];
      this.problem(second, `expected one of ${choices}, got ${given.join(" and ")}`);
      return empty;
    }
    if (given[0] === "models") {
      const at = [...path, "models"];
      const models = (input.models ?? []).map((entry, i) => this.model(entry, [...at, i]));
      this.refuseTwice(models, at, "in this merge");
      return { kind: "models", models };
    }
    const at = [...path, "slices"];
    return {
      kind: "slices",
      slices: (input.slices ?? []).map((slice, i) => this.slice(slice, [...at, i])),
    };
  }

  private model(entry: ModelInput, path: KeyPath): RecipeModel {
    return {
      model: this.ref(entry.model, [...path, "model"]),
      parameters: this.settings(entry.parameters, [...path, "parameters"]),
      ...this.extra(entry, Object.keys(modelSchema.shape), path),
    };
  }

  private slice(slice: SliceInput, path: KeyPath): RecipeSlice {
    const at = [...path, "sources"];
    const sources = slice.sources.map((source, i): RecipeSource => {
      const [start, end] = source.layer_range;
      if (start >= end) {
        const message = `expected [start, end) with start below end, got [${start}, ${end}]`;
        this.problem([...at, i, "layer_range"], message);
      }
      return {
        model: this.ref(source.model, [...at, i, "model"]),
        layerRange: [start, end],
        parameters: this.settings(source.parameters, [...at, i, "parameters"]),
        ...this.extra(source, Object.keys(sourceSchema.shape), [...at, i]),
      };
    });
    const lengths = sources.map(({ layerRange }) => layerRange[1] - layerRange[0]);
    const odd = lengths.findIndex((length) => length !== lengths[0]);
    if (odd > 0) {
      const message = `all sources of a slice must have as many layers: ${lengths[0]} in the first, ${lengths[odd]} here`;
      this.problem([...at, odd, "layer_range"], message);
    }
    this.refuseTwice(sources, at, "in this slice");
    const baseModel = this.optionalRef(slice.base_model, [...path, "base_model"]);
    return {
      sources,
      ...(baseModel === undefined ? {} : { baseModel }),
      parameters: this.settings(slice.parameters, [...path, "parameters"]),
      ...this.extra(slice, Object.keys(sliceSchema.shape), path),
    };
  }

  /** Inputs are told apart by their model, so the same model twice would be one input with one of the two weights. */
  private refuseTwice(entries: readonly RecipeModel[], path: KeyPath, where: string): void {
    const seen = new Set<string>();
    for (const [i, { model }] of entries.entries()) {
      if (model.model === "") continue;
      const key = JSON.stringify([model.model, model.revision ?? null, model.lora ?? null]);
      if (seen.has(key)) {
        this.problem([...path, i, "model"], `the model "${model.model}" is given twice ${where}`);
      }
      seen.add(key);
    }
  }

  private ref(value: unknown, path: KeyPath): ModelRef {
    const result = readModelRef(value);
    if (!result.ok) {
      this.problem(path, value === undefined ? "missing; expected a model" : result.message);
      return { model: "" };
    }
    for (const key of result.ignored) this.warn(path, `the key "${key}" has no effect here`);
    return result.ref;
  }

  private optionalRef(value: unknown, path: KeyPath): ModelRef | undefined {
    return value == null ? undefined : this.ref(value, path);
  }

  private settings(
    input: Readonly<Record<string, unknown>> | null | undefined,
    path: KeyPath,
  ): Settings {
    const settings: Record<string, Setting> = {};
    for (const [name, value] of Object.entries(input ?? {})) {
      const setting = this.setting(value, [...path, name]);
      if (setting !== undefined) settings[name] = setting;
    }
    return settings;
  }

  private setting(value: unknown, path: KeyPath): Setting | undefined {
    if (isMapping(value)) {
      this.warn(path, "a single {filter, value} is read as a list with this one entry");
      return this.conditional([value], path, () => path);
    }
    if (!Array.isArray(value)) return this.number(value, path);
    const items: readonly unknown[] = value;
    if (items.length === 0) {
      this.warn(path, "an empty list gives no value; the next level is asked");
      return undefined;
    }
    if (items.every(isMapping)) return this.conditional(items, path, (i) => [...path, i]);
    return this.gradient(items, path);
  }

  private conditional(
    entries: readonly Readonly<Record<string, unknown>>[],
    path: KeyPath,
    pathOf: (i: number) => KeyPath,
  ): FilteredSetting[] {
    return entries.flatMap((entry, i): FilteredSetting[] => {
      const at = pathOf(i);
      const { filter, value, ...others } = entry;
      for (const key of Object.keys(others)) this.warn([...at, key], "this key has no effect");
      if (filter != null && typeof filter !== "string") {
        this.problem([...at, "filter"], "expected text, a part of tensor names");
        return [];
      }
      if (Array.isArray(value) && value.length === 0) {
        this.problem([...at, "value"], "expected a number or a list of numbers, got an empty list");
        return [];
      }
      const read = Array.isArray(value)
        ? this.gradient(value, [...at, "value"])
        : this.number(value, [...at, "value"]);
      if (read === undefined) return [];
      if (i < entries.length - 1 && (filter == null || filter === "*")) {
        this.warn(
          path,
          `entries after number ${i + 1}, which matches every tensor, have no effect`,
        );
      }
      return [filter == null ? { value: read } : { filter, value: read }];
    });
  }

  private gradient(items: readonly unknown[], path: KeyPath): number[] {
    return items.flatMap((item, i) => this.number(item, [...path, i]) ?? []);
  }

  private number(value: unknown, path: KeyPath): number | undefined {
    const number = toNumber(value);
    if (number === undefined) this.problem(path, `expected a number, got ${shown(value)}`);
    return number;
  }

  private checkTokenizer(input: z.output<typeof recipeSchema>): void {
    const { tokenizer } = input;
    if (input.tokenizer_source != null && tokenizer != null) {
      this.problem(["tokenizer"], "expected tokenizer or tokenizer_source, got both");
    }
    if (input.tokenizer_source != null) {
      this.tokenizerSource(input.tokenizer_source, ["tokenizer_source"]);
    }
    if (tokenizer == null) return;
    if (tokenizer.source != null) this.tokenizerSource(tokenizer.source, ["tokenizer", "source"]);
    for (const [token, { source }] of Object.entries(tokenizer.tokens ?? {})) {
      const path = ["tokenizer", "tokens", token, "source"];
      if (source == null) this.problem(path, "missing; expected where the token's row comes from");
      else if (isMapping(source)) this.tokenSource(source, path);
      else this.ref(source, path);
    }
  }

  private tokenizerSource(value: unknown, path: KeyPath): void {
    if (value !== "union" && value !== "base") this.ref(value, path);
  }

  private tokenSource(source: Readonly<Record<string, unknown>>, path: KeyPath): void {
    const { kind } = source;
    if (kind === "zero") return;
    if (kind !== "model_token") {
      if (kind === undefined && source["model"] !== undefined) this.ref(source, path);
      else this.problem([...path, "kind"], `expected model_token | zero, got ${shown(kind)}`);
      return;
    }
    this.ref(source["model"], [...path, "model"]);
    if ((source["token"] == null) === (source["token_id"] == null)) {
      this.problem(path, "expected exactly one of token and token_id");
    }
  }

  /** Keys that nothing reads, kept so that writing the recipe loses nothing. */
  private extra(
    input: Readonly<Record<string, unknown>>,
    known: readonly string[],
    path: KeyPath,
  ): { readonly extra?: Extra } {
    const others = Object.keys(input).filter((key) => !known.includes(key));
    for (const key of others) {
      const near = closest(key, known);
      const hint = near === undefined ? "" : ` (did you mean "${near}"?)`;
      this.warn([...path, key], `the key "${key}" has no effect here${hint}`);
    }
    if (others.length === 0) return {};
    return { extra: Object.fromEntries(others.map((key) => [key, input[key]])) };
  }

  private problem(path: KeyPath, message: string): void {
    this.problems.push(problemAt(this.parsed, path, message));
  }

  private warn(path: KeyPath, message: string): void {
    const line = this.parsed.lineOf(path);
    const place = line === undefined ? this.parsed.file : `${this.parsed.file}, line ${line}`;
    const key = formatKey(path);
    this.warnings.push(key === "" ? `${place}: ${message}` : `${place}: ${key}: ${message}`);
  }
}

/**
 * Parameters of a module over those of the recipe, as one level: where a conditional list matches nothing the lookup goes
 * on to the lower level, so the lower level's value becomes the end of the list.
 */
function overlay(high: Settings, low: Settings): Settings {
  const result: Record<string, Setting> = { ...low };
  for (const [name, setting] of Object.entries(high)) {
    const below = low[name];
    if (!isConditional(setting) || below === undefined) result[name] = setting;
    else if (isConditional(below)) result[name] = [...setting, ...below];
    else result[name] = [...setting, { value: below }];
  }
  return result;
}

/** Numbers as mergekit reads them: booleans and numeric text count; YAML 1.1 words for booleans too. Never -0. */
function toNumber(value: unknown): number | undefined {
  if (typeof value === "boolean") return value ? 1 : 0;
  if (typeof value === "number") return Number.isFinite(value) ? value + 0 : undefined;
  if (typeof value !== "string") return undefined;
  const text = value.trim();
  if (/^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(text)) {
    const number = Number(text);
    return Number.isFinite(number) ? number + 0 : undefined;
  }
  if (/^(true|yes|on)$/i.test(text)) return 1;
  if (/^(false|no|off)$/i.test(text)) return 0;
  return undefined;
}

function problemAt(parsed: ParsedYaml, path: KeyPath, message: string): ConfigProblem {
  return { key: formatKey(path), line: parsed.lineOf(path), message, hint: undefined };
}

function isMapping(value: unknown): value is Record<string, unknown> {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}

function shown(value: unknown): string {
  if (value === undefined || value === null) return "nothing";
  if (Array.isArray(value)) return "a list";
  return typeof value === "object" ? "a mapping" : JSON.stringify(value);
}
