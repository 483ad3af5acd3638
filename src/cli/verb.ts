import type { Command } from "commander";
import type { Output } from "./output.ts";

/** Options every verb has. */
export interface CommonOptions {
  /** Run database. */
  readonly db: string;
}

export interface VerbContext {
  readonly output: Output;
  readonly db: string;
  readonly args: readonly string[];
  /** Parsed options by commander's camel-case names. */
  readonly options: Readonly<Record<string, unknown>>;
}

/** One verb of the command line: parse, call the library, print. */
export interface Verb {
  /** Two working examples, without the leading "mendel". */
  readonly examples: readonly [string, string, ...string[]];
  /** Declares arguments and options. */
  configure(command: Command): void;
  /** @returns the exit status; undefined means 0 */
  run(context: VerbContext): Promise<number | undefined>;
}

/** An entry of the verb registry: what help needs, and how to load the rest. */
export interface VerbEntry {
  readonly summary: string;
  readonly load: () => Promise<Verb>;
}
