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

/**
 * Runs the command line.
 *
 * @param argv arguments after the program's name
 * @returns the exit status
 */
export async function main(argv: readonly string[]): Promise<number> {
  let status = 0;
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
    if (word !== undefined && word !== "help" && !(word in verbs)) {
      throw new MendelError("usage", `unknown verb "${word}"`, {
        hint: suggestion(word, Object.keys(verbs)),
      });
    }
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
