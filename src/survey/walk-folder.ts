import { readdirSync, realpathSync, statSync } from "node:fs";
import { join } from "node:path";
import { MendelError } from "../base/errors.ts";
import { naturalOrder } from "../base/natural-order.ts";

/** A folder and what is directly in it, names only. */
export interface FolderListing {
  readonly path: string;
  readonly files: readonly string[];
  /** Its folders that are looked into, too. */
  readonly folders: readonly string[];
}

/** Model families lie a few folders deep; deeper ones are caches and archives. */
const MAX_DEPTH = 6;
/** A folder with more entries is no folder of models and data. */
const MAX_ENTRIES = 20_000;

/** What other programs, and earlier runs, leave behind. */
const skipped = new Set([
  ...["node_modules", "__pycache__", "venv", "dist", "build", "coverage"],
  ...["runs", "evaluators", "search-spaces"],
]);

/**
 * The folder and all folders below it, outermost first and in natural order. Hidden folders, those of tools and those that
 * Mendel itself writes are left out; links are followed, once.
 *
 * @throws MendelError `usage` for a folder with far more in it than models and data
 */
export function walkFolder(root: string): FolderListing[] {
  const seen = new Set<string>();
  const listings: FolderListing[] = [];
  let entries = 0;
  const visit = (path: string, depth: number): void => {
    const real = realpathSync(path);
    if (seen.has(real) || depth > MAX_DEPTH) return;
    seen.add(real);
    const names = readdirSync(path).sort(naturalOrder);
    entries += names.length;
    if (entries > MAX_ENTRIES) throw tooMany(root);
    const visible = names.filter((name) => !name.startsWith("."));
    const kindOf = (name: string): "file" | "folder" | undefined => {
      const stats = statSync(join(path, name), { throwIfNoEntry: false });
      return stats?.isDirectory() ? "folder" : stats?.isFile() ? "file" : undefined;
    };
    const folders = visible.filter((name) => !skipped.has(name) && kindOf(name) === "folder");
    listings.push({ path, files: visible.filter((name) => kindOf(name) === "file"), folders });
    for (const name of folders) visit(join(path, name), depth + 1);
  };
  visit(root, 0);
  return listings;
}

function tooMany(root: string): MendelError {
  return new MendelError("usage", `${root} holds more than ${MAX_ENTRIES} files and folders`, {
    hint: "give a folder of models and data only, or name them: --model NAME=PATH --data FILE",
    where: { file: root },
  });
}
