// Repeats the kernel tables and the reference traces on other devices, a process per configuration, because drivers read
// their environment once. Owns the configurations and the summary; the tests themselves know nothing of it and check
// only that the device they got is the one that was asked for (tests/golden/configuration.gpu.test.ts).
// Usage: node tests/devices.mjs [--skip-missing] [NAME…]; `npm run setup` before it, whose software driver it uses.

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { howToGet, mesa26 } from "./mesa-26.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));

/** Where drivers describe themselves to the Vulkan loader. */
const icdFolders = ["/etc", "/usr/local/share", "/usr/share"].map((folder) => join(folder, "vulkan/icd.d"));
/** Debian's chromium package brings SwiftShader and a Vulkan loader. */
const swiftShader = { icd: "/usr/lib/chromium/vk_swiftshader_icd.json", loader: "/usr/lib/chromium/libvulkan.so.1" };

/**
 * `node`: the node to run, default this one. `missing`: what the machine lacks for it and how to get that; then it does
 * not run.
 * @typedef {{ name: string, env: Record<string, string>, node?: string, missing?: string }} Configuration
 * @typedef {{ name: string, adapter: string, subgroupSize: string, passed: number, failed: number, seconds: number,
 *   outcome: "passed" | "failed" | "not run", note: string }} Row
 */

/** @returns {Promise<Configuration[]>} */
async function configurations() {
  const lavapipe = await lavapipeIcd();
  const onLavapipe = {
    env: { ...(lavapipe && { VK_ICD_FILENAMES: lavapipe }), DAYBREAK_EXPECT_ADAPTER: "llvmpipe" },
    missing: lavapipe ? undefined : "Mesa's lavapipe: npm run setup (where there is no GPU), or mesa-vulkan-drivers",
  };
  // A subgroup of lavapipe is one SIMD register.
  const registers = [4, 8, 16].map((lanes) => ({
    ...onLavapipe,
    name: `subgroups-of-${lanes}`,
    env: {
      ...onLavapipe.env,
      LP_NATIVE_VECTOR_WIDTH: String(32 * lanes),
      DAYBREAK_EXPECT_SUBGROUP_SIZE: String(lanes),
    },
  }));
  // Matrix units: used there for what they compute, since a processor has none that would make them fast.
  const matrix = await mesa26();
  const matrixUnits = [8, 16].map((lanes) => ({
    name: `mesa-26-subgroups-of-${lanes}`,
    node: matrix?.node,
    env: {
      ...matrix?.env,
      LP_NATIVE_VECTOR_WIDTH: String(32 * lanes),
      DAYBREAK_EXPECT_ADAPTER: "Mesa 26",
      DAYBREAK_EXPECT_SUBGROUP_SIZE: String(lanes),
      DAYBREAK_TEST_MATRIX_ROWS: "1",
    },
    missing: matrix ? undefined : `Mesa 26: ${howToGet}`,
  }));
  const noSwiftShader = [swiftShader.icd, swiftShader.loader].filter((path) => !existsSync(path));
  return [
    ...registers,
    ...matrixUnits,
    {
      name: "swiftshader",
      env: {
        VK_ICD_FILENAMES: swiftShader.icd,
        LD_LIBRARY_PATH: [dirname(swiftShader.loader), process.env.LD_LIBRARY_PATH].filter(Boolean).join(":"),
        DAYBREAK_EXPECT_ADAPTER: "SwiftShader",
        // It has no shader-f16, and operands in f16 are for devices that have.
        DAYBREAK_TEST_PRECISIONS: "f32",
      },
      missing: noSwiftShader.length === 0 ? undefined : `${noSwiftShader.join(" and ")}: Debian's package chromium`,
    },
    // Whatever device there is.
    { name: "bindings-of-1-MiB", env: { DAYBREAK_TEST_BINDING_BYTES: String(1024 * 1024) } },
  ];
}

/** The description of lavapipe: the driver that set-up provided, or the system's own. */
async function lavapipeIcd() {
  const module = join(root, "dist/src/node/software-driver.js");
  if (!existsSync(module)) throw new Error("there is no build: run `npm run setup` first");
  const { driverFolders, readManifest } = await import(pathToFileURL(module).href);
  for (const folder of driverFolders()) {
    const manifest = readManifest(folder);
    if (manifest) return join(folder, manifest.icd);
  }
  for (const folder of icdFolders.filter((path) => existsSync(path))) {
    const found = readdirSync(folder).find((name) => /^lvp_icd.*\.json$/.test(name));
    if (found) return join(folder, found);
  }
  return undefined;
}

