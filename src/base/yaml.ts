import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import {
  Composer,
  type CST,
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  Parser,
  type Scalar,
} from "yaml";
import { MendelError } from "./errors.ts";

/** Configurations are written by hand or by us; the largest recipe we write is a tenth of this. */
export const MAX_YAML_BYTES = 256 * 1024;
/** Nesting of mappings and lists; recipes reach 8. Also what keeps recursive walks shallow. */
export const MAX_YAML_DEPTH = 64;
/** Keys, values and lists in one document, aliases counted as often as they are used. */
export const MAX_YAML_NODES = 50_000;

/** Tags that only repeat what a plain value already is; any other stands for a language's own type. */
const plainTags: ReadonlySet<string> = new Set([
  "!",
  ...["str", "int", "float", "bool", "null", "map", "seq"].map(
    (kind) => `tag:yaml.org,2002:${kind}`,
  ),
]);

/** Way from the root to a value: keys of mappings and indices of lists. */
export type KeyPath = readonly (string | number)[];

/** Plain data with its origin: what a schema is applied to. */
export interface ParsedYaml {
  /** Strings, finite or explicitly written non-finite numbers, booleans, null, arrays and ordinary objects. */
  readonly value: unknown;
  /** The file, as it is to be named in messages. */
  readonly file: string;
  /** 1-based line of a key or list item; of its nearest existing ancestor when there is no such key. */
  lineOf(path: KeyPath): number | undefined;
}

/** A value that did not come from a file (a program's argument, a command-line setting): it has no lines. */
export function withoutLines(value: unknown, origin: string): ParsedYaml {
  return { value, file: origin, lineOf: () => undefined };
}

/**
 * Reads one YAML or JSON file.
 *
 * @throws MendelError `not-found`, or `invalid-config` as `parseYaml` does and for bytes that are not UTF-8.
 */
export function readYaml(path: string): ParsedYaml {
  return parseYaml(readConfigText(path), path);
}

/**
 * Parses one YAML 1.2 (core schema) or JSON document.
 *
 * Stricter than the format, because what it silently allows is nearly always a mistake or an attack: duplicate keys, tags,
 * directives, merge keys, cyclic aliases, `__proto__`, numbers that overflow, integers that a double cannot hold, integers
 * with leading zeros, lone surrogates and NUL are errors. So is anything beyond the limits above.
 *
 * @throws MendelError `invalid-config` naming file and line
 */
export function parseYaml(text: string, file: string): ParsedYaml {
  const documents = parseYamlDocuments(text, file);
  const [first, second] = documents;
  if (first === undefined) throw fault(file, 1, "the file is empty");
  if (second !== undefined) {
    throw fault(file, second.lineOf([]), 'expected one document, found another after "---"');
  }
  return first;
}

/** Parses a stream of documents separated by `---`; the same rules as `parseYaml` for each. */
export function parseYamlDocuments(text: string, file: string): readonly ParsedYaml[] {
  const bytes = Buffer.byteLength(text);
  if (bytes > MAX_YAML_BYTES) {
    throw fault(file, undefined, `${bytes} bytes, but at most ${MAX_YAML_BYTES} are read`);
  }
  const lines = new LineCounter();
  const lineAt = (offset: number): number => Math.max(1, lines.linePos(offset).line);
  const tokens = [...new Parser(lines.addNewLine).parse(text)];
  checkTokens(tokens, file, lineAt);
  const composer = new Composer({
    version: "1.2",
    schema: "core",
    // The library's own check compares every pair of keys; ours is linear.
    uniqueKeys: false,
    prettyErrors: false,
    logLevel: "silent",
  });
  return [...composer.compose(tokens)].map((document) => {
    const problem = document.errors[0] ?? document.warnings[0];
    if (problem !== undefined) throw fault(file, lineAt(problem.pos[0]), problem.message);
    return convertDocument(document, file, lineAt);
  });
}

