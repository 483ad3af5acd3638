#!/usr/bin/env node
import { requireSupportedNode } from "./node-version.ts";

// Before anything native is loaded: some add-ons crash instead of failing on a Node they do not know.
requireSupportedNode();
// Whoever reads our output may stop early (`mendel best | head -3`); that is no failure of ours.
for (const stream of [process.stdout, process.stderr]) {
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
    process.exit();
  });
}
const { main } = await import("./program.ts");
process.exitCode = await main(process.argv.slice(2));
