// One line on stderr that says how far the work is, and disappears when it is done. Only on a terminal: files and other
// programs get nothing. Knows the engine's progress events, not what they are events of.

import type { ProgressEvent } from "../index.js";

export type ProgressLine = {
  show(event: ProgressEvent): void;
  /** The same for what is no event of the engine's. */
  showText(text: string): void;
  /** Removes the line; call it before anything else is written. */
  clear(): void;
};

type Terminal = Pick<NodeJS.WriteStream, "write"> & { isTTY?: boolean; columns?: number };

export function progressLine(terminal: Terminal): ProgressLine {
  const nothing = () => undefined;
  if (!terminal.isTTY) return { show: nothing, showText: nothing, clear: nothing };
  const eraseLine = "\r\x1b[K";
  let shown = "";
  const showText = (line: string) => {
    // A line that wraps cannot be erased. A terminal that does not know its width says 0.
    const text = line.slice(0, (terminal.columns || 80) - 1);
    if (text !== shown) terminal.write(eraseLine + text);
    shown = text;
  };
  return {
    show: (event) => showText(progressText(event)),
    showText,
    clear: () => {
      if (shown) terminal.write(eraseLine);
      shown = "";
    },
  };
}

function progressText({ stage, done, total, image, numImages }: ProgressEvent): string {
  const percent = total > 0 ? `${Math.floor((100 * done) / total)} %` : "";
  switch (stage) {
    case "tune":
      return `choosing the fastest kernels for this device, once: ${percent}`;
    case "load":
      return `loading the model ${percent}`;
    case "prompt":
      return "reading the prompt";
    case "references":
      return "reading the reference images";
    case "denoise":
      return `${picture(image, numImages)}step ${done} of ${total}`;
    case "decode":
      return `${picture(image, numImages)}decoding`;
  }
}

function picture(image: number, numImages: number): string {
  return numImages > 1 ? `picture ${image + 1} of ${numImages}, ` : "";
}
