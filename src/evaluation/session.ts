import { env, InferenceSession, Tensor } from "onnxruntime-node";
import { MendelError, messageOf } from "../base/errors.ts";

/** Element types that can cross the border to ONNX Runtime here. */
export type FeedType =
  | "float32"
  | "float16"
  | "float64"
  | "int64"
  | "int32"
  | "int16"
  | "int8"
  | "uint8"
  | "uint16"
  | "bool";

/** A graph input: row-major elements, float16 as bit patterns, bool as bytes. Never copied: keep it alive while it is fed. */
export interface FeedTensor {
  readonly type: FeedType;
  readonly dims: readonly number[];
  readonly data:
    | Float32Array
    | Float64Array
    | Uint16Array
    | BigInt64Array
    | Int32Array
    | Int16Array
    | Int8Array
    | Uint8Array;
}

export type Feeds = Readonly<Record<string, FeedTensor>>;

/** A graph output as float32, whatever float type the graph has. */
export interface OutputTensor {
  readonly dims: readonly number[];
  readonly data: Float32Array;
}

export type Outputs = Readonly<Record<string, OutputTensor>>;

/** Name, element type and shape of a graph input or output; symbolic dimensions are their names. */
export interface GraphValue {
  readonly name: string;
  readonly type: string;
  readonly shape: readonly (number | string)[];
}

export interface GraphSignature {
  readonly inputs: readonly GraphValue[];
  readonly outputs: readonly GraphValue[];
}

/**
 * Options of every session. Optimization level and prepacking change results in the last bits, so they are fixed here and
 * recorded with the run. One thread per session and no spinning: parallelism comes from workers, and idle thread pools would
 * burn cores. Full optimization pays even for a session that serves one candidate: it costs a millisecond more to build and
 * runs convolutions twice as fast.
 */
export const sessionOptions: InferenceSession.SessionOptions = {
  executionProviders: ["cpu"],
  executionMode: "sequential",
  graphOptimizationLevel: "all",
  intraOpNumThreads: 1,
  interOpNumThreads: 1,
  enableCpuMemArena: true,
  enableMemPattern: true,
  logSeverityLevel: 3,
  // Values must be strings; the binding ignores what it does not know without a word.
  extra: {
    session: {
      intra_op: { allow_spinning: "0" },
      inter_op: { allow_spinning: "0" },
      use_deterministic_compute: "1",
    },
  },
};

/** What is recorded about the runtime: version and the options that results depend on. */
export function runtimeRecord(): Readonly<Record<string, string | number | boolean>> {
  return {
    onnxruntime: env.versions.node ?? "unknown",
    executionProvider: "cpu",
    graphOptimizationLevel: String(sessionOptions.graphOptimizationLevel),
    intraOpNumThreads: 1,
    interOpNumThreads: 1,
    deterministicCompute: true,
  };
}

/** One ONNX Runtime session with the fixed options. `run` computes in the calling thread and blocks it. */
export interface ModelSession {
  readonly signature: GraphSignature;
  /**
   * @param outputs names to compute; the others are skipped where the graph allows
   * @throws MendelError `mismatch` when ONNX Runtime refuses the inputs or fails
   */
  run(feeds: Feeds, outputs: readonly string[]): Promise<Outputs>;
  /** Frees native memory now; without it, sessions pile up until the collector notices. Safe to call twice. */
  release(): Promise<void>;
}

/**
 * Creates a session whose weights stay in the files beside the model, mapped into memory that all sessions on them share.
 * Prepacking and folding would make private copies of them.
 *
 * @throws MendelError `invalid-file` when ONNX Runtime refuses the model
 */
export function createMappedSession(path: string): Promise<ModelSession> {
  const { session } = sessionOptions.extra as { session: object };
  return openSession(path, {
    ...sessionOptions,
    extra: {
      session: { ...session, disable_prepacking: "1" },
      optimization: { constant_folding_max_output_size_in_bytes: String(MAX_FOLDED_BYTES) },
    },
  });
}

/** What is folded into a constant is private memory of each session: shapes and small tables may, weights may not. */
const MAX_FOLDED_BYTES = 1024;

/**
 * Creates a session from a file or from bytes.
 *
 * @param externalData weights for initializers that refer to an external location, by that location's name; copied
 * @throws MendelError `invalid-file` when ONNX Runtime refuses the model
 */
