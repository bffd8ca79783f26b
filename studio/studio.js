// The page: the form becomes a request, a drawing's events become what is seen, errors are shown at their field.
// It judges no value itself, so that every complaint is the server's own; fields left empty are left out of the request.

import { apiKey, curlCommand, draw, Failure, request } from "./api.js";
import { beginDrawing, mediaPath, openGallery, promptOf, removeEntry, retryMedia } from "./gallery.js";
import { openDetector } from "./marks.js";

const byId = (id) => document.getElementById(id);
const form = byId("form");
const fields = form.elements;
const announce = (text) => {
  byId("announcer").textContent = text;
};

/** What `/v1/models` says of the served model; undefined until it has answered. */
let model;
/** Aborts the drawing that runs, if one does. */
let running;
/** URIs of the reference pictures: data: URIs of the visitor's files, paths of results. */
let references = [];

// ——— The model and the server's state

const offlineRetry_ms = 2000;
const healthCheck_ms = 15_000;
let isOnline = true;
let retryTimer;

/** Resolves to whether the server has said what it serves. */
async function connect() {
  try {
    const { data } = await (await request("v1/models")).json();
    model = data[0];
    showModel();
    setOnline(true);
    retryMedia();
    return true;
  } catch (error) {
    if (error.status === 401) return askForKey(error);
    if (error.code === "offline") setOnline(false);
    else showError(error);
    return false;
  }
}

function showServer(state, text) {
  const server = byId("server");
  server.dataset.state = state;
  server.textContent = text;
}

function setOnline(value) {
  clearTimeout(retryTimer);
  if (value) showServer("online", model.id);
  else {
    showServer("offline", "Server offline, trying again…");
    retryTimer = setTimeout(checkServer, offlineRetry_ms);
  }
  if (isOnline === value) return;
  isOnline = value;
  announce(value ? "The server answers again." : "The server does not answer.");
}

/** The model is asked for again when the server comes back: it may be another one. */
async function checkServer() {
  try {
    await request("healthz");
    if (!isOnline || !model) await connect();
  } catch (error) {
    if (error.code === "offline") setOnline(false);
  }
}

function showModel() {
  const { capabilities, defaults, limits } = model;
  const { min_side: min, max_side: max } = limits;
  Object.assign(fields.width, { min, max, placeholder: defaults.width });
  Object.assign(fields.height, { min, max, placeholder: defaults.height });
  Object.assign(fields.steps, { max: limits.max_steps, placeholder: defaults.steps });
  fields.num_images.max = limits.max_images;
  fields.num_frames.max = limits.max_frames;
  fields.frames_per_second.max = limits.max_frames_per_second;
  fields.guidance_scale.placeholder = defaults.guidance_scale;
  for (const field of form.querySelectorAll("[data-guidance]")) field.hidden = !capabilities.guidance;
  showShapes();
  showSummary();
}

// ——— Fields

const sharedOptions = ["width", "height", "steps", "guidance_scale", "negative_prompt"];
const optionsOfMode = {
  image: [...sharedOptions, "num_images", "output_format"],
  video: [...sharedOptions, "num_frames", "frames_per_second"],
};
const shapes = { "1:1": [1, 1], "4:3": [4, 3], "3:4": [3, 4], "16:9": [16, 9], "9:16": [9, 16] };

/** The side lengths of a shape, with about the area of the model's default size. */
function sizeOfShape([across, down]) {
  const { min_side, max_side, side_multiple } = model.limits;
  const unit = Math.sqrt((model.defaults.width * model.defaults.height) / (across * down));
  const side = (parts) => Math.round((parts * unit) / side_multiple) * side_multiple;
  return [across, down].map((parts) => Math.min(max_side, Math.max(min_side, side(parts))));
}

