import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { baseline, generation, newRun, score, temporaryStore, trial } from "./store-fixtures.ts";

const page = readFileSync(join(import.meta.dirname, "../../docs/database.md"), "utf8");
const statements = [...page.matchAll(/```sql\n(.*?)```/gs)].map(([, sql = ""]) => sql.trim());

describe("docs/database.md", () => {
  it("names every table with columns that exist", () => {
    const store = temporaryStore();
    const columns = store.database
      .prepare<[string], string>("SELECT name FROM pragma_table_info(?)")
      .pluck();
    const described = [...page.matchAll(/^\| `(\w+)` \| [^|]+ \| (.+) \|$/gm)];
    const tables = store.database
      .prepare<[], string>(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name",
      )
      .pluck()
      .all();
    expect(described.map(([, table]) => table).sort()).toEqual(tables);
    for (const [, table = "", text = ""] of described) {
      const known = columns.all(table);
      // Values in parentheses are no columns.
      const named = [...text.replace(/\([^)]*\)/g, "").matchAll(/`(\w+)`/g)].map(
        ([, name]) => name,
      );
      expect({ table, unknown: named.filter((name) => !known.includes(name ?? "")) }).toEqual({
        table,
        unknown: [],
      });
    }
  });

  it.each(statements.map((sql) => [sql.split("\n")[0] ?? "", sql]))("answers: %s", (_, sql) => {
    const store = temporaryStore();
    const input = { role: "model:base", path: "base.onnx", sha256: "aa", bytes: 1 };
    const runs = [0, 1].map(() =>
      store.createRun(newRun({ objectives: ["rotated", "inverted"], inputs: [input] })),
    );
    for (const run of runs) {
      generation(store, run, 0, [baseline(0, "uniform")], [0.5]);
      const trials = [
        trial(1, { slot: 0 }),
        trial(2, { slot: 1, parents: [1] }),
        trial(3, { slot: 2 }),
      ];
      store.openGeneration(run.id, { gen: 1, snapshot: {}, trials });
      score(store, run, 1, 0.6);
      store.recordFitness(run.id, [
        {
          trial: 2,
          split: "search",
          fitness: { state: "scored", values: [0.7, 0.2], feasible: true },
        },
      ]);
      score(store, run, 2, 0.45);
      store.recordEvaluation(run.id, {
        trial: 3,
        split: "search",
        evaluators: ["rotated"],
        outcome: { state: "failed", failure: "crash", message: "SIGSEGV", seconds: 1, attempts: 2 },
      });
    }
    const bindings = { run: "digits-2", number: 2 };
    const used = Object.entries(bindings).filter(([name]) => sql.includes(`:${name}`));
    const rows = store.database
      .prepare<Record<string, string | number>>(sql)
      .all(Object.fromEntries(used));
    expect(rows.length).toBeGreaterThan(0);
  });
});
