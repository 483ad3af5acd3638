import type { LayerScores } from "../survey/layer-scores.ts";
import { formatNumber, formatTable } from "./table.ts";

/** One row per block: what happens to each score without it and with it twice, and how much it turns the hidden state. */
export function layerScoresText({
  model,
  split,
  metrics,
  whole,
  layers,
  runs,
}: LayerScores): string {
  const names = Object.keys(metrics);
  const right = (title: string) => ({ title, align: "right" as const });
  const columns = [
    { title: "layer" },
    ...names.map((name) => right(`${name} ${metrics[name]}, dropped`)),
    ...names.map(() => right("repeated")),
    right("influence"),
    right("angle"),
  ];
  const rows = [
    ["(all)", ...names.map((name) => formatNumber(whole[name], 4)), ...names.map(() => ""), "", ""],
    ...layers.map(({ layer, drop, repeat, influence, angle }) => [
      String(layer),
      ...names.map((name) => formatNumber(drop[name], 4)),
      ...names.map((name) => formatNumber(repeat[name], 4)),
      formatNumber(influence, 4),
      formatNumber(angle, 4),
    ]),
  ];
  const least = runs.map(
    ({ blocks, from, angle }) =>
      `${blocks} in a row: ${from} to ${from + blocks - 1} (angle ${formatNumber(angle, 4)})`,
  );
  return [
    `${model} on ${split}, each layer left out and run twice`,
    formatTable(columns, rows),
    "",
    "turning the hidden state least:",
    ...least.map((line) => `  ${line}`),
  ].join("\n");
}
