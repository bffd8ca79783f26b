// Server-sent events as a reader of a stream gets them.

/**
 * The data of each server-sent event of a body. Every character is looked at once and joined once, whatever its size:
 * an event may be megabytes in hundreds of chunks. An event that the stream's end cut off is dropped.
 */
export async function* eventData(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let piecesOfLine = [];
  let data = [];
  let endedInReturn = false;
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      let start = endedInReturn && value[0] === "\n" ? 1 : 0;
      endedInReturn = value.endsWith("\r");
      const lineEnd = /\r\n|\n|\r/g;
      lineEnd.lastIndex = start;
      for (let match = lineEnd.exec(value); match; match = lineEnd.exec(value)) {
        piecesOfLine.push(value.slice(start, match.index));
        start = lineEnd.lastIndex;
        const line = piecesOfLine.join("");
        piecesOfLine = [];
        if (line === "") {
          if (data.length > 0) yield data.join("\n");
          data = [];
        } else if (/^data(:|$)/.test(line)) {
          data.push(line.slice(line[5] === " " ? 6 : 5));
        }
      }
      piecesOfLine.push(value.slice(start));
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
