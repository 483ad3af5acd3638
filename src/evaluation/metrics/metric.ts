/** What an evaluator asks of a model. */
export type Task = "classification" | "regression" | "language-modeling" | "agreement" | "module";

/**
 * A model's output on one item: `rows` × `width` numbers of `output`, row-major, from `start` on. A classified image is one
 * row; a text is one row per predicted token; a regression item is one row of values.
 */
export interface ItemRows {
  readonly rows: number;
  readonly width: number;
  readonly output: Float32Array;
  readonly start: number;
}

export interface LabelItem extends ItemRows {
  /** Class or token id per row, each in [0, width). */
  readonly labels: Int32Array;
}

export interface ValueItem extends ItemRows {
  /** `rows` × `width` numbers. */
  readonly target: Float64Array;
  /** Mean target over the whole split, per column. */
  readonly targetMean: Float64Array;
}

export interface TeacherItem extends ItemRows {
  /** The teacher's output on the same input, `rows` × `width` numbers. */
  readonly teacher: Float32Array;
}

/** How one item is measured: `sum` over its rows, and the weight it carries (its rows unless told otherwise). */
export type Measure =
  | {
      readonly needs: "labels";
      sum(item: LabelItem): number;
    }
  | {
      readonly needs: "values";
      sum(item: ValueItem): number;
      weight?(item: ValueItem): number;
    }
  | {
      readonly needs: "teacher";
      sum(item: TeacherItem): number;
    };

/**
 * A metric. Its mean is Σ sum / Σ weight over the items, in float64 and data order; `transform` turns that mean into the
 * reported value where it is not the mean itself.
 *
 * Promises that types cannot make: `sum` and `weight` are pure, and finite whenever outputs and targets are.
 */
export interface Metric {
  /** The name in evaluator files. */
  readonly name: string;
  readonly title: string;
  readonly direction: "higher" | "lower";
  readonly tasks: readonly Task[];
  /** Lowest and highest possible value. */
  readonly bounds: readonly [number, number];
  readonly measure: Measure;
  /** Value and its slope at a mean (for the delta method). A metric with a transform has no item scores. */
  readonly transform?: { value(mean: number): number; slope(mean: number): number };
  /** An item's score (sum / weight) as fitness in [0, 1], larger is better: what niches and case selection compare. */
  itemFitness(score: number): number;
}
