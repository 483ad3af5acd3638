import { spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { onTestFinished } from "vitest";
import { projectFile, projectRoot } from "./experiment-files.ts";

/** How the compiled command line ended. */
export interface Ended {
  /** Exit status; null when a signal ended it. */
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A running command line, in a process group of its own. */
export interface Started {
  readonly pid: number;
  readonly ended: Promise<Ended>;
  /** Resolves when stderr holds the text; rejects when the process ends without it. */
  saw(text: string | RegExp): Promise<void>;
  /** Sends a signal to the process alone. */
  kill(signal: NodeJS.Signals): void;
  /** Sends a signal to the process and all its children, as Ctrl-C in a terminal does. */
  killGroup(signal: NodeJS.Signals): void;
  /** Processes of the group that still live after at most two seconds (Linux). */
  survivors(): Promise<number[]>;
}

export interface MendelOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Command in front of Node: `["bash", "-c", 'ulimit …; exec "$@"', "bash"]`. */
  readonly prefix?: readonly string[];
}

/** Longest time that a child may outlive its parent. */
const ORPHAN_MS = 2000;

/** Starts `mendel` as a user would: the compiled program in a process of its own. It never outlives the test. */
export function startMendel(args: readonly string[], options: MendelOptions = {}): Started {
  const command = [
    ...(options.prefix ?? []),
    process.execPath,
    projectFile("dist/cli/main.js"),
    ...args,
  ];
  const child = spawn(command[0] as string, command.slice(1), {
    cwd: options.cwd ?? projectRoot,
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
    env: { PATH: process.env["PATH"], HOME: process.env["HOME"], ...options.env },
  });
  const pid = child.pid;
  if (pid === undefined) throw new Error("mendel could not be started");
  const killGroup = (signal: NodeJS.Signals): void => {
    try {
      process.kill(-pid, signal);
    } catch {
      // Nobody of the group is left.
    }
  };
  onTestFinished(() => killGroup("SIGKILL"));
  const stdout = gather(child.stdout);
  const stderr = gather(child.stderr);
  const ended = new Promise<Ended>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (status, signal) => {
      resolve({ status, signal, stdout: stdout(), stderr: stderr() });
    });
  });
  const saw = (text: string | RegExp): Promise<void> =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        if (stderr().search(text) >= 0) resolve();
      };
      child.stderr.on("data", look);
      void ended.then(() => reject(new Error(`ended without saying ${text}:\n${stderr()}`)));
      look();
    });
  const survivors = async (): Promise<number[]> => {
    const deadline = performance.now() + ORPHAN_MS;
    while (membersOf(pid).length > 0 && performance.now() < deadline) await sleep(20);
    return membersOf(pid);
  };
  return { pid, ended, saw, kill: (signal) => void child.kill(signal), killGroup, survivors };
}

function gather(stream: NodeJS.ReadableStream): () => string {
  let text = "";
  stream.setEncoding("utf8").on("data", (chunk: string) => {
    text += chunk;
  });
  return () => text;
}

/** Living processes of a group; one that only waits to be reaped is not alive. */
function membersOf(group: number): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        // The name in parentheses may hold anything, parentheses too.
        const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
          .replace(/^.*\) /s, "")
          .split(" ");
        return Number(stat[2]) === group && !"ZX".includes(stat[0] ?? "X");
      } catch {
        return false;
      }
    });
}

/** Runs `mendel` to its end. */
export function mendel(args: readonly string[], options: MendelOptions = {}): Promise<Ended> {
  return startMendel(args, options).ended;
}

/** Runs `mendel` and expects the given exit status. */
export async function mendelOk(
  args: readonly string[],
  options: MendelOptions = {},
  status = 0,
): Promise<Ended> {
  const ended = await mendel(args, options);
  if (ended.status === status) return ended;
  throw new Error(
    `mendel ${args.join(" ")} ended with ${ended.status ?? ended.signal}, not ${status}:\n${ended.stdout}${ended.stderr}`,
  );
}

/** Runs `mendel … --json` and reads the one object on stdout, which must be all that is there. */
export async function mendelJson<T = Record<string, unknown>>(
  args: readonly string[],
  options: MendelOptions = {},
  status = 0,
): Promise<T> {
  const { stdout } = await mendelOk([...args, "--json"], options, status);
  return JSON.parse(stdout) as T;
}