function readConfigText(path: string): string {
  let descriptor: number;
  try {
    descriptor = openSync(path, "r");
  } catch (cause) {
    throw new MendelError("not-found", `cannot open ${path}`, { cause, where: { file: path } });
  }
  try {
    const size = fstatSync(descriptor).isFile() ? fstatSync(descriptor).size : -1;
    if (size < 0) throw fault(path, undefined, "expected a file, found something else");
    if (size > MAX_YAML_BYTES) {
      throw fault(path, undefined, `${size} bytes, but at most ${MAX_YAML_BYTES} are read`);
    }
    const bytes = Buffer.alloc(size);
    const got = readSync(descriptor, bytes, 0, size, 0);
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(0, got));
  } catch (cause) {
    if (cause instanceof MendelError) throw cause;
    throw new MendelError("invalid-config", `${path} is not UTF-8 text`, {
      cause,
      where: { file: path },
    });
  } finally {
    closeSync(descriptor);
  }
}

function fault(
  file: string,
  line: number | undefined,
  message: string,
  hint?: string,
): MendelError {
  const place = line === undefined ? file : `${file}, line ${line}`;
  return new MendelError("invalid-config", `${place}: ${message}`, {
    where: line === undefined ? { file } : { file, line },
    ...(hint === undefined ? {} : { hint }),
  });
}

/** Bounds depth and node count on the token tree, before the library's recursive composer sees it. */
function checkTokens(
  tokens: readonly CST.Token[],
  file: string,
  lineAt: (offset: number) => number,
): void {
  let nodes = 0;
  const pending: { readonly token: CST.Token; readonly depth: number }[] = [];
  const push = (token: CST.Token | null | undefined, depth: number): void => {
    if (token === null || token === undefined) return;
    nodes += 1;
    if (nodes > MAX_YAML_NODES) {
      throw fault(file, lineAt(token.offset), `more than ${MAX_YAML_NODES} values`);
    }
    if (depth > MAX_YAML_DEPTH) {
      throw fault(file, lineAt(token.offset), `nested deeper than ${MAX_YAML_DEPTH} levels`);
    }
    pending.push({ token, depth });
  };
  for (const token of tokens) {
    if (token.type === "directive") {
      throw fault(
        file,
        lineAt(token.offset),
        "directives (lines that start with %) are not supported",
      );
    }
    push(token.type === "document" ? token.value : undefined, 1);
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      if (!("items" in next.token)) continue;
      for (const item of next.token.items) {
        push(item.key, next.depth + 1);
        push(item.value, next.depth + 1);
      }
    }
  }
}

