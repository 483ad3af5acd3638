import { mkdirSync } from "node:fs";
import { basename, dirname, extname, join } from "node:path";
import { feedNames, pieceWeights } from "../evaluation/piece-weights.ts";
import { graphNames } from "../evaluation/slab-program.ts";
import type { OnnxReader } from "../formats/onnx/open-onnx.ts";
import { publish } from "../formats/onnx/write-onnx.ts";
import { findBlocks } from "../graph/blocks.ts";
import { stitchModel } from "../graph/stitch.ts";
import { weightedGraph } from "../graph/weighted-graph.ts";
import type { WeightSource } from "../merge/materialize.ts";
import { type MergeInputs, modelIdOf } from "../merge/plan.ts";
import type { LayerPath } from "../recipes/layer-path.ts";
import type { WrittenFile } from "./write-model.ts";

export interface WritePathOptions {
  readonly path: LayerPath;
  readonly graph: OnnxReader;
  /** Id of the model the graph belongs to. */
  readonly graphId: string | undefined;
  readonly inputs: MergeInputs;
  readonly source: WeightSource;
  /** A folder that gets `model.onnx`, or the file itself. */
  readonly out: string;
  /** Steps through one block share its weights (default); otherwise every step has a copy of its own. */
  readonly share?: boolean;
}

/**
 * Writes the model of a walk as one ONNX graph.
 *
 * @throws MendelError `unsupported` when the graph has no blocks that can be cut
 */
export async function writePath(options: WritePathOptions): Promise<WrittenFile[]> {
  const { path, graph, graphId, inputs, source, out } = options;
  const names = graphNames({ graph, graphId, inputs });
  const cut = findBlocks(weightedGraph(graph, feedNames(graph, names.values())));
  const first = path.steps[0]?.model ?? { model: "" };
  const last = path.steps.at(-1)?.model ?? { model: "" };
  const weights = pieceWeights({ reader: graph, inputs, source, names });
  const file = extname(out) === ".onnx" ? out : join(out, "model.onnx");
  mkdirSync(dirname(file), { recursive: true });
  const data = `${file}_data`;
  const stitched = stitchModel(
    cut,
    {
      steps: path.steps.map(({ model, layer, scale }) => ({
        model: modelIdOf(model),
        layer,
        scale,
      })),
      outer: {
        embedding: modelIdOf(path.outer ?? first),
        head: modelIdOf(path.outer ?? last),
      },
      ...(options.share === undefined ? {} : { share: options.share }),
      bytesOf: (model, like, own) => weights.bytesOf(model, [like], [own]),
    },
    basename(data),
  );
  const files = [{ path: file, pieces: stitched.model }];
  if (stitched.data.length > 0) files.unshift({ path: data, pieces: stitched.data });
  return [...(await publish({ graph: cut.graph.model }, files))];
}
