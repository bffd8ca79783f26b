// The results of this session as cards, newest first: those that are being drawn, and those that are there. They
// survive a reload for as long as the server has their files; of files that the visitor gave only this page knows.
// An entry is {id, kind, format, width, height, seed, steps, seconds, expires_at, note?, body}; body is what was sent.

import { apiKey, request } from "./api.js";

const storageName = "daybreak.results";
const maxEntries = 60;

const list = document.getElementById("gallery");
const template = document.getElementById("card");
const empty = document.getElementById("empty");

let entries = [];
const entryOf = new WeakMap();

export function mediaPath({ kind, id }) {
  return `v1/${kind}s/${id}/content`;
}

/** Shows what earlier visits of this tab's browser left, and handles the cards' buttons. */
export function openGallery(actions) {
  try {
    entries = JSON.parse(localStorage.getItem(storageName)) ?? [];
  } catch {
    entries = [];
  }
  entries = entries.filter(({ expires_at }) => expires_at === null || expires_at * 1000 > Date.now());
  for (const entry of entries) {
    const card = newCard(entry.body);
    list.append(card);
    fillCard(card, entry);
  }
  list.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-action]");
    if (button) actions[button.dataset.action](entryOf.get(button.closest(".card")), button);
  });
  showEmpty();
}

/** A drawing that has begun: as many waiting cards as pictures are expected. */
export function beginDrawing(body, { count, width, height }) {
  const cards = Array.from({ length: count }, () => newCard(body));
  for (const card of cards) {
    card.classList.add("waiting");
    card.querySelector(".picture").style.setProperty("--ratio", width / height);
  }
  list.prepend(...cards);
  showEmpty();
  return {
    say(text, index = 0) {
      const facts = cards[index]?.querySelector(".facts");
      if (facts) facts.textContent = text;
    },
    /** Rough pictures replace each other once they are decoded, so that nothing flickers. */
    async showPartial(url, index) {
      const image = Object.assign(new Image(), { src: url, alt: "The picture so far", className: "partial" });
      await image.decode().catch(() => {});
      if (cards[index]?.classList.contains("waiting")) cards[index].querySelector(".picture").replaceChildren(image);
    },
    finish(response, seconds) {
      const results = readResults(response, body, seconds);
      for (const [i, entry] of results.entries()) fillCard(cards[i], entry);
      for (const card of cards.slice(results.length)) card.remove();
      entries.unshift(...results);
      save();
      return results;
    },
    discard() {
      for (const card of cards) card.remove();
      showEmpty();
    },
  };
}

/** Forgets a result; with `onServer` its file as well. */
export async function removeEntry(entry, { onServer }) {
  if (onServer) {
    const path = mediaPath(entry).replace(/\/content$/, "");
    await request(path, { method: "DELETE" }).catch((error) => {
      if (error.status !== 404) throw error;
    });
  }
  entries = entries.filter((other) => other !== entry);
  for (const card of list.children) if (entryOf.get(card) === entry) card.remove();
  save();
  showEmpty();
}

/** Loads again what could not be loaded while the server was away. */
export function retryMedia() {
  for (const card of list.querySelectorAll(".card.missing")) loadMedia(card, entryOf.get(card));
}

function readResults({ output, usage, warnings }, body, seconds) {
  const parts = output.flatMap(({ content = [] }) => content).filter(({ asset_id }) => asset_id);
  return parts.map(({ type, asset_id: id, format, width, height, seed, expires_at }) => {
    const { steps } = usage.image_generation_details;
    const note = warnings?.join("; ");
    const kind = type === "input_video" ? "video" : "image";
    return { id, kind, format, width, height, seed, steps, seconds, expires_at, note, body };
  });
}

function newCard({ input }) {
  const card = template.content.firstElementChild.cloneNode(true);
  card.querySelector(".prompt").textContent = promptOf(input);
  return card;
}

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

export function promptOf(input) {
  return typeof input === "string" ? input : input[0].content[0].text;
}

function fillCard(card, entry) {
  const { kind, id, format, width, height, seed, steps, seconds, note, body } = entry;
  entryOf.set(card, entry);
  card.classList.remove("waiting");
  const reuse = element("button", { type: "button", title: "Reuse this seed" }, seed);
  reuse.dataset.action = "seed";
  const facts = {
    Seed: reuse,
    Size: `${width} × ${height}`,
    Steps: steps,
    Time: `${seconds.toFixed(1)} s`,
    ...(note && { Note: note }),
  };
  const pairs = Object.entries(facts).map(([term, value]) =>
    element("div", {}, element("dt", {}, term), element("dd", {}, value)),
  );
  card.querySelector(".facts").replaceChildren(...pairs);
  const download = card.querySelector("[data-action=download]");
  download.download = `${id}.${format === "jpeg" ? "jpg" : format}`; // as the server itself names the file
  card.querySelector("[data-action=reference]").hidden = kind === "video";
  if (JSON.stringify(body).includes('"image_url":null')) {
    const curl = card.querySelector("[data-action=curl]");
    Object.assign(curl, { disabled: true, title: "The reference files of this request are not kept over a reload" });
  }
  loadMedia(card, entry);
}

/** Shows the file itself. With a key the page fetches it, because elements cannot send one. */
async function loadMedia(card, entry) {
  const { kind, width, height, body } = entry;
  const picture = card.querySelector(".picture");
  picture.style.setProperty("--ratio", width / height);
  const path = mediaPath(entry);
  try {
    const url = apiKey.get() ? URL.createObjectURL(await (await request(path)).blob()) : path;
    const media = document.createElement(kind === "video" ? "video" : "img");
    Object.assign(media, { width, height, src: url });
    if (kind === "video") {
      const autoplay = !matchMedia("(prefers-reduced-motion: reduce)").matches;
      Object.assign(media, { controls: true, loop: true, muted: true, playsInline: true, autoplay });
      media.setAttribute("aria-label", promptOf(body.input));
    } else {
      media.alt = promptOf(body.input);
    }
    await new Promise((resolve, reject) => {
      media.onerror = reject;
      if (kind === "image") media.decode().then(resolve, reject);
      else media.onloadedmetadata = resolve;
    });
    card.classList.remove("missing");
    picture.replaceChildren(kind === "video" ? media : element("a", { href: url, target: "_blank" }, media));
    card.querySelector("[data-action=download]").href = url;
  } catch {
    card.classList.add("missing");
    const status = await request(path, { method: "HEAD" }).then(
      () => 200,
      (error) => error.status,
    );
    if (status === 404) await removeEntry(entry, { onServer: false });
  }
}

function showEmpty() {
  empty.hidden = list.children.length > 0;
}

/** Ids, settings and prompts only: pictures that the visitor gave are left out, they may be megabytes. */
function save() {
  const withoutData = (name, value) => (name === "image_url" && /^data:/.test(value) ? null : value);
  entries = entries.slice(0, maxEntries);
  while (list.children.length > maxEntries) list.lastElementChild.remove();
  for (let kept = entries; ; kept = kept.slice(0, kept.length / 2)) {
    try {
      localStorage.setItem(storageName, JSON.stringify(kept, withoutData));
      return;
    } catch {
      // The browser's quota is full, perhaps of long prompts; without any storage nothing is kept.
      if (kept.length === 0) return;
    }
  }
}
