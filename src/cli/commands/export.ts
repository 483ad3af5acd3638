import { exportTrial } from "../../run/export-trial.ts";
import type { VerifiedScore } from "../../run/verify-export.ts";
import { formatBytes, formatTable } from "../table.ts";
import type { Verb } from "../verb.ts";
import { outputOptions } from "./merge.ts";

function scoreTable(scores: readonly VerifiedScore[]): string {
  return formatTable(
    [
      { title: "evaluator" },
      { title: "metric" },
      { title: "split" },
      { title: "recorded", align: "right" },
      { title: "these files", align: "right" },
    ],
    scores.map(({ evaluator, metric, split, stored, measured }) => [
      evaluator,
      metric,
      split,
      stored.toFixed(5),
      measured === undefined ? "–" : measured.toFixed(5),
    ]),
  );
}

export const exportVerb: Verb = {
  examples: [
    "export digits-1/best my-model",
    "export digits-1/12 out --format safetensors --dtype bfloat16",
  ],
  configure(command) {
    command
      .argument("<trial>", "run/best, run/12, run/baseline:uniform, …")
      .argument("<folder>", "folder to write")
      .option("--format <format>", "onnx, safetensors or hf (default: as the base is)")
      .option(
        "--dtype <dtype>",
        "float32 (default: scores stay exactly as searched), float16 or bfloat16",
      )
      .option("--shard-size <size>", "most bytes of weights per safetensors file, such as 2G");
  },
  async run({ output, db, args, options }) {
    const result = await exportTrial({
      db,
      trial: args[0] as string,
      out: args[1] as string,
      ...outputOptions(options),
    });
    for (const warning of result.warnings) output.warn(`warning: ${warning}`);
    const rows = result.files.map(({ path, bytes, sha256 }) => [
      path,
      formatBytes(bytes),
      sha256.slice(0, 16),
    ]);
    output.print(`exported ${result.trial}`);
    output.print(
      formatTable(
        [{ title: "file" }, { title: "size", align: "right" }, { title: "sha256" }],
        rows,
      ),
    );
    output.print("");
    output.print(scoreTable(result.verified));
    output.print(
      result.agrees
        ? "the written files score as recorded"
        : "the written files do not score exactly as recorded; a narrower dtype rounds weights, see the table",
    );
    output.emit("export", result);
    return 0;
  },
};
