import { closeSync, fstatSync, openSync, readSync, type Stats, statSync } from "node:fs";
import { MendelError } from "../base/errors.ts";

/** The longest single read that Node and the kernel carry out as asked. */
const MAX_READ = 1 << 30;

/**
 * A file opened once for positional reads. What was checked is what is read later: the descriptor stays on the same file
 * when another takes its name, and a change in place is noticed.
 */
export class RandomAccessFile {
  readonly path: string;
  readonly size: number;
  readonly #descriptor: number;
  readonly #modified: bigint;
  #open = true;

  /**
   * @throws MendelError `not-found`; `invalid-file` for anything that is not a regular file (a pipe would block for ever);
   *   `resource` when no more files can be opened
   */
  constructor(path: string) {
    this.path = path;
    statRegular(path);
    this.#descriptor = openForReading(path);
    const stats = fstatSync(this.#descriptor, { bigint: true });
    this.size = Number(stats.size);
    this.#modified = stats.mtimeNs;
  }

  /**
   * Fills `target` from byte `offset` on.
   *
   * @throws MendelError `invalid-file` when the file ends before or was changed since it was opened
   */
  read(offset: number, target: Uint8Array): void {
    if (!this.#open) throw new Error(`read after close: ${this.path}`);
    const stats = fstatSync(this.#descriptor, { bigint: true });
    if (stats.mtimeNs !== this.#modified || Number(stats.size) !== this.size) throw this.#changed();
    let done = 0;
    while (done < target.length) {
      const length = Math.min(MAX_READ, target.length - done);
      const got = readSync(this.#descriptor, target, done, length, offset + done);
      if (got === 0) throw this.#changed();
      done += got;
    }
  }

  /** Closes the descriptor. Safe to call twice. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeSync(this.#descriptor);
  }

  #changed(): MendelError {
    return new MendelError("invalid-file", `${this.path} changed while it was in use`, {
      where: { file: this.path },
      hint: "leave model files alone during a run; start again with the file as it is now",
    });
  }
}

/** Runs `use` on a file and closes it whatever happens. */
export function withFile<T>(path: string, use: (file: RandomAccessFile) => T): T {
  const file = new RandomAccessFile(path);
  try {
    return use(file);
  } finally {
    file.close();
  }
}

function statRegular(path: string): void {
  let stats: Stats;
  try {
    stats = statSync(path);
  } catch (cause) {
    throw openError(path, cause);
  }
  if (!stats.isFile()) {
    throw new MendelError("invalid-file", `${path} is not a regular file`, {
      where: { file: path },
    });
  }
}

function openForReading(path: string): number {
  try {
    return openSync(path, "r");
  } catch (cause) {
    throw openError(path, cause);
  }
}

function openError(path: string, cause: unknown): MendelError {
  const reason = cause instanceof Error && "code" in cause ? cause.code : undefined;
  const where = { file: path };
  if (reason === "EMFILE" || reason === "ENFILE") {
    const hint = "raise the limit on open files (ulimit -n)";
    return new MendelError("resource", `no more files can be opened: ${path}`, {
      cause,
      where,
      hint,
    });
  }
  if (reason === "EACCES" || reason === "EPERM") {
    return new MendelError("invalid-file", `no permission to read ${path}`, { cause, where });
  }
  return new MendelError("not-found", `there is no file ${path}`, { cause, where });
}
