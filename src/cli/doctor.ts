// `daybreak doctor`: what this machine gives the engine, and what to do where something is missing. Owns the advice.
// The device is proved by the engine's own opening, not by what drivers claim; Dawn does not tell which of its
// backends an adapter came from, so it is named by platform unless one was chosen.

import { existsSync, readFileSync } from "node:fs";
import { arch, platform, release } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { openTriedDevice } from "../engine/device/trial.js";
import { type Device, shownLimits } from "../engine/gpu/device.js";
import { usesMatrices } from "../engine/gpu/facts.js";
import type { TunedWorkload } from "../engine/tuning/choices.js";
import { DaybreakError, type ErrorCode } from "../errors.js";
import { whySigningFails } from "../media/marks/credentials.js";
import { videoEncoders } from "../media/mp4.js";
import { whySharpFails } from "../media/sharp.js";
import { backendNames, usualBackend } from "../node/backends.js";
import { chosenBackend, createGpu, providedDriverFolder } from "../node/dawn.js";
import { adviceWithoutDevice, deviceChoices, driverAdvice, explainsItself } from "../node/device-advice.js";
import { packageManifest, setUpCommand } from "../node/package.js";
import { runtimeName } from "../node/runtime.js";
import { chosenDrivers } from "../node/software-driver.js";
import { deviceKey, tuneMode } from "../node/tune.js";
import { readTuning, tuningFile } from "../node/tuning-cache.js";
import { whyUwsFails } from "../server/http/listen-uws.js";
import { describeChoices } from "./choices.js";
import type { Command, ParsedOptions } from "./command.js";
import { print } from "./print.js";
import { formatBytes, table } from "./table.js";

const help = `usage: daybreak doctor [--json]

Says which GPU the engine uses, what it can do, which kernels were chosen for it, what is missing and how to fix it.

  --json   print one JSON object

Exit status 1 if there is no GPU that computes.
`;

export const doctor: Command = { options: { flags: ["json"] }, help, run };

const noAdapter = "no WebGPU adapter answered";

type DeviceReport = {
  adapter: { vendor: string; architecture: string; device: string; description: string };
  backend: string;
  isSoftware: boolean;
  features: {
    "shader-f16": boolean;
    subgroups: false | { minSize: number; maxSize: number };
    "timestamp-query": boolean;
    /** Whether kernels use them. */
    "subgroup-matrix": boolean;
  };
  /** Which kernels failed on subgroup matrices, and why; those matrices are not used then. */
  matrixFault: string | null;
  limits: Record<(typeof shownLimits)[number], number>;
  /** The most work that one dispatch gets, by the device's measured speed or by an assumed one. */
  dispatch: { flops: number; bytes: number; isMeasured: boolean };
};

type TuningReport = {
  file: string;
  /** ISO date of the last measurement. */
  tuned_at: string;
  /** Operations at one size, and those of them that another kernel than the built-in choice computes faster. */
  operations: number;
  faster: number;
  /** All of them, also those that were not measured. */
  choices: TunedWorkload[];
};

type Report = {
  daybreak: string;
  node: string;
  /** What runs this: Node, or another that stands for it. */
  runtime: string;
  system: string;
  /** What decides on the driver: the machine, set-up's own driver, or variables that the user set. */
  driver: { from: "system" | "set-up" | "environment"; folder?: string; variables?: Record<string, string> };
  device: DeviceReport | null;
  /** Which kernels are taken: measured choices, unless there are none or they are turned off. */
  tuning: { by: "measured" | "built-in"; measured: TuningReport | null } | null;
  /** Why there is no device. */
  failure?: { code: ErrorCode; message: string };
  /** Package → its version, or null if it is not installed. */
  packages: Record<string, string | null>;
  /** Those of them that are installed, and whose binaries do not load here. */
  unloadable: string[];
  /**
   * What `daybreak serve` can use: listeners, and encoders of videos, the preferred one first; `uws`: why uWebSockets.js is
   * not among the listeners.
   */
  serving: { listeners: string[]; uws?: string; videoEncoders: string[] };
  advice: string[];
};

async function run(options: ParsedOptions): Promise<number> {
  const report = await examine();
  await print(options.flag("json") ? `${JSON.stringify(report)}\n` : describe(report));
  if (report.failure) {
    const { code, message } = report.failure;
    throw new DaybreakError(code, isAbsence(report.failure) ? `${noAdapter}: follow the report's advice` : message);
  }
  return 0;
}

/** That no adapter answered, and nothing more is known; drivers that fail to load are told in the message. */
function isAbsence(failure: Report["failure"]): boolean {
  return failure?.code === "device.no_adapter" && failure.message.startsWith(noAdapter);
}

