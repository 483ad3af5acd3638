import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { mergeMethods } from "../../src/merge/index.ts";
import type { MergeMethod } from "../../src/merge/method.ts";

const folder = join(import.meta.dirname, "../../docs/methods");
const pages = readdirSync(folder).map((name) => readFileSync(join(folder, name), "utf8"));
/** What all methods have, or what changes no number. */
const common = ["weight", "lambda", "normalize", "rescale", "int8_mask"];

describe("docs/methods", () => {
  it.each(Object.values<MergeMethod>(mergeMethods).map((method) => [method.name, method] as const))(
    "%s has a place on a page that names its parameters",
    (name, { parameters }) => {
      const own = pages.filter((page) => page.includes(`\`${name}\``));
      expect(own.length).toBeGreaterThan(0);
      for (const { name: parameter } of parameters) {
        if (common.includes(parameter)) continue;
        const spelled = own.some((page) => new RegExp(`\`${parameter}\\b`).test(page));
        expect(spelled, parameter).toBe(true);
      }
    },
  );
});
