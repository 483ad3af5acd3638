/** Width of the curved zone inside and outside each bound of [0, 1]: min(1/2, max(1, |bound|)/20). */
const MARGIN = 0.05;
const PERIOD = 2 * (1 + 2 * MARGIN);

/**
 * Maps the whole real line onto [0, 1] smoothly: the identity away from the bounds, a parabola that touches the bound
 * at −0.05 and 1.05, mirrored and periodic beyond. A search can run in `u` without ever leaving the box, and an optimum at a
 * bound lies at a finite `u` (the transform of pycma's BoundTransform).
 */
export function toBox(u: number): number {
  const folded = fold(u);
  if (folded < MARGIN) return parabola(folded + MARGIN);
  if (folded > 1 - MARGIN) return 1 - parabola(1 + MARGIN - folded);
  return folded;
}

/** The u in [−0.05, 1.05] with `toBox(u) = x`. */
export function fromBox(x: number): number {
  if (x < MARGIN) return 2 * Math.sqrt(MARGIN * Math.max(0, x)) - MARGIN;
  if (x > 1 - MARGIN) return 1 + MARGIN - 2 * Math.sqrt(MARGIN * Math.max(0, 1 - x));
  return x;
}

/** Reflects u at −0.05 and 1.05 until it lies between them. */
function fold(u: number): number {
  if (u >= -MARGIN && u <= 1 + MARGIN) return u;
  const turned = (u + MARGIN) % PERIOD;
  const offset = turned < 0 ? turned + PERIOD : turned;
  return (offset <= PERIOD / 2 ? offset : PERIOD - offset) - MARGIN;
}

/** From 0 at the turning point to `MARGIN`, where the identity begins. */
function parabola(distance: number): number {
  return (distance * distance) / (4 * MARGIN);
}
