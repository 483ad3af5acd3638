import { evaluateModel } from "../../run/evaluate-model.ts";
import { splitOf } from "../option-parsers.ts";
import { formatNumber, formatTable } from "../table.ts";
import type { Verb } from "../verb.ts";

export const evaluate: Verb = {
  examples: [
    "evaluate digits-1/best --split test",
    "evaluate my-model --experiment examples/digits/experiment.yml",
  ],
  configure(command) {
    const collect = (value: string, earlier: string[]): string[] => [...earlier, value];
    command
      .argument("<target>", "a model (file or folder), a recipe file, or a trial")
      .option("--evaluator <name>", "evaluator by name or path (repeatable)", collect, [])
      .option("--experiment <file>", "take evaluators and graph from an experiment")
      .option("--split <split>", "search, validation or test", "test")
      .option("--graph <file>", "ONNX graph for weights that come without one");
  },
  async run({ output, db, args, options }) {
    const result = await evaluateModel({
      db,
      target: args[0] as string,
      evaluators: options["evaluator"] as string[],
      experiment: options["experiment"] as string | undefined,
      split: splitOf(options["split"]),
      graph: options["graph"] as string | undefined,
    });
    if (result.note !== undefined) output.note(result.note);
    const rows = result.results.flatMap(({ evaluator, metrics }) =>
      metrics.map(({ metric, kind, value, standardError, items }) => [
        evaluator,
        metric,
        kind === "finite" ? formatNumber(value, 5) : kind,
        formatNumber(standardError, 5),
        String(items),
      ]),
    );
    output.print(
      formatTable(
        [
          { title: "evaluator" },
          { title: "metric" },
          { title: result.split, align: "right" },
          { title: "± SE", align: "right" },
          { title: "items", align: "right" },
        ],
        rows,
      ),
    );
    const scores = Object.fromEntries(
      result.results.map(({ evaluator, metrics }) => [
        evaluator,
        Object.fromEntries(
          metrics.map(({ metric, kind, value, standardError, items }) => [
            metric,
            { value: value ?? null, kind, standardError: standardError ?? null, items },
          ]),
        ),
      ]),
    );
    output.emit("evaluate", { target: result.target, split: result.split, scores });
    return 0;
  },
};
