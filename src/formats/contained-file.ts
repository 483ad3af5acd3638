import { lstatSync, realpathSync } from "node:fs";
import { basename, dirname, join, relative, resolve, sep } from "node:path";
import { MendelError } from "../base/errors.ts";

/**
 * Why a text is not the plain name of a file in a folder, under POSIX and Windows rules alike; undefined when it is.
 * Names come from files that others wrote: an index, an adapter, an archive.
 */
export function fileNameProblem(name: string): string | undefined {
  if (name === "") return "it is empty";
  if (name.length > 255) return "it is longer than 255 characters";
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be there
  if (/[\u0000-\u001f\u007f]/.test(name)) return "it holds a control character";
  if (/^[\\/]|^[a-z]:/i.test(name)) return "it is an absolute path";
  if (/(^|[\\/])\.\.?([\\/]|$)/.test(name)) return "it leaves the folder";
  if (/[\\/]/.test(name)) return "it is a path, not a name";
  return undefined;
}

/** Whether a folder has an entry of that name, of any kind. */
export function hasEntry(folder: string, name: string): boolean {
  return lstatSync(join(folder, name), { throwIfNoEntry: false }) !== undefined;
}

/**
 * The absolute path of a file in a model's folder. Symbolic links may point to files in the same folder, or, in a Hugging
 * Face cache, from `snapshots/<revision>/` into `blobs/`.
 *
 * @param from the file that named it, for messages
 * @throws MendelError `invalid-file` for a name that is a path or a link that leaves the folder; `not-found`
 */
export function containedFile(folder: string, name: string, from: string): string {
  const problem = fileNameProblem(name);
  if (problem !== undefined) {
    const message = `${from} names a file ${JSON.stringify(name.slice(0, 120))}, but ${problem}`;
    throw new MendelError("invalid-file", message, {
      where: { file: from },
      hint: "a model's files lie in the model's own folder",
    });
  }
  const path = join(resolve(folder), name);
  let real: string;
  try {
    real = realpathSync(path);
  } catch (cause) {
    throw new MendelError("not-found", `${from} needs ${path}, which does not exist`, {
      cause,
      where: { file: path },
    });
  }
  const home = realpathSync(folder);
  const allowed = isInside(home, real) || isInside(blobsOf(home), real);
  if (!allowed) {
    throw new MendelError("invalid-file", `${path} is a link that leaves the model's folder`, {
      where: { file: path },
      hint: "put the file itself there instead of the link",
    });
  }
  return path;
}

/** `models--x/blobs` for `models--x/snapshots/<revision>`; otherwise the folder itself. */
function blobsOf(home: string): string {
  const parent = dirname(home);
  return basename(parent) === "snapshots" ? join(dirname(parent), "blobs") : home;
}

function isInside(folder: string, path: string): boolean {
  const way = relative(folder, path);
  return way !== "" && way !== ".." && !way.startsWith(`..${sep}`) && resolve(way) !== way;
}
