import { existsSync, statSync } from "node:fs";
import { basename, dirname, extname, join, resolve } from "node:path";
import { MendelError } from "../base/errors.ts";
import { naturalOrder } from "../base/natural-order.ts";
import type { Split } from "../evaluation/executor.ts";
import { shortName } from "./model-names.ts";
import { walkFolder } from "./walk-folder.ts";

/** Data for one evaluator, found by the names of its files; nothing has been read yet. */
export interface FoundDataSet {
  /** Not unique: folders may hold files of the same name. */
  readonly name: string;
  readonly data:
    | { readonly kind: "files"; readonly files: Readonly<Record<Split, string>> }
    /** One file, to be cut into splits. */
    | { readonly kind: "single"; readonly file: string };
  /** What should be said about how the files were taken. */
  readonly notes: readonly string[];
}

const endings = new Set([".npz", ".jsonl", ".ndjson", ".csv", ".tsv"]);

type Part = Split | "train";

/** Words for splits in file and folder names. */
const partWords: Readonly<Record<string, Part>> = {
  search: "search",
  calibration: "search",
  calib: "search",
  tune: "search",
  validation: "validation",
  valid: "validation",
  val: "validation",
  dev: "validation",
  test: "test",
  holdout: "test",
  train: "train",
  training: "train",
};
/** Folder names that do not say what the data are. */
const plainFolders = new Set(["data", "dataset", "datasets", ".", ""]);

interface DataFile {
  readonly path: string;
  readonly name: string;
  readonly part: Part | undefined;
}

/** Looks for data sets in a folder and the folders below it: `math.search.jsonl`, `test/math.csv`, `digits.npz`. */
export function findDataSets(root: string): FoundDataSet[] {
  const files = walkFolder(resolve(root)).flatMap(({ path, files: names }) =>
    names
      .filter((name) => endings.has(extname(name).toLowerCase()))
      .map((name) => join(path, name)),
  );
  return groupFiles(files);
}

/** Data sets of files and folders that the user names. @throws MendelError `not-found` */
export function dataSetsAt(paths: readonly string[]): FoundDataSet[] {
  const files = paths.flatMap((given) => {
    const path = resolve(given);
    if (!existsSync(path)) {
      throw new MendelError("not-found", `there is no data at ${path}`, { where: { file: path } });
    }
    if (!statSync(path).isDirectory()) return [path];
    return walkFolder(path).flatMap((listing) =>
      listing.files
        .filter((name) => endings.has(extname(name).toLowerCase()))
        .map((name) => join(listing.path, name)),
    );
  });
  return groupFiles([...new Set(files)]);
}

function groupFiles(paths: readonly string[]): FoundDataSet[] {
  const groups = new Map<string, DataFile[]>();
  for (const path of paths) {
    const file = readName(path);
    const inPartFolder = partWords[basename(dirname(path)).toLowerCase()] !== undefined;
    const home = inPartFolder ? dirname(dirname(path)) : dirname(path);
    const key = `${home}\n${file.name}\n${extname(path).toLowerCase()}`;
    groups.set(key, [...(groups.get(key) ?? []), file]);
  }
  return [...groups.values()].flatMap(toDataSets).sort((a, b) => naturalOrder(a.name, b.name));
}

/** Takes the word for a split out of a file's name, or out of its folder's. */
function readName(path: string): DataFile {
  const stem = basename(path).slice(0, -extname(path).length);
  const words = stem.split(/[-_.]/);
  const at = words.length > 1 ? [words.length - 1, 0] : [0];
  const split = at.find((i) => partWords[(words[i] ?? "").toLowerCase()] !== undefined);
  const folder = basename(dirname(resolve(path)));
  if (split !== undefined) {
    const word = words[split] as string;
    const rest = split === 0 ? stem.slice(word.length + 1) : stem.slice(0, -(word.length + 1));
    const name = rest === "" ? (plainFolders.has(folder.toLowerCase()) ? "task" : folder) : rest;
    return { path, name: dataName(name), part: partWords[word.toLowerCase()] };
  }
  const part = partWords[folder.toLowerCase()];
  return { path, name: dataName(stem), part };
}

/** Constraints write `name.metric`: a dot within the name would be hard to read. */
function dataName(text: string): string {
  return shortName(text).replaceAll(".", "-");
}

function toDataSets(files: readonly DataFile[]): FoundDataSet[] {
  const whole = files.filter(({ part }) => part === undefined);
  const byPart = new Map(files.flatMap((file) => (file.part ? [[file.part, file] as const] : [])));
  const sets = whole.map(
    ({ name, path }): FoundDataSet => ({ name, data: { kind: "single", file: path }, notes: [] }),
  );
  const [first] = byPart.values();
  if (first === undefined) return sets;
  const { name } = first;
  const [validation, test] = [byPart.get("validation"), byPart.get("test")];
  const search = byPart.get("search") ?? byPart.get("train");
  if (search !== undefined && validation !== undefined && test !== undefined) {
    const data = {
      kind: "files" as const,
      files: { search: search.path, validation: validation.path, test: test.path },
    };
    const notes =
      search.part === "train"
        ? [
            `${search.path} serves as the search split; if the models were trained on it, the search is misled: use other data`,
          ]
        : [];
    return [...sets, { name, data, notes }];
  }
  const largest = [...byPart.values()].sort(
    (a, b) => statSync(b.path).size - statSync(a.path).size,
  );
  const file = (largest[0] as DataFile).path;
  const found = [...byPart.keys()].join(" and ");
  const note = `of ${name} there is only ${found}; ${file} is cut into the three splits`;
  return [...sets, { name, data: { kind: "single", file }, notes: [note] }];
}
