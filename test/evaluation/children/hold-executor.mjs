// Opens an executor, prints its host's process id, keeps it busy and waits to be killed.
import { fileURLToPath } from "node:url";
import { createExecutor } from "../../../dist/evaluation/create-executor.js";
import { parseEvaluator } from "../../../dist/evaluation/evaluator-schema.js";

const at = (path) => fileURLToPath(new URL(`../../../${path}`, import.meta.url));
const data = (split) => at(`examples/digits/data/rotate.${split}.npz`);
const evaluator = (name, module) =>
  parseEvaluator(
    {
      task: "module",
      data: { search: data("search"), validation: data("validation"), test: data("test") },
      inputs: { image: "image" },
      fitness: "value",
      module: at(`test/fixtures/metric-modules/${module}.mjs`),
    },
    name,
    at("."),
  );
const base = at("examples/digits/models/base/model.onnx");
const mirror = at("examples/digits/models/mirror/model.onnx");
const executor = await createExecutor(
  {
    models: { base: { path: base }, mirror: { path: mirror } },
    graph: "base",
    evaluators: [evaluator("slow", "slow"), evaluator("loops", "deadly")],
    freeze: [],
  },
  { workers: 1, program: { program: "slab", feed: "inputs", probe: {}, runtime: {} } },
);
const recipe = {
  mergeMethod: "linear",
  body: {
    kind: "models",
    models: ["base", "mirror"].map((model) => ({ model: { model }, parameters: { weight: 1 } })),
  },
  parameters: {},
  seed: 0,
  freeze: [],
  passthrough: {},
};
const request = (evaluators) => ({ id: "held", recipe, evaluators, split: "search" });
const result = await executor.evaluate(request(["slow"]));
console.log(result.results[0].metrics[0].value);
await executor.evaluate(request(["loops"]));