/** One button a shape, each with a small drawing of it; "auto" leaves the size to the server. */
function showShapes() {
  const buttons = Object.entries({ auto: undefined, ...shapes }).map(([name, ratio]) => {
    const [width, height] = ratio ? sizeOfShape(ratio) : ["", ""];
    const button = Object.assign(document.createElement("button"), { type: "button" });
    button.title = ratio ? `${width} × ${height}` : "The first reference's size, else the model's";
    const icon = document.createElement("i");
    const [across, down] = ratio ?? [1, 1];
    icon.style.aspectRatio = `${across} / ${down}`;
    icon.className = across >= down ? "across" : "down";
    icon.classList.toggle("auto", !ratio);
    button.append(icon, name);
    button.addEventListener("click", () => setFields({ width, height }));
    Object.assign(button.dataset, { width, height });
    return button;
  });
  byId("shapes").replaceChildren(...buttons);
}

function setFields(values) {
  for (const [name, value] of Object.entries(values)) fields[name].value = value;
  showSummary();
}

/** Keeps what hangs together: shown fields and mode, pressed shape and size, the line that sums the settings up. */
function showSummary() {
  const mode = fields.mode.value;
  for (const field of form.querySelectorAll("[data-mode]")) field.hidden = field.dataset.mode !== mode;
  fields.seed.readOnly = byId("random").checked;
  const [width, height] = [fields.width.value, fields.height.value];
  for (const button of byId("shapes").children) {
    const isPressed = button.dataset.width === width && button.dataset.height === height;
    button.setAttribute("aria-pressed", isPressed);
  }
  const value = (name) => fields[name].value || fields[name].placeholder;
  const what = mode === "video" ? `${value("num_frames")} frames` : fields.output_format.selectedOptions[0].text;
  const size = width || height ? `${value("width")} × ${value("height")}` : "auto size";
  const { length } = references;
  const given = length > 0 ? [`${length} ref${length > 1 ? "s" : ""}`] : [];
  byId("summary").textContent = [size, `${value("steps")} steps`, what, ...given].join(" · ");
}

/** Undefined for an empty field. Throws a Failure for what a number field cannot read. */
function fieldValue(name) {
  const field = fields[name];
  if (field.validity.badInput) throw new Failure({ message: "This is not a number.", code: "bad_input", param: name });
  if (field.value === "" || (name === "output_format" && field.value === "png")) return undefined;
  return field.type === "number" ? Number(field.value) : field.value;
}

/** The body to send. A random seed is chosen here, so that the request can be repeated as it was. */
function requestBody() {
  const mode = fields.mode.value;
  const options = mode === "image" ? { progress: true, partial_images: 2 } : { progress: true };
  for (const name of optionsOfMode[mode]) {
    const value = fieldValue(name);
    if (value !== undefined) options[name] = value;
  }
  if (byId("random").checked) fields.seed.value = crypto.getRandomValues(new Uint32Array(1))[0];
  const text = fields.input.value;
  const images = references.map((image_url) => ({ type: "input_image", image_url }));
  const content = [{ type: "input_text", text }, ...images];
  const input = images.length > 0 ? [{ type: "message", role: "user", content }] : text;
  return { model: model?.id, input, seed: fieldValue("seed"), stream: true, provider_options: { [mode]: options } };
}

function reuseSettings({ body }) {
  const [[mode, options]] = Object.entries(body.provider_options);
  fields.mode.value = mode;
  for (const name of optionsOfMode[mode]) fields[name].value = options[name] ?? (name === "output_format" ? "png" : "");
  fields.input.value = promptOf(body.input);
  reuseSeed(body.seed);
  const parts = typeof body.input === "string" ? [] : body.input[0].content.slice(1);
  references = parts.map(({ image_url }) => image_url).filter((url) => url !== null);
  showReferences();
  fields.input.focus();
}

function reuseSeed(seed) {
  byId("random").checked = false;
  byId("settings").open = true;
  setFields({ seed });
  fields.seed.focus();
}

// ——— Reference pictures

function showReferences() {
  const thumbnails = references.map((url, i) => {
    const item = document.createElement("li");
    const image = Object.assign(new Image(), { src: url, alt: `Reference ${i + 1}` });
    const remove = Object.assign(document.createElement("button"), { type: "button", textContent: "×" });
    remove.setAttribute("aria-label", `Remove reference ${i + 1}`);
    remove.addEventListener("click", () => {
      references.splice(i, 1);
      showReferences();
      (byId("thumbnails").querySelector("button") ?? byId("files")).focus();
    });
    item.append(image, remove);
    return item;
  });
  byId("thumbnails").replaceChildren(...thumbnails);
  showSummary();
}

