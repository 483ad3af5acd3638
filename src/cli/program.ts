import { Command, CommanderError } from "commander";
import { MendelError } from "../base/errors.ts";
import { packageVersion } from "../base/package.ts";
import { suggestion } from "../base/suggest.ts";
import { verbs } from "./commands/index.ts";
import { createOutput, type OutputOptions, reportError } from "./output.ts";
import type { Verb, VerbEntry } from "./verb.ts";

const DEFAULT_DB = "runs/mendel.sqlite";

/** Declares what every verb understands. */
function addCommonOptions(command: Command): Command {
  return command
    .option("--db <file>", "run database", process.env["MENDEL_DB"] ?? DEFAULT_DB)
    .option("--json", "print one JSON object on stdout")
    .option("-q, --quiet", "print results only")
    .option("-v, --verbose", "say more, with causes of errors")
    .option("--no-color", "plain text (also NO_COLOR)");
}

/** Loads one verb and gives its command arguments, options, examples and action. */
async function attach(command: Command, entry: VerbEntry, done: (status: number) => void) {
  const verb: Verb = await entry.load();
  verb.configure(command);
  addCommonOptions(command);
  const examples = verb.examples.map((example) => `  $ mendel ${example}`).join("\n");
  command.addHelpText("after", `\nExamples:\n${examples}`);
  command.action(async () => {
    const options = command.opts<Record<string, unknown> & OutputOptions & { db: string }>();
    const args = command.processedArgs.flat().filter((arg) => arg !== undefined) as string[];
    const output = createOutput(options);
    done((await verb.run({ output, db: options.db, args, options })) ?? 0);
  });
}

/** Commander reports to stderr by itself; here its complaints become our errors. */
function usageError(error: CommanderError, verb: string | undefined): MendelError {
  const message = error.message.replace(/^error: /, "").replace(/\n\(Did you mean .*$/s, "");
  const near = /\(Did you mean (.+)\?\)/.exec(error.message)?.[1];
  const help = `see mendel ${verb === undefined ? "" : `${verb} `}--help`;
  return new MendelError("usage", message, {
    hint: near === undefined ? help : `did you mean ${near}? ${help}`,
  });
}

const commonFlags: readonly string[] = ["--json", "-q", "--quiet", "-v", "--verbose", "--no-color"];

/** Options that every verb has may also be written in front of it; they are moved behind. */
function verbFirst(argv: readonly string[]): readonly string[] {
  let at = 0;
  for (let arg = argv[at]; arg !== undefined; arg = argv[at]) {
    if (arg === "--db") at += 2;
    else if (arg.startsWith("--db=") || commonFlags.includes(arg)) at += 1;
    else break;
  }
  const verb = argv[at];
  if (at === 0 || verb === undefined || verb.startsWith("-")) return argv;
  return [verb, ...argv.slice(0, at), ...argv.slice(at + 1)];
}

/** @throws MendelError `usage` for a word that is no verb, with the one that may have been meant */
function checkVerb(word: string): void {
  if (Object.hasOwn(verbs, word)) return;
  throw new MendelError("usage", `unknown verb "${word}"`, {
    hint: suggestion(word, Object.keys(verbs)),
  });
}

/**
 * Runs the command line.
 *
 * @param args arguments after the program's name
 * @returns the exit status
 */
export async function main(args: readonly string[]): Promise<number> {
  let status = 0;
  const argv = verbFirst(args);
  const word = argv.find((arg) => !arg.startsWith("-"));
  const flags: OutputOptions = {
    json: argv.includes("--json"),
    verbose: argv.includes("-v") || argv.includes("--verbose"),
  };
  const program = new Command("mendel")
    .description("Searches for the recipe that merges several fine-tuned models into a better one.")
    .version(packageVersion(), "-V, --version")
    .helpCommand("help [verb]", "display help for a verb");
  try {
    for (const [name, entry] of Object.entries(verbs) as [string, VerbEntry][]) {
      const command = program.command(name).description(entry.summary);
      const wanted = name === word || (word === "help" && argv.includes(name));
      if (wanted) await attach(command, entry, (code) => (status = code));
    }
    const asked = word === "help" ? argv[argv.indexOf(word) + 1] : word;
    if (asked !== undefined && !asked.startsWith("-")) checkVerb(asked);
    for (const command of [program, ...program.commands]) {
      command
        .exitOverride()
        .configureOutput({ writeErr: () => undefined })
        .showSuggestionAfterError(true);
    }
    if (argv.length === 0) {
      process.stdout.write(program.helpInformation());
      return 0;
    }
    await program.parseAsync([...argv], { from: "user" });
    return status;
  } catch (thrown) {
    if (thrown instanceof CommanderError) {
      if (thrown.exitCode === 0) return 0;
      return reportError(usageError(thrown, word), flags);
    }
    return reportError(thrown, flags);
  }
}
