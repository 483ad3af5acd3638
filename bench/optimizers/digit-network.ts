import { fileURLToPath } from "node:url";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { readNpz } from "../../src/formats/npz.ts";
import { buildOnnx } from "../../src/formats/onnx/onnx-builder.ts";
import { openSafetensors } from "../../src/formats/safetensors.ts";

const PIXELS = 64;
const HIDDEN = 256;
const CLASSES = 10;

/** Flat order of the M2N2 paper's code: W1 (64×256) | b1 | W2 (256×10) | b2. */
const OFFSETS = {
  w1: 0,
  b1: PIXELS * HIDDEN,
  w2: PIXELS * HIDDEN + HIDDEN,
  b2: PIXELS * HIDDEN + HIDDEN + HIDDEN * CLASSES,
} as const;

/** Parameters of the network: 19 210. */
export const PARAMETERS = OFFSETS.b2 + CLASSES;

export interface Digits {
  readonly images: Tensor;
  readonly labels: readonly number[];
}

/** A file of this repository; the compiled benchmark lies three folders below its root. */
function repositoryFile(path: string): string {
  return fileURLToPath(new URL(`../../../${path}`, import.meta.url));
}

/** Rows of one or more splits of examples/digits-scratch, in their order. */
export async function loadDigits(...splits: readonly string[]): Promise<Digits> {
  const images: number[] = [];
  const labels: number[] = [];
  for (const split of splits) {
    const path = repositoryFile(`examples/digits-scratch/data/digits.${split}.npz`);
    const arrays = await readNpz(path);
    for (const value of arrays.get("image")?.data ?? []) images.push(Number(value));
    for (const value of arrays.get("label")?.data ?? []) labels.push(Number(value));
  }
  return {
    images: new Tensor("float32", Float32Array.from(images), [labels.length, PIXELS]),
    labels,
  };
}

/** A specialist of examples/digits-scratch as a flat vector. */
export function loadSpecialist(name: string): Float32Array {
  const reader = openSafetensors(
    repositoryFile(`examples/digits-scratch/models/${name}/model.safetensors`),
  );
  const read = (tensor: string, count: number): Float32Array => {
    const values = new Float32Array(count);
    reader.read(tensor, 0, new Uint8Array(values.buffer));
    return values;
  };
  const theta = new Float32Array(PARAMETERS);
  theta.set(transposed(read("layers.0.weight", HIDDEN * PIXELS), HIDDEN, PIXELS), OFFSETS.w1);
  theta.set(read("layers.0.bias", HIDDEN), OFFSETS.b1);
  theta.set(transposed(read("layers.1.weight", CLASSES * HIDDEN), CLASSES, HIDDEN), OFFSETS.w2);
  theta.set(read("layers.1.bias", CLASSES), OFFSETS.b2);
  reader.close();
  return theta;
}

function transposed(matrix: Float32Array, rows: number, columns: number): Float32Array {
  return matrix.map((_, at) => matrix[(at % rows) * columns + Math.floor(at / rows)]!);
}

/** The network with its weights as inputs, so that one session serves every individual. */
export class DigitNetwork {
  readonly #session: InferenceSession;

  private constructor(session: InferenceSession) {
    this.#session = session;
  }

  static async create(): Promise<DigitNetwork> {
    const model = buildOnnx({
      name: "digits",
      opset: 17,
      nodes: [
        { op: "MatMul", inputs: ["image", "w1"], outputs: ["h"] },
        { op: "Add", inputs: ["h", "b1"], outputs: ["shifted"] },
        { op: "Relu", inputs: ["shifted"], outputs: ["active"] },
        { op: "MatMul", inputs: ["active", "w2"], outputs: ["scores"] },
        { op: "Add", inputs: ["scores", "b2"], outputs: ["logits"] },
      ],
      inputs: [
        { name: "image", dtype: "f32", shape: ["batch", PIXELS] },
        { name: "w1", dtype: "f32", shape: [PIXELS, HIDDEN] },
        { name: "b1", dtype: "f32", shape: [HIDDEN] },
        { name: "w2", dtype: "f32", shape: [HIDDEN, CLASSES] },
        { name: "b2", dtype: "f32", shape: [CLASSES] },
      ],
      outputs: [{ name: "logits", dtype: "f32", shape: ["batch", CLASSES] }],
    });
    const session = await InferenceSession.create(model, {
      intraOpNumThreads: 1,
      interOpNumThreads: 1,
    });
    return new DigitNetwork(session);
  }

  /** Per item 1 where the largest logit (the first of equals) is the label's, else 0. */
  async correct(theta: Float32Array, digits: Digits): Promise<Uint8Array> {
    const part = (start: number, ...shape: number[]) =>
      new Tensor(
        "float32",
        theta.subarray(start, start + shape.reduce((product, size) => product * size, 1)),
        shape,
      );
    const { logits } = await this.#session.run({
      image: digits.images,
      w1: part(OFFSETS.w1, PIXELS, HIDDEN),
      b1: part(OFFSETS.b1, HIDDEN),
      w2: part(OFFSETS.w2, HIDDEN, CLASSES),
      b2: part(OFFSETS.b2, CLASSES),
    });
    const values = logits!.data as Float32Array;
    return Uint8Array.from(digits.labels, (label, item) =>
      argmax(values, item * CLASSES) === label ? 1 : 0,
    );
  }
}

/** Class of the first largest of ten values; −1 when one is not a number. */
function argmax(values: Float32Array, start: number): number {
  let best = 0;
  for (let c = 0; c < CLASSES; c++) {
    const value = values[start + c]!;
    if (Number.isNaN(value)) return -1;
    if (value > values[start + best]!) best = c;
  }
  return best;
}

/** Share of ones, in percent. */
export function percent(correct: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < correct.length; i++) sum += correct[i]!;
  return (100 * sum) / correct.length;
}
