import type { Readable, Writable } from "node:stream";
import {
  type CANCEL_SYMBOL,
  cancel,
  confirm,
  intro,
  isCancel,
  multiselect,
  note,
  select,
  text,
} from "@clack/prompts";
import { MendelError } from "../base/errors.ts";
import {
  type InitOptions,
  type InitProposal,
  proposeExperiment,
} from "../survey/init-experiment.ts";
import { printable } from "./output.ts";

/** Where questions are asked; results go elsewhere. */
export interface Terminal {
  readonly input: Readable;
  readonly output: Writable;
}

const NO_BASE = "";

/** Ends the questions without a result. */
function stop(terminal: Terminal): never {
  cancel("nothing was written", terminal);
  throw new MendelError("interrupted", "stopped before anything was written");
}

/** The answer, unless the user has pressed Ctrl-C or Escape. */
function answered<T>(answer: T | typeof CANCEL_SYMBOL, terminal: Terminal): T {
  return isCancel(answer) ? stop(terminal) : (answer as T);
}

/**
 * Shows what was found and asks what to take: models, base, data, budget. What the user has settled by flags is not asked.
 *
 * @returns the proposal with the answers worked in
 * @throws MendelError `interrupted` when the user stops; what `proposeExperiment` throws
 */
export async function askForExperiment(
  options: InitOptions,
  terminal: Terminal,
): Promise<InitProposal> {
  intro("A search for the best merge of what is in this folder", terminal);
  const first = await proposeExperiment(options);
  if (first.leftOut.length > 0) {
    const lines = first.leftOut.map(({ path, reason }) => printable(`${path}: ${reason}`));
    note(lines.join("\n"), "Left out", terminal);
  }
  const models = options.models ?? (await askModels(first, terminal));
  const base = options.base === undefined ? await askBase(first, models, terminal) : options.base;
  const budget = options.budget ?? (await askBudget(terminal));
  const proposal = await proposeExperiment({ ...options, models, base, budget });
  const evaluators =
    options.data === undefined ? await askEvaluators(proposal, terminal) : proposal.evaluators;
  const write = await confirm({ message: `Write ${proposal.file}?`, ...terminal });
  return answered(write, terminal) ? { ...proposal, evaluators } : stop(terminal);
}

async function askModels(
  { chosen }: InitProposal,
  terminal: Terminal,
): Promise<ReadonlyMap<string, string>> {
  if (chosen.models.length === 2) return pathsOf(chosen.models);
  const answer = await multiselect({
    message: "Which models are to be merged? (at least two, the base among them)",
    options: chosen.models.map(({ id, path }) => ({ value: id, label: id, hint: path })),
    initialValues: chosen.models.map(({ id }) => id),
    required: true,
    ...terminal,
  });
  const ids = answered(answer, terminal);
  return pathsOf(chosen.models.filter(({ id }) => ids.includes(id)));
}

function pathsOf(models: InitProposal["chosen"]["models"]): ReadonlyMap<string, string> {
  return new Map(models.map(({ id, path }) => [id, path]));
}

async function askBase(
  { chosen }: InitProposal,
  models: ReadonlyMap<string, string>,
  terminal: Terminal,
): Promise<string | null> {
  const ids = [...models.keys()];
  const answer = await select({
    message: "Which one were the others fine-tuned from?",
    options: [
      ...ids.map((id) => ({ value: id, label: id })),
      { value: NO_BASE, label: "none of them" },
    ],
    initialValue: ids.find((id) => id === chosen.base) ?? NO_BASE,
    ...terminal,
  });
  const base = answered(answer, terminal);
  return base === NO_BASE ? null : base;
}

async function askBudget(terminal: Terminal): Promise<string> {
  const answer = await text({
    message: "How many candidates may be evaluated? (or a time such as 20m)",
    initialValue: "300",
    validate: (value) =>
      /^[1-9]\d{0,8}$|^\d+(\.\d+)?[smhd]$/.test(value ?? "")
        ? undefined
        : "a number such as 300, or a time such as 20m",
    ...terminal,
  });
  return answered(answer, terminal);
}

async function askEvaluators(
  { evaluators }: InitProposal,
  terminal: Terminal,
): Promise<InitProposal["evaluators"]> {
  if (evaluators.length === 1) return evaluators;
  const answer = await multiselect({
    message: "What is the merged model to be good at?",
    options: evaluators.map(({ name, task, rows }) => ({
      value: name,
      label: name,
      hint: `${task}, ${rows.search} items`,
    })),
    initialValues: evaluators.map(({ name }) => name),
    required: true,
    ...terminal,
  });
  const names = answered(answer, terminal);
  return evaluators.filter(({ name }) => names.includes(name));
}
