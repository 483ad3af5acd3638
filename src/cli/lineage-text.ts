import type { Lineage, LineageNode } from "../store/lineage.ts";
import { printable } from "./output.ts";
import { formatNumber } from "./table.ts";

/** A trial of a pedigree and what its last step brought: its fitness minus that of its best parent. */
export interface PedigreeNode extends LineageNode {
  readonly gain: number | undefined;
  /** Whether it met the constraints; undefined without a fitness. */
  readonly feasible: boolean | undefined;
}

export interface Pedigree extends Omit<Lineage, "nodes"> {
  readonly nodes: readonly PedigreeNode[];
  readonly direction: "ancestors" | "descendants";
}

/** "0.8123 (+0.0041)". */
function fitnessText({ fitness, gain, feasible }: PedigreeNode): string {
  if (feasible === false) return "infeasible";
  const number = formatNumber(fitness);
  if (gain === undefined) return number;
  return `${number} (${gain < 0 ? "-" : "+"}${Math.abs(gain).toFixed(4)})`;
}

function nodeText(node: PedigreeNode): string {
  const name = node.label === undefined ? node.ref : `${node.ref} ${node.label}`;
  return printable(`${name}  ${node.operator}  ${fitnessText(node)}`);
}

/** For every trial, the numbers of those drawn under it. */
function branches({ edges, direction }: Pedigree): ReadonlyMap<number, readonly number[]> {
  const below = new Map<number, number[]>();
  for (const { child, parent } of edges) {
    const [from, to] = direction === "ancestors" ? [child, parent] : [parent, child];
    const list = below.get(from) ?? [];
    if (!list.includes(to)) list.push(to);
    below.set(from, list);
  }
  return below;
}

/**
 * A tree for people, the trial asked about on top. A trial that is reached more than once is drawn with its branches once.
 */
export function pedigreeTree(pedigree: Pedigree): string {
  const nodes = new Map(pedigree.nodes.map((node) => [node.number, node]));
  const below = branches(pedigree);
  const drawn = new Set<number>();
  const lines: string[] = [];
  // A stack instead of recursion: a pedigree may be thousands of trials deep.
  const [root] = pedigree.nodes;
  const waiting = root === undefined ? [] : [{ number: root.number, head: "", tail: "" }];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const { number, head, tail } = next;
    const node = nodes.get(number);
    if (node === undefined) continue;
    const list = below.get(number) ?? [];
    const again = drawn.has(number) && list.length > 0;
    lines.push(`${head}${nodeText(node)}${again ? " …" : ""}`);
    if (again) continue;
    drawn.add(number);
    for (let i = list.length - 1; i >= 0; i--) {
      const last = i === list.length - 1;
      waiting.push({
        number: list[i] as number,
        head: `${tail}${last ? "└─ " : "├─ "}`,
        tail: `${tail}${last ? "   " : "│  "}`,
      });
    }
  }
  return lines.join("\n");
}

/** Graphviz: arrows from parents to children. */
export function pedigreeDot({ nodes, edges }: Pedigree): string {
  const quoted = (text: string): string =>
    `"${printable(text).replace(/["\\]/g, "\\$&").replace(/\n/g, " ")}"`;
  const lines = nodes.map((node) => {
    const label = [node.ref, node.label, node.operator, fitnessText(node)]
      .filter((part) => part !== undefined)
      .map((part) => quoted(part).slice(1, -1))
      .join("\\n");
    return `  t${node.number} [label="${label}"];`;
  });
  const arrows = edges.map(({ child, parent }) => `  t${parent} -> t${child};`);
  return ["digraph lineage {", "  node [shape=box];", ...lines, ...arrows, "}"].join("\n");
}

/** Mermaid flowchart: arrows from parents to children. */
export function pedigreeMermaid({ nodes, edges }: Pedigree): string {
  // Mermaid has no escape character; entities stand for what would end a label or start markup.
  const safe = (text: string): string =>
    printable(text).replace(/["<>&#`\n]/g, (sign) => `#${sign.codePointAt(0)};`);
  const boxes = nodes.map((node) => {
    const parts = [node.ref, node.label, node.operator, fitnessText(node)];
    const label = parts
      .filter((part) => part !== undefined)
      .map(safe)
      .join("<br/>");
    return `  t${node.number}["${label}"]`;
  });
  const arrows = edges.map(({ child, parent }) => `  t${parent} --> t${child}`);
  return ["flowchart TD", ...boxes, ...arrows].join("\n");
}
