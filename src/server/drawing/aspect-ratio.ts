// From the shape of a picture, such as 16:9, to a size of that shape: of the area that it would have had anyway, or
// with the side that is given. Knows no other option.

import type { Size } from "../../engine/request.js";
import { ApiError } from "../http/api-error.js";
import { maxServedSide, minServedSide } from "./limits.js";

/** What `aspect_ratio` may be: two numbers of at most four digits, or "auto". */
export const aspectRatioPattern = /^(auto|(\d{1,4}(?:\.\d{1,4})?):(\d{1,4}(?:\.\d{1,4})?))$/;

/** The longest shape that has sides within their bounds: 16. */
const maxRatio = maxServedSide / minServedSide;

export type AskedShape = {
  aspectRatio?: string | null;
  width?: number | null;
  height?: number | null;
  size?: string | null;
};

/** Whether a shape is asked for that the size leaves no room for. */
export function isShapeIgnored({ aspectRatio, width, height, size }: AskedShape): boolean {
  if (!aspectRatio || aspectRatio === "auto") return false;
  return (Boolean(width) && Boolean(height)) || (Boolean(size) && size !== "auto");
}

/**
 * A size of the shape that is asked for, its sides multiples of `sizeMultiple`, within the bounds of sides.
 * Throws ApiError `request_size_invalid` for shapes beyond 16:1.
 * @param asked `open`: the size that would be drawn without a shape; its area is kept
 * @param param the member that says the shape, for errors
 */
export function shapedSize(asked: AskedShape & { open: Size }, sizeMultiple: number, param: string): Size {
  const { aspectRatio, width, height, open } = asked;
  const [, , across = "", down = ""] = aspectRatioPattern.exec(aspectRatio ?? "auto") ?? [];
  if (across === "") return { width: width ?? open.width, height: height ?? open.height };
  const ratio = Number(across) / Number(down);
  if (!(ratio >= 1 / maxRatio && ratio <= maxRatio)) {
    const message = `got the shape ${across}:${down}, expected one from 1:${maxRatio} to ${maxRatio}:1`;
    throw new ApiError("invalid_request", "request_size_invalid", message, { param });
  }
  if (width && height) return { width, height };
  const bounded = (side: number) =>
    Math.min(maxServedSide, Math.max(minServedSide, Math.round(side / sizeMultiple) * sizeMultiple));
  if (width) return { width, height: bounded(width / ratio) };
  if (height) return { width: bounded(height * ratio), height };
  // The longer side within its bound, then the shorter one, so that a clamped side does not bend the shape.
  const long = Math.min(maxServedSide, Math.sqrt(open.width * open.height * Math.max(ratio, 1 / ratio)));
  const longSide = Math.max(long, minServedSide * Math.max(ratio, 1 / ratio));
  return ratio >= 1
    ? { width: bounded(longSide), height: bounded(longSide / ratio) }
    : { width: bounded(longSide * ratio), height: bounded(longSide) };
}
