import { type ErrorCode, type ErrorPlace, MendelError, messageOf } from "../base/errors.ts";
import type { EvaluationRequest, EvaluationResult, ProgramChoice } from "./executor.ts";
import type { EvaluationPlan } from "./plan.ts";

/**
 * What the main process and an evaluation host say to each other, and the host to its workers. Recipes and numbers only:
 * weights and data stay where they are opened.
 */

/** An error as data: classes do not survive the way between processes and threads. */
export interface WireError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint: string | undefined;
  readonly where: ErrorPlace | undefined;
}

/** Main process → host. */
export type HostRequest =
  | {
      readonly type: "start";
      readonly plan: EvaluationPlan;
      readonly workers: number;
      /** Absent: the host probes and is told. */
      readonly program: ProgramChoice | undefined;
    }
  | { readonly type: "program"; readonly program: ProgramChoice }
  | { readonly type: "evaluate"; readonly ticket: number; readonly request: EvaluationRequest }
  | { readonly type: "cancel"; readonly ticket: number };

/** Host → main process. */
export type HostReply =
  | { readonly type: "probed"; readonly probe: ProgramChoice["probe"] }
  | { readonly type: "ready" }
  | { readonly type: "refused"; readonly error: WireError }
  | { readonly type: "result"; readonly ticket: number; readonly result: EvaluationResult }
  | { readonly type: "memory"; readonly rssBytes: number };

/** Host → worker thread. */
export interface WorkerTask {
  readonly request: EvaluationRequest;
  readonly program: ProgramChoice;
  /** Index into the shared cancel flags. */
  readonly slot: number;
}

/** Worker thread → host: errors that are not results, as data. */
export type WorkerReply<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly error: WireError };

export function toWire(thrown: unknown): WireError {
  return thrown instanceof MendelError
    ? { code: thrown.code, message: thrown.message, hint: thrown.hint, where: thrown.where }
    : {
        code: "internal",
        message: thrown instanceof Error ? (thrown.stack ?? thrown.message) : messageOf(thrown),
        hint: undefined,
        where: undefined,
      };
}

export function fromWire({ code, message, hint, where }: WireError): MendelError {
  return new MendelError(code, message, {
    ...(hint === undefined ? {} : { hint }),
    ...(where === undefined ? {} : { where }),
  });
}
