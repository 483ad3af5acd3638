import { statSync } from "node:fs";
import { MendelError } from "../base/errors.ts";
import { digestOf, sha256OfFile } from "../base/hash.ts";
import type { EvaluatorDefinition } from "../evaluation/evaluator-schema.ts";
import type { InputFile } from "../store/rows.ts";
import type { Experiment } from "./experiment.ts";
import type { InspectedExperiment } from "./inspect-experiment.ts";

/** Digests that go into evaluation keys: equal digests promise equal scores. */
export interface ScoreDigests {
  readonly models: string;
  /** By evaluator: its definition and the contents of its data. */
  readonly evaluators: Readonly<Record<string, string>>;
  /** How candidates are run; empty until an executor has chosen. */
  readonly program: string;
}

/** Digests of the model files, the graph and the data, by role. */
export async function hashInputs({
  experiment,
  models,
  evaluators,
  plan,
}: InspectedExperiment): Promise<InputFile[]> {
  const files: { role: string; path: string }[] = [];
  for (const { id } of experiment.models) {
    const paths = models.require(id).files;
    files.push(...paths.map((path, i) => ({ role: `model:${id}:${i}`, path })));
  }
  if (!models.readers.has(plan.graph)) files.push({ role: "graph", path: plan.graph });
  for (const evaluator of evaluators) {
    for (const [part, path] of evaluatorFiles(evaluator)) {
      files.push({ role: `evaluator:${evaluator.name}:${part}`, path });
    }
  }
  const known = new Map<string, string>();
  const inputs: InputFile[] = [];
  for (const { role, path } of files) {
    const found = statSync(path, { throwIfNoEntry: false });
    if (found?.isFile() !== true) throw missing(role, path);
    const sha256 = known.get(path) ?? (await sha256OfFile(path));
    known.set(path, sha256);
    inputs.push({ role, path, sha256, bytes: found.size });
  }
  return inputs;
}

function missing(role: string, path: string): MendelError {
  const [kind, name, part] = role.split(":");
  const what = kind === "evaluator" ? `evaluator "${name}": there is no ${part} file` : "no file";
  return new MendelError("not-found", `${what} at ${path}`, {
    hint: "relative paths are relative to the file that holds them",
    where: { file: path },
  });
}

/** Files whose contents decide an evaluator's scores. */
function evaluatorFiles(evaluator: EvaluatorDefinition): [string, string][] {
  const { data, tokenizer, module, teacher } = evaluator;
  return [
    ...(data.kind === "files"
      ? (Object.entries(data.files) as [string, string][])
      : [["data", data.file] as [string, string]]),
    ...(tokenizer === undefined ? [] : [["tokenizer", tokenizer] as [string, string]]),
    ...(module === undefined ? [] : [["module", module] as [string, string]]),
    ...(teacher?.kind === "file" ? [["teacher", teacher.at] as [string, string]] : []),
  ];
}

export function modelDigest(inputs: readonly InputFile[], id: string): string {
  return digestOf(
    inputs.filter(({ role }) => role.startsWith(`model:${id}:`)).map(({ sha256 }) => sha256),
  );
}

export function checkPins(experiment: Experiment, inputs: readonly InputFile[]): void {
  for (const { id, path, sha256 } of experiment.models) {
    if (sha256 === undefined) continue;
    const digests = inputs
      .filter(({ role }) => role.startsWith(`model:${id}:`))
      .map((file) => file.sha256);
    if (digests.includes(sha256)) continue;
    throw new MendelError(
      "mismatch",
      `model ${id} is pinned to sha256 ${sha256}, but ${path} has ${digests.join(", ")}`,
      {
        hint: "the file is not the one the experiment was written for",
        where: { file: path },
      },
    );
  }
}

export function scoreDigests(
  { experiment, evaluators }: InspectedExperiment,
  inputs: readonly InputFile[],
): ScoreDigests {
  const models = experiment.models.map(({ id }) => [id, modelDigest(inputs, id)]);
  const graph = inputs.filter(({ role }) => role === "graph").map(({ sha256 }) => sha256);
  return {
    models: digestOf([models, graph, experiment.graph ?? null]),
    evaluators: Object.fromEntries(
      evaluators.map((evaluator) => {
        const {
          title: _title,
          data: _data,
          tokenizer: _tokenizer,
          module: _module,
          ...rules
        } = evaluator;
        const contents = inputs
          .filter(({ role }) => role.startsWith(`evaluator:${evaluator.name}:`))
          .map(({ role, sha256 }) => [role, sha256]);
        return [evaluator.name, digestOf([rules, contents])];
      }),
    ),
    program: "",
  };
}
