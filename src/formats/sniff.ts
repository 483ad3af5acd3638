import { extname } from "node:path";
import { FORMAT_MAX_HEADER_BYTES } from "./safetensors-header.ts";

/** What a file is, by its first bytes. */
export type FileKind =
  | "safetensors"
  | "onnx"
  | "npy"
  | "zip"
  | "pickle"
  | "gguf"
  | "hdf5"
  | "git-lfs-pointer"
  | "web-page"
  | "unknown";

/** As many first bytes as `sniff` looks at. */
export const SNIFF_BYTES = 64;

/** First bytes of fields that a serialized ONNX model can begin with: version, producer, domain, graph, opsets, … */
const onnxFirstBytes: ReadonlySet<number> = new Set([
  0x08, 0x12, 0x1a, 0x22, 0x28, 0x32, 0x3a, 0x42, 0x72,
]);

/**
 * Recognizes a file by content, because names lie and what a wrong name hides is often a pickle, which is a program.
 *
 * @param head the first `SNIFF_BYTES` bytes, or all of a shorter file
 * @param size length of the whole file
 */
export function sniff(head: Uint8Array, size: number): FileKind {
  const bytes = Buffer.from(head.buffer, head.byteOffset, head.length);
  const starts = (text: string): boolean =>
    bytes.subarray(0, text.length).toString("latin1") === text;
  if (starts("PK\x03\x04") || starts("PK\x05\x06")) return "zip";
  if (starts("\x93NUMPY")) return "npy";
  if (starts("GGUF")) return "gguf";
  if (starts("\x89HDF\r\n")) return "hdf5";
  if (starts("version https://git-lfs")) return "git-lfs-pointer";
  if (/^\s*<(!doctype|html|\?xml)/i.test(bytes.toString("latin1"))) return "web-page";
  if (isSafetensors(bytes, size)) return "safetensors";
  // Protocol 2 to 5 of pickle begin so; torch's legacy files and joblib dumps do too.
  if (bytes[0] === 0x80 && (bytes[1] ?? 0) >= 2 && (bytes[1] ?? 9) <= 5) return "pickle";
  if (size > 1 && onnxFirstBytes.has(bytes[0] ?? 0)) return "onnx";
  return "unknown";
}

/** For a damaged file that content does not give away: what its name claims, so that the right reader explains the damage. */
export function claimedKind(path: string): FileKind {
  switch (extname(path).toLowerCase()) {
    case ".safetensors":
      return "safetensors";
    case ".onnx":
      return "onnx";
    case ".npy":
      return "npy";
    case ".npz":
      return "zip";
    default:
      return "unknown";
  }
}

/** What to do about a file that is not a model we read. */
export function conversionHint(kind: FileKind): string {
  switch (kind) {
    case "pickle":
    case "zip":
      return "pickled checkpoints run code when loaded and are never opened; convert to safetensors first";
    case "gguf":
      return "GGUF holds quantized weights; use the original safetensors checkpoint";
    case "hdf5":
      return "export the model to ONNX or safetensors first";
    case "git-lfs-pointer":
      return "this is only a pointer to the file; fetch the content with: git lfs pull";
    case "web-page":
      return "the download saved a web page instead of the file; fetch it again";
    default:
      return "models are .safetensors, .onnx, a Hugging Face folder or a LoRA adapter folder";
  }
}

function isSafetensors(bytes: Buffer, size: number): boolean {
  if (bytes.length < 10) return false;
  const length = bytes.readBigUInt64LE(0);
  if (length > BigInt(FORMAT_MAX_HEADER_BYTES) || length + 8n > BigInt(size)) return false;
  return /^[ \t\r\n]*(\{|$)/.test(bytes.subarray(8).toString("latin1"));
}
