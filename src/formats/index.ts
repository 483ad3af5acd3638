import { existsSync, readdirSync, statSync } from "node:fs";
import { extname } from "node:path";
import { MendelError } from "../base/errors.ts";
import { suggestion } from "../base/suggest.ts";
import type { ModelFormat, ModelReader } from "../tensors/model-reader.ts";
import { isHfFolder, openHfFolder } from "./hf-folder.ts";
import { isLoraFolder, openLora } from "./lora.ts";
import { openOnnx } from "./onnx/open-onnx.ts";
import { type RandomAccessFile, withFile } from "./random-access-file.ts";
import { openSafetensors } from "./safetensors.ts";
import { claimedKind, conversionHint, type FileKind, SNIFF_BYTES, sniff } from "./sniff.ts";

export interface OpenModelOptions {
  /** The format, where the content should not decide. */
  readonly hint?: ModelFormat;
  /** The model that a LoRA adapter belongs to; stays open when the adapter is closed. */
  readonly base?: ModelReader;
}

/** What is at a path. */
type Content =
  | { readonly kind: "folder"; readonly path: string }
  | { readonly kind: "file"; readonly path: string; readonly is: FileKind };

/** A way to store models. */
export interface Format {
  readonly title: string;
  /** Whether it is what is there; formats are asked in the registry's order. */
  recognizes(content: Content): boolean;
  open(path: string, options: OpenModelOptions): ModelReader;
}

/** All formats; the first that recognizes a path opens it. */
export const formats = {
  lora: {
    title: "LoRA adapter folder (PEFT)",
    recognizes: (content) => content.kind === "folder" && isLoraFolder(content.path),
    open: (path, { base }) => {
      if (base !== undefined) return openLora(path, base);
      throw new MendelError(
        "invalid-config",
        `${path} is a LoRA adapter, but its base is not given`,
        {
          where: { file: path },
          hint: `write it as { path: ${path}, base: NAME }`,
        },
      );
    },
  },
  hf: {
    title: "Hugging Face folder (safetensors)",
    recognizes: (content) => content.kind === "folder" && isHfFolder(content.path),
    open: (path) => openHfFolder(path),
  },
  safetensors: {
    title: "safetensors file",
    recognizes: (content) => content.kind === "file" && content.is === "safetensors",
    open: (path) => openSafetensors(path),
  },
  onnx: {
    title: "ONNX file, or folder with one",
    recognizes: (content) =>
      content.kind === "folder" ? onnxFilesIn(content.path).length > 0 : content.is === "onnx",
    open: (path) => openOnnx(onnxPath(path)),
  },
} as const satisfies Record<ModelFormat, Format>;

/**
 * Opens a model, whatever it is: the content decides, not the name. Nothing but headers is read.
 *
 * @throws MendelError `not-found`; `invalid-file` for damaged or hostile files; `unsupported` for formats that are never
 *   opened (pickle) or not read (GGUF, HDF5); `invalid-config` for an adapter without its base
 */
export function openModel(path: string, options: OpenModelOptions = {}): ModelReader {
  const { hint } = options;
  if (hint !== undefined) return formatNamed(hint).open(path, options);
  const content = look(path);
  const format = Object.values<Format>(formats).find((candidate) => candidate.recognizes(content));
  if (format !== undefined) return format.open(path, options);
  if (content.kind === "folder") return openHfFolder(path);
  const message = `${path} is not a model${content.is === "unknown" ? "" : `: it is a ${fileKindNames[content.is]}`}`;
  const known =
    content.is === "pickle" ||
    content.is === "zip" ||
    content.is === "gguf" ||
    content.is === "hdf5";
  throw new MendelError(known ? "unsupported" : "invalid-file", message, {
    where: { file: path },
    hint: conversionHint(content.is),
  });
}

const fileKindNames: Readonly<Record<Exclude<FileKind, "unknown">, string>> = {
  safetensors: "safetensors file",
  onnx: "ONNX model",
  npy: "NumPy array",
  zip: "zip archive, as PyTorch checkpoints are",
  pickle: "Python pickle",
  gguf: "GGUF file",
  hdf5: "HDF5 file",
  "git-lfs-pointer": "Git LFS pointer",
  "web-page": "web page",
};

function formatNamed(name: string): Format {
  const entry = Object.entries<Format>(formats).find(([known]) => known === name);
  if (entry !== undefined) return entry[1];
  throw new MendelError("invalid-config", `unknown model format "${name}"`, {
    hint: suggestion(name, Object.keys(formats)),
  });
}

function look(path: string): Content {
  if (existsSync(path) && statSync(path).isDirectory()) return { kind: "folder", path };
  const is = withFile(path, (file) => sniffFile(file));
  return { kind: "file", path, is: is === "unknown" ? claimedKind(path) : is };
}

function sniffFile(file: RandomAccessFile): FileKind {
  const head = new Uint8Array(Math.min(SNIFF_BYTES, file.size));
  file.read(0, head);
  return sniff(head, file.size);
}

function onnxFilesIn(folder: string): readonly string[] {
  return readdirSync(folder).filter((name) => extname(name) === ".onnx");
}

/** A folder stands for its `model.onnx`, or for the only ONNX file in it. */
function onnxPath(path: string): string {
  if (!existsSync(path) || !statSync(path).isDirectory()) return path;
  const names = onnxFilesIn(path);
  const [only] = names;
  if (names.includes("model.onnx")) return `${path}/model.onnx`;
  if (names.length === 1 && only !== undefined) return `${path}/${only}`;
  throw new MendelError(
    "invalid-file",
    `${path} holds ${names.length} ONNX files, none named model.onnx`,
    {
      where: { file: path },
      hint: `name the one to use: ${names.slice(0, 3).join(", ")}`,
    },
  );
}
