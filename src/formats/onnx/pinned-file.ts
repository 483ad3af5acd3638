import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { MendelError } from "../../base/errors.ts";
import type { ByteSource } from "./wire.ts";

/**
 * An open file that must stay as it was: every read checks that size and modification time are those of the moment of
 * opening, so that a file truncated or overwritten underneath is an error and never different weights.
 */
export class PinnedFile implements ByteSource {
  readonly path: string;
  readonly size: number;
  readonly device: bigint;
  readonly inode: bigint;
  readonly links: bigint;
  readonly #modified: bigint;
  #descriptor: number | undefined;

  /**
   * @param follow whether a symbolic link at the end of the path is followed
   * @throws MendelError `not-found`, `invalid-file` (not a regular file) or `resource` (no handles left)
   */
  constructor(path: string, follow: boolean) {
    this.path = path;
    const flags = constants.O_RDONLY | constants.O_NONBLOCK | (follow ? 0 : constants.O_NOFOLLOW);
    try {
      this.#descriptor = openSync(path, flags);
    } catch (cause) {
      throw openError(path, cause);
    }
    const stat = fstatSync(this.#descriptor, { bigint: true });
    if (!stat.isFile()) {
      this.close();
      throw new MendelError("invalid-file", `${path}: not a regular file`, {
        where: { file: path },
      });
    }
    this.size = Number(stat.size);
    this.device = stat.dev;
    this.inode = stat.ino;
    this.links = stat.nlink;
    this.#modified = stat.mtimeNs;
  }

  read(position: number, target: Uint8Array): void {
    const descriptor = this.#descriptor;
    if (descriptor === undefined) throw new Error(`${this.path}: read after close`);
    let done = 0;
    while (done < target.length) {
      // One system call moves at most 2 GiB.
      const ask = Math.min(target.length - done, 1 << 30);
      const got = readSync(descriptor, target, done, ask, position + done);
      if (got === 0) break;
      done += got;
    }
    const stat = fstatSync(descriptor, { bigint: true });
    const same = Number(stat.size) === this.size && stat.mtimeNs === this.#modified;
    if (!same || done < target.length) {
      throw new MendelError(
        "invalid-file",
        same
          ? `${this.path}: ended at byte ${position + done}, ${target.length - done} bytes early`
          : `${this.path}: changed while it was being read`,
        { where: { file: this.path }, hint: "Keep model files unchanged while they are in use." },
      );
    }
  }

  close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }
}

function openError(path: string, cause: unknown): MendelError {
  const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
  const where = { file: path };
  if (code === "ENOENT" || code === "ENOTDIR") {
    return new MendelError("not-found", `${path}: no such file`, { where, cause });
  }
  if (code === "ELOOP") {
    return new MendelError("invalid-file", `${path}: is a symbolic link`, { where, cause });
  }
  if (code === "EMFILE" || code === "ENFILE") {
    return new MendelError("resource", `${path}: too many open files`, { where, cause });
  }
  return new MendelError("invalid-file", `${path}: cannot be opened (${code ?? "unknown"})`, {
    where,
    cause,
  });
}
