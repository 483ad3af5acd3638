// Kills one search with SIGKILL at many moments, resumes it each time, and compares it with a search that was left alone.
//
//   node scripts/kill-resume.mjs [experiment.yml] [--kills 50] [--seed 1] [--budget 60] [--program basis]
//
// Without an experiment it searches over the digit models, with an evaluator that counts how often it is called. Prints one
// JSON object; ends with 1 when anything differs. Linux only: it looks for surviving processes in /proc.
import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { randomStream } from "../dist/base/random.js";
import { openReader } from "../dist/store/connection.js";
import { dumpRun } from "../dist/store/dump.js";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const program = join(root, "dist", "cli", "main.js");
const WORKERS = 2;
/** What an evaluation of our own experiment takes at least. */
const EVALUATION_MS = 40;
/** Results wait at most so long to be written in a group (src/run/result-batch.ts). */
const WRITE_DELAY_MS = 100;
/** What one kill may cost per worker: the evaluation in flight, and those that waited to be written. */
const REPEATED_PER_WORKER = 1 + Math.ceil(WRITE_DELAY_MS / EVALUATION_MS);
const RUN = "disturbed";
/** Longest life of a host whose main process is gone. */
const ORPHAN_MS = 2000;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    kills: { type: "string", default: "50" },
    seed: { type: "string", default: "1" },
    budget: { type: "string", default: "60" },
    // Fixed, because what two searches measure at their start may differ, and with it how they run candidates.
    program: { type: "string", default: "basis" },
  },
});
const wantedKills = Number(values.kills);
const budget = Number(values.budget);
const random = randomStream(values.seed, "kill-resume");
const folder = mkdtempSync(join(tmpdir(), "mendel-kill-"));
const counter = join(folder, "calls");

/**
 * A small search over the digit models. One of its evaluators writes a byte for each split it scores, and takes some time, so
 * that most kills meet evaluations in flight.
 */
function countingExperiment() {
  writeFileSync(counter, "");
  const module = `import { appendFileSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
export async function score({ outputs, items }) {
  appendFileSync(${JSON.stringify(counter)}, ".");
  await setTimeout(${EVALUATION_MS});
  const { data, dims } = outputs.logits;
  const width = dims[1];
  return {
    confidence: items.map(({ label }, row) => {
      const logits = Array.from(data.subarray(row * width, (row + 1) * width));
      const total = logits.reduce((sum, logit) => sum + Math.exp(logit - logits[label]), 0);
      return 1 / total;
    }),
  };
}
`;
  writeFileSync(join(folder, "counted.mjs"), module);
  const model = (name, file) => join(root, "examples/digits/models", name, file);
  const data = (split) => join(root, `examples/digits/data/invert.${split}.npz`);
  const experiment = {
    models: {
      base: model("base", "model.onnx"),
      rotate: model("rotate", "model.safetensors"),
      invert: model("invert", "model.onnx"),
      mirror: model("mirror", "model.onnx"),
    },
    base: "base",
    space: "layer-task-arithmetic",
    evaluate: [
      "digits-rotate",
      {
        name: "counted",
        evaluator: {
          task: "module",
          data: { search: data("search"), validation: data("validation"), test: data("test") },
          inputs: { image: "image" },
          fitness: "confidence",
          module: "./counted.mjs",
          // One call per split: the counter counts evaluations.
          batch: 4096,
        },
      },
    ],
    optimizer: { name: "cma_es", sigma: 0.15 },
    finalists: 10,
    seed: 11,
  };
  const path = join(folder, "experiment.yml");
  writeFileSync(path, JSON.stringify(experiment));
  return path;
}

function start(args) {
  const child = spawn(process.execPath, [program, ...args], {
    cwd: root,
    // A process group of its own, by which its descendants are found when it is gone.
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text) => {
      output += text;
    });
  }
  const ended = new Promise((done) => child.once("close", (status) => done(status)));
  return { child, ended, output: () => output };
}

/** Living members of a process group. */
function membersOf(group) {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
          .replace(/^.*\) /s, "")
          .split(" ");
        return Number(stat[2]) === group && stat[0] !== "Z" && stat[0] !== "X";
      } catch {
        return false;
      }
    });
}

/** Reads something from a database that may not be there yet. */
function look(db, query, otherwise) {
  let reader;
  try {
    reader = openReader(db);
    return query(reader);
  } catch {
    return otherwise;
  } finally {
    reader?.close();
  }
}

const hasRun = (db) =>
  look(db, (d) => d.prepare("SELECT 1 FROM run WHERE name = ?").get(RUN) !== undefined, false);
const finished = (db) =>
  look(
    db,
    (d) => d.prepare("SELECT count(*) FROM evaluation WHERE state <> 'queued'").pluck().get(),
    0,
  );
const closedGeneration = (db) =>
  look(
    db,
    (d) => d.prepare("SELECT max(gen) FROM generation WHERE state = 'closed'").pluck().get(),
    -1,
  ) ?? -1;

/** What the run is doing, as its database tells. */
function phaseOf(db) {
  if (closedGeneration(db) < 0) return "baselines";
  const validated = `SELECT count(*) FROM evaluation e JOIN trial t USING(trial_id)
    WHERE t.origin = 'search' AND e.split <> 'search'`;
  return look(db, (d) => d.prepare(validated).pluck().get(), 0) > 0 ? "finalists" : "search";
}

const callsSoFar = () => statSync(counter, { throwIfNoEntry: false })?.size ?? 0;

async function survivors(group) {
  const deadline = performance.now() + ORPHAN_MS;
  while (membersOf(group).length > 0 && performance.now() < deadline) await sleep(20);
  return membersOf(group);
}