function addReferences(urls) {
  const most = model?.limits.max_references ?? 8;
  if (references.length + urls.length > most) {
    showError(new Failure({ message: `At most ${most} reference pictures.`, code: "too_many", param: "references" }));
  }
  references = [...references, ...urls].slice(0, most);
  byId("settings").open = true;
  showReferences();
  byId("references").scrollIntoView({ block: "nearest" });
  announce(`${references.length} reference pictures`);
}

async function addFiles(files) {
  const read = (file) =>
    new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.onload = () => resolve(reader.result);
      reader.onerror = () => reject(new Failure({ message: `${file.name} cannot be read.`, code: "unreadable_file" }));
      reader.readAsDataURL(file);
    });
  await Promise.all([...files].filter(({ type }) => type.startsWith("image/")).map(read)).then(
    addReferences,
    showError,
  );
}

// ——— Drawing

async function drawPicture() {
  if (running) return;
  clearError();
  let drawing;
  try {
    const body = requestBody();
    const began = performance.now();
    running = new AbortController();
    showRunning(true);
    showState("Sending…");
    const onEvent = (event) => {
      drawing ??= startDrawing(body);
      showEvent(event, drawing, body);
    };
    const response = await draw(body, { signal: running.signal, onEvent });
    const results = drawing.finish(response, (performance.now() - began) / 1000);
    const what =
      results[0]?.kind === "video" ? "The video is" : results.length > 1 ? "The pictures are" : "The picture is";
    announce([`${what} ready.`, ...(response.warnings ?? [])].join(" "));
  } catch (error) {
    drawing?.discard();
    if (running?.signal.aborted) announce("Cancelled.");
    else showError(error);
    if (error.code === "offline" || error.code === "stream_ended") checkServer();
    if (error.param === "model") connect();
    if (error.status === 401) return void retryWithKey(error);
  } finally {
    running = undefined;
    showRunning(false);
  }
}

async function retryWithKey(error) {
  if (await askForKey(error)) await drawPicture();
}

/** The cards to wait in, shaped by what is known so far; on a phone they are brought into view. */
function startDrawing(body) {
  const { image, video } = body.provider_options;
  const { width, height } = { width: 1, height: 1, ...model?.defaults, ...image, ...video };
  const drawing = beginDrawing(body, { count: image?.num_images ?? 1, width, height });
  if (innerWidth < 800) byId("gallery").scrollIntoView();
  return drawing;
}

function showEvent(event, drawing, { provider_options: { image, video } }) {
  const parts = video ? (video.num_frames ?? Number(fields.num_frames.placeholder)) : (image.num_images ?? 1);
  if (event.type === "response.queued") showState("Waiting in the queue…", { drawing });
  if (event.type === "response.in_progress") showState("Starting…", { drawing });
  if (event.type === "daybreak:image.partial") drawing.showPartial(event.image_url, event.image_index);
  if (event.type !== "daybreak:image.progress") return;
  const { image_index: index, step, steps, eta_ms } = event;
  const part = parts > 1 ? `${video ? "Frame" : "Picture"} ${index + 1} of ${parts} · ` : "";
  const left = eta_ms > 0 ? `about ${Math.ceil(eta_ms / 1000)} s left` : "finishing";
  const done = (index * steps + step) / (parts * steps);
  showState(`${part}Step ${step} of ${steps} · ${left}`, { drawing, index: video ? 0 : index, done });
}

let announcedQuarter = 0;

/** Shows where the drawing is; says it aloud only at each quarter. */
function showState(text, { drawing, index = 0, done } = {}) {
  byId("state").textContent = text;
  drawing?.say(text, index);
  if (done === undefined) byId("progress").removeAttribute("value");
  else byId("progress").value = done;
  const quarter = Math.floor((done ?? 0) * 4);
  if (done === undefined || quarter > announcedQuarter) announce(text);
  announcedQuarter = quarter;
}