async function examine(): Promise<Report> {
  const chosen = chosenDrivers(); // before Dawn is made, which may set one of them
  const choices = deviceChoices();
  const { device, tuning, failure } = await examineDevice();
  const folder = providedDriverFolder();
  const driver: Report["driver"] =
    folder !== null
      ? { from: "set-up", folder }
      : chosen.length > 0
        ? { from: "environment", variables: Object.fromEntries(chosen) }
        : { from: "system" };
  const packages = installedPackages();
  const uwsFault = await whyUwsFails();
  const sharpFault = await whySharpFails();
  const signingFault = await whySigningFails();
  const advice = [
    ...(device ? deviceAdvice(device) : explainsItself(failure!.code) ? [] : adviceWithoutDevice(choices)),
    ...(sharpFault
      ? [`JPEG and WebP need the optional package sharp, which ${sharpFault} (PNG works without it).`]
      : []),
    ...(signingFault
      ? [`Content credentials need the optional package @contentauth/c2pa-wasm, which ${signingFault}.`]
      : []),
  ];
  const unloadable = [
    ...(failure?.code === "device.dawn_missing" && packages.webgpu ? ["webgpu"] : []),
    ...(sharpFault && packages.sharp ? ["sharp"] : []),
    ...(signingFault && packages["@contentauth/c2pa-wasm"] ? ["@contentauth/c2pa-wasm"] : []),
  ];
  return {
    daybreak: packageManifest().version,
    node: process.versions.node,
    runtime: runtimeName(),
    system: `${platform()} ${release()} ${arch()}`,
    driver,
    device,
    tuning,
    ...(failure && { failure }),
    packages,
    unloadable,
    serving: {
      listeners: ["node:http", ...(uwsFault ? [] : ["uWebSockets.js"])],
      ...(uwsFault && { uws: uwsFault }),
      videoEncoders: await videoEncoders(),
    },
    advice,
  };
}

/** Opens the device as the engine does, and describes it and its kernels; or why that failed. */
async function examineDevice(): Promise<Pick<Report, "device" | "tuning" | "failure">> {
  let device: Device | undefined;
  const failed = (code: ErrorCode, message: string) => ({ device: null, tuning: null, failure: { code, message } });
  try {
    const gpu = await createGpu();
    device = await openTriedDevice({ gpu });
    return { device: describeDevice(device), tuning: await examineTuning(gpu) };
  } catch (error) {
    if (error instanceof DaybreakError) return failed(error.code, error.message);
    const message = error instanceof Error ? error.message : String(error);
    return failed("device.error", `the device cannot be opened: ${message.replace(/\s+/g, " ")}`);
  } finally {
    device?.close();
  }
}

async function examineTuning(gpu: GPU): Promise<Report["tuning"]> {
  const key = await deviceKey(gpu);
  const cached = key === undefined ? undefined : await readTuning(key);
  if (key === undefined || !cached) return { by: "built-in", measured: null };
  const choices = Object.values(cached.workloads).sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  const timed = choices.filter(({ ms }) => ms !== null);
  const faster = timed.filter(({ variant, candidates }) => variant !== candidates[0]?.variant);
  const { tuned_at } = cached;
  const measured = { file: tuningFile(key), tuned_at, operations: timed.length, faster: faster.length, choices };
  return { by: tuneMode() === "off" ? "built-in" : "measured", measured };
}

function describeDevice(opened: Device): DeviceReport {
  const { info, gpu, features, isSoftware, matrixFault = null } = opened;
  const { vendor, architecture, device, description, subgroupMinSize, subgroupMaxSize } = info;
  const backend = chosenBackend() ?? usualBackend();
  return {
    adapter: { vendor, architecture, device, description },
    backend: backendNames[backend],
    isSoftware,
    features: {
      "shader-f16": features.has("shader-f16"),
      subgroups: features.has("subgroups") && { minSize: subgroupMinSize, maxSize: subgroupMaxSize },
      "timestamp-query": features.has("timestamp-query"),
      "subgroup-matrix": usesMatrices(opened),
    },
    matrixFault,
    limits: Object.fromEntries(shownLimits.map((name) => [name, gpu.limits[name]])) as DeviceReport["limits"],
    dispatch: {
      ...{ flops: opened.limits.dispatchFlops, bytes: opened.limits.dispatchBytes },
      isMeasured: opened.isMeasured,
    },
  };
}

function deviceAdvice({ isSoftware, features, matrixFault }: DeviceReport): string[] {
  const advice: string[] = [];
  if (isSoftware) {
    advice.push(`This is no GPU but the processor: pictures take long. If the machine has a GPU, ${driverAdvice()}`);
  }
  if (!features["shader-f16"]) advice.push("Without shader-f16 the engine computes in f32: slower, not worse.");
  if (!features.subgroups) advice.push("Without subgroups the portable kernels run, which are slower.");
  if (matrixFault !== null) {
    const which = features["subgroup-matrix"] ? "Some subgroup" : "Subgroup";
    advice.push(`${which} matrices are not used, because kernels failed on them (${matrixFault}): update the driver.`);
  }
  return advice;
}

/** The packages that this program uses, optional ones too. */
function installedPackages(): Record<string, string | null> {
  const { dependencies, optionalDependencies } = packageManifest();
  const names = Object.keys({ ...dependencies, ...optionalDependencies });
  return Object.fromEntries(names.map((name) => [name, installedVersion(name)]));
}

