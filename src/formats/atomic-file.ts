import {
  closeSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  renameSync,
  rmSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { MendelError } from "../base/errors.ts";

/**
 * A file that appears under its name complete or not at all: it is written beside its place, brought to the disk, and
 * renamed. A process that has the old file open keeps the old content.
 */
export class AtomicFile {
  readonly path: string;
  readonly #temporary: string;
  readonly #descriptor: number;
  #open = true;
  #named = false;

  /**
   * @param size reserved length in bytes
   * @throws MendelError `not-found` when the folder does not exist; `resource` when the disk is full or not writable
   */
  constructor(path: string, size = 0) {
    this.path = path;
    this.#temporary = join(dirname(path), `.${basename(path)}.partial-${process.pid}`);
    this.#descriptor = attempt(path, () => openSync(this.#temporary, "w"));
    if (size > 0) attempt(path, () => ftruncateSync(this.#descriptor, size));
  }

  /** Writes all of `bytes` at byte `offset`. */
  write(offset: number, bytes: Uint8Array): void {
    if (!this.#open) throw new Error(`write after close: ${this.path}`);
    let done = 0;
    while (done < bytes.length) {
      done += attempt(this.path, () =>
        writeSync(this.#descriptor, bytes, done, bytes.length - done, offset + done),
      );
    }
  }

  /** Makes the file durable and gives it its name. */
  commit(): void {
    attempt(this.path, () => fsyncSync(this.#descriptor));
    this.#close();
    attempt(this.path, () => renameSync(this.#temporary, this.path));
    this.#named = true;
    syncFolder(dirname(this.path));
  }

  /** Removes what was written; the old file, if any, stays. Does nothing after `commit`. Safe to call twice. */
  discard(): void {
    if (this.#named) return;
    this.#close();
    rmSync(this.#temporary, { force: true });
  }

  #close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeSync(this.#descriptor);
  }
}

/** Writes a whole small file atomically. */
export function writeFileAtomically(path: string, content: string | Uint8Array): void {
  const file = new AtomicFile(path);
  try {
    file.write(0, typeof content === "string" ? Buffer.from(content) : content);
    file.commit();
  } finally {
    file.discard();
  }
}

/** A rename survives a power cut only when the folder that holds the name is on the disk too. */
function syncFolder(folder: string): void {
  const descriptor = openSync(folder, "r");
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

function attempt<T>(path: string, action: () => T): T {
  try {
    return action();
  } catch (cause) {
    const reason = cause instanceof Error && "code" in cause ? cause.code : undefined;
    const where = { file: path };
    if (reason === "ENOENT") {
      throw new MendelError("not-found", `the folder of ${path} does not exist`, { cause, where });
    }
    const problem = cause instanceof Error ? cause.message : String(cause);
    throw new MendelError("resource", `cannot write ${path}: ${problem}`, { cause, where });
  }
}
