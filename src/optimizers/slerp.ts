/** Below this sine of the angle, the two directions are too close (or too opposite) to interpolate on the sphere. */
const MIN_SINE = 1e-6;

/** Inner products of two parameter vectors: all that spherical interpolation needs to know about them. */
export interface Products {
  readonly xy: number;
  readonly xx: number;
  readonly yy: number;
}

/** The shares of x and of y in their interpolation at t. */
export type Shares = readonly [number, number];

/**
 * SLERP shares sin((1−t)Ω)/sin Ω and sin(tΩ)/sin Ω (Shoemake 1985), Ω the angle between x and y; 1−t and t where the angle is
 * degenerate or a vector is zero.
 */
export function slerpShares(products: Products, t: number): Shares {
  const scale = Math.sqrt(products.xx * products.yy);
  if (!(scale > 0)) return [1 - t, t];
  const angle = Math.acos(Math.min(1, Math.max(-1, products.xy / scale)));
  const sine = Math.sin(angle);
  if (sine <= MIN_SINE) return [1 - t, t];
  return [Math.sin((1 - t) * angle) / sine, Math.sin(t * angle) / sine];
}

/** `global`: one angle between the whole vectors; `segment`: each side of the split has its own. */
export type SlerpAngle = "global" | "segment";

/** Shares left and right of a split point: ratio t on the left, 1 − t on the right (M2N2, eq. 2). */
export interface SplitShares {
  readonly left: Shares;
  readonly right: Shares;
}

/** @param left products over the elements before the split, @param right over the others */
export function splitShares(
  left: Products,
  right: Products,
  ratio: number,
  angle: SlerpAngle,
): SplitShares {
  const whole = { xy: left.xy + right.xy, xx: left.xx + right.xx, yy: left.yy + right.yy };
  return {
    left: slerpShares(angle === "global" ? whole : left, ratio),
    right: slerpShares(angle === "global" ? whole : right, 1 - ratio),
  };
}

/** A parameter vector: 32-bit for networks, plain numbers for genomes. */
type Vector = ArrayLike<number>;

function productsOf(x: Vector, y: Vector, start: number, end: number): Products {
  let xy = 0;
  let xx = 0;
  let yy = 0;
  for (let i = start; i < end; i++) {
    xy += x[i]! * y[i]!;
    xx += x[i]! * x[i]!;
    yy += y[i]! * y[i]!;
  }
  return { xy, xx, yy };
}

/**
 * The child of x and y: interpolated with `ratio` before index `split` and with 1 − `ratio` from there on.
 *
 * @param child receives the values; as long as x and y
 */
export function crossVectors(
  x: Vector,
  y: Vector,
  split: number,
  ratio: number,
  angle: SlerpAngle,
  child: { [index: number]: number; readonly length: number },
): void {
  const shares = splitShares(
    productsOf(x, y, 0, split),
    productsOf(x, y, split, x.length),
    ratio,
    angle,
  );
  for (let i = 0; i < x.length; i++) {
    const [ofX, ofY] = i < split ? shares.left : shares.right;
    child[i] = ofX * x[i]! + ofY * y[i]!;
  }
}
