/**
 * What a user may be told went wrong. Each code belongs to one exit status (`exitStatusOf`), so scripts can tell
 * a typing mistake from a broken model from a full disk.
 */
export type ErrorCode =
  | "usage" // a verb, flag or argument that does not exist or does not parse
  | "invalid-config" // an experiment, space, evaluator or recipe that fails its schema
  | "invalid-file" // a model or data file that is damaged, hostile or not what it says
  | "not-found" // a file that does not exist
  | "mismatch" // models, tensors, graph or data that do not fit together
  | "non-finite" // NaN or infinity in weights
  | "unsupported" // legal input that this version cannot handle
  | "resource" // memory, disk, file handles
  | "too-many-failures" // the search was stopped because evaluations kept failing
  | "no-such-run" // a run or trial that is not in the database
  | "database" // damaged, newer, foreign or locked database
  | "interrupted" // stopped by the user, state saved
  | "internal"; // a bug of ours

/** Where the problem is: any of file, 1-based line, tensor, key path. */
export interface ErrorPlace {
  readonly file?: string;
  readonly line?: number;
  readonly tensor?: string;
  readonly key?: string;
}

export interface ErrorDetails {
  /** What to do next, as one sentence. */
  readonly hint?: string;
  readonly where?: ErrorPlace;
  readonly cause?: unknown;
}

/**
 * An error whose message is meant for the user: what was expected, what arrived, where.
 * Anything else that reaches the command line is a bug and is reported as `internal`.
 */
export class MendelError extends Error {
  override readonly name = "MendelError";
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly where: ErrorPlace | undefined;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.hint = details.hint;
    this.where = details.where;
  }
}

const exitStatus: Record<ErrorCode, number> = {
  usage: 2,
  "invalid-config": 3,
  "invalid-file": 3,
  "not-found": 3,
  mismatch: 3,
  "non-finite": 3,
  unsupported: 3,
  resource: 4,
  "too-many-failures": 5,
  "no-such-run": 6,
  database: 7,
  interrupted: 130,
  internal: 1,
};

/** The process exit status of an error code. */
export function exitStatusOf(code: ErrorCode): number {
  return exitStatus[code];
}

/** The message of anything that was thrown. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
