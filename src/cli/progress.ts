// One line on stderr that says how far the work is, and disappears when it is done. Only on a terminal that can be told to
// erase a line: files, other programs and TERM=dumb get nothing. Knows the engine's progress events, not what they are
// events of. Where a line has no room it is said in fewer words, but never with half a number.

import type { ProgressEvent } from "../engine/request.js";

export type ProgressLine = {
  show(event: ProgressEvent): void;
  /** The same for what is no event of the engine's: ways to say it, the longest first. */
  showText(ways: readonly string[]): void;
  /** Removes the line; call it before anything else is written. */
  clear(): void;
};

type Terminal = Pick<NodeJS.WriteStream, "write"> & { isTTY?: boolean; columns?: number };

export function progressLine(terminal: Terminal): ProgressLine {
  const nothing = () => undefined;
  if (!terminal.isTTY || !canErase()) return { show: nothing, showText: nothing, clear: nothing };
  const eraseLine = "\r\x1b[K";
  let shown = "";
  const showText = (ways: readonly string[]) => {
    // A line that wraps cannot be erased. A terminal that does not know its width says 0; a window's may change meanwhile.
    const room = (terminal.columns || 80) - 1;
    const text = ways.find((way) => way.length <= room) ?? "";
    if (text !== shown) terminal.write(eraseLine + text);
    shown = text;
  };
  return {
    show: (event) => showText(progressTexts(event)),
    showText,
    clear: () => {
      if (shown) terminal.write(eraseLine);
      shown = "";
    },
  };
}

/** Whether the terminal obeys escape sequences; one without a name, as on a serial line, may not. Windows names none. */
function canErase(): boolean {
  const { TERM: kind } = process.env;
  return kind ? kind !== "dumb" : process.platform === "win32";
}

/** Ways to say how much of a work is done: with one of these words, or with the number alone. */
export function percentage(words: readonly string[], done: number, total: number): string[] {
  if (total <= 0) return [...words];
  const number = `${Math.floor((100 * done) / total)} %`;
  return [...words.map((word) => `${word} ${number}`), number];
}

function progressTexts({ stage, done, total, image, numImages }: ProgressEvent): string[] {
  const picture = numImages > 1 ? `picture ${image + 1} of ${numImages}, ` : "";
  switch (stage) {
    case "tune":
      return percentage(["choosing the fastest kernels for this device, once:", "choosing kernels"], done, total);
    case "load":
      return percentage(["loading the model", "loading"], done, total);
    case "prompt":
      return ["reading the prompt", "prompt"];
    case "references":
      return ["reading the reference images", "references"];
    case "denoise":
      return [`${picture}step ${done} of ${total}`, `step ${done} of ${total}`, `${done}/${total}`];
    case "decode":
      return [`${picture}decoding`, "decoding"];
  }
}
