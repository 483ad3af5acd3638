import { MendelError } from "../base/errors.ts";
import { encodeNode, encodeTensor, type NodeSpec } from "../formats/onnx/onnx-builder.ts";
import type { OnnxTensor } from "../formats/onnx/onnx-model.ts";
import { dataTypeOfDtype } from "../formats/onnx/onnx-types.ts";
import type { OnnxReader } from "../formats/onnx/open-onnx.ts";
import {
  assemble,
  embedHidden,
  type Piece,
  piecesLength,
  planWeights,
  rewriteModel,
  storedChunks,
  tensorBody,
  valueInfo,
  type WeightPlan,
} from "../formats/onnx/rewrite-model.ts";
import { type Dtype, dtypeBytes } from "../tensors/dtype.ts";
import type { Shape } from "../tensors/shape.ts";

/** The elements of a stack: float32, or the 16-bit floats that the models hold, widened in the graph. */
export type StackDtype = "f32" | "f16" | "bf16";

/** A weight that becomes Σ_k c_k·S_k inside the graph. */
export interface StackedWeight {
  /** Logical name or alias. */
  readonly name: string;
  /** Number of entries S_k; at least one. */
  readonly entries: number;
  readonly stored: StackDtype;
}

/** Rows of one stack that lie together: all entries of elements [start, start + length). */
export interface StackPart {
  readonly start: number;
  readonly length: number;
  /** Of the first entry in the file; the others follow, each `length` elements long. */
  readonly offset: number;
}

/** Where the entries of one weight lie in the file, in the layout that the graph wants. */
export interface WeightStack extends StackedWeight {
  /** As the graph wants it; the transpose of the logical shape if `transposed`. */
  readonly shape: Shape;
  readonly transposed: boolean;
  readonly parts: readonly StackPart[];
  /** Position of its first coefficient in the graph input. */
  readonly firstCoefficient: number;
}

/** A weight that is the same for every candidate, in the graph's dtype and layout. */
export interface ConstantWeight {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: Shape;
  readonly transposed: boolean;
  readonly offset: number;
  readonly byteLength: number;
}

/** A weight of the graph that no model shares: copied from the graph's own file. */
export interface KeptWeight {
  readonly tensor: OnnxTensor;
  readonly offset: number;
  readonly byteLength: number;
}

export interface BasisGraph {
  /** The model; its external data is the file `stackName` beside it. */
  readonly model: Uint8Array;
  readonly stacks: readonly WeightStack[];
  readonly constants: readonly ConstantWeight[];
  readonly kept: readonly KeptWeight[];
  readonly stackBytes: number;
  /** The graph input that carries the coefficients of all stacks, one after the other: float32, one dimension. */
  readonly coefficients: string;
  readonly coefficientCount: number;
}

export interface BasisGraphOptions {
  readonly stacked: readonly StackedWeight[];
  /** Weights that are given once, whatever the candidate. */
  readonly constant: readonly string[];
  readonly stackName: string;
}

const coefficientsName = "mendel-coefficients";
const alignment = 64;
/** Below this an initializer stays in the model message: nothing is saved by sharing it. */
const minSharedBytes = 1024;
/** `Split` takes its sizes as an input from here on. */
const splitInputOpset = 13;
/** `Split` of one dimension, `MatMul` of vectors and `Reshape` by input exist from here on. */
const minOpset = 7;
/**
 * A widened stack is private memory of every worker, and leaves the processor's cache when it is large, so it is made in
 * parts. Measured on eight entries of 2.4 million elements: 33 ms for a dozen of them with parts of 4 or 8 MiB, 51 ms with
 * 16 MiB, 28 ms in float32.
 */
const maxWidenedBytes = 4 * 2 ** 20;

/**
 * Why weights of a graph cannot be made from a stack inside it; undefined when they can.
 *
 * @param names logical names or aliases of the weights
 */
export function basisProblem(reader: OnnxReader, names: Iterable<string>): string | undefined {
  if (opsetOf(reader) < minOpset) return `the graph uses operator set ${opsetOf(reader)}`;
  const inputs = new Set(reader.graph.graph.inputs.map((value) => value.name));
  for (const { name, weight, graphName } of planWeights(reader, names).plans) {
    if (weight.dtype === "f64") return `"${name}" is float64 in the graph`;
    if (inputs.has(graphName)) return `"${name}" is also an input of the graph`;
    if (weight.tensor.count === 0) return `"${name}" has no elements`;
  }
  return undefined;
}

