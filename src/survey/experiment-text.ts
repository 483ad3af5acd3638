import { dirname, join, relative, sep } from "node:path";
import type { ChosenModels } from "./choose-models.ts";
import { type EvaluatorProposal, type ProposedTask, splitFractions } from "./propose-evaluator.ts";

/** What goes into an experiment file. */
export interface ExperimentParts {
  readonly chosen: ChosenModels;
  readonly evaluators: readonly EvaluatorProposal[];
  readonly space: string;
  /** One line on what the space searches. */
  readonly spaceTitle: string;
  readonly optimizer: string;
  readonly budget: { readonly evaluations?: number; readonly time?: string };
}

/** A text as a YAML value in any place: plain where that is safe, else in double quotes. */
export function yamlText(text: string): string {
  const plain = /^[A-Za-z_./][\w./-]*( [\w./-]+)*$/.test(text);
  const meansElse = /^(true|false|null|y|n|yes|no|on|off|\.inf|\.nan)$/i.test(text);
  return plain && !meansElse ? text : JSON.stringify(text);
}

/** A path as files name it: relative to the folder of the file, with slashes. */
export function pathFrom(folder: string, path: string): string {
  const way = relative(folder, path).split(sep).join("/");
  return way === "" ? "." : way;
}

/** The experiment file, with comments that say what can be changed. */
export function experimentText(file: string, parts: ExperimentParts): string {
  const { chosen, evaluators, optimizer } = parts;
  const folder = dirname(file);
  const path = (target: string): string => yamlText(pathFrom(folder, target));
  const name = pathFrom(process.cwd(), file);
  return `${[
    `# The search for the best merge of ${chosen.models.length} models. Check it with: mendel validate ${name}`,
    `# Start it with: mendel run ${name}`,
    "",
    "models: # short names, used everywhere else; { path: …, sha256: … } pins a file, { path: …, base: NAME } is a LoRA adapter",
    ...chosen.models.map(({ id, path: place, base }) =>
      base === undefined
        ? `  ${key(id)}: ${path(place)}`
        : `  ${key(id)}: { path: ${path(place)}, base: ${yamlText(base)} }`,
    ),
    ...baseLines(chosen),
    `graph: ${graphText(chosen, folder)} # whose ONNX graph runs the candidates: a model, or the path of an .onnx file`,
    "",
    `space: ${yamlText(parts.space)} # ${parts.spaceTitle}`,
    ...spaceHints(chosen),
    "",
    "evaluate: # what counts: files in evaluators/; a weight says how much",
    ...evaluators.map(
      ({ name: evaluator }) => `  - { evaluator: ${yamlText(evaluator)}, weight: 1 }`,
    ),
    `objective: mean # over the evaluators; or worst, pareto${evaluators.every(isGain) ? ", product" : ""}`,
    ...mixedScales(evaluators),
    `# constraints: ["${constraintExample(evaluators)}"] # bounds on any recorded metric, also against the best parent`,
    "",
    `optimizer: ${yamlText(optimizer)} # ${optimizerHint(optimizer)}`,
    `budget: { ${budgetText(parts.budget)} } # also time: 20m and stall: 80 (evaluations without progress); whichever comes first`,
    "seed: 1 # the same seed gives the same search",
    "workers: auto",
  ].join("\n")}\n`;
}

/** A name as a mapping's key: one of digits alone would be read as a number. */
function key(id: string): string {
  return yamlText(id);
}

function baseLines({ base, baseReason }: ChosenModels): string[] {
  return base === undefined
    ? [`# base: NAME # what task vectors are taken against; left out: ${baseReason}`]
    : [`base: ${yamlText(base)} # what task vectors are taken against (chosen: ${baseReason})`];
}

function graphText({ graph, graphModel, models }: ChosenModels, folder: string): string {
  const owner = models.find(({ id }) => id === graphModel);
  const implied =
    owner !== undefined && (owner.path === graph || join(owner.path, "model.onnx") === graph);
  return yamlText(implied ? owner.id : pathFrom(folder, graph));
}

function spaceHints({ base, models }: ChosenModels): string[] {
  return base === undefined
    ? [
        "# Also: whole-linear (one share per model), natural-niches (crossover, with optimizer: natural_niches)",
        ...(models.length === 2 ? ["# and slerp-layers (two models);"] : []),
        "# or a path, or an inline mapping: { method: linear, groups: layer+kind, genes: … }",
      ]
    : [
        "# Also: whole-task-arithmetic (one coefficient per expert: the quickest search), kind-task-arithmetic, ties, dare-ties;",
        "# or a path, or an inline mapping: { method: task_arithmetic, groups: layer/2, genes: … }",
      ];
}

