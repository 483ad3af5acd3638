const OLDEST = [20, 19] as const;

/** Ends the process with a plain sentence on a Node that is too old for the native modules. */
export function requireSupportedNode(version: string = process.versions.node): void {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  if (major > OLDEST[0] || (major === OLDEST[0] && minor >= OLDEST[1])) return;
  process.stderr.write(
    `error: mendel needs Node ${OLDEST.join(".")} or newer; this is ${version}. Install a newer Node and try again.\n`,
  );
  process.exit(3);
}
