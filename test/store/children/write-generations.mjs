// A search in small: writes generations of five trials whose scores depend on their numbers alone, going on wherever the
// database says it is. Each line is printed after the commit it tells of.
import { sha256 } from "../../../dist/base/hash.js";
import { RunStore } from "../../../dist/store/run-store.js";

const [path, generations] = process.argv.slice(2);
const say = (text) => process.stdout.write(`${text}\n`);
const store = RunStore.open(path);
const run =
  store.run("crash-1") ??
  store.createRun({
    experiment: "crash",
    experimentPath: "crash.yml",
    seed: "1",
    configGiven: "",
    config: {},
    codeVersion: "0",
    environment: {},
    budget: {},
    objectives: ["mean"],
    axes: ["x"],
    metrics: [{ evaluator: "e", metric: "accuracy", direction: 1 }],
    inputs: [],
  });
const lock = store.lock(run);
const incarnation = store.beginIncarnation(run.id);

const opening = (number, slot) => ({
  number,
  slot,
  origin: "search",
  operator: "sample",
  genome: { kind: "vector", values: [(number % 10) / 10] },
  recipe: {
    mergeMethod: "linear",
    body: { kind: "models", models: [] },
    parameters: { weight: number },
    seed: 1,
    freeze: [],
    passthrough: {},
  },
  recipeSha256: sha256(String(number)),
  parents: number < 5 ? [] : [number - 5, number - 1 - slot],
  evaluations: [{ evaluator: "e", split: "search", evalKey: `${number}` }],
});

const score = (trial) => {
  const value = (trial.number * 37) % 101;
  const metric = {
    metric: "accuracy",
    kind: "finite",
    value,
    standardError: 1,
    items: 64,
    itemScores: Array.from({ length: 64 }, (_, i) => value + i),
  };
  store.recordEvaluation(run.id, {
    trial: trial.number,
    split: "search",
    evaluators: ["e"],
    outcome: {
      state: "done",
      seconds: 0.001,
      attempts: 1,
      results: [{ evaluator: "e", split: "search", metrics: [metric] }],
    },
    fitness: { state: "scored", values: [value], feasible: true },
  });
  say(`scored ${trial.number}`);
};

let gen = (store.lastClosedSnapshot(run.id)?.gen ?? -1) + 1;
for (; gen < Number(generations); gen++) {
  if (store.openGenerationRows(run.id) === undefined) {
    const trials = Array.from({ length: 5 }, (_, slot) => opening(gen * 5 + slot, slot));
    store.openGeneration(run.id, { gen, snapshot: { asked: gen }, trials });
    say(`opened ${gen}`);
  }
  for (const trial of store.openGenerationRows(run.id).trials) {
    if (trial.evaluations[0].state === "queued") score(trial);
  }
  store.closeGeneration(run.id, { gen, snapshot: { told: gen, state: "s".repeat(2000) } });
  say(`closed ${gen}`);
}
store.setRunState(run.id, "done", "budget");
store.endIncarnation(incarnation, "budget");
store.close();
lock.release();
