// Dawn's backends: what they are called, and which one is taken where Dawn would choose badly. Makes no GPU by itself.

import { reachesMatrixUnits } from "../engine/gpu/device.js";
import { DaybreakError } from "../errors.js";

/** Dawn's names of its backends, and what people call them. */
export const backendNames = {
  vulkan: "Vulkan",
  d3d12: "Direct3D 12",
  d3d11: "Direct3D 11",
  metal: "Metal",
  opengl: "OpenGL",
  opengles: "OpenGL ES",
};

export type Backend = keyof typeof backendNames;

/** What Dawn takes on this system, short of {@link preferMatrixUnits}. */
export function usualBackend(): Backend {
  if (process.platform === "darwin") return "metal";
  return process.platform === "win32" ? "d3d12" : "vulkan";
}

/**
 * Dawn takes Direct3D 12 on Windows, whose shaders reach no matrix units. Vulkan is taken where its adapter is a GPU that
 * does, else what Dawn takes.
 */
export async function preferMatrixUnits(newInstance: (backend?: Backend) => GPU): Promise<GPU> {
  const vulkan = newInstance("vulkan");
  const adapter = await vulkan.requestAdapter({ powerPreference: "high-performance" });
  return adapter && reachesMatrixUnits(adapter) ? vulkan : newInstance();
}

/** Those that one operating system alone has. */
const homes: Partial<Record<Backend, NodeJS.Platform>> = { metal: "darwin", d3d12: "win32", d3d11: "win32" };
const systemNames: Partial<Record<NodeJS.Platform, string>> = { darwin: "macOS", win32: "Windows", linux: "Linux" };

/**
 * The backend that is asked for, by the caller or else by the variable DAYBREAK_BACKEND; none if neither asks. Throws
 * DaybreakError `request.option_invalid` for one that does not exist, or not on this system.
 */
export function checkedBackend(asked: string | undefined, system = process.platform): Backend | undefined {
  const name = asked ?? process.env.DAYBREAK_BACKEND;
  if (!name) return undefined;
  const known = (Object.keys(backendNames) as Backend[]).filter((one) => (homes[one] ?? system) === system);
  const found = known.find((one) => one === name);
  if (found !== undefined) return found;
  const where = systemNames[system] ?? system;
  const remedy = asked === undefined ? "; correct DAYBREAK_BACKEND, or unset it to leave the choice to Dawn" : "";
  throw new DaybreakError(
    "request.option_invalid",
    `got the backend ${name}, expected one of ${known.join(", ")}, which are those of ${where}${remedy}`,
  );
}
