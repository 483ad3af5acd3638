import { printable } from "./output.ts";

/** A table for people: columns padded to their widest cell, numbers right-aligned, two spaces between columns. */
export interface Column {
  readonly title: string;
  readonly align?: "left" | "right";
}

/**
 * Plain text table without rules, so that it can be cut, grepped and pasted. Cells may come from files: control characters
 * and line breaks in them are replaced.
 *
 * @param rows cells as text, one row per array, as many cells as columns
 */
export function formatTable(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
): string {
  return layOut(
    columns.map((column) => ({ ...column, title: oneLine(column.title) })),
    rows.map((row) => row.map(oneLine)),
  );
}

function oneLine(text: string): string {
  return printable(text).replace(/[\t\n]/g, " ");
}

function layOut(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const widths = columns.map((column, c) =>
    Math.max(column.title.length, ...rows.map((row) => (row[c] ?? "").length)),
  );
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, c) =>
        columns[c]?.align === "right" ? cell.padStart(widths[c] ?? 0) : cell.padEnd(widths[c] ?? 0),
      )
      .join("  ")
      .trimEnd();
  return [line(columns.map((column) => column.title)), ...rows.map(line)].join("\n");
}

/** A number with few digits for people; "–" for nothing. */
export function formatNumber(value: number | undefined | null, digits = 4): string {
  if (value === undefined || value === null) return "–";
  return value.toFixed(digits);
}

/** "1.5 GB", in powers of 1,000. */
export function formatBytes(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(value < 10 ? 2 : 1)} ${units[unit]}`;
}

/** "2 h 05 min", "3 min 20 s", "12 s". */
export function formatDuration(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${String(Math.round(seconds % 60)).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}
