// How the tests run: those without a GPU in parallel; then files named *.gpu.test.ts two at a time, because all of them
// share one device, and half of what they do is to compile or to wait. The tables of kernels and the reference traces are
// a project of their own, for other devices repeat them, and so is the table of environments, which runs the built
// program. The sources run as they are, so the generated kernel module is refreshed first.

import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";
import { writeKernelModule } from "./src/setup/build.mjs";

writeKernelModule();

const gpuTests = "tests/**/*.gpu.test.ts";
const environments = "tests/environments/*.test.ts";
const tables = ["tests/kernels/*.gpu.test.ts", "tests/golden/*.gpu.test.ts"];
// without a GPU the kernels run on the processor
const patience = { testTimeout: 120_000, hookTimeout: 120_000 };

/**
 * Tables before what shares their group: they hold the files that take the longest, so none of those runs alone at the
 * end; and a driver's cache knows the kernels of the embedded model before two workers would compile them at once.
 */
class TablesFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const rank = ({ project }: TestSpecification) =>
      2 * project.config.sequence.groupOrder + (project.name === "tables" ? 0 : 1);
    return sorted.sort((a, b) => rank(a) - rank(b));
  }
}

export default defineConfig({
  test: {
    sequence: { sequencer: TablesFirst },
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
          exclude: [gpuTests, environments, "**/node_modules/**"],
          maxWorkers: Math.max(2, availableParallelism() - 1),
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
          exclude: [...tables, "**/node_modules/**"],
          maxWorkers: 2,
          ...patience,
          sequence: { groupOrder: 1 },
        },
      },
      {
        extends: true,
        test: { name: "tables", include: tables, maxWorkers: 2, ...patience, sequence: { groupOrder: 1 } },
      },
      {
        extends: true,
        test: {
          name: "environments",
          include: [environments],
          maxWorkers: 2,
          ...patience,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
