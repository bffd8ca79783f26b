// The field that takes a picture or a video and tells which marks it carries that say that a machine made it. Knows the
// server's answer, and nothing of drawing. What files and certificates say of themselves is shown as text, never as markup.

import { request } from "./api.js";

const byId = (id) => document.getElementById(id);
const detector = byId("detector");
/** Aborts the look at the file before. */
let looking = new AbortController();

const verdicts = { daybreak: "Made by Daybreak", ai: "Says that a machine made it", none: "No mark found" };
const states = { trusted: "valid, signer known", valid: "valid, signer not known", invalid: "invalid" };
const kinds = { text: "drawn from text", references: "drawn with reference pictures", video: "a video" };

/** @param actions what the page does for everybody: `announce` says a text aloud, `askForKey` asks for an API key */
export function openDetector({ announce, askForKey }) {
  const look = async (files) => {
    if (files.length === 0) return;
    looking.abort();
    looking = new AbortController();
    const { signal } = looking;
    const [file] = files;
    detector.setAttribute("aria-busy", true);
    showState(`Looking at ${file.name}…`);
    try {
      const marks = await detect(file, signal);
      showMarks(file.name, marks);
      announce(`${file.name}: ${verdicts[marks.verdict]}.`);
    } catch (error) {
      if (signal.aborted) return;
      showState(`${file.name}: ${error.message}`, { isError: true });
      if (error.status === 401 && (await askForKey(error))) return look(files);
    } finally {
      if (!signal.aborted) detector.setAttribute("aria-busy", false);
    }
  };
  byId("marked").addEventListener("change", async ({ target }) => {
    await look([...target.files]);
    target.value = "";
  });
  // Dropped anywhere else, a file becomes a reference.
  detector.addEventListener("drop", (event) => {
    if (event.dataTransfer.files.length === 0) return;
    event.preventDefault();
    event.stopPropagation();
    document.body.classList.remove("dragging");
    look([...event.dataTransfer.files]);
  });
}

async function detect(file, signal) {
  // The type is told by the bytes.
  const response = await request("v1/marks/detect", { body: file, type: "application/octet-stream", signal });
  return response.json();
}

function showState(text, { isError = false } = {}) {
  const state = byId("marks-state");
  state.textContent = text;
  state.hidden = false;
  state.toggleAttribute("data-error", isError);
  byId("marks").hidden = true;
}

function showMarks(name, { verdict, metadata, credentials, watermark }) {
  byId("marks-state").hidden = true;
  byId("marks-file").textContent = name;
  byId("marks-verdict").textContent = verdicts[verdict];
  const layers = {
    Metadata: listed(metadata.digital_source_type, metadata.creator_tool) || "not found",
    Credentials: credentialsText(credentials),
    Watermark: watermarkText(watermark),
  };
  const rows = Object.entries(layers).map(([layer, text]) => {
    const row = document.createElement("div");
    for (const [tag, value] of [
      ["dt", layer],
      ["dd", text],
    ]) {
      row.append(Object.assign(document.createElement(tag), { textContent: value }));
    }
    return row;
  });
  byId("marks-layers").replaceChildren(...rows);
  byId("marks-note").hidden = verdict !== "none";
  byId("marks").hidden = false;
}

function credentialsText({ found, checked, reason, state, signer, problems }) {
  if (!checked) return `not checked: ${reason}`;
  if (!found) return "not found";
  const problem = state === "invalid" ? problems?.join(", ") : undefined;
  return listed(states[state], signer && `“${signer}”`, problem);
}

function watermarkText({ found, checked, reason, kind, id }) {
  if (!checked) return `not checked: ${reason}`;
  if (!found) return "not found";
  return listed("found", kinds[kind], kind && `id ${id}`);
}

function listed(...parts) {
  return parts.filter(Boolean).join(", ");
}
