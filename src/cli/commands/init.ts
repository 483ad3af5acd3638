import { MendelError } from "../../base/errors.ts";
import { pathFrom } from "../../survey/experiment-text.ts";
import {
  type InitFile,
  type InitOptions,
  type InitProposal,
  proposeExperiment,
  requireFreeTarget,
  writeExperiment,
} from "../../survey/init-experiment.ts";
import { proposedTasks } from "../../survey/propose-evaluator.ts";
import { oneOf } from "../option-parsers.ts";
import { printable } from "../output.ts";
import { formatTable } from "../table.ts";
import type { Verb } from "../verb.ts";

/** "--model name=path". */
function namedModel(text: string, earlier: ReadonlyMap<string, string>): Map<string, string> {
  const at = text.indexOf("=");
  const [name, path] = [text.slice(0, at), text.slice(at + 1)];
  if (at < 1 || !/^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name) || path === "") {
    throw new MendelError("usage", `--model expects NAME=PATH, got "${text}"`, {
      hint: "for instance --model base=models/base; names are letters, digits, dots and dashes",
    });
  }
  if (earlier.has(name)) throw new MendelError("usage", `--model names "${name}" twice`);
  return new Map(earlier).set(name, path);
}

function optionsOf(folder: string, options: Readonly<Record<string, unknown>>): InitOptions {
  const { model, data, base } = options as {
    model: ReadonlyMap<string, string>;
    data: readonly string[];
    base?: string;
  };
  const others = ["graph", "task", "space", "optimizer", "budget", "out"].filter(
    (name) => options[name] !== undefined,
  );
  return {
    folder,
    ...(model.size === 0 ? {} : { models: model }),
    ...(data.length === 0 ? {} : { data }),
    ...(base === undefined ? {} : { base: base === "none" ? null : base }),
    ...Object.fromEntries(others.map((name) => [name, options[name]])),
  };
}

function here(path: string): string {
  return pathFrom(process.cwd(), path);
}

function summary({ chosen, evaluators, space, leftOut }: InitProposal): string {
  const models = formatTable(
    [{ title: "model" }, { title: "path" }, { title: "" }],
    chosen.models.map(({ id, path, base }) => [
      id,
      here(path),
      id === chosen.base
        ? `base, ${chosen.baseReason}`
        : base === undefined
          ? ""
          : `adapter on ${base}`,
    ]),
  );
  const data = formatTable(
    [
      { title: "evaluator" },
      { title: "task" },
      { title: "search", align: "right" },
      { title: "validation", align: "right" },
      { title: "test", align: "right" },
    ],
    evaluators.map(({ name, task, rows }) => [
      name,
      task,
      ...[rows.search, rows.validation, rows.test].map(String),
    ]),
  );
  const left = leftOut.map(({ path, reason }) => printable(`left out ${here(path)}: ${reason}`));
  const facts = [`graph: ${here(chosen.graph)}`, `space: ${space}`, ...left];
  return `${models}\n\n${data}\n\n${facts.join("\n")}`;
}

function resultOf(proposal: InitProposal, files: readonly InitFile[]): object {
  const { chosen, evaluators, space, optimizer, budget, file, leftOut } = proposal;
  return {
    experiment: file,
    files,
    models: chosen.models.map(({ id, path, base }) => ({
      name: id,
      path,
      ...(base === undefined ? {} : { base }),
    })),
    base: chosen.base ?? null,
    graph: chosen.graph,
    evaluators: evaluators.map(({ name, task, fitness, rows }) => ({ name, task, fitness, rows })),
    space,
    optimizer,
    budget,
    leftOut,
    next: [`mendel validate ${here(file)}`, `mendel run ${here(file)}`],
  };
}

export const init: Verb = {
  examples: [
    "init examples/digits --out my-search --yes",
    "init --model base=examples/digits/models/base --model turned=examples/digits/models/rotate --data examples/digits/data --out my-search --budget 20m",
  ],
  configure(command) {
    const collect = (value: string, earlier: string[]): string[] => [...earlier, value];
    command
      .argument("[folder]", "folder with models and data", ".")
      .option(
        "--model <name=path>",
        "a model; only those named are taken (repeatable)",
        namedModel,
        new Map(),
      )
      .option("--base <name>", 'model that the others were tuned from, or "none"')
      .option("--graph <model|file>", "whose ONNX graph runs the candidates")
      .option(
        "--data <path>",
        "data file or folder; only those named are taken (repeatable)",
        collect,
        [],
      )
      .option(
        "--task <task>",
        `what the data are for: ${proposedTasks.join(", ")}`,
        oneOf("--task", proposedTasks),
      )
      .option("--space <name|file>", "search space")
      .option("--optimizer <name>", "optimizer")
      .option("--budget <n|time>", "evaluations, or a time such as 20m (default: 300 evaluations)")
      .option("--out <folder|file>", "where to write the experiment (default: the folder itself)")
      .option("-y, --yes", "ask nothing")
      .option("--force", "overwrite what is there");
  },
  async run({ output, args, options }) {
    const wishes = optionsOf(args[0] ?? ".", options);
    const force = options["force"] === true;
    if (!force) requireFreeTarget(wishes);
    const asks =
      options["yes"] !== true && !output.json && process.stdin.isTTY === true && output.interactive;
    const proposal = asks
      ? await (await import("../init-questions.ts")).askForExperiment(wishes, {
          input: process.stdin,
          output: process.stderr,
        })
      : await proposeExperiment(wishes);
    const files = writeExperiment(proposal, { force });
    output.note(summary(proposal));
    output.print(`${files.map(({ path }) => `wrote ${here(path)}`).join("\n")}

Look through ${here(proposal.file)}, then:
  mendel validate ${here(proposal.file)}
  mendel run ${here(proposal.file)}`);
    output.emit("init", resultOf(proposal, files));
    return 0;
  },
};
