const secondsPer: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 };
const bytesPer: Readonly<Record<string, number>> = { "": 1, K: 1e3, M: 1e6, G: 1e9, T: 1e12 };

/** Seconds of "90s", "20m", "1.5h" or a plain number of seconds; undefined when it is neither. */
export function parseDuration(value: string | number): number | undefined {
  if (typeof value === "number") return Number.isFinite(value) ? value : undefined;
  const match = /^(\d+(?:\.\d+)?)\s*([smhd])?$/.exec(value.trim());
  return match === null ? undefined : Number(match[1]) * (secondsPer[match[2] ?? "s"] ?? 1);
}

/** Bytes of "500M", "4G" (powers of 1,000) or a plain number of bytes; undefined when it is neither. */
export function parseSize(value: string | number): number | undefined {
  if (typeof value === "number") return Number.isFinite(value) ? value : undefined;
  const match = /^(\d+(?:\.\d+)?)\s*([KMGT])?B?$/i.exec(value.trim());
  return match === null
    ? undefined
    : Number(match[1]) * (bytesPer[(match[2] ?? "").toUpperCase()] ?? 1);
}
