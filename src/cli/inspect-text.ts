import type { MatchInspection, PairSummary } from "../survey/inspect-match.ts";
import type {
  GraphFacts,
  ModelInspection,
  TensorFacts,
  ValueFacts,
} from "../survey/inspect-models.ts";
import { formatBytes, formatTable } from "./table.ts";

/** Values of metadata longer than this are cut for people; --json has them whole. */
const METADATA_CHARACTERS = 100;
/** So many refusals or renamings are listed for people. */
const LISTED = 12;

/** 689760 → "689,760". */
export function grouped(count: number): string {
  return String(count).replace(/\B(?=(\d{3})+$)/g, ",");
}

function plural(count: number, noun: string): string {
  return `${grouped(count)} ${noun}${count === 1 ? "" : "s"}`;
}

/** Facts of one model, a line each, under its path. */
export function modelText(model: ModelInspection): string {
  const { total } = model;
  const lines: [string, string][] = [
    ["format", model.formatTitle],
    ["files", filesText(model)],
    [
      "size",
      `${plural(total.tensors, "tensor")}, ${plural(total.parameters, "parameter")}, ${formatBytes(total.bytes)}`,
    ],
    ["types", model.dtypes.map((one) => `${one.dtype} ${grouped(one.tensors)}`).join(", ")],
    ["layers", layersText(model)],
    ...configLines(model),
    ...adapterLines(model),
    ...(model.graph === undefined ? [] : graphLines(model.graph)),
    ...(model.graphBeside === undefined
      ? []
      : [["graph", `${model.graphBeside} beside the weights`] as [string, string]]),
    ...Object.entries(model.metadata).map(([key, value], i): [string, string] => [
      i === 0 ? "metadata" : "",
      `${key}: ${value.length > METADATA_CHARACTERS ? `${value.slice(0, METADATA_CHARACTERS)}…` : value}`,
    ]),
    ...model.warnings.map((warning): [string, string] => ["warning", warning]),
  ];
  const facts = formatTable([{ title: model.name }, { title: model.path }], lines);
  return `${facts}\n\n${kindsTable(model)}`;
}

function filesText({ files, sideFiles }: ModelInspection): string {
  const [first] = files;
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  const weights =
    files.length === 1 && first !== undefined
      ? `${first.path.split(/[/\\]/).at(-1)}, ${formatBytes(bytes)}`
      : `${files.length} files, ${formatBytes(bytes)}`;
  return sideFiles.length === 0 ? weights : `${weights}; beside it ${sideFiles.join(", ")}`;
}

function layersText({ layers }: ModelInspection): string {
  if (layers.length === 0) return "no repeated blocks";
  return layers
    .map(({ stack, blocks, first, last, tensorsPerBlock }) => {
      const each = tensorsPerBlock === undefined ? "" : ` of ${plural(tensorsPerBlock, "tensor")}`;
      return `${stack}: ${plural(blocks, "block")}${each} (${first}–${last})`;
    })
    .join("; ");
}

function configLines({ config }: ModelInspection): [string, string][] {
  if (config === undefined) return [];
  const { architecture, modelType, ...facts } = config;
  const words: Readonly<Record<string, string>> = {
    layers: "layers",
    hiddenSize: "hidden size",
    intermediateSize: "intermediate size",
    heads: "heads",
    keyValueHeads: "key/value heads",
    vocabulary: "vocabulary",
    positions: "positions",
    tiedEmbeddings: "tied embeddings",
    dtype: "type",
  };
  const text = Object.entries(words).flatMap(([key, word]) => {
    const value = (facts as Readonly<Record<string, number | string | boolean>>)[key];
    if (value === undefined) return [];
    return [`${word} ${typeof value === "boolean" ? (value ? "yes" : "no") : value}`];
  });
  return [
    ["config", [architecture ?? modelType ?? "of no named architecture", ...text].join(", ")],
  ];
}

function adapterLines({ adapter }: ModelInspection): [string, string][] {
  if (adapter === undefined) return [];
  const { on, baseModel, rank, alpha, targets, changed } = adapter;
  const parts = [
    on === undefined ? "looked at alone" : `on ${on}`,
    ...(rank === undefined ? [] : [`rank ${rank}`]),
    ...(alpha === undefined ? [] : [`alpha ${alpha}`]),
    ...(targets === undefined ? [] : [`of ${targets.join(", ")}`]),
    ...(changed === undefined ? [] : [`changes ${plural(changed, "tensor")}`]),
    ...(baseModel === undefined ? [] : [`made for ${baseModel}`]),
  ];
  return [["adapter", parts.join(", ")]];
}

function graphLines(graph: GraphFacts): [string, string][] {
  const opsets = Object.entries(graph.opsets).map(([domain, version]) => `${domain} ${version}`);
  const producer = graph.producer === "" ? "" : `, by ${graph.producer}`;
  return [
    [
      "graph",
      `${plural(graph.nodes, "node")}, opset ${opsets.join(", ")}, IR ${graph.irVersion}${producer}`,
    ],
    ...graph.inputs.map((value): [string, string] => ["input", valueText(value)]),
    ...graph.outputs.map((value): [string, string] => ["output", valueText(value)]),
  ];
}