export function createSession(
  model: string | Uint8Array,
  externalData: readonly { readonly path: string; readonly data: Uint8Array }[] = [],
): Promise<ModelSession> {
  return openSession(model, {
    ...sessionOptions,
    ...(externalData.length === 0 ? {} : { externalData }),
  });
}

async function openSession(
  model: string | Uint8Array,
  options: InferenceSession.SessionOptions,
): Promise<ModelSession> {
  let session: InferenceSession | undefined;
  try {
    session =
      typeof model === "string"
        ? await InferenceSession.create(model, options)
        : await InferenceSession.create(model, options);
  } catch (cause) {
    throw new MendelError("invalid-file", `ONNX Runtime cannot load the model: ${oneLine(cause)}`, {
      cause,
      ...(typeof model === "string" ? { where: { file: model } } : {}),
    });
  }
  return wrapSession(session);
}

function wrapSession(created: InferenceSession): ModelSession {
  let session: InferenceSession | undefined = created;
  const signature: GraphSignature = {
    inputs: created.inputMetadata.map(graphValue),
    outputs: created.outputMetadata.map(graphValue),
  };
  return {
    signature,
    async run(feeds, outputs) {
      if (session === undefined) throw new Error("session used after release");
      let results: InferenceSession.ReturnType;
      try {
        results = await session.run(toNative(feeds), outputs);
      } catch (cause) {
        throw new MendelError("mismatch", `ONNX Runtime failed: ${oneLine(cause)}`, { cause });
      }
      return Object.fromEntries(outputs.map((name) => [name, outputTensor(name, results[name])]));
    },
    async release() {
      const open = session;
      session = undefined;
      await open?.release();
    },
  };
}

function graphValue(value: InferenceSession.ValueMetadata): GraphValue {
  return value.isTensor
    ? { name: value.name, type: value.type, shape: value.shape }
    : { name: value.name, type: "not a tensor", shape: [] };
}

function toNative(feeds: Feeds): InferenceSession.FeedsType {
  return Object.fromEntries(
    Object.entries(feeds).map(([name, feed]) => [name, nativeTensor(feed)]),
  );
}

/**
 * The binding reads `type`, `dims`, `location` and `data` and nothing else. Half floats must take this way: from Node 23 on,
 * `Tensor` turns a Uint16Array into a Float16Array that version 1.30 of the binding cannot read.
 */
export function nativeTensor(feed: FeedTensor): Tensor {
  const known = natives.get(feed);
  if (known !== undefined) return known;
  const { type, dims, data } = feed;
  const native =
    type === "float16"
      ? ({ type, dims, location: "cpu", data } as Tensor)
      : new Tensor(type, data as Tensor.DataTypeMap[typeof type], dims);
  natives.set(feed, native);
  return native;
}

/** Feeds are fed many times: minibatches by every candidate, weights by every minibatch. */
const natives = new WeakMap<FeedTensor, Tensor>();

export function outputTensor(name: string, value: unknown): OutputTensor {
  if (!(value instanceof Tensor)) {
    throw new MendelError("unsupported", `graph output "${name}" is not a tensor`);
  }
  const { data } = value;
  if (data instanceof Float32Array) return { dims: value.dims, data };
  if (data instanceof Float64Array) return { dims: value.dims, data: Float32Array.from(data) };
  if (value.type === "float16") {
    return { dims: value.dims, data: widenHalf(data as Uint16Array) };
  }
  throw new MendelError("unsupported", `graph output "${name}" has type ${value.type}`, {
    hint: "outputs that are scored must be floating-point numbers",
  });
}

/** float16 bit patterns → float32, exactly. */
function widenHalf(half: ArrayLike<number> & { readonly buffer: ArrayBufferLike }): Float32Array {
  const bits =
    half instanceof Uint16Array
      ? half
      : new Uint16Array(half.buffer, (half as Uint16Array).byteOffset, half.length);
  return Float32Array.from(bits, (value) => {
    const exponent = (value >> 10) & 31;
    const mantissa = value & 1023;
    const sign = value & 0x8000 ? -1 : 1;
    if (exponent === 31) return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
    if (exponent === 0) return sign * mantissa * 2 ** -24;
    return sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
  });
}

/** ONNX Runtime's messages span lines and repeat source locations; one line is enough for a report. */
function oneLine(thrown: unknown): string {
  const text = messageOf(thrown).replace(/\s+/g, " ").trim();
  return text.length > 300 ? `${text.slice(0, 297)}...` : text;
}
