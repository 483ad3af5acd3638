import type { TensorJob } from "./method.ts";

/** Visits [start, start + length) of a job's elements in ascending order, block by block. */
export function forEachBlock(
  job: Pick<TensorJob, "length" | "blockLength">,
  visit: (start: number, length: number) => void,
): void {
  for (let start = 0; start < job.length; start += job.blockLength) {
    visit(start, Math.min(job.blockLength, job.length - start));
  }
}

/** Frees what `work` allocates from the job's kernels. */
export function withScratch<T>(job: Pick<TensorJob, "kernels">, work: () => T): T {
  const mark = job.kernels.mark();
  try {
    return work();
  } finally {
    job.kernels.release(mark);
  }
}

/** An array of one block (less for a smaller tensor); `subarray` cuts it to the last block's length. */
export function scratchBlock(job: TensorJob): Float32Array {
  return job.kernels.float32(Math.min(job.blockLength, job.length));
}
