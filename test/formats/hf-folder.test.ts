import { copyFileSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { describe, expect, it } from "vitest";
import { MendelError } from "../../src/base/errors.ts";
import { openHfFolder } from "../../src/formats/hf-folder.ts";
import { openSafetensors } from "../../src/formats/safetensors.ts";
import { SafetensorsWriter } from "../../src/formats/safetensors-writer.ts";
import { entry, fileOf, inFolder } from "../hostile/safetensors-bytes.ts";

const tinylm = "examples/tinylm/models/base";
const shards = ["a.safetensors", "b.safetensors"] as const;

/** A folder of two shards, one byte tensor each, with an index that may lie. */
function shardedFolder(folder: string, index: unknown): void {
  writeFileSync(join(folder, "a.safetensors"), fileOf(`{${entry("x", "U8", "[1]", "[0,1]")}}`, 1));
  writeFileSync(join(folder, "b.safetensors"), fileOf(`{${entry("y", "U8", "[1]", "[0,1]")}}`, 1));
  const text = typeof index === "string" ? index : JSON.stringify(index);
  writeFileSync(join(folder, "model.safetensors.index.json"), text);
}

function refusalOf(index: unknown): MendelError {
  return inFolder((folder) => {
    shardedFolder(folder, index);
    try {
      openHfFolder(folder).close();
    } catch (error) {
      if (error instanceof MendelError) return error;
      throw error;
    }
    throw new Error("was accepted");
  });
}

describe("openHfFolder", () => {
  it("reads weights, layers and side files of a real model", () => {
    const model = openHfFolder(tinylm);
    expect(model.format).toBe("hf");
    expect(model.tensors.size).toBe(75);
    expect(model.layers).toBe(8);
    expect(model.tiedEmbeddings).toBe(false);
    expect(model.config["model_type"]).toBe("llama");
    expect(model.sideFiles.map((path) => basename(path))).toEqual([
      "config.json",
      "generation_config.json",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
    expect(model.tensors.get("model.layers.3.mlp.down_proj.weight")).toMatchObject({
      dtype: "bf16",
      shape: [96, 160],
      namedBy: "file",
    });
    const names = [...model.tensors.keys()];
    expect(names.indexOf("model.layers.2.mlp.up_proj.weight")).toBeLessThan(
      names.indexOf("model.layers.7.mlp.up_proj.weight"),
    );
    expect(model.warnings).toEqual([]);
    model.close();
  });

  it("reads shards by a real index exactly as the single file", () => {
    inFolder((folder) => {
      const whole = openSafetensors(join(tinylm, "model.safetensors"));
      const index = JSON.parse(readFileSync("test/fixtures/tinylm-two-shards.index.json", "utf8"));
      const map = new Map(Object.entries<string>(index.weight_map));
      const bytesOf = (name: string, bytes: number): Uint8Array => {
        const target = new Uint8Array(bytes);
        whole.read(name, 0, target);
        return target;
      };
      for (const shard of new Set(map.values())) {
        const specs = [...whole.tensors.values()].filter(({ name }) => map.get(name) === shard);
        const writer = new SafetensorsWriter(join(folder, shard), specs);
        for (const { name, shape } of specs) {
          writer.write(name, bytesOf(name, 2 * shape.reduce((a, b) => a * b, 1)));
        }
        writer.finish();
      }
      copyFileSync(
        "test/fixtures/tinylm-two-shards.index.json",
        join(folder, "model.safetensors.index.json"),
      );
      const model = openHfFolder(folder);
      expect(model.warnings).toEqual([]);
      expect(model.files).toHaveLength(2);
      expect([...model.tensors.entries()]).toEqual([...whole.tensors.entries()]);
      const part = new Uint8Array(64);
      for (const [name, { shape }] of model.tensors) {
        const start = Math.floor(shape.reduce((a, b) => a * b, 1) / 2);
        model.read(name, start, part);
        expect(part).toEqual(bytesOf(name, 2 * (start + 32)).subarray(2 * start));
      }
      model.close();
      whole.close();
    });
  });

  it("knows the output layer of tied embeddings by its name", () => {
    inFolder((folder) => {
      const data = fileOf(`{${entry("model.embed_tokens.weight", "U8", "[1]", "[0,1]")}}`, 1);
      writeFileSync(join(folder, "model.safetensors"), data);
      writeFileSync(join(folder, "config.json"), '{"tie_word_embeddings": true, "n_layer": 3}');
      const model = openHfFolder(folder);
      expect(model.tiedEmbeddings).toBe(true);
      expect(model.layers).toBe(3);
      expect(model.tensors.get("model.embed_tokens.weight")?.aliases).toEqual(["lm_head.weight"]);
      model.close();
    });
  });

  it("accepts the infinities that Python writes into configurations", () => {
    inFolder((folder) => {
      writeFileSync(join(folder, "model.safetensors"), fileOf("{}"));
      writeFileSync(join(folder, "config.json"), '{"time_step_limit": [0.0, Infinity], "x": NaN}');
      const model = openHfFolder(folder);
      expect(model.config["time_step_limit"]).toEqual([0, Number.POSITIVE_INFINITY]);
      model.close();
    });
  });

  it("takes the only safetensors file, whatever its name, but does not choose among several", () => {
    inFolder((folder) => {
      writeFileSync(join(folder, "weights.safetensors"), fileOf("{}"));
      openHfFolder(folder).close();
      writeFileSync(join(folder, "more.safetensors"), fileOf("{}"));
      expect(() => openHfFolder(folder)).toThrow(/2 safetensors files but no/);
    });
  });

  it("follows links within the folder and into a Hugging Face cache, and no other", () => {
    inFolder((root) => {
      const folder = join(root, "models--x", "snapshots", "abc");
      const blobs = join(root, "models--x", "blobs");
      mkdirSync(folder, { recursive: true });
      mkdirSync(blobs);
      writeFileSync(join(blobs, "1"), fileOf("{}"));
      writeFileSync(join(root, "secret.json"), "{}");
      symlinkSync("../../blobs/1", join(folder, "model.safetensors"));
      openHfFolder(folder).close();
      symlinkSync(join(root, "secret.json"), join(folder, "tokenizer.json"));
      const model = openHfFolder(folder);
      expect(model.sideFiles).toEqual([]);
      expect(model.warnings).toEqual([
        expect.stringMatching(/tokenizer.json is a link that leaves/),
      ]);
      model.close();
      symlinkSync(join(root, "secret.json"), join(folder, "config.json"));
      expect(() => openHfFolder(folder)).toThrow(/link that leaves/);
    });
  });

  it.each([
    ["../a.safetensors", /leaves the folder/],
    ["x/../../a.safetensors", /leaves the folder/],
    ["..\\a.safetensors", /leaves the folder/],
    ["x\\a.safetensors", /a path, not a name/],
    ["x/a.safetensors", /a path, not a name/],
    ["/etc/passwd", /absolute path/],
    ["\\\\host\\share", /absolute path/],
    ["C:a.safetensors", /absolute path/],
    ["a.safetensors\0", /control character/],
    ["", /empty/],
    [".", /leaves the folder/],
  ])("refuses an index that names %j", (shard, message) => {
    const error = refusalOf({ weight_map: { x: shard, y: "b.safetensors" } });
    expect(error.code).toBe("invalid-file");
    expect(error.message).toMatch(message);
  });

  it("refuses an index that does not match the shards", () => {
    expect(refusalOf({ weight_map: { x: "a.safetensors", y: "c.safetensors" } })).toMatchObject({
      code: "not-found",
      message: expect.stringContaining("c.safetensors"),
    });
    expect(refusalOf({ weight_map: { x: "b.safetensors", y: "b.safetensors" } })).toMatchObject({
      where: { tensor: "x" },
      message: expect.stringMatching(/should be in b.safetensors but is in no shard/),
    });
    expect(refusalOf({ weight_map: { x: "b.safetensors", y: "a.safetensors" } }).message).toMatch(
      /but is in a.safetensors/,
    );
    expect(
      refusalOf({ weight_map: { x: "a.safetensors", y: "b.safetensors", z: "b.safetensors" } }),
    ).toMatchObject({ where: { tensor: "z" } });
    expect(refusalOf({ weight_map: { x: 1 } }).message).toMatch(/must be a name/);
    expect(refusalOf({ weight_map: [] }).message).toMatch(/must be an object/);
    expect(refusalOf([]).message).toMatch(/expected an object/);
    expect(refusalOf("{").message).toMatch(/index.json, line 1/);
    expect(refusalOf('{"weight_map":{"x":"a.safetensors","x":"b.safetensors"}}').message).toMatch(
      /"x" is repeated/,
    );
  });

  it("refuses a tensor that is in two shards", () => {
    inFolder((folder) => {
      shardedFolder(folder, { weight_map: { x: shards[0], y: shards[1] } });
      writeFileSync(
        join(folder, "b.safetensors"),
        fileOf(`{${entry("x", "U8", "[1]", "[0,1]")},${entry("y", "U8", "[1]", "[1,2]")}}`, 2),
      );
      expect(() => openHfFolder(folder)).toThrow(/"x" is in two files/);
    });
  });

  it("warns of a total size that is wrong and of tensors the index forgot", () => {
    inFolder((folder) => {
      shardedFolder(folder, {
        metadata: { total_size: 999 },
        weight_map: { x: shards[0], y: shards[1] },
      });
      const model = openHfFolder(folder);
      expect(model.warnings).toEqual([
        expect.stringMatching(/total_size is 999, the shards hold 2/),
      ]);
      model.close();
      writeFileSync(
        join(folder, "b.safetensors"),
        fileOf(`{${entry("y", "U8", "[1]", "[0,1]")},${entry("z", "U8", "[1]", "[1,2]")}}`, 2),
      );
      const more = openHfFolder(folder);
      expect(more.warnings[0]).toMatch(/does not list tensor "z"/);
      more.close();
    });
  });

  it("says that a folder is missing, empty or holds only pickles", () => {
    inFolder((folder) => {
      expect(() => openHfFolder(join(folder, "none"))).toThrow(/there is no folder/);
      expect(() => openHfFolder(folder)).toThrow(/holds no model/);
      writeFileSync(join(folder, "pytorch_model.bin"), "");
      expect(() => openHfFolder(folder)).toThrow(
        expect.objectContaining({ code: "unsupported", hint: expect.stringMatching(/convert/) }),
      );
    });
  });
});
