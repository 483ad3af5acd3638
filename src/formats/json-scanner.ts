import { MendelError } from "../base/errors.ts";

/** What a scanner reads and how it is named in messages. */
export interface JsonSource {
  readonly text: string;
  readonly file: string;
  /** 1-based line of the file where `text` begins; without it messages count characters. */
  readonly line?: number;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/**
 * Reads JSON piece by piece, as RFC 8259 has it and no looser: the caller sees every key, so nothing repeated is lost,
 * and the spelling of every number, so nothing is rounded unseen. Lone surrogates are errors.
 */
export class JsonScanner {
  readonly #text: string;
  readonly #source: JsonSource;
  #at = 0;

  constructor(source: JsonSource) {
    this.#text = source.text;
    this.#source = source;
  }

  /** The next character that is not space, without consuming it; "" at the end. */
  peek(): string {
    this.#skipSpace();
    return this.#text.charAt(this.#at);
  }

  /** Consumes `character` or fails. */
  expect(character: string): void {
    if (this.peek() !== character) throw this.fault(`expected ${character}`);
    this.#at += 1;
  }

  /** Consumes `character` if it comes next. */
  accept(character: string): boolean {
    if (this.peek() !== character) return false;
    this.#at += 1;
    return true;
  }

  /** Consumes a word such as `null` if it comes next. */
  acceptWord(word: string): boolean {
    this.#skipSpace();
    if (!this.#text.startsWith(word, this.#at)) return false;
    if (/[\w.+-]/.test(this.#text.charAt(this.#at + word.length))) return false;
    this.#at += word.length;
    return true;
  }

  /** Calls `member` for every key of an object; `member` consumes the value. */
  object(member: (key: string) => void): void {
    this.expect("{");
    if (this.accept("}")) return;
    do {
      const key = this.string();
      this.expect(":");
      member(key);
    } while (this.accept(","));
    this.expect("}");
  }

  /** Calls `item` for every item of a list; `item` consumes the value. */
  array(item: (index: number) => void): void {
    this.expect("[");
    if (this.accept("]")) return;
    let index = 0;
    do {
      item(index);
      index += 1;
    } while (this.accept(","));
    this.expect("]");
  }

  string(): string {
    if (this.peek() !== '"') throw this.fault("expected a string");
    const text = this.#text;
    const start = this.#at + 1;
    let at = start;
    let escaped = false;
    for (; ; at++) {
      const code = text.charCodeAt(at);
      if (code === QUOTE) break;
      if (Number.isNaN(code)) throw this.fault("the string does not end");
      if (code < 0x20) throw this.fault("a string holds a raw control character");
      if (code === BACKSLASH) {
        escaped = true;
        at += 1;
      }
    }
    const raw = text.slice(start, at);
    const value = escaped ? this.#unescape(raw) : raw;
    this.#at = at + 1;
    return value;
  }

  /** The spelling of a number. */
  numberText(): string {
    this.#skipSpace();
    const pattern = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?/y;
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.#text);
    if (match === null) throw this.fault("expected a number");
    const end = this.#at + match[0].length;
    if (/[\w.+-]/.test(this.#text.charAt(end))) throw this.fault("expected a number");
    this.#at = end;
    return match[0];
  }

  /** An integer that a double holds exactly, spelled in digits only: no sign, fraction, exponent or leading zero. */
  index(): number {
    const text = this.numberText();
    const value = Number(text);
    if (!/^[0-9]+$/.test(text) || !Number.isSafeInteger(value)) {
      throw this.fault(`expected a whole number of at most 2^53 - 1, got ${shorten(text)}`);
    }
    return value;
  }

  /** Consumes any value. */
  skip(depth: number): void {
    if (depth < 0) throw this.fault("nested too deeply");
    switch (this.peek()) {
      case "{":
        this.object(() => this.skip(depth - 1));
        return;
      case "[":
        this.array(() => this.skip(depth - 1));
        return;
      case '"':
        this.string();
        return;
      default:
        if (["true", "false", "null"].some((word) => this.acceptWord(word))) return;
        this.numberText();
    }
  }

  /** Fails unless only space is left. */
  end(): void {
    if (this.peek() !== "") throw this.fault("expected the end");
  }

  /** An error at the current place. */
  fault(problem: string): MendelError {
    const { file, line } = this.#source;
    const before = this.#text.slice(0, this.#at);
    if (line === undefined) {
      const message = `${file}: ${problem} at character ${this.#at}${this.#excerpt()}`;
      return new MendelError("invalid-file", message, { where: { file } });
    }
    const at = line + (before.match(/\n/g)?.length ?? 0);
    const message = `${file}, line ${at}: ${problem}${this.#excerpt()}`;
    return new MendelError("invalid-file", message, { where: { file, line: at } });
  }

  #excerpt(): string {
    const next = this.#text.slice(this.#at, this.#at + 20);
    return next === "" ? ", found the end" : `, found ${JSON.stringify(next)}`;
  }

  #skipSpace(): void {
    for (; ; this.#at++) {
      const code = this.#text.charCodeAt(this.#at);
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return;
    }
  }

  #unescape(raw: string): string {
    const value = raw.replace(/\\(u[0-9a-fA-F]{4}|[\s\S]|$)/g, (_match, code: string) => {
      if (code.length === 5) return String.fromCharCode(Number.parseInt(code.slice(1), 16));
      const character = simpleEscapes.get(code);
      if (character === undefined) throw this.fault("a string holds an unknown escape");
      return character;
    });
    if (/\p{Surrogate}/u.test(value)) throw this.fault("a string holds half a character pair");
    return value;
  }
}

const simpleEscapes: ReadonlyMap<string, string> = new Map([
  ['"', '"'],
  ["\\", "\\"],
  ["/", "/"],
  ["b", "\b"],
  ["f", "\f"],
  ["n", "\n"],
  ["r", "\r"],
  ["t", "\t"],
]);

/** JSON as plain data; integers beyond 2^53 are kept whole. */
export type ScannedJson =
  | null
  | boolean
  | number
  | bigint
  | string
  | readonly ScannedJson[]
  | { readonly [key: string]: ScannedJson };

export interface ParseJsonOptions extends JsonSource {
  /** Nesting of objects and lists. */
  readonly maxDepth: number;
  /** Accept Python's NaN, Infinity and -Infinity, which real `config.json` files contain. */
  readonly python?: boolean;
}

/**
 * A whole JSON text as plain data. Repeated keys, the key `__proto__`, numbers that overflow and too deep nesting are errors.
 *
 * @throws MendelError `invalid-file` naming file and place
 */
export function parseJson(options: ParseJsonOptions): ScannedJson {
  const scanner = new JsonScanner(options);
  const value = scanValue(scanner, options.maxDepth, options.python === true);
  scanner.end();
  return value;
}

function scanValue(scanner: JsonScanner, depth: number, python: boolean): ScannedJson {
  if (depth < 0) throw scanner.fault("nested too deeply");
  switch (scanner.peek()) {
    case "{": {
      const result: Record<string, ScannedJson> = {};
      scanner.object((key) => {
        if (key === "__proto__") throw scanner.fault('the key "__proto__" is not allowed');
        if (Object.hasOwn(result, key))
          throw scanner.fault(`the key ${JSON.stringify(key)} is repeated`);
        result[key] = scanValue(scanner, depth - 1, python);
      });
      return result;
    }
    case "[": {
      const result: ScannedJson[] = [];
      scanner.array(() => result.push(scanValue(scanner, depth - 1, python)));
      return result;
    }
    case '"':
      return scanner.string();
    default:
      return scanLiteral(scanner, python);
  }
}

function scanLiteral(scanner: JsonScanner, python: boolean): null | boolean | number | bigint {
  if (scanner.acceptWord("null")) return null;
  if (scanner.acceptWord("true")) return true;
  if (scanner.acceptWord("false")) return false;
  if (python) {
    if (scanner.acceptWord("NaN")) return Number.NaN;
    if (scanner.acceptWord("Infinity")) return Number.POSITIVE_INFINITY;
    if (scanner.acceptWord("-Infinity")) return Number.NEGATIVE_INFINITY;
  }
  const text = scanner.numberText();
  const value = Number(text);
  if (!Number.isFinite(value)) throw scanner.fault(`the number ${shorten(text)} is too large`);
  if (Number.isInteger(value) && !Number.isSafeInteger(value) && /^-?[0-9]+$/.test(text)) {
    return BigInt(text);
  }
  return value;
}

function shorten(text: string): string {
  return text.length > 40 ? `${text.slice(0, 37)}...` : text;
}

/**
 * Decodes UTF-8 without repairing or dropping anything: invalid bytes are errors and a byte-order mark stays.
 *
 * @throws MendelError `invalid-file`
 */
export function decodeUtf8(bytes: Uint8Array, file: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new MendelError("invalid-file", `${file} holds bytes that are not UTF-8`, {
      cause,
      where: { file },
    });
  }
}
