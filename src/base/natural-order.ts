/**
 * Order of names in which runs of digits compare as numbers, so that `layers.2` comes before `layers.10`.
 * Compares by code unit, never by locale: the order is part of what a recipe means.
 */
export function naturalOrder(a: string, b: string): number {
  const as = a.split(/(\d+)/);
  const bs = b.split(/(\d+)/);
  for (let i = 0; i < Math.min(as.length, bs.length); i++) {
    const x = as[i] as string;
    const y = bs[i] as string;
    if (x === y) continue;
    const numeric = i % 2 === 1 ? Number(x) - Number(y) : 0;
    if (numeric !== 0) return numeric;
    return x < y ? -1 : 1;
  }
  return as.length - bs.length;
}
