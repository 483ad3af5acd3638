import { basename } from "node:path";
import { MendelError } from "../base/errors.ts";
import { type HfReader, MAX_CONFIG_BYTES, readModelJson } from "../formats/hf-folder.ts";
import type { ModelReader } from "../tensors/model-reader.ts";

/** What a configuration says of how blocks compute, beyond the shapes of their weights. */
const settings = [
  "model_type",
  "hidden_act",
  "num_attention_heads",
  "num_key_value_heads",
  "head_dim",
  "rope_theta",
  "rope_scaling",
  "rope_parameters",
  "partial_rotary_factor",
  "rms_norm_eps",
  "layer_norm_eps",
  "sliding_window",
  "attn_logit_softcapping",
] as const;

/**
 * Refuses models whose blocks compute differently although their weights have one shape: all of them run in one graph, with
 * its rotary angles, its number of heads, its epsilon. Models without a configuration are taken at the shape of their weights.
 *
 * @throws MendelError `mismatch` naming the two models and the setting
 */
export function checkLayerModels(readers: ReadonlyMap<string, ModelReader>): void {
  let first:
    | { readonly id: string; readonly config: Readonly<Record<string, unknown>> }
    | undefined;
  for (const [id, reader] of readers) {
    const config = configOf(reader);
    if (config === undefined) continue;
    first ??= { id, config };
    for (const setting of settings) {
      const [a, b] = [first.config[setting] ?? null, config[setting] ?? null].map((value) =>
        JSON.stringify(value),
      );
      if (a === b) continue;
      throw new MendelError(
        "mismatch",
        `${first.id} and ${id} compute their layers differently: ${setting} is ${a} and ${b}`,
        {
          hint: "layers of one walk run in one graph; take models with the same settings",
          where: { file: reader.path, key: setting },
        },
      );
    }
  }
}

function configOf(reader: ModelReader): Readonly<Record<string, unknown>> | undefined {
  if (reader.format !== "hf") return undefined;
  const path = (reader as HfReader).sideFiles.find((file) => basename(file) === "config.json");
  return path === undefined ? undefined : readModelJson(path, MAX_CONFIG_BYTES);
}
