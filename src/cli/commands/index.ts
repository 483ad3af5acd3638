import type { VerbEntry } from "../verb.ts";

/** Every verb, in the order help lists them. One file and one line each. */
export const verbs = {
  init: {
    summary: "look into a folder of models and data and write an experiment that runs",
    load: async () => (await import("./init.ts")).init,
  },
  inspect: {
    summary: "what models hold, from their headers; with several, how they match",
    load: async () => (await import("./inspect.ts")).inspect,
  },
  validate: {
    summary: "check everything that can fail before any work, and forecast what it needs",
    load: async () => (await import("./validate.ts")).validate,
  },
  run: {
    summary: "search for the best merge recipe of an experiment",
    load: async () => (await import("./run.ts")).run,
  },
  resume: {
    summary: "go on with a run exactly as if never interrupted",
    load: async () => (await import("./resume.ts")).resume,
  },
  stop: {
    summary: "ask a running search to save and end",
    load: async () => (await import("./stop.ts")).stop,
  },
  list: { summary: "list runs", load: async () => (await import("./list.ts")).list },
  status: {
    summary: "progress of a run, its best so far, time left, failures",
    load: async () => (await import("./status.ts")).status,
  },
  best: {
    summary: "the best trials of a run beside its parents and baselines",
    load: async () => (await import("./best.ts")).best,
  },
  show: {
    summary: "everything about one trial: recipe, genes, scores, digests",
    load: async () => (await import("./show.ts")).show,
  },
  compare: {
    summary: "trials side by side, with a paired test on item scores",
    load: async () => (await import("./compare.ts")).compare,
  },
  lineage: {
    summary: "what a trial was made from, and what each step gained",
    load: async () => (await import("./lineage.ts")).lineage,
  },
  export: {
    summary: "write a trial's model with recipe, card, lineage and checksums",
    load: async () => (await import("./export.ts")).exportVerb,
  },
  merge: {
    summary: "merge as a recipe says, without a search",
    load: async () => (await import("./merge.ts")).merge,
  },
  evaluate: {
    summary: "score a model, a recipe or a trial",
    load: async () => (await import("./evaluate.ts")).evaluate,
  },
  doctor: {
    summary: "check Node, native modules, machine and database",
    load: async () => (await import("./doctor.ts")).doctor,
  },
} as const satisfies Record<string, VerbEntry>;
