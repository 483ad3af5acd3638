import { describe, expect, it } from "vitest";
import {
  type Pedigree,
  type PedigreeNode,
  pedigreeDot,
  pedigreeMermaid,
  pedigreeTree,
} from "../../src/cli/lineage-text.ts";

function node(number: number, changes: Partial<PedigreeNode> = {}): PedigreeNode {
  return {
    trialId: number,
    number,
    ref: `run/${number}`,
    origin: "search",
    label: undefined,
    generation: 0,
    operator: "op",
    fitness: 0.5,
    depth: 0,
    gain: undefined,
    feasible: true,
    ...changes,
  };
}

function pedigree(
  numbers: readonly number[],
  edges: readonly (readonly [number, number])[],
): Pedigree {
  return {
    nodes: numbers.map((number) => node(number)),
    edges: edges.map(([child, parent], order) => ({ child, parent, order })),
    truncated: false,
    direction: "ancestors",
  };
}

describe("the tree", () => {
  it("draws a shared ancestor's own ancestors once", () => {
    const shared = pedigree(
      [4, 3, 2, 1, 0],
      [
        [4, 3],
        [4, 2],
        [3, 1],
        [2, 1],
        [1, 0],
      ],
    );
    expect(pedigreeTree(shared).split("\n")).toEqual([
      "run/4  op  0.5000",
      "├─ run/3  op  0.5000",
      "│  └─ run/1  op  0.5000",
      "│     └─ run/0  op  0.5000",
      "└─ run/2  op  0.5000",
      "   └─ run/1  op  0.5000 …",
    ]);
  });

  it("lists a parent that was taken twice once", () => {
    expect(
      pedigreeTree(
        pedigree(
          [1, 0],
          [
            [1, 0],
            [1, 0],
          ],
        ),
      ).split("\n"),
    ).toHaveLength(2);
  });

  it("draws thousands of generations", () => {
    const numbers = Array.from({ length: 9000 }, (_, i) => 9000 - i);
    const chain = pedigree(
      numbers,
      numbers.slice(1).map((parent) => [parent + 1, parent] as const),
    );
    expect(pedigreeTree(chain).split("\n")).toHaveLength(9000);
  });

  it("tells loss, gain and infeasible trials apart", () => {
    const text = (changes: Partial<PedigreeNode>): string =>
      pedigreeTree({ ...pedigree([], []), nodes: [node(1, changes)] });
    expect(text({ gain: 0.01 })).toContain("0.5000 (+0.0100)");
    expect(text({ gain: -0.01 })).toContain("0.5000 (-0.0100)");
    expect(text({ fitness: -1e6, feasible: false })).toContain("infeasible");
    expect(text({ fitness: undefined, feasible: undefined, label: "uniform" })).toBe(
      "run/1 uniform  op  –",
    );
  });
});

it("escapes what would end a label", () => {
  const nodes = [node(1, { label: 'a"b\\c<d>#`' })];
  const evil = { ...pedigree([], []), nodes };
  expect(pedigreeDot(evil)).toContain('\\na\\"b\\\\c<d>#`\\nop');
  expect(pedigreeMermaid(evil)).toContain("<br/>a#34;b\\c#60;d#62;#35;#96;<br/>op");
});
