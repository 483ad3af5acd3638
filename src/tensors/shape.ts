/** Dimensions, outermost first; [] is a scalar. */
export type Shape = readonly number[];

/** Number of elements of a shape. */
export function elementCount(shape: Shape): number {
  return shape.reduce((product, dim) => product * dim, 1);
}

/** Whether two shapes are the same. */
export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((dim, i) => dim === b[i]);
}

/** "[64, 128]", as written in messages. */
export function formatShape(shape: Shape): string {
  return `[${shape.join(", ")}]`;
}
