import type { ModelRef } from "./recipe.ts";

/** A reference, or what is wrong with it. */
export type RefResult =
  | { readonly ok: true; readonly ref: ModelRef; readonly ignored: readonly string[] }
  | { readonly ok: false; readonly message: string };

/**
 * Reads mergekit's two spellings of a model reference: `PATH[@REVISION][+LORA[@REVISION]]`, or the mapping
 * `{model: {path, revision?}, lora?: {path, revision?}}`, whose paths may hold any character.
 *
 * References compare by structure: `org/a` and `org/a@main` are different models.
 */
export function readModelRef(value: unknown): RefResult {
  if (typeof value === "string") return fromText(value);
  if (!isMapping(value)) {
    return { ok: false, message: "expected a model: a path, or {model: {path: …}}" };
  }
  if (value["model"] === undefined && value["path"] !== undefined) {
    return readModelRef({ model: value });
  }
  const inner = readPath(value["model"], "model");
  if (!inner.ok) return inner;
  const lora = value["lora"] == null ? undefined : readPath(value["lora"], "lora");
  if (lora !== undefined && !lora.ok) return lora;
  if (lora?.path !== undefined && /[@+]/.test(lora.path)) {
    return { ok: false, message: `"@" and "+" are not supported in an adapter's path` };
  }
  const ignored = [
    ...Object.keys(value).filter((key) => key !== "model" && key !== "lora"),
    ...inner.ignored,
    ...(lora?.ignored ?? []),
  ];
  return {
    ok: true,
    ignored,
    ref: {
      model: inner.path,
      ...(inner.revision === undefined ? {} : { revision: inner.revision }),
      ...(lora === undefined ? {} : { lora: joined(lora.path, lora.revision) }),
    },
  };
}

/** The spelling `readModelRef` reads back: text where the grammar allows, else the mapping. */
export function writeModelRef(ref: ModelRef): string | Record<string, unknown> {
  const parts = [ref.model, ref.revision ?? "x"];
  const plain = parts.every((part) => !/[@+]/.test(part) && part.trim() === part && part !== "");
  if (plain) {
    return `${joined(ref.model, ref.revision)}${ref.lora === undefined ? "" : `+${ref.lora}`}`;
  }
  const [path, revision] = (ref.lora ?? "").split("@");
  return {
    model: withRevision(ref.model, ref.revision),
    ...(ref.lora === undefined ? {} : { lora: withRevision(path as string, revision) }),
  };
}

function withRevision(path: string, revision: string | undefined): Record<string, string> {
  return revision === undefined ? { path } : { path, revision };
}

function joined(path: string, revision: string | undefined): string {
  return revision === undefined ? path : `${path}@${revision}`;
}

function fromText(text: string): RefResult {
  const [main, lora, ...more] = text.split("+");
  if (more.length > 0) {
    return { ok: false, message: `more than one "+" in the model reference "${text}"` };
  }
  const parts = [main as string, ...(lora === undefined ? [] : [lora])].map((part) =>
    part.split("@").map((piece) => piece.trim()),
  );
  for (const pieces of parts) {
    if (pieces.length > 2) {
      return { ok: false, message: `more than one "@" in the model reference "${text}"` };
    }
    if (pieces.some((piece) => piece === "")) {
      return { ok: false, message: `an empty path or revision in the model reference "${text}"` };
    }
  }
  const [[model, revision], adapter] = parts as [[string, string?], [string, string?]?];
  return {
    ok: true,
    ignored: [],
    ref: {
      model,
      ...(revision === undefined ? {} : { revision }),
      ...(adapter === undefined ? {} : { lora: joined(adapter[0], adapter[1]) }),
    },
  };
}

type PathResult =
  | {
      readonly ok: true;
      readonly path: string;
      readonly revision: string | undefined;
      readonly ignored: readonly string[];
    }
  | { readonly ok: false; readonly message: string };

function readPath(value: unknown, key: string): PathResult {
  if (typeof value === "string" && value !== "") {
    return { ok: true, path: value, revision: undefined, ignored: [] };
  }
  if (!isMapping(value)) return { ok: false, message: `expected ${key}: {path: …, revision: …}` };
  const { path, revision, ...others } = value;
  if (typeof path !== "string" || path === "") {
    return { ok: false, message: `expected a path as text in ${key}` };
  }
  if (revision != null && (typeof revision !== "string" || revision === "")) {
    return { ok: false, message: `expected a revision as text in ${key}` };
  }
  return { ok: true, path, revision: revision ?? undefined, ignored: Object.keys(others) };
}

function isMapping(value: unknown): value is Record<string, unknown> {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}
