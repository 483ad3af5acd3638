import { MendelError } from "../../base/errors.ts";

/**
 * Protocol-buffer wire format, read without a schema and without loading payloads.
 *
 * A message is a list of fields; a field is known by the span of its bytes. Whoever rewrites a model copies the spans it
 * does not understand, so unknown fields survive. Reference: https://protobuf.dev/programming-guides/encoding/
 */

/** Bytes that can be read at any position: an open file, or memory. */
export interface ByteSource {
  /** Named in errors. */
  readonly path: string;
  readonly size: number;
  /** Fills `target` from `position` on. @throws MendelError `invalid-file` when there are too few bytes. */
  read(position: number, target: Uint8Array): void;
}

/** A range of bytes of a source. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

export type WireType = 0 | 1 | 2 | 5;

/** One field of a message: `start` is its tag, [body, end) its value (the payload, without the length prefix). */
export interface WireField extends Span {
  readonly number: number;
  readonly wire: WireType;
  readonly body: number;
}

/** Names, op types and keys are short; a longer one is damage or an attack on whoever prints it. */
export const maxStringBytes = 64 * 1024;

/** One positional read serves the tags around it; larger windows would read payloads for nothing. */
const windowBytes = 64 * 1024;

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Memory as a source; `path` is what errors call it. */
export function memorySource(bytes: Uint8Array, path = "(memory)"): ByteSource {
  return {
    path,
    size: bytes.length,
    read(position, target) {
      if (position + target.length > bytes.length)
        throw malformed(path, position, "data ends early");
      target.set(bytes.subarray(position, position + target.length));
    },
  };
}

/** The error for bytes that do not parse. */
export function malformed(path: string, offset: number, problem: string): MendelError {
  return new MendelError(
    "invalid-file",
    `${path}: not a valid ONNX model: ${problem} (byte ${offset})`,
    {
      where: { file: path },
      hint: "Export or download the model again; the file is damaged or is not ONNX.",
    },
  );
}

/** Reads fields of messages from a source through a small window. */
export class WireReader {
  readonly source: ByteSource;
  /** Position after the last varint. */
  next = 0;
  #window = new Uint8Array(0);
  #windowStart = 0;

  constructor(source: ByteSource) {
    this.source = source;
  }

  fail(offset: number, problem: string): MendelError {
    return malformed(this.source.path, offset, problem);
  }

