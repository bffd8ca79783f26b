// What is blamed and advised where no device answers, by variables and files; and which backends a system has.

import { dirname } from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { DaybreakError } from "../../src/errors.js";
import { checkedBackend } from "../../src/node/backends.js";
import { adviceWithoutDevice, blameChoices, deviceChoices } from "../../src/node/device-advice.js";
import { temporaryFolder } from "../setup/temporary-folder.js";

const names = ["DRIVER_FILES", "ICD_FILENAMES", "ADD_DRIVER_FILES", "LOADER_DRIVERS_SELECT", "LOADER_DRIVERS_DISABLE"];
beforeEach(() => {
  for (const name of [...names.map((name) => `VK_${name}`), "DAYBREAK_BACKEND"]) vi.stubEnv(name, "");
});
afterEach(() => {
  vi.unstubAllEnvs();
});

it.each([
  ["VK_DRIVER_FILES", "/nonexistent.json", "chooses the Vulkan driver, but there is no /nonexistent.json"],
  ["VK_ICD_FILENAMES", "/nonexistent.json", "chooses the Vulkan driver, but there is no /nonexistent.json"],
  ["VK_ADD_DRIVER_FILES", "/nonexistent.json", "chooses the Vulkan driver, but there is no /nonexistent.json"],
  ["VK_LOADER_DRIVERS_SELECT", "*radeon*", "chooses the Vulkan driver"],
])("%s=%s is blamed first", (name, value, words) => {
  vi.stubEnv(name, value);
  const [first] = adviceWithoutDevice(deviceChoices());
  expect(first).toBe(`${name}=${value} ${words}: unset it, or correct it.`);
  const error = new DaybreakError("device.no_adapter", "no WebGPU adapter answered");
  expect(blameChoices(error, deviceChoices())).toMatchObject({
    code: "device.no_adapter",
    message: `no WebGPU adapter answered: ${name}=${value} ${words}: unset it, or correct it; see \`daybreak doctor\``,
  });
});

it("a file that describes no driver is named, one that does and a folder are not", () => {
  const { write } = temporaryFolder();
  const [bad, good] = [write("bad.json", "none"), write("good.json", "{}")];
  vi.stubEnv("VK_DRIVER_FILES", bad);
  expect(adviceWithoutDevice(deviceChoices())[0]).toContain(`, but ${bad} describes no driver: unset it`);
  for (const value of [good, dirname(good)]) {
    vi.stubEnv("VK_DRIVER_FILES", value);
    expect(adviceWithoutDevice(deviceChoices())[0]).toContain("chooses the Vulkan driver: unset it");
  }
});

it("without variables nothing is blamed, and other errors stay as they are", () => {
  const error = new DaybreakError("device.no_adapter", "no WebGPU adapter answered");
  expect(blameChoices(error, deviceChoices())).toBe(error);
  vi.stubEnv("VK_DRIVER_FILES", "/nonexistent.json");
  const other = new DaybreakError("device.dawn_missing", "the package webgpu (Dawn) is not installed");
  expect(blameChoices(other, deviceChoices())).toBe(other);
});

it.each([
  ["linux", "metal", "vulkan, opengl, opengles", "Linux"],
  ["linux", "d3d12", "vulkan, opengl, opengles", "Linux"],
  ["linux", "Vulkan", "vulkan, opengl, opengles", "Linux"],
  ["linux", "null", "vulkan, opengl, opengles", "Linux"],
  ["darwin", "d3d11", "vulkan, metal, opengl, opengles", "macOS"],
  ["win32", "metal", "vulkan, d3d12, d3d11, opengl, opengles", "Windows"],
] as const)("on %s the backend %s is refused by name", (system, backend, known, name) => {
  vi.stubEnv("DAYBREAK_BACKEND", backend);
  const sentence = `got the backend ${backend}, expected one of ${known}, which are those of ${name}`;
  expect(() => checkedBackend(undefined, system)).toThrow(
    `${sentence}; correct DAYBREAK_BACKEND, or unset it to leave the choice to Dawn`,
  );
  expect(() => checkedBackend(backend, system)).toThrow(new DaybreakError("request.option_invalid", sentence));
});

it.each([
  ["linux", "vulkan"],
  ["linux", "opengl"],
  ["darwin", "metal"],
  ["win32", "d3d12"],
] as const)("on %s the backend %s is taken", (system, backend) => {
  expect(checkedBackend(backend, system)).toBe(backend);
  expect(checkedBackend(undefined, system)).toBeUndefined();
});
