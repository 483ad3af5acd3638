import {
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { threadId } from "node:worker_threads";
import { MendelError, messageOf } from "../base/errors.ts";

/**
 * Bytes of all stacks that are kept for later runs: the models of a usual search take one or two gigabytes. Those in use do
 * not go away, whatever they take.
 */
const DEFAULT_CEILING_BYTES = 8 * 2 ** 30;

/** A file that must be there in full: a mapped file that ends early kills the process that reads it. */
export interface ExpectedFile {
  readonly name: string;
  readonly bytes: number;
}

export interface CachedFolderOptions {
  /** Names the contents; equal digests, equal contents. */
  readonly digest: string;
  readonly files: readonly ExpectedFile[];
  /** Fills a fresh folder. */
  make(folder: string): void;
  /** Default: `MENDEL_CACHE`, else `mendel` in the user's cache folder. */
  readonly root?: string;
  readonly ceilingBytes?: number;
}

/** Where folders of stacks are kept. */
export function cacheRoot(): string {
  const { MENDEL_CACHE, XDG_CACHE_HOME } = process.env;
  if (MENDEL_CACHE !== undefined && MENDEL_CACHE !== "") return MENDEL_CACHE;
  const home =
    XDG_CACHE_HOME === undefined || XDG_CACHE_HOME === ""
      ? join(homedir(), ".cache")
      : XDG_CACHE_HOME;
  return join(home, "mendel");
}

/**
 * A folder of derived files by the digest of what they are derived from: made when it is not there, in a folder of its own
 * that is renamed when it is complete, so that nobody ever sees half of one. Folders that were not used for the longest time
 * go first when all of them exceed the ceiling; those of a living process stay.
 *
 * @throws MendelError `resource` when the folder cannot be written
 */
export function openCachedFolder(options: CachedFolderOptions): string {
  const root = join(options.root ?? cacheRoot(), "stacks");
  const folder = join(root, options.digest);
  try {
    mkdirSync(root, { recursive: true, mode: 0o700 });
    if (!isComplete(folder, options.files)) {
      makeRoom(root, options);
      makeFolder(folder, options);
    }
    const now = Date.now() / 1000;
    utimesSync(folder, now, now);
    writeFileSync(join(folder, markerOf(process.pid)), "");
  } catch (thrown) {
    if (thrown instanceof MendelError) throw thrown;
    throw new MendelError(
      "resource",
      `cannot keep the models' weights in ${root}: ${messageOf(thrown)}`,
      {
        cause: thrown,
        hint: "free some space there, or name another folder with the environment variable MENDEL_CACHE",
        where: { file: root },
      },
    );
  }
  return folder;
}

const markerPrefix = "used-by-";

function markerOf(pid: number): string {
  return `${markerPrefix}${pid}`;
}

function isComplete(folder: string, files: readonly ExpectedFile[]): boolean {
  return files.every(({ name, bytes }) => {
    const path = join(folder, name);
    return existsSync(path) && statSync(path).size === bytes;
  });
}

function makeFolder(folder: string, { make, files }: CachedFolderOptions): void {
  const fresh = `${folder}.${process.pid}.${threadId}`;
  rmSync(fresh, { recursive: true, force: true });
  mkdirSync(fresh, { mode: 0o700 });
  try {
    make(fresh);
    if (!isComplete(fresh, files)) throw new Error(`${fresh} was not filled`);
    // A damaged folder may still be mapped: whoever does keeps the files.
    if (existsSync(folder) && !isComplete(folder, files)) rmSync(folder, { recursive: true });
    renameSync(fresh, folder);
  } catch (thrown) {
    rmSync(fresh, { recursive: true, force: true });
    // Another worker or process was faster; what it made is the same.
    if (!isComplete(folder, files)) throw thrown;
  }
}

/** Removes the leftovers of dead processes, and the least recently used folders above the ceiling. */
function makeRoom(root: string, { files, ceilingBytes }: CachedFolderOptions): void {
  const coming = files.reduce((sum, { bytes }) => sum + bytes, 0);
  let total = coming;
  const folders = readdirSync(root).flatMap((name) => {
    const path = join(root, name);
    const [, pid] = name.split(".");
    if (pid !== undefined) {
      if (!isAlive(Number(pid))) rmSync(path, { recursive: true, force: true });
      return [];
    }
    const bytes = folderBytes(path);
    total += bytes;
    return [{ path, bytes, used: statSync(path).mtimeMs }];
  });
  folders.sort((a, b) => a.used - b.used);
  for (const { path, bytes } of folders) {
    if (total <= (ceilingBytes ?? DEFAULT_CEILING_BYTES)) break;
    if (inUse(path)) continue;
    rmSync(path, { recursive: true, force: true });
    total -= bytes;
  }
}

function folderBytes(folder: string): number {
  return readdirSync(folder).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
}

function inUse(folder: string): boolean {
  return readdirSync(folder).some(
    (name) => name.startsWith(markerPrefix) && isAlive(Number(name.slice(markerPrefix.length))),
  );
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (thrown) {
    // Somebody else's process.
    return (thrown as NodeJS.ErrnoException).code === "EPERM";
  }
}
