import { MendelError } from "../../base/errors.ts";
import {
  nodesWithin,
  type OnnxAttribute,
  type OnnxFunction,
  type OnnxGraph,
  type OnnxModel,
  type OnnxNode,
  type OnnxTensor,
  type OnnxValue,
  type TensorData,
} from "./onnx-model.ts";
import {
  attributeField,
  dimField,
  dtypeOfDataType,
  entryField,
  functionField,
  graphField,
  modelField,
  nodeField,
  opsetField,
  shapeField,
  sparseField,
  storedBytes,
  tensorField,
  tensorTypeField,
  trainingField,
  typeField,
  valueInfoField,
} from "./onnx-types.ts";
import { type ByteSource, bodyOf, type Span, type WireField, WireReader } from "./wire.ts";

/** Protobuf libraries refuse messages of 2 GiB and more; so does ONNX Runtime. */
export const maxModelBytes = 2 ** 31 - 1;
/** Messages within messages; a subgraph takes three levels, so 20 nested subgraphs fit. ONNX Runtime gives up near 100. */
export const maxNesting = 64;
/** Nodes, and tensors, of one model with all its subgraphs and functions: far beyond any exported model. */
export const maxNodes = 1_000_000;
/** Values of metadata_props may be class lists or configurations. */
const maxMetadataBytes = 1024 * 1024;

/** The key under which torch's exporter records the modules a node belongs to. */
const scopeKey = "pkg.torch.onnx.name_scopes";

/**
 * Parses a model's structure, skipping the payloads of tensors.
 *
 * @throws MendelError `invalid-file` for anything malformed or beyond the limits, naming file and byte or tensor.
 */
export function parseOnnx(source: ByteSource): OnnxModel {
  if (source.size > maxModelBytes) {
    throw new MendelError(
      "invalid-file",
      `${source.path}: ${source.size} bytes, but an ONNX model must be smaller than 2 GiB`,
      { where: { file: source.path }, hint: "Save the model with external data." },
    );
  }
  return new ModelParser(source).model();
}

/** Carries the source and the running totals through the recursive descent. */
class ModelParser {
  readonly #wire: WireReader;
  readonly #source: ByteSource;
  readonly #tensors: OnnxTensor[] = [];
  #nodes = 0;

  constructor(source: ByteSource) {
    this.#source = source;
    this.#wire = new WireReader(source);
  }

