import { existsSync } from "node:fs";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { describe, expect, it } from "vitest";
import { askForExperiment } from "../../src/cli/init-questions.ts";
import type { InitOptions } from "../../src/survey/init-experiment.ts";
import { digitFamily } from "../support/model-folders.ts";

const keys = { enter: "\r", down: "\u001b[B", up: "\u001b[A", space: " ", escape: "\u0003" };

/** A terminal in which each question, once it shows, is answered with the keys for it. */
function answering(answers: readonly (readonly [question: string, ...keys: string[]])[]) {
  const input = new PassThrough();
  const output = new PassThrough();
  const asked: string[] = [];
  let shown = "";
  output.on("data", (chunk: Buffer) => {
    shown += chunk.toString();
    const next = answers[asked.length];
    if (next === undefined || !shown.includes(next[0])) return;
    shown = "";
    asked.push(next[0]);
    // A key at a time, after the question has been drawn.
    let delay = 5;
    for (const key of next.slice(1)) {
      setTimeout(() => input.write(key), delay);
      delay += 15;
    }
  });
  return { terminal: { input, output }, asked };
}

async function ask(
  options: Omit<InitOptions, "folder">,
  answers: readonly (readonly [string, ...string[]])[],
) {
  const folder = digitFamily();
  const { terminal, asked } = answering(answers);
  const proposal = await askForExperiment({ folder, ...options }, terminal);
  expect(asked).toEqual(answers.map(([question]) => question));
  return { proposal, folder };
}

describe("questions", () => {
  it("answered with Enter give what is proposed without questions", async () => {
    const { proposal } = await ask({}, [
      ["Which models", keys.enter],
      ["fine-tuned from", keys.enter],
      ["How many candidates", keys.enter],
      ["good at", keys.enter],
      ["Write ", keys.enter],
    ]);
    expect(proposal.chosen.models).toHaveLength(5);
    expect(proposal).toMatchObject({
      chosen: { base: "base" },
      space: "layer-task-arithmetic",
      budget: { evaluations: 300 },
    });
    expect(proposal.evaluators).toHaveLength(4);
  });

  it("change models, base, budget and data", async () => {
    const { proposal, folder } = await ask({}, [
      // The second of base, flipfade, invert, mirror, rotate goes.
      ["Which models", keys.down, keys.space, keys.enter],
      // From base up, around the end of the list: none of them.
      ["fine-tuned from", keys.up, keys.enter],
      ["How many candidates", "0", keys.enter],
      ["good at", keys.space, keys.enter],
      ["Write ", keys.enter],
    ]);
    expect(proposal.chosen.models.map(({ id }) => id)).toEqual([
      "base",
      "invert",
      "mirror",
      "rotate",
    ]);
    expect(proposal.chosen.base).toBeUndefined();
    expect(proposal.space).toBe("layer-linear");
    expect(proposal.budget).toEqual({ evaluations: 3000 });
    expect(proposal.evaluators.map(({ name }) => name)).toEqual(["invert", "mirror", "rotate"]);
    expect(existsSync(join(folder, "experiment.yml"))).toBe(false);
  });

  it("are not asked about what flags have settled", async () => {
    const { proposal } = await ask({ base: "base", budget: "20m" }, [
      ["Which models", keys.enter],
      ["good at", keys.enter],
      ["Write ", keys.enter],
    ]);
    expect(proposal.budget).toEqual({ time: "20m" });
  });

  it.each([
    ["Ctrl-C", keys.escape],
    ["no", "n"],
  ])("end without a result on %s", async (_, key) => {
    const { terminal } = answering([
      ["Which models", keys.enter],
      ["Write ", key],
    ]);
    const folder = digitFamily();
    const options = { folder, base: "base", budget: "20m", data: [join(folder, "data")] };
    await expect(askForExperiment(options, terminal)).rejects.toMatchObject({
      code: "interrupted",
    });
  });
});
