/**
 * A point of the search space.
 *
 * `vector`: one coordinate in [0, 1] per axis; the space maps it to a gene's range, scale or choice.
 * `segments`: weights that are piecewise constant over the flat parameter index (M2N2): segment s covers
 * [breaks[s], breaks[s+1]) with breaks[0] = 0 and a final end at the model's length; coefficients[k][s] is the share of
 * model k there.
 */
export type Genome =
  | { readonly kind: "vector"; readonly values: readonly number[] }
  | {
      readonly kind: "segments";
      readonly breaks: readonly number[];
      readonly coefficients: readonly (readonly number[])[];
    };
