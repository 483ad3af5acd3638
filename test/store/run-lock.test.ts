import { existsSync } from "node:fs";
import { hostname } from "node:os";
import { expect, it } from "vitest";
import { MendelError } from "../../src/base/errors.ts";
import { acquireRunLock, runDriver } from "../../src/store/run-lock.ts";
import { newRun, startChild, temporaryStore, thrownBy } from "./store-fixtures.ts";

it("lets one process drive a run, and names it to the next", async () => {
  const store = temporaryStore();
  const run = store.createRun(newRun());
  expect(runDriver(store.path, run.id)).toBeUndefined();
  const child = startChild("hold-lock.mjs", [store.path, String(run.id)]);
  await child.until("locked");
  const error = thrownBy(() => store.lock(run)) as MendelError;
  expect(error).toBeInstanceOf(MendelError);
  expect(error.code).toBe("database");
  expect(error.message).toMatch(
    new RegExp(`^run digits-1 is being driven by process ${child.pid} on ${hostname()} since 20`),
  );
  expect(error.hint).toBe("stop it with `mendel stop digits-1`");
  expect(runDriver(store.path, run.id)).toMatchObject({ pid: child.pid, host: hostname() });

  child.kill();
  await child.exited;
  expect(runDriver(store.path, run.id)).toBeUndefined();
  const lock = store.lock(run);
  expect(runDriver(store.path, run.id)).toMatchObject({ pid: process.pid });
  lock.release();
  expect(runDriver(store.path, run.id)).toBeUndefined();
});

it("is held against the same process too, and run by run", () => {
  const store = temporaryStore();
  const first = store.createRun(newRun());
  const second = store.createRun(newRun());
  const lock = store.lock(first);
  expect(() => acquireRunLock(store.path, first)).toThrow(`driven by process ${process.pid}`);
  const other = store.lock(second);
  other.release();
  lock.release();
  store.lock(first).release();
});

it("lets exactly one of several processes that start together go on", async () => {
  const store = temporaryStore();
  const run = store.createRun(newRun());
  const children = Array.from({ length: 4 }, () =>
    startChild("hold-lock.mjs", [store.path, String(run.id)]),
  );
  await Promise.all(
    children.map((child) => Promise.race([child.until("locked"), child.until("refused")])),
  );
  const locked = children.filter((child) => child.lines[0] === "locked");
  expect(locked).toHaveLength(1);
  for (const child of children) child.kill();
  await Promise.all(children.map((child) => child.exited));
});

it("looks without leaving files behind", () => {
  const store = temporaryStore();
  const run = store.createRun(newRun());
  expect(runDriver(store.path, run.id)).toBeUndefined();
  expect(existsSync(`${store.path}-locks`)).toBe(false);
});

it("carries a request to stop from another process, until the run is driven again", async () => {
  const store = temporaryStore();
  const run = store.createRun(newRun());
  store.beginIncarnation(run.id);
  expect(store.stopRequested(run.id)).toBe(false);
  const child = startChild("request-stop.mjs", [store.path, run.name]);
  expect(await child.exited).toBe(0);
  expect(store.stopRequested(run.id)).toBe(true);
  store.beginIncarnation(run.id);
  expect(store.stopRequested(run.id)).toBe(false);
});
