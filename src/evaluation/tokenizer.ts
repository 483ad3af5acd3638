import { readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { Tokenizer } from "@huggingface/tokenizers";
import { MendelError } from "../base/errors.ts";

/** The largest published tokenizer.json files (256,000 words with merges) have about 35 MB. */
const MAX_TOKENIZER_BYTES = 256 * 1024 * 1024;
/** Hugging Face writes 1e30 for "no limit". */
const MAX_SEQUENCE = 1_000_000;

/** Turns text into token ids the way a model's own tokenizer does. */
export interface TextTokenizer {
  /** Token ids, special tokens included, cut after `maxLength` tokens. */
  encode(text: string): Int32Array;
  /** What fills up the end of shorter texts in a minibatch; masked by `attention_mask`. */
  readonly padId: number;
}

export interface TokenizerSettings {
  /** Default: the model's own limit from tokenizer_config.json, else none. */
  readonly maxLength?: number;
  /** true: the beginning-of-sequence token goes in front; false: no special tokens; absent: as tokenizer.json says. */
  readonly addBos?: boolean;
}

/**
 * Opens a `tokenizer.json`, with the `tokenizer_config.json` beside it where there is one.
 *
 * @throws MendelError `not-found`, `invalid-file`; `invalid-config` when a beginning-of-sequence token is asked for and
 *   none is known
 */
export function openTokenizer(path: string, settings: TokenizerSettings = {}): TextTokenizer {
  const configPath = join(dirname(path), "tokenizer_config.json");
  const model = readJson(path);
  const config = readJson(configPath, {});
  let tokenizer: Tokenizer;
  try {
    tokenizer = new Tokenizer(model, config);
    tokenizer.encode("a");
  } catch (cause) {
    throw new MendelError("invalid-file", `${path} is not a tokenizer that can be used`, {
      cause,
      where: { file: path },
    });
  }
  const idOf = (key: string): number | undefined => {
    const token = tokenText(config[key]);
    return token === undefined ? undefined : tokenizer.token_to_id(token);
  };
  const bos = idOf("bos_token");
  if (settings.addBos === true && bos === undefined) {
    throw new MendelError("invalid-config", `add_bos: ${configPath} names no bos_token`, {
      hint: "leave add_bos out, or use a tokenizer that has such a token",
      where: { file: configPath },
    });
  }
  const limit = config["model_max_length"];
  const maxLength =
    settings.maxLength ??
    (typeof limit === "number" && limit > 0 && limit < MAX_SEQUENCE ? limit : MAX_SEQUENCE);
  return {
    padId: idOf("pad_token") ?? 0,
    encode(text) {
      const { ids } = tokenizer.encode(text, { add_special_tokens: settings.addBos !== false });
      const start = settings.addBos === true && ids[0] !== bos ? [bos as number] : [];
      return Int32Array.from([...start, ...ids].slice(0, maxLength));
    },
  };
}

/** Special tokens are written as text or as `{ content: text }`. */
function tokenText(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  if (value !== null && typeof value === "object" && "content" in value) {
    return typeof value.content === "string" ? value.content : undefined;
  }
  return undefined;
}

function readJson(path: string, absent?: Record<string, unknown>): Record<string, unknown> {
  let size: number;
  try {
    size = statSync(path).size;
  } catch (cause) {
    if (absent !== undefined) return absent;
    throw new MendelError("not-found", `no tokenizer at ${path}`, { cause, where: { file: path } });
  }
  if (size > MAX_TOKENIZER_BYTES) {
    throw new MendelError("invalid-file", `${path} has ${size} bytes; no tokenizer is that large`, {
      where: { file: path },
    });
  }
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(path, "utf8"));
  } catch (cause) {
    throw new MendelError("invalid-file", `${path} is not JSON`, { cause, where: { file: path } });
  }
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    throw new MendelError("invalid-file", `${path} does not hold a JSON object`, {
      where: { file: path },
    });
  }
  return value as Record<string, unknown>;
}
