import pc from "picocolors";
import { type ErrorCode, exitStatusOf, MendelError, messageOf } from "../base/errors.ts";

/** How a verb talks: results on stdout, everything else on stderr. */
export interface Output {
  readonly json: boolean;
  readonly quiet: boolean;
  readonly verbose: boolean;
  readonly color: ReturnType<typeof pc.createColors>;
  /** Whether a person watches stderr. */
  readonly interactive: boolean;
  /** A result for people; nothing under --json. */
  print(text: string): void;
  /** The result for scripts, with its schema name; nothing without --json. */
  emit(verb: string, result: object): void;
  /** A remark on stderr; silent under --quiet. */
  note(text: string): void;
  /** A warning on stderr, also under --quiet. */
  warn(text: string): void;
}

export interface OutputOptions {
  readonly json?: boolean;
  readonly quiet?: boolean;
  readonly verbose?: boolean;
  readonly color?: boolean;
}

/** Control characters from file contents must not drive the user's terminal. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is replaced here
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, "?");
}

/** NaN and infinities have no JSON spelling: they become null with a `kind`. */
export function jsonSafe(value: unknown): unknown {
  if (typeof value === "number" && !Number.isFinite(value)) {
    return { value: null, kind: Number.isNaN(value) ? "nan" : value > 0 ? "pinf" : "ninf" };
  }
  if (Array.isArray(value)) return value.map(jsonSafe);
  if (value instanceof Map) return jsonSafe(Object.fromEntries(value));
  if (value !== null && typeof value === "object") {
    return Object.fromEntries(
      Object.entries(value).map(([key, member]) => [key, jsonSafe(member)]),
    );
  }
  return value;
}

export function createOutput(options: OutputOptions): Output {
  const color =
    options.color !== false && !process.env["NO_COLOR"] && process.stdout.isTTY === true;
  const json = options.json === true;
  const quiet = options.quiet === true;
  return {
    json,
    quiet,
    verbose: options.verbose === true,
    color: pc.createColors(color),
    interactive: process.stderr.isTTY === true,
    print: (text) => {
      if (!json) process.stdout.write(`${text}\n`);
    },
    emit: (verb, result) => {
      if (!json) return;
      const object = { schema: `mendel.${verb}/1`, ...(jsonSafe(result) as object) };
      process.stdout.write(`${JSON.stringify(object, null, 2)}\n`);
    },
    note: (text) => {
      if (!quiet) process.stderr.write(`${text}\n`);
    },
    warn: (text) => {
      process.stderr.write(`${text}\n`);
    },
  };
}

/** The line of an error's place, as "file:line, tensor …". */
function placeOf(error: MendelError): string | undefined {
  const { file, line, tensor, key } = error.where ?? {};
  const parts = [
    file === undefined ? undefined : line === undefined ? file : `${file}:${line}`,
    key === undefined ? undefined : `key ${key}`,
    tensor === undefined ? undefined : `tensor ${tensor}`,
  ].filter((part) => part !== undefined);
  return parts.length === 0 ? undefined : parts.join(", ");
}

/** What the operating system refuses and a user can mend. */
const systemErrors: Readonly<Record<string, string>> = {
  EACCES: "choose a place that you may write to",
  EPERM: "choose a place that you may write to",
  EROFS: "choose a place that can be written to",
  ENOSPC: "free some space and try again",
  EDQUOT: "free some space and try again",
  EMFILE: "raise the limit of open files (ulimit -n) or use fewer --workers",
  ENOTDIR: "a part of the path is a file; choose another place",
};

/** A refusal of the operating system as a user's error; undefined for anything else. */
function fromSystem(thrown: unknown): MendelError | undefined {
  if (thrown instanceof MendelError || !(thrown instanceof Error)) return undefined;
  const hint = systemErrors[(thrown as NodeJS.ErrnoException).code ?? ""];
  if (hint === undefined) return undefined;
  return new MendelError("resource", thrown.message, { hint, cause: thrown });
}

/**
 * Reports what went wrong, in the form the caller asked for, and says which status to exit with. A user's mistake is
 * told in sentences; a stack is shown only for our own bugs and under --verbose.
 */
export function reportError(raw: unknown, options: OutputOptions): number {
  const thrown = fromSystem(raw) ?? raw;
  const known = thrown instanceof MendelError;
  const code: ErrorCode = known ? thrown.code : "internal";
  const message = messageOf(thrown);
  if (options.json === true) {
    const where = known ? thrown.where : undefined;
    const hint = known ? thrown.hint : undefined;
    const body = { schema: "mendel.error/1", code, message, hint, where };
    process.stdout.write(`${JSON.stringify(body, null, 2)}\n`);
    return exitStatusOf(code);
  }
  const lines = [`error: ${printable(message)}`];
  const place = known ? placeOf(thrown) : undefined;
  if (place !== undefined) lines.push(`  where: ${printable(place)}`);
  if (known && thrown.hint !== undefined) lines.push(`  hint: ${printable(thrown.hint)}`);
  if (!known)
    lines.push("  This is a bug in mendel; please report it with the output of --verbose.");
  if (options.verbose === true || process.env["MENDEL_DEBUG"] === "1") {
    for (let cause = thrown; cause instanceof Error; cause = cause.cause) {
      lines.push(cause.stack ?? cause.message);
    }
  }
  process.stderr.write(`${lines.join("\n")}\n`);
  return exitStatusOf(code);
}