/**
 * Replaces weights by sums over stacks of constant tensors: each becomes `Reshape(MatMul(c, S))` with its own piece c of one
 * coefficient vector, the only input that differs from candidate to candidate. (A product of one row streams S once, at
 * memory speed; sums of products take twice as long and a temporary per entry.) All other weights move into the same file,
 * so that every session shares all of them with every other.
 *
 * @throws MendelError `unsupported` where `basisProblem` finds something; `not-found` for a name
 */
export function buildBasisGraph(reader: OnnxReader, options: BasisGraphOptions): BasisGraph {
  const { stacked, constant, stackName } = options;
  const names = [...stacked.map(({ name }) => name), ...constant];
  const problem = basisProblem(reader, names);
  if (problem !== undefined) {
    throw new MendelError("unsupported", `${reader.path}: ${problem}`, {
      where: { file: reader.path },
    });
  }
  const { plans, nodes } = planWeights(reader, names);
  const file = new FileLayout();
  const initializers = new Map<OnnxTensor, readonly Piece[] | null>();
  const addInitializers: (readonly Piece[])[] = [];
  const addNodes: Uint8Array[] = [];
  const stacks: WeightStack[] = [];
  let coefficientCount = 0;
  stacked.forEach((wanted, index) => {
    const plan = plans[index]!;
    const stack = layOutStack(wanted, plan, coefficientCount, file);
    coefficientCount += wanted.entries;
    stacks.push(stack);
    if (plan.inPlace) initializers.set(plan.weight.tensor, null);
    const pieces = sumPieces(stack, plan, index, stackName);
    addInitializers.push(...pieces.initializers);
    addNodes.push(...pieces.nodes.map(encodeNode));
  });
  const constants = constant.map((name, index) => {
    const plan = plans[stacked.length + index]!;
    const { tensor } = plan.weight;
    const weight = constantWeight(name, plan, file);
    const data = { kind: "external", location: stackName, ...extentOf(weight) } as const;
    const body = tensorBody(tensor, plan.graphName, tensor.dataType, data);
    if (plan.inPlace) initializers.set(tensor, body);
    else addInitializers.push(body);
    return weight;
  });
  const kept: KeptWeight[] = [];
  for (const tensor of reader.graph.graph.initializers) {
    if (initializers.has(tensor) || tensor.data.kind === "typed") continue;
    const bytes = storedChunks(reader, tensor);
    if (bytes.length >= minSharedBytes) {
      const place = { tensor, offset: file.place(bytes.length), byteLength: bytes.length };
      kept.push(place);
      const data = { kind: "external", location: stackName, ...extentOf(place) } as const;
      initializers.set(tensor, tensorBody(tensor, tensor.name, tensor.dataType, data));
    } else if (tensor.data.kind === "external") {
      const data = { kind: "embedded", bytes } as const;
      initializers.set(tensor, tensorBody(tensor, tensor.name, tensor.dataType, data));
    }
  }
  const sizes = stacks.map(({ entries }) => entries);
  const split = splitNode(opsetOf(reader), sizes);
  const pieces = rewriteModel(reader.graph, {
    initializers,
    hidden: embedHidden(reader),
    nodes,
    addInitializers: [...split.initializers, ...addInitializers],
    addInputs: [valueInfo(coefficientsName, "f32", [coefficientCount])],
    addNodes: [...split.nodes.map(encodeNode), ...addNodes],
    metadata: {},
  });
  if (piecesLength(pieces) >= 2 ** 31) {
    throw new MendelError("unsupported", `${reader.path}: too large for one ONNX message`, {
      where: { file: reader.path },
    });
  }
  return {
    model: assemble(reader.graph.source, pieces),
    stacks,
    constants,
    kept,
    stackBytes: file.size,
    coefficients: coefficientsName,
    coefficientCount,
  };
}

class FileLayout {
  size = 0;

  /** Reserves room and says where. */
  place(bytes: number): number {
    const offset = Math.ceil(this.size / alignment) * alignment;
    this.size = offset + bytes;
    return offset;
  }
}

function opsetOf(reader: OnnxReader): number {
  return reader.graph.opsets.get("") ?? 1;
}

function extentOf({
  offset,
  byteLength,
}: {
  readonly offset: number;
  readonly byteLength: number;
}) {
  return { offset, length: byteLength };
}

