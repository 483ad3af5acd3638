/** What a search tells whoever listens. Emitted only after what it speaks of is in the database. */
export type RunEvent =
  /** Files are being read and checked; nothing is recorded yet. */
  | { readonly kind: "preparing" }
  | {
      readonly kind: "started";
      readonly run: string;
      readonly resumed: boolean;
      readonly budget: number | undefined;
    }
  | {
      readonly kind: "baseline";
      readonly label: string;
      readonly done: number;
      readonly total: number;
    }
  | {
      readonly kind: "trial";
      readonly trial: number;
      /** Evaluations of the search so far, this one included. */
      readonly done: number;
      readonly budget: number | undefined;
      readonly state: "done" | "failed" | "cached";
      readonly failure?: string;
    }
  | {
      readonly kind: "improved";
      readonly trial: number;
      readonly fitness: number;
      readonly done: number;
    }
  | {
      readonly kind: "generation";
      readonly generation: number;
      readonly done: number;
      readonly budget: number | undefined;
      /** Best fitness on search so far. */
      readonly best: number | undefined;
      /** Best parent's fitness on search. */
      readonly bestParent: number | undefined;
      readonly secondsPerEvaluation: number | undefined;
      readonly status: Readonly<Record<string, number>>;
    }
  | { readonly kind: "finalists"; readonly done: number; readonly total: number }
  | { readonly kind: "warning"; readonly message: string };

export type Listener = (event: RunEvent) => void;
