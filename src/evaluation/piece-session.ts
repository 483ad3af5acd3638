import { InferenceSession, Tensor } from "onnxruntime-node";
import { MendelError, messageOf } from "../base/errors.ts";
import type { Dtype } from "../tensors/dtype.ts";
import { type Feeds, nativeTensor, sessionOptions } from "./session.ts";

/** A value that stays inside ONNX Runtime's own tensors on its way from piece to piece. */
export type NativeTensor = Tensor;
export type NativeFeeds = Readonly<Record<string, Tensor>>;

/** A session whose inputs and outputs of any element type are handed on without being looked at. */
export interface PieceSession {
  /** Names and element types, as ONNX Runtime spells them. */
  readonly inputs: ReadonlyMap<string, ValueFacts>;
  readonly outputs: ReadonlyMap<string, ValueFacts>;
  /** Computes in the calling thread. @throws MendelError `mismatch` when ONNX Runtime fails */
  run(feeds: NativeFeeds, outputs: readonly string[]): Promise<NativeFeeds>;
  release(): Promise<void>;
}

export interface ValueFacts {
  readonly type: string;
  readonly shape: readonly (number | string)[];
}

/**
 * Creates a session for a part of a model.
 *
 * @param weights the in-memory file that the model's initializers refer to, by its name; copied
 * @throws MendelError `invalid-file` when ONNX Runtime refuses it
 */
export async function createPieceSession(
  model: Uint8Array,
  weights?: { readonly path: string; readonly data: Uint8Array },
): Promise<PieceSession> {
  let session: InferenceSession;
  try {
    session = await InferenceSession.create(model, {
      ...sessionOptions,
      ...(weights === undefined || weights.data.length === 0 ? {} : { externalData: [weights] }),
    });
  } catch (cause) {
    throw new MendelError(
      "invalid-file",
      `ONNX Runtime cannot load a part of the model: ${oneLine(cause)}`,
      { cause },
    );
  }
  let open: InferenceSession | undefined = session;
  return {
    inputs: factsOf(session.inputMetadata),
    outputs: factsOf(session.outputMetadata),
    async run(feeds, outputs) {
      if (open === undefined) throw new Error("session used after release");
      try {
        return (await open.run(feeds, outputs)) as NativeFeeds;
      } catch (cause) {
        throw new MendelError("mismatch", `ONNX Runtime failed: ${oneLine(cause)}`, { cause });
      }
    },
    async release() {
      const closing = open;
      open = undefined;
      await closing?.release();
    },
  };
}

function factsOf(
  metadata: readonly InferenceSession.ValueMetadata[],
): ReadonlyMap<string, ValueFacts> {
  return new Map(
    metadata.map((value) => [
      value.name,
      value.isTensor ? { type: value.type, shape: value.shape } : { type: "other", shape: [] },
    ]),
  );
}

/** ONNX Runtime's names of element types that values between pieces may have. */
const dtypes: Readonly<Record<string, Dtype>> = {
  float32: "f32",
  float64: "f64",
  float16: "f16",
  int64: "i64",
  int32: "i32",
  int16: "i16",
  int8: "i8",
  uint64: "u64",
  uint32: "u32",
  uint16: "u16",
  uint8: "u8",
  bool: "bool",
};

/** Our name of an element type; undefined for types that cannot be handed from piece to piece. */
export function dtypeOfNative(type: string): Dtype | undefined {
  return Object.hasOwn(dtypes, type) ? dtypes[type] : undefined;
}

/** Data inputs as ONNX Runtime takes them. */
export function toNativeFeeds(feeds: Feeds): NativeFeeds {
  return Object.fromEntries(
    Object.entries(feeds).map(([name, feed]) => [name, nativeTensor(feed)]),
  );
}

/** A number as a tensor of one element. */
export function scalarTensor(dtype: "f32" | "f64" | "f16", value: number): Tensor {
  if (dtype === "f32") return new Tensor("float32", Float32Array.of(value), []);
  if (dtype === "f64") return new Tensor("float64", Float64Array.of(value), []);
  return nativeTensor({ type: "float16", dims: [], data: Uint16Array.of(halfBits(value)) });
}

/** The float16 nearest to a number of ordinary size, ties to even. */
function halfBits(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const size = Math.abs(value);
  if (size >= 65520) return sign | 0x7c00;
  if (size < 2 ** -14) return sign | roundEven(size * 2 ** 24);
  const exponent = Math.floor(Math.log2(size));
  return sign | (((exponent + 14) << 10) + roundEven(size * 2 ** (10 - exponent)));
}

function roundEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}

function oneLine(thrown: unknown): string {
  const text = messageOf(thrown).replace(/\s+/g, " ").trim();
  return text.length > 300 ? `${text.slice(0, 297)}...` : text;
}