function layOutStack(
  wanted: StackedWeight,
  { weight }: WeightPlan,
  firstCoefficient: number,
  file: FileLayout,
): WeightStack {
  const { count, dims } = weight.tensor;
  const most =
    wanted.stored === "f32" ? count : Math.max(1, Math.floor(maxWidenedBytes / 4 / wanted.entries));
  const parts: StackPart[] = [];
  for (let start = 0; start < count; start += most) {
    const length = Math.min(most, count - start);
    const bytes = wanted.entries * length * dtypeBytes[wanted.stored];
    parts.push({ start, length, offset: file.place(bytes) });
  }
  return { ...wanted, shape: dims, transposed: weight.transposed, parts, firstCoefficient };
}

function constantWeight(name: string, { weight }: WeightPlan, file: FileLayout): ConstantWeight {
  const { count, dims } = weight.tensor;
  const byteLength = count * dtypeBytes[weight.dtype];
  const { dtype, transposed } = weight;
  return { name, dtype, shape: dims, transposed, offset: file.place(byteLength), byteLength };
}

/** Cuts the coefficient vector into one piece per weight. */
function splitNode(
  opset: number,
  sizes: readonly number[],
): { readonly nodes: readonly NodeSpec[]; readonly initializers: readonly (readonly Piece[])[] } {
  const outputs = sizes.map((_, index) => rowName(index));
  // A `Split` into one piece is refused by some versions.
  if (sizes.length === 1) {
    return {
      nodes: [{ op: "Identity", inputs: [coefficientsName], outputs }],
      initializers: [],
    };
  }
  if (opset < splitInputOpset) {
    const attributes = { axis: { int: 0 }, split: { ints: sizes } };
    return {
      nodes: [{ op: "Split", inputs: [coefficientsName], outputs, attributes }],
      initializers: [],
    };
  }
  const name = "mendel-split";
  return {
    nodes: [
      {
        op: "Split",
        inputs: [coefficientsName, name],
        outputs,
        attributes: { axis: { int: 0 } },
      },
    ],
    initializers: [[encodeTensor({ name, dtype: "i64", shape: [sizes.length], elements: sizes })]],
  };
}

function rowName(index: number): string {
  return `mendel-row-${index}`;
}

/** The nodes that compute one weight, and the constants they need. */
function sumPieces(
  stack: WeightStack,
  { graphName, weight }: WeightPlan,
  index: number,
  stackName: string,
): { readonly nodes: NodeSpec[]; readonly initializers: (readonly Piece[])[] } {
  const { entries, stored, shape, parts } = stack;
  const own = (role: string): string => `mendel-${role}-${index}`;
  const nodes: NodeSpec[] = [];
  const initializers: (readonly Piece[])[] = [];
  const flats = parts.map(({ length, offset }, p) => {
    const at = parts.length === 1 ? "" : `-${p}`;
    const name = own("stack") + at;
    const bytes = entries * length * dtypeBytes[stored];
    initializers.push([
      encodeTensor({
        name,
        dtype: stored,
        shape: [entries, length],
        store: {
          external: [
            ["location", stackName],
            ["offset", String(offset)],
            ["length", String(bytes)],
          ],
        },
      }),
    ]);
    const widened = stored === "f32" ? name : own("wide") + at;
    if (widened !== name) nodes.push(castNode(name, widened, "f32"));
    const flat = own("flat") + at;
    nodes.push({ op: "MatMul", inputs: [rowName(index), widened], outputs: [flat] });
    return flat;
  });
  let whole = flats[0]!;
  if (flats.length > 1) {
    whole = own("whole");
    nodes.push({
      op: "Concat",
      inputs: flats,
      outputs: [whole],
      attributes: { axis: { int: 0 } },
    });
  }
  const steps: ((from: string, to: string) => NodeSpec)[] = [];
  if (weight.dtype !== "f32") steps.push((from, to) => castNode(from, to, weight.dtype));
  if (shape.length !== 1) {
    const name = own("shape");
    const dims = { name, dtype: "i64", shape: [shape.length], elements: shape } as const;
    initializers.push([encodeTensor(dims)]);
    steps.push((from, to) => ({ op: "Reshape", inputs: [from, name], outputs: [to] }));
  }
  if (steps.length === 0) {
    // The last node gives the weight its name.
    const last = nodes.pop()!;
    nodes.push({ ...last, outputs: [graphName] });
  }
  steps.forEach((step, at) => {
    const to = at === steps.length - 1 ? graphName : own(`step${at}`);
    nodes.push(step(whole, to));
    whole = to;
  });
  return { nodes, initializers };
}

function castNode(from: string, to: string, dtype: Dtype): NodeSpec {
  return {
    op: "Cast",
    inputs: [from],
    outputs: [to],
    attributes: { to: { int: dataTypeOfDtype(dtype) } },
  };
}