  model(): OnnxModel {
    const wire = this.#wire;
    const fields: WireField[] = [];
    const opsets = new Map<string, number>();
    const metadata: [string, string][] = [];
    const functions: OnnxFunction[] = [];
    let irVersion = 0;
    let producer = "";
    let graph: OnnxGraph | undefined;
    for (const field of wire.fields({ start: 0, end: this.#source.size })) {
      fields.push(field);
      switch (field.number) {
        case modelField.irVersion:
          irVersion = wire.count(field);
          break;
        case modelField.producerName:
          producer = wire.string(field);
          break;
        case modelField.opsetImport:
          this.#opset(field, opsets);
          break;
        case modelField.metadataProps:
          metadata.push(this.#entry(field, 1));
          break;
        case modelField.graph:
          if (graph !== undefined) throw wire.fail(field.start, "there are two graphs");
          graph = this.#graph(field, 1, "");
          break;
        case modelField.functions:
          functions.push(this.#function(field));
          break;
        case modelField.trainingInfo:
          this.#training(field);
          break;
      }
    }
    if (graph === undefined) throw wire.fail(0, "there is no graph");
    refuseRecursion(this.#source.path, functions);
    const own = new Set<OnnxTensor>(graph.initializers);
    for (const node of graph.nodes) {
      const value = node.op === "Constant" ? node.attributes.get("value")?.tensor : undefined;
      if (value !== undefined) own.add(value);
    }
    return {
      source: this.#source,
      irVersion,
      producer,
      opsets,
      metadata: Object.fromEntries(metadata),
      graph,
      functions,
      tensors: this.#tensors,
      hidden: this.#tensors.filter((tensor) => !own.has(tensor)),
      fields,
    };
  }

  #opset(field: WireField, opsets: Map<string, number>): void {
    let domain = "";
    let version = 0;
    for (const part of this.#message(field, 1)) {
      if (part.number === opsetField.domain) domain = standardDomain(this.#wire.string(part));
      if (part.number === opsetField.version) version = this.#wire.count(part);
    }
    opsets.set(domain, version);
  }

  #entry(field: WireField, depth: number): [string, string] {
    let key = "";
    let value = "";
    for (const part of this.#message(field, depth)) {
      if (part.number === entryField.key) key = this.#wire.string(part);
      if (part.number === entryField.value) value = this.#wire.string(part, maxMetadataBytes);
    }
    return [key, value];
  }

  #function(field: WireField): OnnxFunction {
    let name = "";
    let overload = "";
    let domain = "";
    const nodes: OnnxNode[] = [];
    for (const part of this.#message(field, 1)) {
      switch (part.number) {
        case functionField.name:
          name = this.#wire.string(part);
          break;
        case functionField.domain:
          domain = standardDomain(this.#wire.string(part));
          break;
        case functionField.overload:
          overload = this.#wire.string(part);
          break;
        case functionField.node:
          nodes.push(this.#node(part, nodes.length, 2, "function/"));
          break;
        case functionField.attributeProto:
          this.#attribute(part, 2, "function/");
          break;
      }
    }
    return { name: overload === "" ? name : `${name}:${overload}`, domain, nodes };
  }

  #training(field: WireField): void {
    for (const part of this.#message(field, 1)) {
      if (part.number === trainingField.initialization || part.number === trainingField.algorithm) {
        this.#graph(part, 2, "training/");
      }
    }
  }

  #graph(field: WireField, depth: number, place: string): OnnxGraph {
    const wire = this.#wire;
    const fields: WireField[] = [];
    const inputs: OnnxValue[] = [];
    const outputs: OnnxValue[] = [];
    const nodes: OnnxNode[] = [];
    const initializers: OnnxTensor[] = [];
    const sparseInitializers: OnnxTensor[] = [];
    let name = "";
    for (const part of this.#message(field, depth)) {
      fields.push(part);
      switch (part.number) {
        case graphField.name:
          name = wire.string(part);
          break;
        case graphField.node:
          nodes.push(this.#node(part, nodes.length, depth + 1, place));
          break;
        case graphField.initializer:
          initializers.push(this.#tensor(part, depth + 1, `${place}initializer`));
          break;
        case graphField.sparseInitializer:
          sparseInitializers.push(...this.#sparse(part, depth + 1, `${place}sparse initializer`));
          break;
        case graphField.input:
          inputs.push(this.#value(part, depth + 1));
          break;
        case graphField.output:
          outputs.push(this.#value(part, depth + 1));
          break;
      }
    }
    return { name, inputs, outputs, nodes, initializers, sparseInitializers, fields };
  }

  #node(field: WireField, index: number, depth: number, place: string): OnnxNode {
    const wire = this.#wire;
    this.#nodes++;
    if (this.#nodes > maxNodes) throw wire.fail(field.start, `more than ${maxNodes} nodes`);
    const fields = [...this.#message(field, depth)];
    const texts = (number: number): string[] =>
      fields.filter((part) => part.number === number).map((part) => wire.string(part));
    const op = texts(nodeField.opType).at(-1) ?? "";
    const name = texts(nodeField.name).at(-1) ?? "";
    const where = `${place}node ${name === "" ? `${index} (${op})` : name}/`;
    const attributes = new Map<string, OnnxAttribute>();
    let scopes: string | undefined;
    for (const part of fields) {
      if (part.number === nodeField.attribute) {
        const attribute = this.#attribute(part, depth + 1, where);
        if (attributes.has(attribute.name)) {
          throw wire.fail(part.start, `attribute "${attribute.name}" appears twice`);
        }
        attributes.set(attribute.name, attribute);
      } else if (part.number === nodeField.metadataProps) {
        scopes = this.#scopes(part, depth + 1) ?? scopes;
      }
    }
    return {
      index,
      op,
      domain: standardDomain(texts(nodeField.domain).at(-1) ?? ""),
      name,
      inputs: texts(nodeField.input),
      outputs: texts(nodeField.output),
      attributes,
      ...(scopes === undefined ? {} : { scopes }),
      fields,
    };
  }

  /** The value of torch's scope entry; others (stack traces) may be long and are not decoded. */
  #scopes(field: WireField, depth: number): string | undefined {
    const parts = [...this.#message(field, depth)];
    const key = parts.find((part) => part.number === entryField.key);
    const value = parts.find((part) => part.number === entryField.value);
    if (key === undefined || value === undefined) return undefined;
    return this.#wire.string(key) === scopeKey ? this.#wire.string(value) : undefined;
  }

  #attribute(field: WireField, depth: number, place: string): OnnxAttribute {
    const wire = this.#wire;
    const parts = [...this.#message(field, depth)];
    const nameField = parts.find((part) => part.number === attributeField.name);
    const name = nameField === undefined ? "" : wire.string(nameField);
    const label = `${place}${name}`;
    const graphs: OnnxGraph[] = [];
    const ints: (number | bigint)[] = [];
    let simple: Pick<OnnxAttribute, "int" | "float" | "string"> = {};
    let type: number | undefined;
    let tensor: OnnxTensor | undefined;
    const seen = new Set<number>();
    for (const part of parts) {
      // Decoders merge a message that appears twice; a checker that looks at each alone would miss the result.
      const single = part.number === attributeField.t || part.number === attributeField.g;
      if (seen.has(part.number) && (single || part.number === attributeField.sparseTensor)) {
        throw wire.fail(part.start, `a value of ${label} appears twice`);
      }
      seen.add(part.number);
      switch (part.number) {
        case attributeField.type:
          type = wire.count(part);
          break;
        case attributeField.i:
          simple = { ...simple, int: wire.int64(part) };
          break;
        case attributeField.f:
          simple = { ...simple, float: wire.float32(part) };
          break;
        case attributeField.s:
          wire.expect(part, 2);
          simple = { ...simple, string: bodyOf(part) };
          break;
        case attributeField.ints:
          ints.push(...wire.int64s(part));
          break;
        case attributeField.t:
          tensor = this.#tensor(part, depth + 1, label);
          break;
        case attributeField.tensors:
          this.#tensor(part, depth + 1, label);
          break;
        case attributeField.g:
        case attributeField.graphs:
          graphs.push(this.#graph(part, depth + 1, `${label}/`));
          break;
        case attributeField.sparseTensor:
        case attributeField.sparseTensors:
          this.#sparse(part, depth + 1, label);
          break;
      }
    }
    return {
      name,
      type,
      ...simple,
      ...(ints.length === 0 ? {} : { ints }),
      ...(tensor === undefined ? {} : { tensor }),
      graphs,
    };
  }

  #sparse(field: WireField, depth: number, label: string): OnnxTensor[] {
    const tensors: OnnxTensor[] = [];
    for (const part of this.#message(field, depth)) {
      if (part.number === sparseField.values || part.number === sparseField.indices) {
        tensors.push(this.#tensor(part, depth + 1, label));
      }
    }
    if (tensors.length > 2) throw this.#wire.fail(field.start, `${label} has repeated parts`);
    return tensors;
  }

  #value(field: WireField, depth: number): OnnxValue {
    let name = "";
    let type: WireField | undefined;
    for (const part of this.#message(field, depth)) {
      if (part.number === valueInfoField.name) name = this.#wire.string(part);
      if (part.number === valueInfoField.type) type = part;
    }
    let dataType: number | undefined;
    let shape: (number | string)[] | undefined;
    const parts = type === undefined ? [] : [...this.#message(type, depth + 1)];
    const tensor = parts.find((part) => part.number === typeField.tensor);
    for (const part of tensor === undefined ? [] : this.#message(tensor, depth + 2)) {
      if (part.number === tensorTypeField.elemType) dataType = this.#wire.count(part);
      if (part.number === tensorTypeField.shape) shape = this.#shape(part, depth + 3);
    }
    const dtype = dataType === undefined ? undefined : dtypeOfDataType(dataType);
    return { name, dataType, dtype, shape };
  }

  #shape(field: WireField, depth: number): (number | string)[] {
    const shape: (number | string)[] = [];
    for (const part of this.#message(field, depth)) {
      if (part.number !== shapeField.dim) continue;
      let dim: number | string = "";
      for (const piece of this.#message(part, depth + 1)) {
        if (piece.number === dimField.param) dim = this.#wire.string(piece);
        if (piece.number === dimField.value) dim = Number(this.#wire.int64(piece));
      }
      shape.push(dim);
    }
    return shape;
  }

  #tensor(field: WireField, depth: number, place: string): OnnxTensor {
    const wire = this.#wire;
    if (this.#tensors.length >= maxNodes) {
      throw wire.fail(field.start, `more than ${maxNodes} tensors`);
    }
    const fields = [...this.#message(field, depth)];
    const dims: number[] = [];
    const entries: [string, string][] = [];
    const typed = new Map<number, Span[]>();
    const singles = new Map<number, WireField>();
    for (const part of fields) {
      switch (part.number) {
        case tensorField.dims:
          for (const dim of wire.int64s(part)) {
            if (typeof dim !== "number" || dim < 0) {
              throw wire.fail(part.start, `a tensor of ${place} has the dimension ${dim}`);
            }
            dims.push(dim);
          }
          break;
        case tensorField.segment:
          throw wire.fail(part.start, `a tensor of ${place} is stored in segments`);
        case tensorField.externalData:
          entries.push(this.#entry(part, depth + 1));
          break;
        case tensorField.name:
        case tensorField.dataType:
        case tensorField.dataLocation:
        case tensorField.rawData:
          if (singles.has(part.number)) {
            throw wire.fail(part.start, `a tensor of ${place} repeats field ${part.number}`);
          }
          singles.set(part.number, part);
          break;
        case tensorField.floatData:
        case tensorField.int32Data:
        case tensorField.stringData:
        case tensorField.int64Data:
        case tensorField.doubleData:
        case tensorField.uint64Data: {
          const spans = typed.get(part.number) ?? [];
          spans.push(bodyOf(part));
          typed.set(part.number, spans);
          break;
        }
      }
    }
    const nameField = singles.get(tensorField.name);
    const name = nameField === undefined ? "" : wire.string(nameField);
    const typeOf = singles.get(tensorField.dataType);
    const dataType = typeOf === undefined ? 0 : wire.count(typeOf);
    const location = singles.get(tensorField.dataLocation);
    const raw = singles.get(tensorField.rawData);
    if (raw !== undefined) wire.expect(raw, 2);
    const label = name === "" ? place : name;
    const count = dims.reduce((product, dim) => product * dim, 1);
    const fail = (problem: string): MendelError => tensorError(this.#source.path, label, problem);
    if (!Number.isSafeInteger(count) || !Number.isSafeInteger(count * 16)) {
      throw fail(`its shape [${dims.join(", ")}] is too large`);
    }
    const data = tensorData({
      external: location !== undefined && wire.count(location) === 1,
      entries,
      raw: raw === undefined ? undefined : bodyOf(raw),
      typed,
      bytes: storedBytes(dataType, count),
      count,
      fail,
    });
    const dtype = dtypeOfDataType(dataType);
    const tensor = { name, dataType, dtype, dims, count, data, label, field, fields };
    this.#tensors.push(tensor);
    return tensor;
  }

  #message(field: WireField, depth: number): Generator<WireField> {
    this.#wire.expect(field, 2);
    if (depth > maxNesting) {
      throw this.#wire.fail(field.start, `messages are nested deeper than ${maxNesting} levels`);
    }
    return this.#wire.fields(bodyOf(field));
  }
}

/** Decides where elements lie and refuses tensors that say two things at once or the wrong amount. */
function tensorData(found: {
  readonly external: boolean;
  readonly entries: readonly (readonly [string, string])[];
  readonly raw: Span | undefined;
  readonly typed: ReadonlyMap<number, readonly Span[]>;
  readonly bytes: number | undefined;
  readonly count: number;
  readonly fail: (problem: string) => MendelError;
}): TensorData {
  const { raw, typed, bytes, count, fail } = found;
  const filled = [...typed].filter(([, spans]) => spans.some((span) => span.end > span.start));
  const rawLength = raw === undefined ? 0 : raw.end - raw.start;
  if (found.external) {
    if (rawLength > 0 || filled.length > 0) throw fail("it has both embedded and external data");
    return { kind: "external", entries: found.entries };
  }
  if (found.entries.length > 0) throw fail("it names an external file but is not marked external");
  if (raw !== undefined && (rawLength > 0 || filled.length === 0)) {
    if (filled.length > 0) throw fail("it has both raw and typed data");
    if (bytes !== undefined && bytes !== rawLength) {
      throw fail(`its shape needs ${bytes} bytes, but it has ${rawLength}`);
    }
    return { kind: "raw", span: raw };
  }
  if (filled.length > 1) throw fail("it has typed data of two kinds");
  const [field, spans] = filled[0] ?? [0, []];
  if (field === 0 && count > 0 && bytes !== undefined) throw fail("it has no data");
  return { kind: "typed", field, spans };
}

/** The error for a tensor that contradicts itself. */
export function tensorError(path: string, tensor: string, problem: string): MendelError {
  return new MendelError("invalid-file", `${path}: tensor ${JSON.stringify(tensor)}: ${problem}`, {
    where: { file: path, tensor },
  });
}

/** Functions that call themselves, directly or in a circle, would be expanded for ever. */
function refuseRecursion(path: string, functions: readonly OnnxFunction[]): void {
  const key = (domain: string, name: string): string => `${domain}\u001f${name.split(":")[0]}`;
  const calls = new Map<string, Set<string>>();
  for (const { name, domain, nodes } of functions) {
    const called = calls.get(key(domain, name)) ?? new Set<string>();
    for (const node of nodesWithin(nodes)) called.add(key(node.domain, node.op));
    calls.set(key(domain, name), called);
  }
  // Take away functions that call nothing left, again and again; whatever stays is called in a circle.
  const callers = new Map<string, string[]>();
  const open = new Map<string, number>();
  for (const [name, called] of calls) {
    const own = [...called].filter((other) => calls.has(other));
    open.set(name, own.length);
    for (const other of own) {
      const list = callers.get(other) ?? [];
      list.push(name);
      callers.set(other, list);
    }
  }
  const ready = [...open].filter(([, count]) => count === 0).map(([name]) => name);
  for (let name = ready.pop(); name !== undefined; name = ready.pop()) {
    open.delete(name);
    for (const caller of callers.get(name) ?? []) {
      const count = open.get(caller)! - 1;
      open.set(caller, count);
      if (count === 0) ready.push(caller);
    }
  }
  const left = [...open.keys()][0];
  if (left !== undefined) {
    const name = left.split("\u001f")[1];
    throw new MendelError("invalid-file", `${path}: the function "${name}" calls itself`, {
      where: { file: path },
    });
  }
}

function standardDomain(domain: string): string {
  return domain === "ai.onnx" ? "" : domain;
}
