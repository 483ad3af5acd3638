import { spawn } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { type CachedFolderOptions, openCachedFolder } from "../../src/evaluation/stack-cache.ts";

let root: string;
let made: string[];
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "mendel-cache-"));
  made = [];
});
afterEach(() => rmSync(root, { recursive: true }));

/** A folder with one file of so many bytes. */
function folder(digest: string, bytes: number, ceilingBytes?: number): string {
  const options: CachedFolderOptions = {
    digest,
    files: [{ name: "data", bytes }],
    root,
    make(fresh) {
      made.push(digest);
      writeFileSync(join(fresh, "data"), Buffer.alloc(bytes, digest));
    },
    ...(ceilingBytes === undefined ? {} : { ceilingBytes }),
  };
  return openCachedFolder(options);
}

/** Makes it look as if this process did not use a folder any more, so many seconds ago. */
function abandon(path: string, secondsAgo: number): void {
  rmSync(join(path, `used-by-${process.pid}`));
  const then = Date.now() / 1000 - secondsAgo;
  utimesSync(path, then, then);
}

it("makes a folder once, private to the user", () => {
  const path = folder("aa", 100);
  expect(folder("aa", 100)).toBe(path);
  expect(made).toEqual(["aa"]);
  expect(statSync(path).mode & 0o077).toBe(0);
});

it("makes a folder again whose file is not complete", () => {
  const path = folder("aa", 100);
  truncateSync(join(path, "data"), 40);
  expect(readFileSync(join(folder("aa", 100), "data"))).toEqual(Buffer.alloc(100, "aa"));
  expect(made).toEqual(["aa", "aa"]);
});

it("leaves nothing behind when making fails", () => {
  const failing = (): string =>
    openCachedFolder({
      digest: "aa",
      files: [{ name: "data", bytes: 1 }],
      root,
      make: () => {
        throw new Error("disk full");
      },
    });
  expect(failing).toThrow(/disk full/);
  expect(readdirSync(join(root, "stacks"))).toEqual([]);
});

it("keeps what another process made in the meantime", () => {
  const path = openCachedFolder({
    digest: "aa",
    files: [{ name: "data", bytes: 2 }],
    root,
    make(fresh) {
      const finished = join(root, "stacks", "aa");
      mkdirSync(finished);
      writeFileSync(join(finished, "data"), "ok");
      writeFileSync(join(fresh, "data"), "ok");
    },
  });
  expect(readFileSync(join(path, "data"), "utf8")).toBe("ok");
  expect(readdirSync(join(root, "stacks"))).toEqual(["aa"]);
});

it("removes the least recently used above the ceiling, but none in use", () => {
  const [oldest, older, used] = [folder("aa", 100), folder("bb", 100), folder("cc", 100)];
  abandon(older, 20);
  abandon(oldest, 30);
  utimesSync(used, 1, 1);
  folder("dd", 100, 320);
  expect([oldest, older, used].map((path) => existsSync(path))).toEqual([false, true, true]);
  folder("ee", 100, 150);
  expect([older, used].map((path) => existsSync(path))).toEqual([false, true]);
});

it("removes half-made folders of processes that are gone, not of living ones", async () => {
  const child = spawn(process.execPath, ["-e", ""]);
  await new Promise((resolve) => child.once("exit", resolve));
  mkdirSync(join(root, "stacks", `xx.${child.pid}.0`), { recursive: true });
  mkdirSync(join(root, "stacks", `yy.${process.pid}.9`), { recursive: true });
  folder("aa", 10);
  expect(readdirSync(join(root, "stacks")).sort()).toEqual(["aa", `yy.${process.pid}.9`]);
});

it("says where it could not write", () => {
  writeFileSync(join(root, "stacks"), "a file in the way");
  expect(() => folder("aa", 10)).toThrow(expect.objectContaining({ code: "resource" }));
});
