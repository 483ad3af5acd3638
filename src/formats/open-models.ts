import { MendelError } from "../base/errors.ts";
import { suggestion } from "../base/suggest.ts";
import { type Dtype, dtypeBytes } from "../tensors/dtype.ts";
import type { ModelReader, ModelTensor } from "../tensors/model-reader.ts";
import { openModel } from "./index.ts";

/** A model to open: an id, a path, and for a LoRA adapter the id of the model below it. */
export interface ModelPlace {
  readonly id: string;
  readonly path: string;
  readonly base?: string;
}

/** Models opened together, by id; a source of weights that reads them from their files. */
export class OpenModels {
  readonly readers: ReadonlyMap<string, ModelReader>;

  private constructor(readers: ReadonlyMap<string, ModelReader>) {
    this.readers = readers;
  }

  /**
   * Opens models in the order given, adapters after the models they belong to. Headers only.
   *
   * @throws MendelError as `openModel`; `invalid-config` when an adapter's base is not among the models
   */
  static open(places: readonly ModelPlace[]): OpenModels {
    const readers = new Map<string, ModelReader>();
    const ids = places.map(({ id }) => id);
    const open = ({ id, path, base }: ModelPlace, below: readonly string[]): ModelReader => {
      const known = readers.get(id);
      if (known !== undefined) return known;
      const reader =
        base === undefined ? openModel(path) : openModel(path, { base: baseOf(id, base, below) });
      readers.set(id, reader);
      return reader;
    };
    const baseOf = (id: string, base: string, below: readonly string[]): ModelReader => {
      const place = places.find((candidate) => candidate.id === base);
      if (place === undefined || below.includes(base) || base === id) {
        throw new MendelError(
          "invalid-config",
          `model ${id} is an adapter on "${base}", which is not another model`,
          {
            hint: suggestion(
              base,
              ids.filter((other) => other !== id),
            ),
          },
        );
      }
      return open(place, [...below, id]);
    };
    try {
      for (const place of places) open(place, []);
    } catch (thrown) {
      for (const reader of readers.values()) reader.close();
      throw thrown;
    }
    return new OpenModels(new Map(ids.map((id) => [id, readers.get(id) as ModelReader])));
  }

  require(id: string): ModelReader {
    const reader = this.readers.get(id);
    if (reader === undefined) throw new Error(`model ${id} is not open`);
    return reader;
  }

  #tensor(id: string, name: string): ModelTensor {
    const tensor = this.require(id).tensors.get(name);
    if (tensor === undefined) throw new Error(`model ${id} has no tensor ${name}`);
    return tensor;
  }

  dtypeOf(id: string, name: string): Dtype {
    return this.#tensor(id, name).dtype;
  }

  read(id: string, name: string, start: number, target: Uint8Array): void {
    this.require(id).read(name, start, target);
  }

  /** Bytes of all weights of a model, in stored dtype. */
  weightBytes(id: string): number {
    let bytes = 0;
    for (const { shape, dtype } of this.require(id).tensors.values()) {
      bytes += shape.reduce((product, dim) => product * dim, 1) * dtypeBytes[dtype];
    }
    return bytes;
  }

  close(): void {
    for (const reader of this.readers.values()) reader.close();
  }
}
