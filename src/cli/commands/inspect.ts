import { exitStatusOf, MendelError } from "../../base/errors.ts";
import { type Inspection, inspectModels } from "../../survey/inspect-models.ts";
import { matchText, modelsTable, modelText, tensorsTable } from "../inspect-text.ts";
import { layerScoresText } from "../layer-scores-text.ts";
import { splitOf } from "../option-parsers.ts";
import { printable } from "../output.ts";
import type { Verb } from "../verb.ts";

function textOf({ models, match }: Inspection, withTensors: boolean): string {
  const parts =
    match === undefined
      ? models.map(modelText)
      : [modelsTable(models), printable(matchText(match))];
  if (withTensors) {
    for (const { name, tensors } of models) {
      parts.push(
        models.length === 1
          ? tensorsTable(tensors)
          : `${printable(name)}\n${tensorsTable(tensors)}`,
      );
    }
  }
  return parts.join("\n\n");
}

export const inspect: Verb = {
  examples: [
    "inspect examples/digits/models/base",
    "inspect examples/tinylm/models/base/model.onnx --layers --evaluator tinylm-math",
    "inspect examples/digits/models/base examples/digits/models/rotate/model.safetensors --json",
  ],
  configure(command) {
    const collect = (value: string, earlier: string[]): string[] => [...earlier, value];
    command
      .argument("<model...>", "model files or folders; MODEL+ADAPTER for an adapter on a model")
      .option("--tensors", "list every tensor")
      .option(
        "--reference <model>",
        "model that the others are held against (default: the one called base, else the first)",
      )
      .option("--freeze <pattern>", "tensors to copy instead of merging (repeatable)", collect, [])
      .option("--layers", "score the model with each layer left out and run twice")
      .option("--evaluator <name>", "with --layers: what to score on (repeatable)", collect, [])
      .option("--split <split>", "with --layers: search, validation or test", "validation")
      .option("--graph <file>", "with --layers: ONNX graph for weights without one");
  },
  async run({ output, args, options }) {
    if (options["layers"] === true) {
      if (args.length !== 1)
        throw new MendelError("usage", "--layers looks at one model at a time");
      // Needs ONNX Runtime, which looking at headers must not wait for.
      const { layerScores } = await import("../../survey/layer-scores.ts");
      const scores = await layerScores({
        model: args[0] as string,
        graph: options["graph"] as string | undefined,
        evaluators: options["evaluator"] as string[],
        split: splitOf(options["split"]),
      });
      output.print(layerScoresText(scores));
      output.emit("inspect-layers", { ...scores });
      return 0;
    }
    const reference = options["reference"];
    const withTensors = options["tensors"] === true;
    const inspection = inspectModels(args, {
      freeze: options["freeze"] as string[],
      ...(typeof reference === "string" ? { reference } : {}),
    });
    output.print(textOf(inspection, withTensors));
    const { models, match } = inspection;
    output.emit("inspect", {
      models: models.map(({ tensors, ...facts }) => (withTensors ? { ...facts, tensors } : facts)),
      ...(match === undefined ? {} : { match }),
    });
    if (match === undefined || match.fits) return 0;
    output.warn("these models do not fit together");
    return exitStatusOf("mismatch");
  },
};