/** Runs the tests under one configuration. @returns {Promise<Row>} */
async function run(/** @type {Configuration} */ { name, env, node, missing }) {
  const row = { name, adapter: "–", subgroupSize: "–", passed: 0, failed: 0, seconds: 0 };
  if (missing !== undefined) return { ...row, outcome: "not run", note: `needs ${missing}` };
  console.log(`\n== ${name}: ${assignments(env)}`);
  const folder = mkdtempSync(join(tmpdir(), "daybreak-devices-"));
  const report = join(folder, "report.json");
  const started = performance.now();
  try {
    const status = await vitest(node ?? process.execPath, env, report);
    const seconds = (performance.now() - started) / 1000;
    if (!existsSync(report)) return { ...row, seconds, outcome: "failed", note: `no report, ${status}` };
    const { numPassedTests, numFailedTests, numTotalTests, testResults } = JSON.parse(readFileSync(report, "utf8"));
    printFailures(testResults);
    const device = testResults.flatMap((file) => file.assertionResults).find(({ meta }) => meta?.device)?.meta.device;
    const skipped = numTotalTests - numPassedTests - numFailedTests;
    const isPassed = status === "exit status 0" && device && skipped === 0 && numPassedTests > 0;
    return {
      ...row,
      adapter: device?.adapter ?? "none answered",
      subgroupSize: device ? String(device.subgroupSize || "none") : "–",
      passed: numPassedTests,
      failed: numFailedTests,
      seconds,
      outcome: isPassed ? "passed" : "failed",
      note: isPassed ? "" : [status, skipped > 0 && `${skipped} tests did not run`].filter(Boolean).join(", "),
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Every failed test with its first messages, and files that did not load. */
function printFailures(/** @type {any[]} */ files) {
  for (const { name, status, message, assertionResults } of files) {
    const failed = assertionResults.filter((/** @type {any} */ test) => test.status === "failed");
    if (status === "failed" && failed.length === 0) console.log(`FAILED ${relative(root, name)}: ${message}`);
    for (const { fullName, failureMessages } of failed) {
      console.log(`FAILED ${relative(root, name)} > ${fullName}\n${failureMessages.join("\n").slice(0, 2000)}`);
    }
  }
}

/** @returns {Promise<string>} how the process ended */
function vitest(/** @type {string} */ node, /** @type {Record<string, string>} */ env, /** @type {string} */ report) {
  // A user's own choice of drivers would override the configuration's.
  const { VK_DRIVER_FILES, VK_ADD_DRIVER_FILES, VK_LOADER_DRIVERS_SELECT, VK_LOADER_DRIVERS_DISABLE, ...rest } =
    process.env;
  const args = ["run", "--project", "tables", "--reporter=dot", "--reporter=json", `--outputFile=${report}`];
  const child = spawn(node, [join(root, "node_modules/vitest/vitest.mjs"), ...args], {
    cwd: root,
    env: { ...("VK_ICD_FILENAMES" in env ? rest : process.env), ...env },
    stdio: "inherit",
  });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("exit", (code, signal) => resolve(signal ? `killed by ${signal}` : `exit status ${code}`));
  });
}

function assignments(/** @type {Record<string, string>} */ env) {
  return Object.entries(env)
    .map(([name, value]) => `${name}=${value}`)
    .join(" ");
}

function printSummary(/** @type {Row[]} */ rows) {
  const titles = ["configuration", "adapter", "subgroup", "passed", "failed", "seconds", "outcome"];
  const cells = rows.map(({ name, adapter, subgroupSize, passed, failed, seconds, outcome, note }) => [
    name,
    adapter,
    subgroupSize,
    outcome === "not run" ? "–" : String(passed),
    outcome === "not run" ? "–" : String(failed),
    seconds.toFixed(0),
    note ? `${outcome}: ${note}` : outcome,
  ]);
  const widths = titles.map((title, i) => Math.max(title.length, ...cells.map((row) => row[i].length)));
  const line = (/** @type {string[]} */ row) => `| ${row.map((cell, i) => cell.padEnd(widths[i])).join(" | ")} |`;
  console.log(`\n${line(titles)}\n${line(widths.map((width) => "-".repeat(width)))}\n${cells.map(line).join("\n")}`);
}

async function main(/** @type {string[]} */ args) {
  const unknown = args.filter((arg) => arg.startsWith("-") && arg !== "--skip-missing");
  const names = args.filter((arg) => !arg.startsWith("-"));
  const all = await configurations();
  unknown.push(...names.filter((name) => !all.some((configuration) => configuration.name === name)));
  if (unknown.length > 0) {
    console.error(
      `got ${unknown.join(" ")}, expected [--skip-missing] and any of ${all.map(({ name }) => name).join(", ")}`,
    );
    return 2;
  }
  const rows = [];
  for (const configuration of all) {
    if (names.length === 0 || names.includes(configuration.name)) rows.push(await run(configuration));
  }
  printSummary(rows);
  const count = (/** @type {string} */ outcome) => rows.filter((row) => row.outcome === outcome).length;
  const notRun = count("not run");
  const isComplete = notRun === 0 || args.includes("--skip-missing");
  console.log(
    `${count("passed")} of ${rows.length} configurations passed, ${count("failed")} failed, ${notRun} not run`,
  );
  if (!isComplete)
    console.log("what did not run was not tested: install what it needs, or accept that with --skip-missing");
  return count("failed") === 0 && count("passed") > 0 && isComplete ? 0 : 1;
}

process.exitCode = await main(process.argv.slice(2));