function isGain({ task }: EvaluatorProposal): boolean {
  return task === "classification";
}

function mixedScales(evaluators: readonly EvaluatorProposal[]): string[] {
  const measures = new Set(evaluators.map(({ fitness }) => fitness));
  return measures.size < 2
    ? []
    : [
        `# ${[...measures].join(" and ")} have different scales: set the weights above, or search for objective: pareto`,
      ];
}

function constraintExample([first]: readonly EvaluatorProposal[]): string {
  if (first === undefined) return "name.accuracy >= 0.8";
  const [relation, sign] = isGain(first) ? [">=", "-"] : ["<=", "+"];
  return `${first.name}.${first.fitness} ${relation} parent ${sign} 0.01`;
}

function optimizerHint(name: string): string {
  if (name === "cma_es")
    return "{ name: cma_es, sigma: 0.2, restarts: bipop } sets its options; or random";
  if (name === "natural_niches") return "{ name: natural_niches, archive: 20 } sets its options";
  return "{ name: …, … } sets its options";
}

function budgetText({ evaluations, time }: ExperimentParts["budget"]): string {
  return [
    ...(evaluations === undefined ? [] : [`evaluations: ${evaluations}`]),
    ...(time === undefined ? [] : [`time: ${yamlText(time)}`]),
  ].join(", ");
}

const taskHints: Readonly<Record<ProposedTask, string>> = {
  classification: "the output has one score per class; the target is the number of the right one",
  regression: "the output is compared with the target's numbers",
  "language-modeling": "every token is predicted from those before it",
  agreement: "no labels: candidates are to answer as the teacher does",
};

const fitnessHints: Readonly<Record<ProposedTask, string>> = {
  classification: "what is searched; cross_entropy is finer where there are few items",
  regression: "what is searched, the smaller the better; or mae, r2",
  "language-modeling": "what is searched: loss per token, the smaller the better",
  agreement: "what is searched: distance from the teacher's probabilities, the smaller the better",
};

/** One evaluator file, with comments that say what can be changed. */
export function evaluatorText(file: string, proposal: EvaluatorProposal): string {
  const folder = dirname(file);
  const path = (target: string): string => yamlText(pathFrom(folder, target));
  const { data, task, rows, limit, tokenizer, maxLength, target, teacher } = proposal;
  return `${[
    `# What "better" means for ${proposal.name}: ${rows.search} items to search on, ${rows.validation} to choose the winner, ${rows.test} to judge it.`,
    ...proposal.notes.map((note) => `# Note: ${note}.`),
    `title: ${yamlText(proposal.name)}`,
    `task: ${task} # ${taskHints[task]}`,
    ...(data.kind === "files"
      ? [
          "data: # three files without common items; the search sees only the first",
          ...(["search", "validation", "test"] as const).map(
            (split) => `  ${split}: ${path(data.files[split])}`,
          ),
        ]
      : [
          `data: ${path(data.file)} # or three files: { search: …, validation: …, test: … }`,
          `split: { search: ${splitFractions.search}, validation: ${splitFractions.validation}, test: ${splitFractions.test}, seed: ${splitFractions.seed} } # shares; the search sees only the first`,
        ]),
    `inputs: { ${Object.entries(proposal.inputs)
      .map(([input, field]) => `${yamlText(input)}: ${yamlText(field)}`)
      .join(", ")} } # graph input: data field`,
    ...(tokenizer === undefined ? [] : [`tokenizer: ${path(tokenizer)}`]),
    ...(maxLength === undefined ? [] : [`max_length: ${maxLength} # tokens; longer texts are cut`]),
    ...(target === undefined ? [] : [`target: ${yamlText(target)}`]),
    ...(teacher === undefined
      ? []
      : [`teacher: ${yamlText(teacher)} # a model of the experiment, or an .onnx file`]),
    `output: ${yamlText(proposal.output)} # graph output that is scored`,
    `fitness: ${proposal.fitness} # ${fitnessHints[task]}`,
    `metrics: [${proposal.metrics.join(", ")}] # all are recorded`,
    `batch: ${proposal.batch} # items that go through the graph together`,
    limit === undefined
      ? "# limit: 500 # at most so many items of each split: faster, less certain"
      : `limit: ${limit} # at most so many items of each split: faster, less certain`,
  ].join("\n")}\n`;
}
