// What to do where no device answers, in the same words whoever finds out: the engine, `daybreak doctor`, set-up. Knows the
// variables that choose a device, the systems' drivers and device nodes; asks no device itself.

import { existsSync, readFileSync, statSync } from "node:fs";
import { platform } from "node:os";
import { delimiter } from "node:path";
import { DaybreakError } from "../errors.js";
import { usualBackend } from "./backends.js";
import { setUpCommand } from "./package.js";
import { chosenDrivers, closedRenderNodes } from "./software-driver.js";

/** A variable that chooses a driver or a backend, and its value. */
export type DeviceChoice = [name: string, value: string];

/** Those that are set. Ask before Dawn is made, which may set one of them. */
export function deviceChoices(): DeviceChoice[] {
  const { DAYBREAK_BACKEND: backend } = process.env;
  return backend && backend !== usualBackend() ? [...chosenDrivers(), ["DAYBREAK_BACKEND", backend]] : chosenDrivers();
}

/** An error `device.no_adapter` as one that blames what the user chose, if anything; any other error as it is. */
export function blameChoices(error: unknown, choices: readonly DeviceChoice[]): unknown {
  if (!(error instanceof DaybreakError) || error.code !== "device.no_adapter" || choices.length === 0) return error;
  const blame = choices.map(choiceAdvice).join("; ");
  const message = `no WebGPU adapter answered: ${blame}; see \`daybreak doctor\``;
  return new DaybreakError("device.no_adapter", message, { cause: error });
}

/** Whether an error with this code says all that can be done: drivers have no part in it. */
export function explainsItself(code: string): boolean {
  return ["device.dawn_missing", "request.option_invalid", "runtime.denied"].includes(code);
}

/**
 * What may give this machine a device, the likeliest first, as sentences.
 * @param setUp whether the software driver can still be fetched; not where that is what failed
 */
export function adviceWithoutDevice(choices: readonly DeviceChoice[], { setUp = true } = {}): string[] {
  const advice = choices.map((choice) => `${choiceAdvice(choice)}.`);
  const closed = closedRenderNodes();
  if (closed.length > 0) {
    advice.push(`${closed.join(", ")} may not be opened by this user: add it to the group "render" and log in again.`);
  }
  advice.push(`For a GPU, ${driverAdvice()}`);
  if (platform() === "linux") {
    const fetch = setUp ? `run "${setUpCommand()}", or ` : "";
    advice.push(`Without a GPU, ${fetch}install Mesa's software driver (${mesaPackages}).`);
  }
  return advice;
}

const mesaPackages =
  "Debian, Ubuntu: mesa-vulkan-drivers libvulkan1, on Debian 12 from bookworm-backports; " +
  "Fedora: mesa-vulkan-drivers vulkan-loader; Arch: vulkan-swrast vulkan-icd-loader";

/** How to get a GPU's driver: the end of a sentence. */
export function driverAdvice(): string {
  if (platform() === "darwin") return "nothing needs to be installed on a Mac; in a virtual machine give it a GPU.";
  if (platform() === "win32") return "install the current driver of the graphics card.";
  return "install the graphics card's Vulkan driver (AMD, Intel: Mesa; NVIDIA: its own driver).";
}

function choiceAdvice([name, value]: DeviceChoice): string {
  if (name === "DAYBREAK_BACKEND") return `${name}=${value} chooses the backend: unset it to leave the choice to Dawn`;
  const files = /^VK_(DRIVER_FILES|ICD_FILENAMES|ADD_DRIVER_FILES)$/.test(name) ? value.split(delimiter) : [];
  const faults = files.filter(Boolean).flatMap((path) => descriptionFault(path) ?? []);
  const why = faults.length > 0 ? `, but ${faults.join(", ")}` : "";
  return `${name}=${value} chooses the Vulkan driver${why}: unset it, or correct it`;
}

/** What is wrong with a driver's description, as far as it can be seen from outside; the loader also takes folders of them. */
function descriptionFault(path: string): string | undefined {
  if (!existsSync(path)) return `there is no ${path}`;
  if (statSync(path).isDirectory()) return undefined;
  try {
    JSON.parse(readFileSync(path, "utf8"));
    return undefined;
  } catch {
    return `${path} describes no driver`;
  }
}
