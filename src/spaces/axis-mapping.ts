/** How a range is spread over a coordinate. */
export type Scale = "linear" | "log" | "logit";

/**
 * How one coordinate u in [0, 1] and one value of a gene correspond.
 *
 * `decode` is total on [0, 1] and never leaves the gene's range; `decode(encode(v))` is v for the values the mapping was
 * told to hit exactly, and v up to rounding for all others.
 */
export interface AxisMapping {
  decode(u: number): number;
  /** undefined for a value the gene cannot take. */
  encode(value: number): number | undefined;
}

/** A logit scale is cut here, so that a range may touch 0 or 1: the ends themselves are still hit at u = 0 and u = 1. */
export const logitMargin = 1e-3;
/** Far below what a search can tell apart, far above rounding at 1. */
const nudge = 2 ** -40;

/**
 * A range on a scale.
 *
 * @param exact values within the range that must survive encoding and decoding bit for bit; the ends always do
 */
export function rangeMapping(
  [low, high]: readonly [number, number],
  scale: Scale,
  exact: readonly number[],
): AxisMapping {
  const { forward, back } = scaleFunctions(scale);
  const from = forward(low);
  const span = forward(high) - from;
  const position = (value: number): number => clamp((forward(value) - from) / span, 0, 1);
  const valueAt = new Map<number, number>([
    [0, low],
    [1, high],
  ]);
  const positionOf = new Map<number, number>([
    [low, 0],
    [high, 1],
  ]);
  for (const value of exact) {
    if (positionOf.has(value)) continue;
    let u = position(value);
    // Beyond the cut of a logit scale values share a position with the end: they move next to it.
    while (valueAt.has(u)) u += u < 0.5 ? nudge : -nudge;
    valueAt.set(u, value);
    positionOf.set(value, u);
  }
  return {
    decode: (u) => valueAt.get(u) ?? clamp(back(from + u * span), low, high),
    encode: (value) => {
      const known = positionOf.get(value);
      if (known !== undefined) return known;
      return value > low && value < high ? position(value) : undefined;
    },
  };
}

/** Choices share [0, 1] evenly; each is encoded as the middle of its part. */
export function choiceMapping(choices: readonly number[]): AxisMapping {
  const count = choices.length;
  return {
    decode: (u) => choices[choiceAt(u, count)] as number,
    encode: (value) => {
      const index = choices.indexOf(value);
      return index < 0 ? undefined : middleOf(index, count);
    },
  };
}

/** Which of `count` equal parts of [0, 1] holds u. */
export function choiceAt(u: number, count: number): number {
  return Math.min(count - 1, Math.floor(u * count));
}

/** The middle of one of `count` equal parts of [0, 1]. */
export function middleOf(index: number, count: number): number {
  return (index + 0.5) / count;
}

function scaleFunctions(scale: Scale): {
  forward: (value: number) => number;
  back: (value: number) => number;
} {
  switch (scale) {
    case "linear":
      return { forward: (x) => x, back: (x) => x };
    case "log":
      return { forward: Math.log, back: Math.exp };
    case "logit":
      return {
        forward: (x) => {
          const p = clamp(x, logitMargin, 1 - logitMargin);
          return Math.log(p / (1 - p));
        },
        back: (x) => 1 / (1 + Math.exp(-x)),
      };
  }
}

export function clamp(value: number, low: number, high: number): number {
  return Math.min(high, Math.max(low, value));
}