const experiment = positionals[0] === undefined ? countingExperiment() : resolve(positionals[0]);
const common = ["--workers", String(WORKERS), "--quiet"];
const settings = [
  `--set=budget={ evaluations: ${budget} }`,
  `--set=program=${values.program}`,
  "--name",
  RUN,
];
const startArgs = (db) => ["run", experiment, ...settings, "--db", db, ...common];
const resumeArgs = (db) => ["resume", RUN, "--db", db, ...common];

const began = performance.now();
const report = { experiment: positionals[0] ?? "digits", seed: values.seed, budget };
const problems = [];
try {
  const calm = join(folder, "calm.sqlite");
  const undisturbed = start(startArgs(calm));
  if ((await undisturbed.ended) !== 0) throw new Error(undisturbed.output());
  const callsUndisturbed = callsSoFar();
  const total = finished(calm);
  /** Finished evaluations at which kill number `i` is due: evenly spread; the last two among the finalists. */
  const targetOf = (i) =>
    i >= wantedKills - 2 ? total - 10 : (total * (i + random.uniform())) / wantedKills;

  const db = join(folder, "killed.sqlite");
  const kills = [];
  const phases = { start: 0, baselines: 0, search: 0, finalists: 0 };
  let status = null;
  for (let attempt = 0; status !== 0; attempt++) {
    if (attempt > 4 * wantedKills + 20) throw new Error("the run never ends");
    const resuming = hasRun(db);
    const run = start((resuming ? resumeArgs : startArgs)(db).filter((arg) => arg !== "--quiet"));
    let gone = false;
    const exit = run.ended.then((code) => {
      gone = true;
      return code;
    });
    if (kills.length < wantedKills) {
      // One kill in four at any moment of the start, the others after an even share of the work and a moment more.
      const late = kills.length >= wantedKills - 2;
      const early = !late && random.uniform() < 0.25;
      const target = targetOf(kills.length);
      const moment = random.uniform() * (early ? 900 : late ? 20 : 100);
      while (!early && !gone && finished(db) < target) await sleep(1);
      await sleep(moment);
      if (!gone) {
        run.child.kill("SIGKILL");
        await exit;
        kills.push(finished(db));
        phases[hasRun(db) ? phaseOf(db) : "start"] += 1;
      }
    }
    status = await exit;
    if (status !== null && status !== 0) throw new Error(`ended with ${status}: ${run.output()}`);
    const left = await survivors(run.child.pid);
    if (left.length > 0) problems.push(`processes ${left.join(", ")} outlived the run`);
    const check = look(db, (d) => d.pragma("integrity_check", { simple: true }), "ok");
    if (check !== "ok") problems.push(`after kill ${kills.length}: ${check}`);
    const told = [...run.output().matchAll(/evaluations, generation (\d+):/g)].map((match) =>
      Number(match[1]),
    );
    if (told.length > 0 && closedGeneration(db) < told.at(-1)) {
      problems.push(`generation ${told.at(-1)} was reported and is not in the database`);
    }
  }

  const programOf = (path) => {
    const environment = look(
      path,
      (d) => d.prepare("SELECT env_json FROM run").pluck().get(),
      "{}",
    );
    const { program, feed, runtime } = JSON.parse(environment).program ?? {};
    return JSON.stringify({ program, feed, runtime });
  };
  if (programOf(calm) !== programOf(db)) {
    problems.push(
      `the searches measured differently how to run candidates, so their evaluation keys differ: ${programOf(calm)} and ${programOf(db)}`,
    );
  }
  const story = (path) => look(path, (d) => dumpRun(d, RUN), undefined);
  const weights = (path) =>
    look(
      path,
      (d) =>
        d
          .prepare("SELECT weights_sha256 FROM trial WHERE weights_sha256 IS NOT NULL")
          .pluck()
          .all(),
      [],
    );
  const [one, other] = [story(calm), story(db)];
  if (one === undefined || one !== other) {
    const [left, right] = [one ?? "", other ?? ""].map((text) => text.split("\n"));
    const at = left.findIndex((line, i) => line !== right[i]);
    problems.push(`the dumps differ at line ${at + 1}:\n${left[at]}\n${right[at]}`);
  }
  if (weights(calm).length !== 1 || weights(calm)[0] !== weights(db)[0]) {
    problems.push("the weights of the winner differ");
  }
  // A busy machine may finish the run before the last kills are due.
  if (kills.length < 0.8 * wantedKills) {
    problems.push(`only ${kills.length} kills before the end`);
  }
  const repeated = callsSoFar() - 2 * callsUndisturbed;
  if (repeated > kills.length * WORKERS * REPEATED_PER_WORKER)
    problems.push(`${repeated} evaluations were repeated`);
  Object.assign(report, {
    kills: kills.length,
    phases,
    evaluationsWhenKilled: kills,
    evaluations: total,
    repeatedEvaluations: positionals[0] === undefined ? repeated : null,
    mostRepeatedAllowed: kills.length * WORKERS * REPEATED_PER_WORKER,
    dumpLines: (one ?? "").split("\n").length - 1,
    identical: one !== undefined && one === other,
    weightsSha256: { undisturbed: weights(calm)[0] ?? null, killed: weights(db)[0] ?? null },
  });
} catch (thrown) {
  problems.push(thrown instanceof Error ? thrown.message : String(thrown));
} finally {
  rmSync(folder, { recursive: true, force: true });
}
Object.assign(report, { problems, seconds: Math.round((performance.now() - began) / 100) / 10 });
process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
process.exitCode = problems.length === 0 ? 0 : 1;