/** The button that is pressed must not vanish under the keyboard: its focus goes to the one that takes its place. */
function showRunning(isRunning) {
  const [drawButton, cancel] = [byId("draw"), byId("cancel")];
  const hadFocus = document.activeElement === cancel;
  drawButton.setAttribute("aria-disabled", isRunning);
  form.setAttribute("aria-busy", isRunning);
  cancel.hidden = !isRunning;
  byId("state").hidden = !isRunning;
  byId("hint").hidden = isRunning;
  if (hadFocus) drawButton.focus();
}

// ——— Errors and the key

/** The field that an error's `param` names. */
function fieldOf(param) {
  if (/content\[[1-9]\d*\]|^references$/.test(param)) return byId("references");
  const name = param.startsWith("input") ? "input" : param.split(".").at(-1);
  const field = fields.namedItem(name === "n" ? "num_images" : name);
  return field instanceof HTMLElement ? field : undefined;
}

function showError({ message, code, param }) {
  clearError();
  byId("error-message").textContent = message;
  byId("error-code").textContent = [code, param].filter(Boolean).join(" · ");
  byId("error").hidden = false;
  const field = param ? fieldOf(param) : undefined;
  if (!field) return;
  if (byId("settings").contains(field)) byId("settings").open = true;
  field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-describedby", "error-message");
  const image = /content\[(\d+)\]/.exec(param)?.[1];
  if (image) byId("thumbnails").children[image - 1]?.classList.add("invalid");
  (field.matches("fieldset") ? byId("files") : field).focus();
}

function clearError() {
  byId("error").hidden = true;
  for (const field of form.querySelectorAll("[aria-invalid]")) {
    field.removeAttribute("aria-invalid");
    field.removeAttribute("aria-describedby");
  }
  for (const item of form.querySelectorAll(".invalid")) item.classList.remove("invalid");
}

/** Resolves to whether the visitor gave a key that the server takes. */
async function askForKey({ message }) {
  const dialog = byId("key-dialog");
  if (dialog.open) return false;
  byId("key-reason").textContent = message;
  byId("key").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  if (dialog.returnValue === "use") {
    apiKey.set(byId("key").value.trim());
    return connect();
  }
  showServer("offline", "An API key is needed");
  return false;
}

/** Outside of secure contexts, such as a plain address in the local network, only the old way of copying works. */
async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = Object.assign(document.createElement("textarea"), { value: text, className: "visually-hidden" });
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

// ——— Wiring

openGallery({
  reference: (entry) => addReferences([`/${mediaPath(entry)}`]),
  reuse: reuseSettings,
  seed: ({ seed }) => reuseSeed(seed),
  remove: (entry) => removeEntry(entry, { onServer: true }).catch(showError),
  curl: async ({ body }, button) => {
    await copyText(curlCommand(body)).catch(showError);
    button.textContent = "Copied";
    announce("Copied.");
    setTimeout(() => {
      button.textContent = "Copy curl";
    }, 1500);
  },
});

openDetector({ announce, askForKey });

form.addEventListener("submit", (event) => {
  event.preventDefault();
  drawPicture();
});
form.addEventListener("input", (event) => {
  if (event.target.hasAttribute("aria-invalid")) clearError();
  showSummary();
});
form.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  drawPicture();
});
byId("cancel").addEventListener("click", () => running?.abort());
byId("examples").addEventListener("click", ({ target }) => {
  if (!target.matches("button")) return;
  fields.input.value = target.textContent;
  drawPicture();
});
byId("files").addEventListener("change", async ({ target }) => {
  await addFiles(target.files);
  target.value = "";
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length === 0) return;
  event.preventDefault();
  addFiles(event.clipboardData.files);
});
document.addEventListener("dragover", (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", ({ relatedTarget }) => {
  if (!relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  document.body.classList.remove("dragging");
  if (event.dataTransfer.files.length === 0) return;
  event.preventDefault();
  addFiles(event.dataTransfer.files);
});
addEventListener("online", checkServer);
setInterval(() => {
  if (!document.hidden && isOnline) checkServer();
}, healthCheck_ms);

byId("settings").open = innerWidth >= 800;
showReferences();
connect();