/** Turns the library's nodes into plain data; keeps them for `lineOf`. */
function convertDocument(
  document: Document.Parsed,
  file: string,
  lineAt: (offset: number) => number,
): ParsedYaml {
  const anchors = new Map<string, Node>();
  const targets = new Map<Node, Node>();
  const active = new Set<Node>();
  let nodes = 0;

  const lineOfNode = (node: Node): number => lineAt(node.range?.[0] ?? 0);

  const keyText = (key: unknown): string => {
    const node = key as Node;
    if (!isScalar(node) || node.value === null) {
      throw fault(file, lineOfNode(node), "a key must be plain text");
    }
    const text = typeof node.value === "string" ? node.value : (node.source ?? String(node.value));
    checkText(text, file, lineOfNode(node));
    if (text === "__proto__")
      throw fault(file, lineOfNode(node), 'the key "__proto__" is not allowed');
    if (text === "<<" && node.type === "PLAIN") {
      throw fault(file, lineOfNode(node), 'merge keys ("<<") are not supported');
    }
    return text;
  };

  /** Aliases mean the latest anchor before them, so anchors are met in document order, once. */
  const resolveAlias = (node: Node, source: string): Node => {
    const known = targets.get(node);
    if (known !== undefined) return known;
    const target = anchors.get(source);
    if (target === undefined) {
      throw fault(file, lineOfNode(node), `the alias *${source} has no anchor before it`);
    }
    targets.set(node, target);
    return target;
  };

  const convert = (node: Node | null, depth: number, expanding: boolean): unknown => {
    if (node === null) return null;
    nodes += 1;
    const line = lineOfNode(node);
    if (nodes > MAX_YAML_NODES) throw fault(file, line, `more than ${MAX_YAML_NODES} values`);
    if (depth > MAX_YAML_DEPTH) {
      throw fault(file, line, `nested deeper than ${MAX_YAML_DEPTH} levels`);
    }
    if (isAlias(node)) {
      const target = resolveAlias(node, node.source);
      if (active.has(target)) throw fault(file, line, `the alias *${node.source} contains itself`);
      return convert(target, depth, true);
    }
    const anchor = "anchor" in node ? node.anchor : undefined;
    if (anchor !== undefined && !expanding) anchors.set(anchor, node);
    if (node.tag !== undefined && !plainTags.has(node.tag)) {
      throw fault(file, line, `the tag ${shorten(node.tag)} is not supported`);
    }
    if (isScalar(node)) return scalarValue(node, file, line);
    active.add(node);
    try {
      if (isSeq(node)) {
        return node.items.map((item) => convert(item as Node, depth + 1, expanding));
      }
      if (!isMap(node)) throw fault(file, line, "expected a mapping, a list or a value");
      const seen = new Map<string, number>();
      const result: Record<string, unknown> = {};
      for (const pair of node.items) {
        const key = keyText(pair.key);
        const keyLine = lineOfNode(pair.key as Node);
        const before = seen.get(key);
        if (before !== undefined) {
          throw fault(file, keyLine, `the key "${key}" was given before, on line ${before}`);
        }
        seen.set(key, keyLine);
        const keyAnchor = isScalar(pair.key) ? pair.key.anchor : undefined;
        if (keyAnchor !== undefined && !expanding) anchors.set(keyAnchor, pair.key as Node);
        result[key] = convert(pair.value as Node | null, depth + 1, expanding);
      }
      return result;
    } finally {
      active.delete(node);
    }
  };

  const value = convert(document.contents, 1, false);
  const lineOf = (path: KeyPath): number => {
    let node: Node | null = document.contents;
    let line = node === null ? lineAt(document.range[0]) : lineOfNode(node);
    for (const step of path) {
      while (node !== null && isAlias(node)) node = targets.get(node) ?? null;
      if (isMap(node)) {
        const pair = node.items.find((item) => isScalar(item.key) && keyText(item.key) === step);
        if (pair === undefined) return line;
        line = lineOfNode(pair.key as Node);
        node = pair.value as Node | null;
      } else if (isSeq(node) && typeof step === "number") {
        const item = node.items[step] as Node | undefined;
        if (item === undefined) return line;
        line = lineOfNode(item);
        node = item;
      } else {
        return line;
      }
    }
    return line;
  };
  return { value, file, lineOf };
}

function scalarValue(node: Scalar, file: string, line: number): unknown {
  const { value } = node;
  if (typeof value === "string") {
    checkText(value, file, line);
    return value;
  }
  if (typeof value !== "number") return value;
  const source = node.source ?? "";
  if (!Number.isFinite(value) && !/^[-+]?\.(inf|nan)$/i.test(source)) {
    throw fault(file, line, `the number ${shorten(source)} is too large`);
  }
  if (/^[-+]?(0x|0o)?[0-9a-f]+$/i.test(source) && !Number.isSafeInteger(value)) {
    const hint = "put it in quotes if it is a name or a digest";
    throw fault(file, line, `the integer ${shorten(source)} cannot be held exactly`, hint);
  }
  if (/^[-+]?0[0-9]/.test(source)) {
    const hint = "drop the zeros, or put it in quotes if it is text";
    throw fault(file, line, `the number ${shorten(source)} starts with zeros`, hint);
  }
  return value;
}

function checkText(text: string, file: string, line: number): void {
  if (text.includes("\0")) throw fault(file, line, "text contains a NUL character");
  if (/\p{Surrogate}/u.test(text)) throw fault(file, line, "text contains half a character pair");
}

function shorten(text: string): string {
  return text.length > 40 ? `${text.slice(0, 37)}...` : text;
}