function valueText({ name, dtype, shape }: ValueFacts): string {
  const dims = shape?.map((dim) => (dim === "" ? "?" : dim)).join(", ");
  return `${name}  ${dtype ?? "of another type"}${dims === undefined ? "" : ` [${dims}]`}`;
}

function kindsTable({ kinds, total }: ModelInspection): string {
  const share = (parameters: number): string =>
    total.parameters === 0 ? "–" : `${((100 * parameters) / total.parameters).toFixed(1)} %`;
  return formatTable(
    [
      { title: "kind" },
      { title: "tensors", align: "right" },
      { title: "parameters", align: "right" },
      { title: "share", align: "right" },
      { title: "size", align: "right" },
    ],
    kinds.map(({ kind, tensors, parameters, bytes }) => [
      kind,
      grouped(tensors),
      grouped(parameters),
      share(parameters),
      formatBytes(bytes),
    ]),
  );
}

/** Every tensor of a model, a line each. */
export function tensorsTable(tensors: readonly TensorFacts[]): string {
  const renamed = tensors.some(({ storedName }) => storedName !== undefined);
  const turned = tensors.some(({ transposed }) => transposed);
  const aliased = tensors.some(({ aliases }) => aliases.length > 0);
  return formatTable(
    [
      { title: "tensor" },
      { title: "type" },
      { title: "shape" },
      { title: "layer" },
      { title: "kind" },
      ...(renamed ? [{ title: "stored as" }] : []),
      ...(turned ? [{ title: "transposed" }] : []),
      ...(aliased ? [{ title: "also called" }] : []),
    ],
    tensors.map((tensor) => [
      tensor.name,
      tensor.dtype,
      `[${tensor.shape.join(", ")}]`,
      tensor.layer ?? "–",
      tensor.kind,
      ...(renamed ? [tensor.storedName ?? ""] : []),
      ...(turned ? [tensor.transposed ? "yes" : ""] : []),
      ...(aliased ? [tensor.aliases.join(", ")] : []),
    ]),
  );
}

/** Several models, a line each. */
export function modelsTable(models: readonly ModelInspection[]): string {
  return formatTable(
    [
      { title: "model" },
      { title: "format" },
      { title: "tensors", align: "right" },
      { title: "parameters", align: "right" },
      { title: "size", align: "right" },
      { title: "types" },
      { title: "blocks", align: "right" },
      { title: "path" },
    ],
    models.map(({ name, path, format, total, dtypes, layers }) => [
      name,
      format,
      grouped(total.tensors),
      grouped(total.parameters),
      formatBytes(total.bytes),
      dtypes.map(({ dtype }) => dtype).join(" "),
      layers.length === 0 ? "–" : layers.map(({ blocks }) => blocks).join(" + "),
      path,
    ]),
  );
}

/** How several models would be merged. */
export function matchText(match: MatchInspection): string {
  const { merged, copied, refused } = match.coverage;
  const lines = [
    `held against ${match.reference}: ${merged} tensors merged, ${copied} copied, ${refused.length} refused`,
    ...listed(countReasons(match.copied).map(([reason, count]) => `  copied ${count}: ${reason}`)),
    ...listed(
      countReasons(
        match.unused.map(({ model, reason }) => ({ reason: `${reason} (${model})` })),
      ).map(([reason, count]) => `  unused ${count}: ${reason}`),
    ),
    ...renamedLines(match),
    ...match.warnings.map((warning) => `  warning: ${warning}`),
    ...listed(refused.map(({ tensor, reason }) => `  refused ${tensor}: ${reason}`)),
    ...(match.hint === undefined ? [] : [`  hint: ${match.hint}`]),
  ];
  return `${lines.join("\n")}\n\n${pairsTable(match.pairs)}`;
}

function renamedLines({ renamed }: MatchInspection): string[] {
  const byModel = new Map<string, number>();
  for (const { model } of renamed) byModel.set(model, (byModel.get(model) ?? 0) + 1);
  return [...byModel].flatMap(([model, count]) => {
    const example = renamed.find((one) => one.model === model);
    return example === undefined
      ? []
      : [
          `  renamed ${count} in ${model}: ${example.tensor} is ${example.output}${count > 1 ? ", …" : ""}`,
        ];
  });
}

function countReasons(items: readonly { readonly reason: string }[]): [string, number][] {
  const counts = new Map<string, number>();
  for (const { reason } of items) counts.set(reason, (counts.get(reason) ?? 0) + 1);
  return [...counts].sort(([, a], [, b]) => b - a);
}

function listed(lines: readonly string[]): string[] {
  if (lines.length <= LISTED) return [...lines];
  return [...lines.slice(0, LISTED), `  and ${lines.length - LISTED} more; --json lists all`];
}

function pairsTable(pairs: readonly PairSummary[]): string {
  return formatTable(
    [
      { title: "pair" },
      { title: "shared", align: "right" },
      { title: "other shape", align: "right" },
      { title: "only first", align: "right" },
      { title: "only second", align: "right" },
      { title: "other type", align: "right" },
    ],
    pairs.map(({ models, shared, differing, onlyFirst, onlySecond, otherDtype }) => [
      models.join(" – "),
      ...[shared, differing, onlyFirst, onlySecond, otherDtype].map(grouped),
    ]),
  );
}
