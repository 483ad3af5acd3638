import type { OnnxNode } from "./onnx-model.ts";

/**
 * Names that exporters and optimizers make up for values that had none: they say nothing about the layer, and equal
 * numbers in two files mean nothing either.
 */
const automaticNames: readonly RegExp[] = [
  /^\d+$/, // old torch exporters
  /^onnx::\w+_\d+$/, // torch.onnx, folded constants
  /^_?val_\d+$/, // torch.onnx with dynamo
  /^_v_\d+$/,
  /^(?:const|constant|initializer|tmp|t)_?\d+$/i,
  /^const_fold_opt__\d+$/, // tf2onnx
  /^ortshared_/, // ONNX Runtime's graph optimizer
  /_token_\d+$/,
  /^\/.*_output_\d+$/, // a value of torch.onnx that a tool folded into a constant
  /^Constant(?:_\d+)?_output_\d+$/,
];

export function isAutomaticName(name: string): boolean {
  return name === "" || automaticNames.some((pattern) => pattern.test(name));
}

/**
 * The module that a node belongs to, as a state dict would write it: `/model/layers.0/mlp/up_proj/MatMul` belongs to
 * `model.layers.0.mlp.up_proj`. Undefined when the node's name holds no path.
 */
export function modulePathOf(node: OnnxNode): string | undefined {
  if (node.scopes !== undefined) {
    const scopes = [...node.scopes.matchAll(/'([^']*)'|"([^"]*)"/g)].map((m) => m[1] ?? m[2] ?? "");
    const path = scopes.at(-2);
    if (path !== undefined && path !== "") return path;
  }
  const parts = node.name.split("/").filter((part) => part !== "");
  return parts.length < 2 ? undefined : parts.slice(0, -1).join(".");
}

const weightAndBias = ["", "weight", "bias"];

/** What a state dict calls the tensor that enters an op's slot. */
const roles: Readonly<Record<string, readonly string[]>> = {
  MatMul: ["weight", "weight"],
  FusedMatMul: ["weight", "weight"],
  Gemm: ["weight", "weight", "bias"],
  Conv: weightAndBias,
  ConvTranspose: weightAndBias,
  LayerNormalization: weightAndBias,
  InstanceNormalization: weightAndBias,
  GroupNormalization: weightAndBias,
  BatchNormalization: ["", "weight", "bias", "running_mean", "running_var"],
  RMSNormalization: weightAndBias,
  SimplifiedLayerNormalization: weightAndBias,
  SkipLayerNormalization: ["", "", "weight", "bias", "skip_bias"],
  SkipSimplifiedLayerNormalization: ["", "", "weight", "skip_bias"],
  Gather: ["weight"],
  Add: ["bias", "bias"],
  Sub: ["bias", "bias"],
  Mul: ["weight", "weight"],
  Div: ["weight", "weight"],
  PRelu: ["", "weight"],
  LSTM: ["", "W", "R", "B"],
  GRU: ["", "W", "R", "B"],
  RNN: ["", "W", "R", "B"],
};

/** The state-dict name of the tensor that enters `slot` of `node`, if the node tells where it belongs. */
export function nameFromNode(node: OnnxNode, slot: number): string | undefined {
  const path = modulePathOf(node);
  if (path === undefined) return undefined;
  const role = roles[node.op]?.[slot];
  const fallback = `${node.op.toLowerCase()}_${slot}`;
  return `${path}.${role === undefined || role === "" ? fallback : role}`;
}

/**
 * Whether a matrix in this slot is stored as [in, out], the transpose of what a linear layer's state dict holds.
 *
 * @param flips number of `Transpose` nodes between the stored matrix and the slot
 */
export function isStoredTransposed(node: OnnxNode, slot: number, flips: number): boolean {
  const attribute = slot === 0 ? "transA" : slot === 1 ? "transB" : undefined;
  const product = node.op === "MatMul" || node.op === "Gemm" || node.op === "FusedMatMul";
  if (!product || attribute === undefined) return false;
  const own = Number(node.attributes.get(attribute)?.int ?? 0) === 0 ? 0 : 1;
  const odd = (flips + own) % 2 === 1;
  return slot === 1 ? !odd : odd;
}

/** Slots that set an operation up; a float there is a constant of the architecture. Undefined: every slot. */
const settingSlots: Readonly<Record<string, readonly number[] | undefined>> = {
  Clip: [1, 2],
  Pow: [1],
  Resize: [1, 2, 3],
  Upsample: [1],
  Pad: [1, 2, 3],
  Dropout: [1, 2],
  OneHot: [1, 2],
  NonMaxSuppression: [2, 3, 4],
  QuantizeLinear: [1, 2],
  Range: [0, 1, 2],
  ConstantOfShape: [0],
};

export function isSetting(op: string, slot: number): boolean {
  return settingSlots[op]?.includes(slot) ?? false;
}

/** Slots in which integers are data (tables, quantized weights) rather than shapes, axes or indices. */
const integerSlots: Readonly<Record<string, readonly number[]>> = {
  Gather: [0],
  GatherElements: [0],
  GatherND: [0],
  Slice: [0],
  DequantizeLinear: [0, 2],
  MatMulInteger: [0, 1, 2, 3],
  ConvInteger: [1, 3],
  QLinearMatMul: [2, 3, 5, 7],
  QLinearConv: [2, 3, 5, 7, 8],
  MatMulNBits: [1, 3],
  GatherBlockQuantized: [0],
};

export function isIntegerData(op: string, slot: number): boolean {
  return integerSlots[op]?.includes(slot) ?? false;
}
