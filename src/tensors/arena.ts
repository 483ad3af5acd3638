import { MendelError } from "../base/errors.ts";

const alignment = 16;

/** A bump allocator over one memory that never grows: blocks are freed together, back to a mark. */
export interface Arena {
  /** Byte offset of a fresh 16-byte-aligned block. @throws MendelError `resource` when the memory is used up. */
  allocate(bytes: number): number;
  mark(): number;
  release(mark: number): void;
}

/**
 * @param start first byte that may be handed out
 * @param end size of the memory in bytes
 */
export function createArena(start: number, end: number): Arena {
  const align = (offset: number): number => Math.ceil(offset / alignment) * alignment;
  let top = align(start);
  return {
    allocate(bytes) {
      const offset = top;
      const next = align(offset + bytes);
      if (!Number.isSafeInteger(bytes) || bytes < 0 || next > end) {
        throw new MendelError(
          "resource",
          `kernel memory is used up: ${bytes} bytes asked for, ${end - top} of ${end} left`,
          { hint: "give the kernels more memory, or merge fewer models at once" },
        );
      }
      top = next;
      return offset;
    },
    mark: () => top,
    release(mark) {
      if (mark < start || mark > top) throw new Error(`no such mark: ${mark}`);
      top = mark;
    },
  };
}
