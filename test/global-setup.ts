import { execFileSync } from "node:child_process";

/** Builds `dist/` once before any test: workers, the evaluation host and end-to-end tests run compiled code. */
export function setup(): void {
  if (process.env["MENDEL_SKIP_BUILD"] === "1") return;
  execFileSync(process.execPath, ["scripts/build.mjs"], { stdio: "inherit" });
}
