import { parseOnnx } from "../formats/onnx/onnx-graph.ts";
import type { OnnxModel } from "../formats/onnx/onnx-model.ts";
import type { OnnxReader } from "../formats/onnx/open-onnx.ts";
import { memorySource } from "../formats/onnx/wire.ts";
import { isFloat } from "../tensors/dtype.ts";
import { buildWeightFeed, type FedTensor } from "./weight-feed.ts";

/** A model in which every weight is one initializer of its own: shared storage is cut loose, `Constant` weights are lifted. */
export interface WeightedGraph {
  /** The file it came from. */
  readonly path: string;
  /** In memory, without the weights' elements. */
  readonly model: OnnxModel;
  /** Initializer → the weight it stands for. */
  readonly weights: ReadonlyMap<string, FedTensor>;
}

/**
 * Separates a model's float weights from the rest of it.
 *
 * @param names logical names or aliases of the weights, each once; default: every float weight and every alias
 * @throws MendelError what building the graph throws
 */
export function weightedGraph(reader: OnnxReader, names?: Iterable<string>): WeightedGraph {
  const all = (): string[] =>
    [...reader.tensors.values()]
      .filter(({ dtype }) => isFloat(dtype))
      .flatMap(({ name, aliases }) => [name, ...aliases]);
  const feed = buildWeightFeed(reader, { feed: "session", names: names ?? all() });
  return {
    path: reader.path,
    model: parseOnnx(memorySource(feed.model, reader.path)),
    weights: new Map(feed.tensors.map((tensor) => [tensor.graphName, tensor])),
  };
}
