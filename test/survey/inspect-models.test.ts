import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { MendelError } from "../../src/base/errors.ts";
import { buildOnnx } from "../../src/formats/onnx/onnx-builder.ts";
import { SafetensorsWriter } from "../../src/formats/safetensors-writer.ts";
import { inspectModels } from "../../src/survey/inspect-models.ts";
import type { Shape } from "../../src/tensors/shape.ts";
import { stateDict, tinyTransformer } from "../formats/onnx/tiny-transformer.ts";
import { cli, cliJson } from "../support/cli.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const base = join(root, "examples/tinylm/models/base");
const adapter = join(root, "test/fixtures/lora-math");
const digits = join(root, "examples/digits/models");

const folder = mkdtempSync(join(tmpdir(), "mendel-inspect-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A safetensors file of zeros. */
function weightsFile(name: string, shapes: Iterable<readonly [string, Shape]>): string {
  const path = join(folder, name);
  const specs = [...shapes].map(([tensor, shape]) => ({
    name: tensor,
    shape,
    dtype: "f32" as const,
  }));
  const writer = new SafetensorsWriter(path, specs);
  for (const spec of specs) {
    writer.write(spec.name, new Uint8Array(spec.shape.reduce((product, dim) => product * dim, 4)));
  }
  writer.finish();
  return path;
}

function onnxFile(name: string, ...spec: Parameters<typeof tinyTransformer>): string {
  const path = join(folder, name);
  writeFileSync(path, buildOnnx(tinyTransformer(...spec)));
  return path;
}

/** The error of a promise or function that must fail. */
function refusal(act: () => unknown): MendelError {
  try {
    act();
  } catch (error) {
    if (error instanceof MendelError) return error;
    throw error;
  }
  throw new Error("was accepted");
}

describe("one model", () => {
  it("counts a Hugging Face folder as its model card does", () => {
    const { models, match } = inspectModels([base]);
    expect(match).toBeUndefined();
    const [model] = models;
    // The family's documentation: 8 layers of 9 tensors, untied embeddings of 512 × 96, 689 760 parameters.
    expect(model).toMatchObject({
      name: "base",
      format: "hf",
      total: { tensors: 75, parameters: 689_760, bytes: 2 * 689_760 },
      dtypes: [{ dtype: "bf16", tensors: 75 }],
      layers: [{ stack: "model.layers", blocks: 8, first: 0, last: 7, tensorsPerBlock: 9 }],
      config: {
        architecture: "LlamaForCausalLM",
        modelType: "llama",
        hiddenSize: 96,
        layers: 8,
        heads: 4,
        keyValueHeads: 2,
        intermediateSize: 160,
        vocabulary: 512,
        positions: 256,
        tiedEmbeddings: false,
      },
      graphBeside: join(base, "model.onnx"),
    });
    expect(model?.sideFiles).toContain("tokenizer.json");
    const parameters = Object.fromEntries(
      (model?.kinds ?? []).map((one) => [one.kind, one.parameters]),
    );
    expect(parameters).toEqual({
      embedding: 512 * 96,
      attention: 8 * (2 * 96 * 96 + 2 * 48 * 96),
      mlp: 8 * 3 * 160 * 96,
      norm: 17 * 96,
      head: 512 * 96,
    });
  });

  it("tells what an ONNX graph takes, gives and is made of", () => {
    const [model] = inspectModels([join(base, "model.onnx")]).models;
    expect(model).toMatchObject({ name: "base", format: "onnx", config: undefined });
    expect(model?.graph).toMatchObject({
      opsets: { "ai.onnx": 17 },
      producer: "pytorch",
      inputs: [
        { name: "input_ids", dtype: "i64", shape: ["batch", "sequence"] },
        { name: "attention_mask", dtype: "i64", shape: ["batch", "sequence"] },
      ],
      outputs: [{ name: "logits", dtype: "f32", shape: ["batch", "sequence", 512] }],
    });
  });

  it("shows logical names, and what the file calls them and how it turns them", () => {
    const [model] = inspectModels([onnxFile("folded.onnx", "folded")]).models;
    const named = inspectModels([onnxFile("named.onnx", "state-dict")]).models[0];
    expect(model?.tensors.map(({ name, shape }) => [name, shape])).toEqual(
      named?.tensors.map(({ name, shape }) => [name, shape]),
    );
    expect(new Set(model?.tensors.map(({ name }) => name))).toEqual(new Set(stateDict(2).keys()));
    const up = model?.tensors.find(({ name }) => name === "model.layers.1.mlp.up_proj.weight");
    expect(up).toMatchObject({ layer: "model.layers.1", kind: "mlp", transposed: true });
    expect(up?.storedName).toMatch(/^onnx::MatMul_\d+$/);
    expect(named?.tensors.every(({ storedName }) => storedName === undefined)).toBe(true);
    expect(model?.graph?.signature).toBe(named?.graph?.signature);
  });

  it.each([
    base,
    join(base, "model.onnx"),
    join(digits, "base"),
    join(root, "examples/digits-cnn/models/base"),
    adapter,
    `${base}+${adapter}`,
  ])("adds up: kinds, types, and tensors of %s", (path) => {
    const [model] = inspectModels([path]).models;
    const { tensors = [], total, kinds = [], dtypes = [] } = model ?? {};
    expect(total?.tensors).toBe(tensors.length);
    for (const parts of [kinds, dtypes]) {
      for (const key of ["tensors", "parameters", "bytes"] as const) {
        expect(parts.reduce((sum, part) => sum + part[key], 0)).toBe(total?.[key]);
      }
    }
  });

  it("describes an adapter alone, and on its model", () => {
    const [alone] = inspectModels([adapter]).models;
    expect(alone).toMatchObject({
      format: "lora",
      adapter: { on: undefined, rank: 8, alpha: 16 },
      total: { tensors: 112 },
    });
    const [onBase] = inspectModels([`${base}+${adapter}`]).models;
    // Seven linear layers in each of eight blocks.
    expect(onBase).toMatchObject({
      name: "lora-math",
      adapter: { on: "base", changed: 56 },
      total: { tensors: 75 },
    });
  });

  it("names what is wrong with a path", () => {
    expect(refusal(() => inspectModels([join(folder, "nothing")])).code).toBe("not-found");
    const readme = join(root, "examples/digits/data/README.md");
    expect(refusal(() => inspectModels([readme]))).toMatchObject({
      code: "invalid-file",
      where: { file: readme },
    });
  });
});

describe("several models", () => {
  it("match across formats, and adapters are put on the first whole model", () => {
    const { match, models } = inspectModels([adapter, join(base, "model.onnx"), base]);
    expect(models.map(({ name }) => name)).toEqual(["lora-math", "base", "base-2"]);
    expect(models[0]?.adapter?.on).toBe("base");
    expect(match).toMatchObject({
      reference: "base",
      fits: true,
      coverage: { merged: 75, copied: 0, refused: [] },
    });
    expect(match?.pairs).toHaveLength(3);
    expect(match?.pairs.map(({ shared, otherDtype }) => [shared, otherDtype])).toEqual([
      // The graph was exported in float32 from the folder's bfloat16 weights.
      [75, 0],
      [75, 75],
      [75, 75],
    ]);
  });

  it("are told apart tensor by tensor when they do not fit", () => {
    const small = weightsFile("small.safetensors", stateDict(2));
    const large = weightsFile("large.safetensors", [
      ...[...stateDict(2)].map(([name, shape]): [string, Shape] =>
        name === "lm_head.weight" ? [name, [3, 8]] : [name, shape],
      ),
      ["score.weight", [3, 8]],
    ]);
    const { match } = inspectModels([small, large]);
    expect(match?.fits).toBe(false);
    expect(match?.coverage.refused.map(({ tensor }) => tensor)).toEqual([
      "lm_head.weight",
      "score.weight",
    ]);
    expect(match?.pairs).toEqual([
      {
        models: ["small", "large"],
        shared: stateDict(2).size - 1,
        differing: 1,
        onlyFirst: 0,
        onlySecond: 1,
        otherDtype: 0,
      },
    ]);
    const frozen = inspectModels([small, large], { freeze: ["lm_head.*", "score.*"] }).match;
    expect(frozen).toMatchObject({ fits: true, coverage: { copied: 2, refused: [] } });
  });

  it("say which names were paired by their place in the graph", () => {
    const { match } = inspectModels([
      onnxFile("one.onnx", "folded"),
      onnxFile("two.onnx", "anonymous"),
    ]);
    expect(match?.fits).toBe(true);
    expect(match?.renamed.length).toBeGreaterThan(0);
    for (const { model, tensor, output } of match?.renamed ?? []) {
      expect(model).toBe("two");
      expect(stateDict(2).has(output)).toBe(true);
      expect(tensor).not.toBe(output);
    }
  });

  it("are held against the one called base, the first, or the one asked for", () => {
    const paths = ["rotate/model.safetensors", "base/model.onnx"].map((path) => join(digits, path));
    expect(inspectModels(paths).match?.reference).toBe("base");
    expect(inspectModels(paths, { reference: "rotate" }).match?.reference).toBe("rotate");
    const error = refusal(() => inspectModels(paths, { reference: "rotat" }));
    expect(error).toMatchObject({ code: "usage" });
    expect(error.hint).toContain('"rotate"');
  });
});

describe("mendel inspect", () => {
  it("prints tables for people", async () => {
    const { status, stdout, stderr } = await cli("inspect", base);
    expect(status).toBe(0);
    expect(stderr).toBe("");
    expect(stdout).toContain("75 tensors, 689,760 parameters, 1.38 MB");
    expect(stdout).toContain("model.layers: 8 blocks of 9 tensors (0–7)");
    expect(stdout).toContain("LlamaForCausalLM");
    expect(stdout).not.toContain("model.layers.3.mlp.up_proj.weight");
    const listed = await cli("inspect", base, "--tensors");
    expect(listed.stdout.match(/^\S+\.weight .*$/gm)).toHaveLength(75);
  });

  it("prints one object for scripts, with tensors on request", async () => {
    const { status, json } = await cliJson("inspect", join(digits, "base"));
    expect(status).toBe(0);
    expect(json).toMatchObject({ schema: "mendel.inspect/1", models: [{ name: "base" }] });
    expect(JSON.stringify(json)).not.toContain("storedName");
    const { json: full } = await cliJson("inspect", join(digits, "base"), "--tensors");
    expect(full).toMatchObject({ models: [{ tensors: Array(8).fill({ dtype: "f32" }) }] });
  });

  it("exits with 3 when models do not fit together", async () => {
    const paths = [join(digits, "base"), join(root, "examples/digits-cnn/models/base")];
    const { status, stdout } = await cli("inspect", ...paths);
    expect(status).toBe(3);
    expect(stdout).toContain("refused");
    const fitting = await cli("inspect", join(digits, "base"), join(digits, "invert"));
    expect(fitting.status).toBe(0);
  });

  it("loads neither ONNX Runtime nor the worker pool nor the database", () => {
    const seen = new Set<string>();
    const packages = new Set<string>();
    const visit = (file: string): void => {
      if (seen.has(file)) return;
      seen.add(file);
      // `--layers` runs the model: what it needs is imported when it is asked for.
      const text = readFileSync(file, "utf8")
        .replace(/\bimport type\b[^;]*;/g, "")
        .replace('import("../../survey/layer-scores.ts")', "");
      for (const [, target] of text.matchAll(/(?:\bfrom|\bimport)\s*\(?\s*"([@\w./:-]+)"/g)) {
        if (target?.startsWith(".")) visit(join(dirname(file), target));
        else if (target !== undefined && !target.startsWith("node:")) packages.add(target);
      }
    };
    visit(join(root, "src/cli/commands/inspect.ts"));
    expect(seen.size).toBeGreaterThan(20);
    expect([...packages].sort()).toEqual(["fast-levenshtein", "picocolors"]);
  });
});
