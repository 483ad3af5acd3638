import { cpSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { onTestFinished } from "vitest";

const examples = join(import.meta.dirname, "..", "..", "examples");

/** An empty folder, removed when the test is over. */
export function emptyFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "mendel-folder-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/**
 * A folder with copies of files and folders of the shipped examples.
 *
 * @param contents place in the new folder → place in `examples/`
 */
export function folderWith(contents: Readonly<Record<string, string>>): string {
  const folder = emptyFolder();
  for (const [target, source] of Object.entries(contents)) {
    const path = join(folder, target);
    mkdirSync(dirname(path), { recursive: true });
    cpSync(join(examples, source), path, { recursive: true });
  }
  return folder;
}

/** The digit family as it is shipped: a folder for each model, three files of data for each task. */
export function digitFamily(): string {
  return folderWith({ models: "digits/models", data: "digits/data" });
}

/** The language models as they are shipped: Hugging Face folders, texts by domain. */
export function languageModels(): string {
  return folderWith({ ".": "tinylm/models", data: "tinylm/data" });
}
