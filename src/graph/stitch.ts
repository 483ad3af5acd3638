import { MendelError } from "../base/errors.ts";
import type { NodeSpec } from "../formats/onnx/onnx-builder.ts";
import type { OnnxNode } from "../formats/onnx/onnx-model.ts";
import { dataTypeOfDtype } from "../formats/onnx/onnx-types.ts";
import type { Chunks, NewData, Piece } from "../formats/onnx/rewrite-model.ts";
import { piecesLength } from "../formats/onnx/rewrite-model.ts";
import { alignment, maxSingleFileBytes, minExternalBytes } from "../formats/onnx/write-onnx.ts";
import { findLayers } from "../recipes/tensor-groups.ts";
import type { GraphCut, GraphPiece } from "./cut.ts";
import { declaredTypes, type PieceNode, type PieceWeight, pieceModelBytes } from "./piece-model.ts";
import type { FedTensor } from "./weight-feed.ts";

/** One step of the new model. */
export interface StitchStep {
  /** Whose block; also part of what tells blocks apart that share their weights. */
  readonly model: string;
  readonly layer: number;
  /** Factor on the hidden state that enters it. */
  readonly scale: number;
}

export interface StitchOptions {
  readonly steps: readonly StitchStep[];
  /** Whose embedding and head. */
  readonly outer: { readonly embedding: string; readonly head: string };
  /** Steps through one block share its weights (default); otherwise every step has a copy of its own. */
  readonly share?: boolean;
  /** Elements of a weight of a model in the graph's layout: `like` says how, `own` which. */
  bytesOf(model: string, like: FedTensor, own: FedTensor): Uint8Array;
}

/** A model's file, and its weights in a second file where one would be too large. */
export interface StitchedModel {
  readonly model: readonly Piece[];
  readonly data: readonly Piece[];
}

/**
 * One graph that walks through blocks: the embedding, the block's structure once per step, the head. Layers are numbered by
 * step, in the names of weights and nodes; a block that is walked through twice is stored once.
 *
 * @param location name of the second file
 * @throws MendelError `unsupported` for a path of no step
 */
export function stitchModel(
  cut: GraphCut,
  options: StitchOptions,
  location: string,
): StitchedModel {
  const single = layOut(cut, options, undefined);
  return piecesLength(single.model) <= maxSingleFileBytes ? single : layOut(cut, options, location);
}

function layOut(
  cut: GraphCut,
  options: StitchOptions,
  location: string | undefined,
): StitchedModel {
  const { graph, boundaries, embedding, blocks, head } = cut;
  const { steps, outer } = options;
  if (steps.length === 0) throw new MendelError("unsupported", "a path of no step is no model");
  const nodes: PieceNode[] = embedding.nodes.map((node) => ({ node }));
  const weights: PieceWeight[] = [];
  const data: Piece[] = [];
  let end = 0;
  const place = (bytes: Chunks): NewData => {
    if (location === undefined || bytes.length < minExternalBytes)
      return { kind: "embedded", bytes };
    const offset = Math.ceil(end / alignment) * alignment;
    if (offset > end) data.push(new Uint8Array(offset - end));
    data.push(bytes);
    end = offset + bytes.length;
    return { kind: "external", location, offset, length: bytes.length };
  };
  const add = (name: string, model: string, like: FedTensor, own: FedTensor): void => {
    const bytes = lazily(like.byteLength, () => options.bytesOf(model, like, own));
    weights.push({ name, like, data: place(bytes) });
  };
  const fed = (name: string): FedTensor => graph.weights.get(name)!;
  for (const name of embedding.weights) add(name, outer.embedding, fed(name), fed(name));

  const names = new StepNames(cut);
  const structure = blocks[0]!;
  const stored = new Map<string, readonly string[]>();
  let hidden = boundaries[0]!;
  steps.forEach(({ model, layer, scale }, at) => {
    const own = blocks[layer]!;
    const key = options.share === false ? String(at) : `${model}\u001f${layer}`;
    let weightNames = stored.get(key);
    if (weightNames === undefined) {
      weightNames = own.weights.map((name, role) => {
        const like = fed(structure.weights[role]!);
        const given = names.weight(fed(name), layer, at, role);
        add(given, model, like, fed(name));
        return given;
      });
      stored.set(key, weightNames);
    }
    if (scale !== 1) {
      const scaled = `step.${at}/scaled`;
      nodes.push(...scaleNodes(`step.${at}/`, hidden, scaled, scale, fed(structure.weights[0]!)));
      hidden = scaled;
    }
    const rename = stepNames(structure, weightNames, `step.${at}/`);
    rename.set(boundaries[0]!, hidden);
    for (const node of structure.nodes) nodes.push({ node, rename, name: names.node(node, at) });
    hidden = rename.get(boundaries[1]!)!;
  });

  const outputs = graph.model.graph.outputs.map(({ name }) => name);
  const shared = new Set(outer.head === outer.embedding ? embedding.weights : []);
  const headNames = head.weights.map((name) => {
    if (shared.has(name)) return name;
    const given = embedding.weights.includes(name) ? `head/${name}` : name;
    add(given, outer.head, fed(name), fed(name));
    return given;
  });
  const rename = stepNames(head, headNames, "head/");
  for (const name of outputs) rename.delete(name);
  rename.set(boundaries.at(-1)!, hidden);
  for (const node of head.nodes) nodes.push({ node, rename, name: node.name });

  const types = declaredTypes(graph.model);
  const initializers = new Set(graph.model.graph.initializers.map(({ name }) => name));
  const typed = (name: string) => ({ name, type: types.get(name)! });
  const model = pieceModelBytes(graph, {
    nodes,
    inputs: graph.model.graph.inputs
      .map(({ name }) => name)
      .filter((name) => !initializers.has(name))
      .map(typed),
    outputs: outputs.map(typed),
    weights,
    constants: [...new Set([...embedding.constants, ...structure.constants, ...head.constants])],
  });
  return { model, data };
}

