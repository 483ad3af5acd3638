import { basename, dirname, resolve } from "node:path";

/** File names that say nothing about which model it is: there the folder's name does. */
const genericStem =
  /^((pytorch_|adapter_|diffusion_pytorch_)?model|weights|network|graph|checkpoint|merged)([-_.]?(fp|bf|f)(16|32))?$/i;

/** A file's name without the ending that says how it is stored. */
export function stemOf(path: string): string {
  return basename(path).replace(
    /\.(safetensors(\.index\.json)?|onnx|npz|jsonl|ndjson|csv|tsv)$/i,
    "",
  );
}

/** Whether a model file's name is one that every model's file has, such as `model.onnx`. */
export function isGenericName(path: string): boolean {
  return genericStem.test(stemOf(path));
}

/** "models/base/model.onnx" → "base"; "models/rotated.safetensors" → "rotated"; a folder → its own name. */
export function modelNameOf(path: string): string {
  const full = resolve(path);
  return shortName(isGenericName(full) ? basename(dirname(full)) : stemOf(full));
}

/** A text as a name that experiments, evaluators and the shell take without quotes. */
export function shortName(text: string): string {
  return (
    text.replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[^A-Za-z0-9]+|[^A-Za-z0-9]+$/g, "") || "model"
  );
}

/** The same names, with a number behind those that were taken: "base", "base-2". */
export function uniqueNames(names: readonly string[]): string[] {
  const taken = new Set<string>();
  return names.map((name) => {
    let free = name;
    for (let n = 2; taken.has(free); n++) free = `${name}-${n}`;
    taken.add(free);
    return free;
  });
}

/** The name that means "what the others were fine-tuned from": exactly "base" first, then a name with such a word in it. */
export function baseByName(names: readonly string[]): string | undefined {
  const exact = names.find((name) => name.toLowerCase() === "base");
  const word = /(^|[-_.])(base|pretrained|foundation|origin(al)?|init(ial)?|theta-?0)($|[-_.])/i;
  const likely = names.filter((name) => word.test(name));
  return exact ?? (likely.length === 1 ? likely[0] : undefined);
}
