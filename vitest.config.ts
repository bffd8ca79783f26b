// How the tests run: files named *.gpu.test.ts one after the other in one worker, because they share one device, and
// the others in parallel before them. The sources run as they are, so the generated kernel module is refreshed first.

import { defineConfig } from "vitest/config";
import { writeKernelModule } from "./src/setup/build.mjs";

writeKernelModule();

const gpuTests = "tests/**/*.gpu.test.ts";

export default defineConfig({
  test: {
    // worker threads cannot set the environment variables that drivers read
    pool: "forks",
    // A choice of kernels that depends on what this machine measured before would make tests depend on it.
    env: { DAYBREAK_TUNE: "off" },
    projects: [
      {
        extends: true,
        test: {
          name: "cpu",
          include: ["tests/**/*.test.ts"],
          exclude: [gpuTests, "**/node_modules/**"],
          testTimeout: 30_000,
          hookTimeout: 30_000,
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: {
          name: "gpu",
          include: [gpuTests],
          fileParallelism: false,
          // without a GPU the kernels run on the processor
          testTimeout: 120_000,
          hookTimeout: 120_000,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