/**
 * Read from the package's own file, above the one that an import would load: most packages do not export their package.json,
 * and not every package manager keeps packages in folders that one could look into.
 */
function installedVersion(name: string): string | null {
  // Bun has a ws of its own, which is in no file: then the package's own file is asked for
  let folder = importedFrom(name) ?? importedFrom(`${name}/package.json`);
  if (folder === undefined) return null;
  for (; folder !== dirname(folder); folder = dirname(folder)) {
    const path = join(folder, "package.json");
    const manifest = existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : undefined;
    if (manifest?.name === name) return manifest.version;
  }
  return null;
}

function importedFrom(specifier: string): string | undefined {
  try {
    return dirname(fileURLToPath(import.meta.resolve(specifier)));
  } catch {
    return undefined; // not installed, or in no file
  }
}

function describe(report: Report): string {
  const { device, driver, failure, packages, unloadable } = report;
  const driverText = {
    system: "the system's",
    environment: Object.entries(driver.variables ?? {})
      .map(([name, value]) => `chosen by ${name}=${value}`)
      .join(", "),
    "set-up": `the software driver of "${setUpCommand()}", ${driver.folder}`,
  }[driver.from];
  const rows = [
    ["daybreak", `${report.daybreak}, ${report.runtime}, ${report.system}`],
    ["adapter", device ? adapterText(device) : isAbsence(failure) ? "none" : `none: ${failure?.message}`],
    ["driver", driverText],
    ...(device ? deviceRows(device) : []),
    ...(report.tuning ? [["kernels", tuningText(report.tuning)]] : []),
    [
      "packages",
      Object.entries(packages)
        .map(
          ([name, version]) =>
            `${name} ${version ?? "(not installed)"}${unloadable.includes(name) ? " (does not load)" : ""}`,
        )
        .join(", "),
    ],
  ];
  const { listeners, uws, videoEncoders } = report.serving;
  const why = uws ? ` (uWebSockets.js ${uws})` : "";
  rows.push(["serving", `${listeners.join(" or ")}${why}; videos by ${videoEncoders.join(", else ") || "nothing"}`]);
  const lines = rows.map(([name, text]) => `${name!.padEnd(10)}${text}\n`);
  return lines.join("") + report.advice.map((text) => `\n- ${text}`).join("") + (report.advice.length > 0 ? "\n" : "");
}

function adapterText({ adapter, backend, isSoftware }: DeviceReport): string {
  const { vendor, architecture, description, device } = adapter;
  const kind = [vendor, architecture].filter(Boolean).join(" ");
  return `${description || device || kind} (${[kind, backend, isSoftware ? "software" : ""].filter(Boolean).join(", ")})`;
}

function deviceRows({ features, matrixFault, limits, dispatch }: DeviceReport): string[][] {
  const { subgroups } = features;
  const sizes =
    subgroups &&
    (subgroups.minSize === subgroups.maxSize ? `${subgroups.minSize}` : `${subgroups.minSize} to ${subgroups.maxSize}`);
  const matrices = features["subgroup-matrix"];
  const featureTexts = [
    `shader-f16 ${yesNo(features["shader-f16"])}`,
    `subgroups ${sizes ? `yes, of ${sizes}` : "no"}`,
    `timestamp-query ${yesNo(features["timestamp-query"])}`,
    `subgroup matrices ${matrixFault === null ? yesNo(matrices) : matrices ? "yes, but some failed" : "failed"}`,
  ];
  const gflop = (dispatch.flops / 1e9).toPrecision(3);
  const measured = dispatch.isMeasured ? ", by the speed that was measured" : "";
  const limitRows = shownLimits.map((name) => [
    `  ${name}`,
    /Size$/.test(name) ? formatBytes(limits[name]) : String(limits[name]),
  ]);
  return [
    ["features", featureTexts.join("; ")],
    ["limits", `\n${table(limitRows).trimEnd()}`],
    ["work", `dispatches of at most ${gflop} GFLOP and ${formatBytes(dispatch.bytes)}${measured}`],
  ];
}

function tuningText({ by, measured }: NonNullable<Report["tuning"]>): string {
  if (!measured) return 'the built-in choice; "daybreak tune" measures which are the fastest here';
  const { file, tuned_at, operations, faster, choices } = measured;
  const result = `measured on ${tuned_at.slice(0, 10)}: another than the built-in one for ${faster} of ${operations} operations`;
  const unused = by === "built-in" ? "not used because of DAYBREAK_TUNE=off; " : "";
  const lines = choices.length > 0 ? `\n${indented(describeChoices(choices)).trimEnd()}` : "";
  return `${unused}${result} (${file}; "daybreak tune --force" measures again)${lines}`;
}

function indented(text: string): string {
  return text.replace(/^(?=.)/gm, "  ");
}

function yesNo(value: boolean): string {
  return value ? "yes" : "no";
}
