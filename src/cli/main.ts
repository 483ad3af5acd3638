#!/usr/bin/env node
import { requireSupportedNode } from "./node-version.ts";

// Before anything native is loaded: some add-ons crash instead of failing on a Node they do not know.
requireSupportedNode();
const { main } = await import("./program.ts");
process.exitCode = await main(process.argv.slice(2));
