import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { MendelError } from "../base/errors.ts";
import type { ProgramChoice } from "./executor.ts";
import { fromWire, type HostReply, type HostRequest } from "./host-protocol.ts";
import type { EvaluationPlan } from "./plan.ts";

/** Enough for a stack trace; more would only be noise in a failure's message. */
const KEPT_OUTPUT_CHARACTERS = 8192;
const SHOWN_OUTPUT_CHARACTERS = 500;

/** What a host may know of our environment: no secrets, nothing that changes how Node runs. */
const allowedEnvironment = [
  "HOME",
  "LANG",
  "LC_ALL",
  "PATH",
  "SystemRoot",
  "TEMP",
  "TMP",
  "TMPDIR",
  "TZ",
  "USERPROFILE",
  "windir",
];

/** How a host ended. */
export interface HostExit {
  /** "signal SIGSEGV" or "exit code 3", with the last words of its error output. */
  readonly text: string;
}

/** A started evaluation host. */
export interface HostProcess {
  readonly program: ProgramChoice;
  /** Resolves when the process is gone. */
  readonly exited: Promise<HostExit>;
  send(message: HostRequest): void;
  /** Ends the process at once, also inside native code. */
  kill(): void;
}

export interface HostOptions {
  readonly hostUrl: URL;
  readonly plan: EvaluationPlan;
  readonly workers: number;
  readonly program: ProgramChoice | undefined;
  /** Decides after the host's probe; called at most once, and only when `program` is absent. */
  decide(probe: ProgramChoice["probe"]): ProgramChoice;
  /** Called for every message after the host is ready. */
  onMessage(message: HostReply): void;
  /** Aborting ends a host that is still starting. */
  readonly signal: AbortSignal;
}

/**
 * Starts a host and waits until it is ready to evaluate.
 *
 * @throws MendelError what the host refused to start with (data that does not fit, a model that cannot be read); `internal`
 *   when it died on the way
 */
export function startHost(options: HostOptions): Promise<HostProcess> {
  const child = fork(fileURLToPath(options.hostUrl), [], {
    serialization: "advanced",
    stdio: ["ignore", "pipe", "pipe", "ipc"],
    execArgv: [],
    env: Object.fromEntries(
      allowedEnvironment.flatMap((name) => {
        const value = process.env[name];
        return value === undefined ? [] : [[name, value]];
      }),
    ),
  });
  const lastWords = keepTail(child);
  const exited = new Promise<HostExit>((resolve) => {
    child.once("error", (error) => resolve({ text: `it could not be run: ${error.message}` }));
    child.once("close", (code, signal) => resolve({ text: exitText(code, signal, lastWords()) }));
  });
  const kill = (): void => {
    child.kill("SIGKILL");
  };
  const send = (message: HostRequest): void => {
    // A host that is gone is noticed by its exit, not by a failed send.
    if (child.connected) child.send(message, () => {});
  };
  return new Promise((resolve, reject) => {
    let { program } = options;
    let ready = false;
    options.signal.addEventListener("abort", kill, { once: true });
    let refusal: MendelError | undefined;
    const refuse = (error: MendelError): void => {
      refusal = error;
      kill();
    };
    child.on("message", (message: HostReply) => {
      if (ready) options.onMessage(message);
      else if (message.type === "refused") refuse(fromWire(message.error));
      else if (message.type === "probed") {
        program = options.decide(message.probe);
        send({ type: "program", program });
      } else if (message.type === "ready" && program !== undefined) {
        ready = true;
        options.signal.removeEventListener("abort", kill);
        resolve({ program, exited, send, kill });
      }
    });
    void exited.then(({ text }) => {
      reject(
        refusal ?? new MendelError("internal", `the evaluation host ended while starting: ${text}`),
      );
    });
    if (options.signal.aborted) kill();
    send({
      type: "start",
      plan: options.plan,
      workers: options.workers,
      program: options.program,
    });
  });
}

/** Reads both outputs to the end, so that a talkative module never blocks, and keeps the last of the error output. */
function keepTail(child: ChildProcess): () => string {
  let tail = "";
  child.stdout?.resume();
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    tail = (tail + text).slice(-KEPT_OUTPUT_CHARACTERS);
  });
  return () => tail;
}

function exitText(code: number | null, signal: string | null, tail: string): string {
  const how = signal === null ? `exit code ${code}` : `signal ${signal}`;
  const printable = tail.replace(/[^\P{C}\n]+/gu, " ").trim();
  const shown = printable.slice(-SHOWN_OUTPUT_CHARACTERS).replace(/\s+/g, " ");
  return shown === "" ? how : `${how}; its last output: ${shown}`;
}