/** New names of everything a piece makes, and of its weights. Constants and what it reads keep theirs. */
function stepNames(
  piece: GraphPiece,
  weightNames: readonly string[],
  prefix: string,
): Map<string, string> {
  const rename = new Map<string, string>();
  for (const { outputs } of piece.nodes) {
    for (const name of outputs) if (name !== "") rename.set(name, `${prefix}${name}`);
  }
  piece.weights.forEach((name, role) => {
    rename.set(name, weightNames[role]!);
  });
  return rename;
}

/** The hidden state times a number, in the element type of the weights. */
function scaleNodes(
  prefix: string,
  hidden: string,
  scaled: string,
  scale: number,
  { dtype }: FedTensor,
): NodeSpec[] {
  const tensor = { dtype: "f32", shape: [], elements: [scale] } as const;
  const to = dataTypeOfDtype(dtype);
  return [
    {
      op: "Constant",
      inputs: [],
      outputs: [`${prefix}scale.f32`],
      attributes: { value: { tensor } },
    },
    {
      op: "Cast",
      inputs: [`${prefix}scale.f32`],
      outputs: [`${prefix}scale`],
      attributes: { to: { int: to } },
    },
    { op: "Mul", inputs: [hidden, `${prefix}scale`], outputs: [scaled] },
  ];
}

/** Names with the layer's number replaced by the step's, as an ordinary model of that depth would have them. */
class StepNames {
  readonly #placeOf: ReturnType<typeof findLayers>["placeOf"];
  readonly #layerWord: RegExp | undefined;
  readonly #taken = new Set<string>();

  constructor({ graph, blocks, embedding, head }: GraphCut) {
    const names = [...graph.weights.values()].map(({ name }) => name);
    const { placeOf } = findLayers(names);
    this.#placeOf = placeOf;
    for (const name of [...embedding.weights, ...head.weights]) this.#taken.add(name);
    const first = graph.weights.get(blocks[0]!.weights[0] ?? "")?.name;
    const place = first === undefined ? undefined : placeOf(first);
    if (place !== undefined) {
      const word = place.stack
        .split(/[./]/)
        .at(-1)!
        .replace(/[^A-Za-z0-9_]/g, ".");
      this.#layerWord = new RegExp(`(?<=(?:^|[/.])${word}[./])${place.index}(?=[./])`);
    }
  }

  /** A transposed weight keeps an automatic name: readers then look at its node and see how it is stored. */
  weight(own: FedTensor, layer: number, step: number, role: number): string {
    const place = this.#placeOf(own.name);
    const named =
      place !== undefined && place.index === layer
        ? `${own.name.slice(0, place.stack.length + 1)}${step}${place.rest}`
        : `step.${step}/${own.name}`;
    const wanted = own.transposed ? `onnx::MatMul_${1000 * (step + 1) + role}` : named;
    let free = wanted;
    for (let n = 2; this.#taken.has(free); n++) free = `${wanted}.${n}`;
    this.#taken.add(free);
    return free;
  }

  node({ name }: OnnxNode, step: number): string {
    if (name === "" || this.#layerWord === undefined)
      return name === "" ? "" : `step.${step}/${name}`;
    const renumbered = name.replace(this.#layerWord, String(step));
    return renumbered === name && step > 0 ? `step.${step}/${name}` : renumbered;
  }
}

/** Bytes that are made when they are written and forgotten after that. */
function lazily(length: number, make: () => Uint8Array): Chunks {
  return {
    length,
    *chunks() {
      yield make();
    },
  };
}
