import { basename, join, relative } from "node:path";
import { sha256 } from "../base/hash.ts";
import { packageVersion } from "../base/package.ts";
import { writeFileAtomically } from "../formats/atomic-file.ts";
import { mapModelRefs } from "../recipes/map-model-refs.ts";
import type { Recipe } from "../recipes/recipe.ts";
import { lineage } from "../store/lineage.ts";
import type { TrialDetail } from "../store/queries.ts";
import type { RunRow } from "../store/rows.ts";
import type { RunStore } from "../store/run-store.ts";
import type { PreparedExperiment } from "./prepare.ts";
import type { WrittenFile } from "./write-model.ts";

/** The texts beside an exported model, and how they are written. */

/** The recipe with models by path, as mergekit reads it. */
export function recipeWithPaths(recipe: Recipe, prepared: PreparedExperiment, out: string): Recipe {
  const places = new Map(prepared.experiment.models.map((model) => [model.id, model]));
  const spell = (path: string): string => {
    const near = relative(out, path);
    return near.startsWith("../../..") || near.startsWith("/") ? path : near;
  };
  return mapModelRefs(recipe, (ref) => {
    const model = places.get(ref.model);
    if (model === undefined) return ref;
    const below = model.base === undefined ? undefined : places.get(model.base);
    if (below === undefined) return { model: spell(model.path) };
    return { model: spell(below.path), lora: spell(model.path) };
  });
}

/** What a recipe file says about itself: run, trial, scores, digests, version. */
export function recipeComment(
  run: RunRow,
  trial: TrialDetail,
  prepared: PreparedExperiment,
): string {
  const scores = Object.entries(trial.scores).flatMap(([evaluator, metrics]) =>
    Object.entries(metrics).flatMap(([metric, splits]) =>
      Object.entries(splits).map(
        ([split, score]) => `  ${evaluator} ${metric} ${split}: ${score?.value ?? score?.kind}`,
      ),
    ),
  );
  const digests = prepared.inputs
    .filter(({ role }) => role.startsWith("model:"))
    .map(
      ({ role, path, sha256: digest }) => `  ${role.split(":")[1]}: ${basename(path)} ${digest}`,
    );
  return [
    `Made by mendel ${packageVersion()}, run ${run.name}, trial ${trial.number}.`,
    `recipe sha256 ${trial.recipeSha256}`,
    ...(trial.weightsSha256 === undefined ? [] : [`weights sha256 ${trial.weightsSha256}`]),
    "models:",
    ...digests,
    "scores:",
    ...scores,
  ].join("\n");
}

export function writeText(folder: string, name: string, text: string): WrittenFile {
  const path = join(folder, name);
  writeFileAtomically(path, text);
  return { path, bytes: Buffer.byteLength(text), sha256: sha256(text) };
}

/** Ancestors of the trial and what the search was, for people and for `mendel evaluate`. */
export function lineageText(store: RunStore, run: RunRow, trial: TrialDetail): string {
  const tree = lineage(store.database, run, trial.trialId, { direction: "ancestors" });
  return `${JSON.stringify(
    {
      run: run.name,
      trial: trial.number,
      mendel: run.codeVersion,
      seed: run.seed,
      experiment: { file: run.experimentPath, given: JSON.parse(run.configGiven) as unknown },
      genes: trial.genes,
      nodes: tree.nodes.map(({ number, ref, operator, fitness, label }) => ({
        number,
        trial: ref,
        operator,
        fitness,
        label,
      })),
      edges: tree.edges,
    },
    null,
    2,
  )}\n`;
}
