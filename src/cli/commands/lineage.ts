import { MendelError } from "../../base/errors.ts";
import type { Connection } from "../../store/connection.ts";
import { lineage as lineageOf } from "../../store/lineage.ts";
import { type LineageFacts, lineageFacts } from "../../store/lineage-facts.ts";
import {
  type Pedigree,
  type PedigreeNode,
  pedigreeDot,
  pedigreeMermaid,
  pedigreeTree,
} from "../lineage-text.ts";
import { positiveInteger } from "../option-parsers.ts";
import type { Output } from "../output.ts";
import { chosenTrial, readStore } from "../read-store.ts";
import { trialRef } from "../scores-table.ts";
import type { Verb } from "../verb.ts";

/** A tree on a screen; graph formats and JSON go to programs. */
const TREE_DEPTH = 10;
const GRAPH_DEPTH = 100;

interface LineageOptions {
  readonly descendants?: boolean;
  readonly depth?: number;
  readonly dot?: boolean;
  readonly mermaid?: boolean;
}

/** What the step from its best parent brought; nothing is said about trials that do not meet the constraints. */
function gainOf(fitness: number | undefined, facts: LineageFacts | undefined): number | undefined {
  if (fitness === undefined || facts?.feasible !== true) return undefined;
  return facts.bestParent === undefined ? undefined : fitness - facts.bestParent;
}

function pedigree(
  database: Connection,
  output: Output,
  reference: string,
  { descendants, depth, dot, mermaid }: LineageOptions,
) {
  const { run, trialId } = chosenTrial(database, output, reference);
  const direction = descendants === true ? "descendants" : "ancestors";
  const forPrograms = output.json || dot === true || mermaid === true;
  const maxDepth = depth ?? (forPrograms ? GRAPH_DEPTH : TREE_DEPTH);
  const found = lineageOf(database, run, trialId, { direction, maxDepth });
  const facts = lineageFacts(
    database,
    found.nodes.map((node) => node.trialId),
  );
  const nodes: PedigreeNode[] = found.nodes.map((node) => ({
    ...node,
    feasible: facts.get(node.trialId)?.feasible,
    gain: gainOf(node.fitness, facts.get(node.trialId)),
  }));
  return { run, maxDepth, pedigree: { ...found, nodes, direction } satisfies Pedigree };
}

function text(found: Pedigree, { dot, mermaid }: LineageOptions): string {
  if (dot === true) return pedigreeDot(found);
  return mermaid === true ? pedigreeMermaid(found) : pedigreeTree(found);
}

function cutText({ nodes }: Pedigree, depth: number): string {
  const steps = `${depth} ${depth === 1 ? "step" : "steps"}`;
  return `cut at ${nodes.length} trials: there are more, more than ${steps} away or too many; see --depth`;
}

export const lineage: Verb = {
  examples: ["lineage best", "lineage digits-1/12 --descendants --dot"],
  configure: (command) => {
    command
      .argument(
        "<trial>",
        "run/12, run/best, run/fittest or run/baseline:NAME; without run/ of the newest run",
      )
      .option("--descendants", "what was made from it, instead of what it was made from")
      .option(
        "--depth <n>",
        `steps to follow (${TREE_DEPTH}; ${GRAPH_DEPTH} with --dot, --mermaid or --json)`,
        positiveInteger("--depth"),
      )
      .option("--dot", "Graphviz instead of a tree")
      .option("--mermaid", "a Mermaid flowchart instead of a tree");
  },
  async run({ output, db, args, options }) {
    const asked = options as LineageOptions;
    if (asked.dot === true && asked.mermaid === true) {
      throw new MendelError("usage", "--dot and --mermaid exclude each other");
    }
    const {
      run,
      maxDepth,
      pedigree: found,
    } = readStore(db, (database) => pedigree(database, output, args[0] as string, asked));
    output.print(text(found, asked));
    if (found.truncated) output.note(cutText(found, maxDepth));
    output.emit("lineage", {
      run: run.name,
      trial: found.nodes[0]?.ref,
      direction: found.direction,
      truncated: found.truncated,
      nodes: found.nodes.map((node) => ({
        trial: node.ref,
        operator: node.operator,
        fitness: node.fitness ?? null,
        feasible: node.feasible ?? null,
        gain: node.gain ?? null,
        label: node.label ?? null,
        generation: node.generation,
        depth: node.depth,
      })),
      edges: found.edges.map(({ child, parent, order }) => ({
        child: trialRef(run, child),
        parent: trialRef(run, parent),
        order,
      })),
    });
    return 0;
  },
};
