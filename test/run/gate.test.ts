import { setImmediate } from "node:timers/promises";
import fc from "fast-check";
import { expect, it } from "vitest";
import { createGate } from "../../src/run/gate.ts";

/** A task that is finished from outside. */
function held<T>(value: T) {
  let finish = (): void => undefined;
  let started = false;
  const ended = new Promise<T>((resolve) => {
    finish = () => resolve(value);
  });
  return {
    run: () => {
      started = true;
      return ended;
    },
    finish: () => finish(),
    started: () => started,
  };
}

it("never lets more in than there is room for, in the order of arrival", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 5 }),
      fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 30 }),
      async (room, turns) => {
        const gate = createGate(room, new AbortController().signal);
        let inside = 0;
        let most = 0;
        const order: number[] = [];
        const results = await Promise.all(
          turns.map((count, i) =>
            gate(async () => {
              order.push(i);
              inside += 1;
              most = Math.max(most, inside);
              for (let turn = 0; turn < count; turn++) await setImmediate();
              inside -= 1;
              return i;
            }),
          ),
        );
        expect(most).toBe(Math.min(room, turns.length));
        expect(order).toEqual(turns.map((_, i) => i));
        expect(results).toEqual(order);
      },
    ),
    { numRuns: 40 },
  );
});

it("an abort finishes what runs and starts nothing more", async () => {
  const controller = new AbortController();
  const gate = createGate(2, controller.signal);
  const tasks = ["a", "b", "c", "d"].map(held);
  const results = tasks.map((task) => gate(task.run));
  await setImmediate();
  expect(tasks.map((task) => task.started())).toEqual([true, true, false, false]);
  controller.abort();
  tasks[1]?.finish();
  tasks[0]?.finish();
  expect(await Promise.all(results)).toEqual(["a", "b", undefined, undefined]);
  expect(tasks.map((task) => task.started())).toEqual([true, true, false, false]);
  expect(await gate(tasks[2]?.run ?? (() => Promise.reject(new Error("no task"))))).toBeUndefined();
});

it("whoever comes while a place is changing hands waits like everyone else", async () => {
  // One more arrival per depth of the microtask queue, so that one of them meets the moment of the handover.
  for (let depth = 0; depth < 12; depth++) {
    const gate = createGate(1, new AbortController().signal);
    let inside = 0;
    let most = 0;
    const visit = () =>
      gate(async () => {
        inside += 1;
        most = Math.max(most, inside);
        await setImmediate();
        inside -= 1;
      });
    const first = held(undefined);
    const visits = [gate(first.run), visit()];
    first.finish();
    for (let i = 0; i < depth; i++) await Promise.resolve();
    visits.push(visit());
    await Promise.all(visits);
    expect(most).toBe(1);
  }
});

it("a task that rejects leaves its place to the next", async () => {
  const gate = createGate(1, new AbortController().signal);
  const failing = gate(() => Promise.reject(new Error("broken")));
  const next = gate(async () => "next");
  await expect(failing).rejects.toThrow("broken");
  expect(await next).toBe("next");
});
