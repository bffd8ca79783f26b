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

/**
 * Dawn takes Direct3D 12 on Windows, whose shaders reach no matrix units. Vulkan is taken where its adapter is a GPU that
 * does, else what Dawn takes.
 */
export async function preferMatrixUnits(newInstance: (backend?: Backend) => GPU): Promise<GPU> {
  const vulkan = newInstance("vulkan");
  const adapter = await vulkan.requestAdapter({ powerPreference: "high-performance" });
  return adapter && reachesMatrixUnits(adapter) ? vulkan : newInstance();
}

/** The backend of this name, or none for no name. Throws DaybreakError `request.option_invalid`. */
export function checkedBackend(name: string | undefined): Backend | undefined {
  if (!name) return undefined;
  if (Object.hasOwn(backendNames, name)) return name as Backend;
  const known = Object.keys(backendNames).join(", ");
  throw new DaybreakError("request.option_invalid", `got the backend ${name}, expected one of ${known}`);
}