  /** A copy of [start, end). */
  bytes(span: Span): Uint8Array {
    const target = new Uint8Array(span.end - span.start);
    const from = span.start - this.#windowStart;
    if (from >= 0 && from + target.length <= this.#window.length) {
      target.set(this.#window.subarray(from, from + target.length));
    } else {
      this.source.read(span.start, target);
    }
    return target;
  }

  /**
   * The varint at `position`, unsigned, which must end before `end`: a number when it is a safe integer, else a bigint.
   * Sets `next`.
   */
  varint(position: number, end: number): number | bigint {
    let value = 0;
    let scale = 1;
    let big = 0n;
    for (let i = 0; i < 10; i++) {
      if (position + i >= end) throw this.fail(position, "a number is cut off");
      const byte = this.#byte(position + i);
      // Seven bytes hold 49 bits, which a double holds exactly.
      if (i < 7) value += (byte & 0x7f) * scale;
      else big |= BigInt(byte & 0x7f) << BigInt(7 * i);
      scale *= 128;
      if (byte < 0x80) {
        this.next = position + i + 1;
        if (big === 0n) return value;
        const whole = BigInt.asUintN(64, big | BigInt(value));
        return whole <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(whole) : whole;
      }
    }
    throw this.fail(position, "a number is longer than ten bytes");
  }

  /** Fields of the message in [start, end), in file order. */
  *fields(message: Span): Generator<WireField> {
    let position = message.start;
    while (position < message.end) {
      const tag = this.varint(position, message.end);
      if (typeof tag !== "number" || tag > 0xffff_ffff || tag < 8) {
        throw this.fail(position, "a field has no valid tag");
      }
      const number = Math.floor(tag / 8);
      const wire = tag % 8;
      let body = this.next;
      let end: number;
      if (wire === 0) {
        this.varint(body, message.end);
        end = this.next;
      } else if (wire === 1) end = body + 8;
      else if (wire === 5) end = body + 4;
      else if (wire === 2) {
        const length = this.varint(body, message.end);
        if (typeof length !== "number") throw this.fail(position, "a length is absurd");
        body = this.next;
        end = body + length;
      } else throw this.fail(position, `field ${number} has the unsupported wire type ${wire}`);
      if (end > message.end) {
        throw this.fail(
          position,
          `field ${number} runs ${end - message.end} bytes past its message`,
        );
      }
      yield { number, wire, start: position, body, end };
      position = end;
    }
  }

  /** An unsigned number field that must be a safe integer. */
  count(field: WireField): number {
    const value = this.#scalar(field);
    if (typeof value !== "number") throw this.fail(field.start, "a number is too large");
    return value;
  }

  /** A signed 64-bit field; a bigint when it is not a safe integer. */
  int64(field: WireField): number | bigint {
    return signed(this.#scalar(field));
  }

  /** Values of a repeated int64 field, packed or one by one. */
  int64s(field: WireField): (number | bigint)[] {
    if (field.wire === 0) return [this.int64(field)];
    this.expect(field, 2);
    const values: (number | bigint)[] = [];
    for (let position = field.body; position < field.end; position = this.next) {
      values.push(signed(this.varint(position, field.end)));
    }
    return values;
  }

  /** A UTF-8 string of at most `maxStringBytes`. */
  string(field: WireField, limit = maxStringBytes): string {
    this.expect(field, 2);
    const length = field.end - field.body;
    if (length > limit) {
      throw this.fail(field.start, `a string has ${length} bytes, more than the ${limit} allowed`);
    }
    try {
      return utf8.decode(this.bytes({ start: field.body, end: field.end }));
    } catch (cause) {
      if (cause instanceof MendelError) throw cause;
      throw this.fail(field.start, "a string is not UTF-8");
    }
  }

  float32(field: WireField): number {
    this.expect(field, 5);
    const bytes = this.bytes({ start: field.body, end: field.end });
    return new DataView(bytes.buffer).getFloat32(0, true);
  }

  /** Refuses a field that is not encoded as its type demands. */
  expect(field: WireField, wire: WireType): void {
    if (field.wire !== wire) {
      throw this.fail(
        field.start,
        `field ${field.number} has wire type ${field.wire}, expected ${wire}`,
      );
    }
  }

  #scalar(field: WireField): number | bigint {
    this.expect(field, 0);
    return this.varint(field.body, field.end);
  }

  #byte(position: number): number {
    let at = position - this.#windowStart;
    if (at < 0 || at >= this.#window.length) {
      this.#window = new Uint8Array(Math.min(windowBytes, this.source.size - position));
      this.#windowStart = position;
      this.source.read(position, this.#window);
      at = 0;
    }
    return this.#window[at]!;
  }
}

/** A span's bytes reading as the body of a message. */
export function bodyOf(field: WireField): Span {
  return { start: field.body, end: field.end };
}

function signed(value: number | bigint): number | bigint {
  if (typeof value === "number") return value;
  const wrapped = BigInt.asIntN(64, value);
  return wrapped >= BigInt(Number.MIN_SAFE_INTEGER) && wrapped < 0n ? Number(wrapped) : wrapped;
}

/** Varint of a number or bigint; negative values take ten bytes, as int64 fields do. */
export function encodeVarint(value: number | bigint): Uint8Array {
  const bytes: number[] = [];
  if (typeof value === "number" && value >= 0 && value <= 0x7fff_ffff) {
    let rest = value;
    for (; rest >= 0x80; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80);
    bytes.push(rest);
  } else {
    let rest = BigInt.asUintN(64, BigInt(value));
    for (; rest >= 0x80n; rest >>= 7n) bytes.push(Number(rest & 0x7fn) | 0x80);
    bytes.push(Number(rest));
  }
  return Uint8Array.from(bytes);
}

/** The tag of a field. */
export function encodeTag(number: number, wire: WireType): Uint8Array {
  return encodeVarint(number * 8 + wire);
}

/** Tag and length of a field whose payload has `length` bytes. */
export function encodeHead(number: number, length: number): Uint8Array {
  return concatBytes([encodeTag(number, 2), encodeVarint(length)]);
}

/** A complete field holding a number. */
export function encodeNumber(number: number, value: number | bigint): Uint8Array {
  return concatBytes([encodeTag(number, 0), encodeVarint(value)]);
}

/** A complete field holding a float. */
export function encodeFloat(number: number, value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setFloat32(0, value, true);
  return concatBytes([encodeTag(number, 5), bytes]);
}

/** A complete field holding a string, bytes or an encoded message. */
export function encodeBytes(number: number, payload: string | Uint8Array): Uint8Array {
  const bytes = typeof payload === "string" ? new TextEncoder().encode(payload) : payload;
  return concatBytes([encodeHead(number, bytes.length), bytes]);
}

export function concatBytes(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
