import { tmpdir } from "node:os";
import { join } from "node:path";
import { defineConfig } from "vitest/config";

/** Tests that start the built command line or hold a model in memory; each project can run on its own. */
const shared = {
  testTimeout: 60_000,
  hookTimeout: 120_000,
  pool: "forks",
  // Stacks of model weights do not go into the user's own cache.
  env: { MENDEL_CACHE: join(tmpdir(), "mendel-test-cache") },
} as const;

export default defineConfig({
  test: {
    globalSetup: ["test/global-setup.ts"],
    projects: [
      {
        extends: true,
        test: {
          ...shared,
          name: "unit",
          include: ["test/**/*.test.ts"],
          exclude: ["test/contracts/**", "test/e2e/**"],
        },
      },
      {
        extends: true,
        test: { ...shared, name: "contract", include: ["test/contracts/**/*.test.ts"] },
      },
      {
        extends: true,
        test: { ...shared, name: "e2e", include: ["test/e2e/**/*.test.ts"], testTimeout: 240_000 },
      },
    ],
  },
});
