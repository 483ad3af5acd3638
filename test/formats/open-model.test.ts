import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { openModel } from "../../src/formats/index.ts";
import { entry, fileOf, inFolder } from "../hostile/safetensors-bytes.ts";

const onnx = "examples/digits/models/base/model.onnx";
const safetensors = "examples/digits/models/rotate/model.safetensors";

function formatOf(path: string): string {
  const model = openModel(path);
  model.close();
  return model.format;
}

describe("openModel", () => {
  it("goes by content, not by name", () => {
    inFolder((folder) => {
      copyFileSync(onnx, join(folder, "a.safetensors"));
      copyFileSync(safetensors, join(folder, "b.onnx"));
      copyFileSync(safetensors, join(folder, "c"));
      expect(formatOf(join(folder, "a.safetensors"))).toBe("onnx");
      expect(formatOf(join(folder, "b.onnx"))).toBe("safetensors");
      expect(formatOf(join(folder, "c"))).toBe("safetensors");
    });
  });

  it("prefers safetensors in a folder, else takes its ONNX model; a hint decides otherwise", () => {
    inFolder((folder) => {
      copyFileSync(onnx, join(folder, "model.onnx"));
      expect(formatOf(folder)).toBe("onnx");
      copyFileSync(safetensors, join(folder, "model.safetensors"));
      writeFileSync(join(folder, "config.json"), "{}");
      expect(formatOf(folder)).toBe("hf");
      const hinted = openModel(folder, { hint: "onnx" });
      expect(hinted.format).toBe("onnx");
      hinted.close();
    });
    expect(formatOf("examples/tinylm/models/base")).toBe("hf");
    expect(formatOf("examples/digits/models/base")).toBe("onnx");
  });

  it("does not choose among several ONNX files", () => {
    inFolder((folder) => {
      copyFileSync(onnx, join(folder, "a.onnx"));
      expect(formatOf(folder)).toBe("onnx");
      copyFileSync(onnx, join(folder, "b.onnx"));
      expect(() => openModel(folder)).toThrow(/2 ONNX files, none named model.onnx/);
    });
  });

  it.each<readonly [string, string, Uint8Array, string, RegExp]>([
    [
      "a torch checkpoint",
      "model.bin",
      Buffer.from("PK\x03\x04 archive/data.pkl"),
      "unsupported",
      /convert to safetensors/,
    ],
    [
      "a torch checkpoint named safetensors",
      "m.safetensors",
      Buffer.from("PK\x03\x04 archive/data.pkl"),
      "unsupported",
      /convert to safetensors/,
    ],
    [
      "a legacy pickle",
      "model.pt",
      Buffer.from("80028a0a6cfc9c46f920", "hex"),
      "unsupported",
      /run code/,
    ],
    [
      "GGUF",
      "model.gguf",
      Buffer.from("GGUF\x03\0\0\0\0\0\0\0"),
      "unsupported",
      /original safetensors/,
    ],
    [
      "HDF5",
      "model.h5",
      Buffer.from("894844460d0a1a0a0000", "hex"),
      "unsupported",
      /export the model/,
    ],
    [
      "a Git LFS pointer",
      "m.safetensors",
      Buffer.from("version https://git-lfs.github.com/spec/v1\noid"),
      "invalid-file",
      /git lfs pull/,
    ],
    [
      "a saved web page",
      "m.safetensors",
      Buffer.from("<!DOCTYPE html><html>"),
      "invalid-file",
      /fetch it again/,
    ],
    ["text", "model.txt", Buffer.from("hello"), "invalid-file", /models are/],
  ])("refuses %s with the way out", (_name, name, content, code, hint) => {
    inFolder((folder) => {
      const path = join(folder, name);
      writeFileSync(path, content);
      expect(() => openModel(path)).toThrow(
        expect.objectContaining({ code, hint: expect.stringMatching(hint), where: { file: path } }),
      );
    });
  });

  it("lets the format's own reader explain a damaged file", () => {
    inFolder((folder) => {
      const path = join(folder, "m.safetensors");
      writeFileSync(path, fileOf(`{${entry("t", "F32", "[4]", "[0,16]")}}`, 16).subarray(0, 30));
      expect(() => openModel(path)).toThrow(/the header is said to be/);
      writeFileSync(path, new Uint8Array(0));
      expect(() => openModel(path)).toThrow(/0 bytes are too few/);
    });
  });

  it("says that there is nothing, or no model", () => {
    inFolder((folder) => {
      expect(() => openModel(join(folder, "none"))).toThrow(
        expect.objectContaining({ code: "not-found" }),
      );
      expect(() => openModel(folder)).toThrow(/holds no model/);
      mkdirSync(join(folder, "x"));
      writeFileSync(join(folder, "x", "pytorch_model.bin"), "");
      expect(() => openModel(join(folder, "x"))).toThrow(
        expect.objectContaining({ code: "unsupported" }),
      );
    });
  });
});
