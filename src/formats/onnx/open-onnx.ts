import { dirname, resolve } from "node:path";
import { MendelError } from "../../base/errors.ts";
import { suggestion } from "../../base/suggest.ts";
import { dtypeBytes } from "../../tensors/dtype.ts";
import type { ModelReader } from "../../tensors/model-reader.ts";
import { elementCount } from "../../tensors/shape.ts";
import { type ExternalDataOptions, type ExternalPlace, openExternalData } from "./external-data.ts";
import { type GraphSignature, signatureOf } from "./graph-order.ts";
import { findWeights, type OnnxWeight } from "./graph-weights.ts";
import { parseOnnx, tensorError } from "./onnx-graph.ts";
import type { OnnxModel, OnnxTensor } from "./onnx-model.ts";
import { PinnedFile } from "./pinned-file.ts";
import { TensorBytes } from "./tensor-bytes.ts";

/** An ONNX model opened for reading. */
export interface OnnxReader extends ModelReader {
  readonly format: "onnx";
  /** Keyed by logical name, in natural order. Aliases are not keys here, but `read` and `find` know them. */
  readonly tensors: ReadonlyMap<string, OnnxWeight>;
  /** The parsed model: graph, opsets, metadata. */
  readonly graph: OnnxModel;
  /** Identifies the network's structure, names aside. */
  readonly signature: GraphSignature;
  /** Verified places of all external tensors. */
  readonly external: ReadonlyMap<OnnxTensor, ExternalPlace>;
  /** A weight by logical name, alias or stored name. */
  find(name: string): OnnxWeight | undefined;
  /** Fills `target` with bytes of any tensor of the model as stored (raw layout), from byte `from` on. */
  readStored(tensor: OnnxTensor, from: number, target: Uint8Array): void;
}

/**
 * Opens an ONNX model: parses the structure, checks every external data reference, and names the weights. Payloads stay
 * on disk.
 *
 * @throws MendelError `not-found`, or `invalid-file` for anything damaged or hostile
 */
export function openOnnx(path: string, options: ExternalDataOptions = {}): OnnxReader {
  const file = new PinnedFile(path, true);
  try {
    return new OnnxFile(path, file, options);
  } catch (error) {
    file.close();
    throw error;
  }
}

class OnnxFile implements OnnxReader {
  readonly format = "onnx";
  readonly path: string;
  readonly files: readonly string[];
  readonly tensors: ReadonlyMap<string, OnnxWeight>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly graph: OnnxModel;
  readonly signature: GraphSignature;
  readonly external: ReadonlyMap<OnnxTensor, ExternalPlace>;
  readonly #file: PinnedFile;
  readonly #byAnyName = new Map<string, OnnxWeight>();
  readonly #bytes: TensorBytes;

  constructor(path: string, file: PinnedFile, options: ExternalDataOptions) {
    this.path = path;
    this.#file = file;
    this.graph = parseOnnx(file);
    this.metadata = this.graph.metadata;
    refuseDoubleNames(path, this.graph);
    const { weights, slots } = findWeights(this.graph.graph);
    this.tensors = weights;
    this.signature = signatureOf(this.graph.graph, slots);
    for (const weight of weights.values()) this.#byAnyName.set(weight.storedName, weight);
    for (const weight of weights.values()) {
      for (const alias of weight.aliases) this.#byAnyName.set(alias, weight);
    }
    for (const weight of weights.values()) this.#byAnyName.set(weight.name, weight);
    this.external = openExternalData(path, dirname(path), this.graph.tensors, options);
    const dataFiles = new Set([...this.external.values()].map((place) => place.file.path));
    this.files = [resolve(path), ...[...dataFiles].sort()];
    this.#bytes = new TensorBytes(file, this.external);
  }

  find(name: string): OnnxWeight | undefined {
    return this.#byAnyName.get(name);
  }

  read(name: string, start: number, target: Uint8Array): void {
    const weight = this.find(name);
    if (weight === undefined) {
      throw new MendelError("not-found", `${this.path}: there is no tensor "${name}"`, {
        where: { file: this.path, tensor: name },
        hint: suggestion(name, [...this.tensors.keys()].slice(0, 50)),
      });
    }
    const size = dtypeBytes[weight.dtype];
    const end = start + target.length / size;
    if (target.length % size !== 0 || start < 0 || end > elementCount(weight.shape)) {
      throw new Error(`read of [${start}, ${end}) outside tensor ${name}`);
    }
    if (weight.transposed) this.#bytes.readTransposed(weight.tensor, start, target);
    else this.#bytes.readStored(weight.tensor, start * size, target);
  }

  readStored(tensor: OnnxTensor, from: number, target: Uint8Array): void {
    this.#bytes.readStored(tensor, from, target);
  }

  close(): void {
    this.#file.close();
    for (const place of this.external.values()) place.file.close();
  }
}

/** Two values under one name would make every lookup by name ambiguous. */
function refuseDoubleNames(path: string, model: OnnxModel): void {
  const seen = new Set<string>();
  const claim = (name: string): void => {
    if (name === "") return;
    if (seen.has(name)) throw tensorError(path, name, "the graph defines it twice");
    seen.add(name);
  };
  for (const tensor of model.graph.initializers) claim(tensor.name);
  for (const node of model.graph.nodes) for (const name of node.outputs) claim(name);
}
