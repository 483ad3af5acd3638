import seedrandom from "seedrandom";

/** A stream of random numbers that depends on its key alone. */
export interface RandomStream {
  /** Uniform on [0, 1). */
  uniform(): number;
  /** Standard normal. */
  normal(): number;
  /** Uniform integer in {0, …, n − 1}; n ≥ 1. */
  integer(n: number): number;
}

/**
 * A fresh generator for one purpose: no generator state is ever saved, because the same key gives the same numbers.
 *
 * @param seed the run's seed
 * @param key purpose and indices, for instance `("sample", generation, slot)`
 */
export function randomStream(
  seed: number | string,
  ...key: readonly (string | number)[]
): RandomStream {
  const generator = seedrandom([seed, ...key].join("\u001f"));
  let spare: number | undefined;
  const uniform = (): number => generator.double();
  const normal = (): number => {
    if (spare !== undefined) {
      const value = spare;
      spare = undefined;
      return value;
    }
    // Box–Muller; 1 − u keeps the logarithm finite.
    const radius = Math.sqrt(-2 * Math.log(1 - uniform()));
    const angle = 2 * Math.PI * uniform();
    spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  };
  return { uniform, normal, integer: (n) => Math.min(n - 1, Math.floor(uniform() * n)) };
}
