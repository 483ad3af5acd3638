import { main } from "../../src/cli/program.ts";

export interface CliResult {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Takes what a stream is given until `restore`. */
function capture(stream: NodeJS.WriteStream): { text(): string; restore(): void } {
  const write = stream.write;
  let text = "";
  stream.write = (chunk: string | Uint8Array): boolean => {
    text += typeof chunk === "string" ? chunk : new TextDecoder().decode(chunk);
    return true;
  };
  return {
    text: () => text,
    restore: () => {
      stream.write = write;
    },
  };
}

/** Runs the command line in this process. */
export async function cli(...argv: string[]): Promise<CliResult> {
  const [stdout, stderr] = [capture(process.stdout), capture(process.stderr)];
  try {
    const status = await main(argv);
    return { status, stdout: stdout.text(), stderr: stderr.text() };
  } finally {
    stdout.restore();
    stderr.restore();
  }
}

/** As `cli` with `--json`: the one object on stdout. */
export async function cliJson(
  ...argv: string[]
): Promise<{ readonly status: number; readonly json: Record<string, unknown> }> {
  const { status, stdout } = await cli(...argv, "--json");
  return { status, json: JSON.parse(stdout) as Record<string, unknown> };
}
