import { MendelError } from "../base/errors.ts";
import { suggestion } from "../base/suggest.ts";
import type { EvaluatorDefinition } from "./evaluator-schema.ts";
import type { FeedType, GraphSignature, GraphValue } from "./session.ts";

/** Inputs that follow from the tokens and need no data field. */
export const tokenInputs = ["attention_mask", "token_type_ids", "position_ids"] as const;
export type TokenInput = (typeof tokenInputs)[number];

/** Graph inputs of an evaluator, matched with data fields. */
export interface InputPlan {
  /** Filled from a numeric field. */
  readonly numbers: readonly { readonly input: FeedInput; readonly field: string }[];
  /** Filled with token ids. */
  readonly text: { readonly input: FeedInput; readonly field: string } | undefined;
  /** Filled from the tokens. */
  readonly derived: readonly FeedInput[];
  /** The batch size the graph insists on, if any. */
  readonly fixedBatch: number | undefined;
}

export interface FeedInput extends GraphValue {
  readonly type: FeedType;
}

/**
 * Matches an evaluator's inputs with a graph's.
 *
 * @param isText whether a data field is to be tokenized
 * @throws MendelError `mismatch` for inputs that the graph does not have or that nothing fills,
 *   element types that cannot be fed
 */
export function planInputs(
  definition: EvaluatorDefinition,
  graph: GraphSignature,
  isText: (field: string) => boolean,
): InputPlan {
  const mapped = Object.entries(definition.inputs).map(([name, field]) => ({
    input: requireInput(definition, graph, name),
    field,
    text: isText(field),
  }));
  const texts = mapped.filter((entry) => entry.text);
  const [text] = texts;
  if (texts.length > 1) {
    throw mismatch(definition, "only one input can be filled with tokens");
  }
  const derived = graph.inputs.filter(
    (input) =>
      text !== undefined &&
      isTokenInput(input.name) &&
      !Object.hasOwn(definition.inputs, input.name),
  );
  const filled = new Set([...Object.keys(definition.inputs), ...derived.map(({ name }) => name)]);
  const missing = graph.inputs.filter((input) => !filled.has(input.name));
  if (missing.length > 0) {
    throw mismatch(
      definition,
      `nothing fills the graph input "${missing[0]?.name}"`,
      "map every input of the graph under `inputs`",
    );
  }
  return {
    numbers: mapped.filter((entry) => !entry.text),
    text,
    derived: derived.map((input) => feedInput(definition, input)),
    fixedBatch: fixedBatchOf(definition, graph),
  };
}

export function isTokenInput(name: string): name is TokenInput {
  return (tokenInputs as readonly string[]).includes(name);
}

function requireInput(
  definition: EvaluatorDefinition,
  graph: GraphSignature,
  name: string,
): FeedInput {
  const input = graph.inputs.find((candidate) => candidate.name === name);
  if (input === undefined) {
    throw mismatch(
      definition,
      `the graph has no input "${name}"`,
      suggestion(
        name,
        graph.inputs.map((candidate) => candidate.name),
      ),
    );
  }
  return feedInput(definition, input);
}

const feedTypes: readonly string[] = [
  "float32",
  "float16",
  "float64",
  "int64",
  "int32",
  "int16",
  "int8",
  "uint8",
  "uint16",
  "bool",
] satisfies readonly FeedType[];

function feedInput(definition: EvaluatorDefinition, input: GraphValue): FeedInput {
  if (!feedTypes.includes(input.type)) {
    throw mismatch(definition, `the graph input "${input.name}" has type ${input.type}`);
  }
  return { ...input, type: input.type as FeedType };
}

/** The leading dimension of every input is the batch; a number there is a batch size that cannot change. */
function fixedBatchOf(definition: EvaluatorDefinition, graph: GraphSignature): number | undefined {
  const fixed = graph.inputs
    .map((input) => input.shape[0])
    .filter((dim): dim is number => typeof dim === "number" && dim > 0);
  const [first] = fixed;
  if (fixed.some((dim) => dim !== first)) {
    throw mismatch(
      definition,
      `the graph's inputs want different batch sizes: ${fixed.join(", ")}`,
    );
  }
  return first;
}

export function mismatch(
  definition: EvaluatorDefinition,
  message: string,
  hint?: string,
): MendelError {
  return new MendelError("mismatch", `evaluator "${definition.name}": ${message}`, {
    ...(hint === undefined ? {} : { hint }),
  });
}
