// Draws a picture in a real web page and compares it with Node's: `node tests/browser.mjs`, after `npm run setup`.
// Chromium is no dependency, so this is no part of `npm test`; without one it fails and says so. The page gets the built
// modules as they are, through an import map and no bundler, and reads the checkpoint by HTTP ranges.
// DAYBREAK_BROWSER names the program to start; its WebGPU runs on SwiftShader, which needs no GPU.

import { spawn } from "node:child_process";
import { accessSync, constants, createReadStream, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { delimiter, extname, join, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const model = join(root, "models/tiny-shapes");
const request = { prompt: "a red circle on a blue background", width: 64, height: 64, steps: 1, precision: "f32" };
const seed = 7n;
const limit_ms = 180_000;

/** The packages that the web-standard half imports, as a page has to name them. */
const importMap = {
  imports: {
    daybreak: "/dist/src/index.js",
    "wgsl_reflect/wgsl_reflect.module.js": "/node_modules/wgsl_reflect/wgsl_reflect.module.js",
    "@huggingface/tokenizers": "/node_modules/@huggingface/tokenizers/dist/tokenizers.mjs",
    "fourier-transform": "/node_modules/fourier-transform/index.js",
  },
};

const page = `<!doctype html><meta charset="utf-8"><title>daybreak</title>
<script type="importmap">${JSON.stringify(importMap)}</script>
<script type="module">
  const post = (path, body) => fetch(path, { method: "POST", body });
  try {
    const { Engine, urlSource } = await import("daybreak");
    const { precision, ...request } = ${JSON.stringify(request)};
    const source = urlSource("/model/", ${JSON.stringify(filesUnder(model))});
    const engine = await Engine.open({ gpu: navigator.gpu, source, precision });
    const { images, timings } = await engine.generate({ ...request, seed: ${seed}n });
    await engine.generate({ ...request, prompt: "", steps: 2 });
    const { info } = engine;
    await engine.close();
    await post("/said", JSON.stringify({ adapter: info.adapter, precision: info.precision, timings }));
    await post("/picture", images[0].data);
  } catch (error) {
    await post("/failed", String(error?.code ?? "") + " " + String(error?.stack ?? error));
  }
</script>`;

function filesUnder(folder) {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((name) => statSync(join(folder, name)).isFile())
    .map((name) => name.replaceAll("\\", "/"));
}

function findBrowser() {
  const named = process.env.DAYBREAK_BROWSER;
  if (named) return named;
  for (const name of ["chromium", "chromium-browser", "google-chrome", "chrome"]) {
    for (const folder of (process.env.PATH ?? "").split(delimiter)) {
      try {
        accessSync(join(folder, name), constants.X_OK);
        return join(folder, name);
      } catch {
        // not in this folder
      }
    }
  }
  throw new Error(
    "there is no Chromium on PATH: install it (Debian: the package chromium), or name one in DAYBREAK_BROWSER",
  );
}

const types = { ".js": "text/javascript", ".mjs": "text/javascript", ".json": "application/json" };

/** Serves the page, the modules and the checkpoint; `received` gets what the page posts. */
function serve(received) {
  const mounts = { "/dist/": join(root, "dist"), "/node_modules/": join(root, "node_modules"), "/model/": model };
  return createServer((incoming, answer) => {
    const path = decodeURIComponent(new URL(incoming.url, "http://localhost").pathname);
    if (incoming.method === "POST") {
      const chunks = [];
      incoming.on("data", (chunk) => chunks.push(chunk));
      incoming.on("end", () => {
        answer.end();
        received(path, Buffer.concat(chunks));
      });
      return;
    }
    if (path === "/") {
      answer.setHeader("Content-Type", "text/html");
      answer.end(page);
      return;
    }
    const prefix = Object.keys(mounts).find((name) => path.startsWith(name));
    const file = prefix && resolve(mounts[prefix], path.slice(prefix.length));
    const size = file?.startsWith(mounts[prefix] + sep) && statSync(file, { throwIfNoEntry: false })?.size;
    if (size === undefined || size === false) {
      answer.writeHead(404).end();
      return;
    }
    sendFile(answer, file, size, incoming.headers.range);
  });
}

function sendFile(answer, file, size, range) {
  answer.setHeader("Content-Type", types[extname(file)] ?? "application/octet-stream");
  const asked = /^bytes=(\d+)-(\d+)$/.exec(range ?? "");
  if (!asked) {
    createReadStream(file).pipe(answer);
    return;
  }
  const [start, end] = [Number(asked[1]), Math.min(Number(asked[2]), size - 1)];
  if (start > end) {
    answer.writeHead(416, { "Content-Range": `bytes */${size}` }).end();
    return;
  }
  answer.writeHead(206, { "Content-Range": `bytes ${start}-${end}/${size}`, "Content-Length": end - start + 1 });
  createReadStream(file, { start, end }).pipe(answer);
}

/** Opens the page and resolves to what it drew and said. */
async function drawInPage() {
  const browser = findBrowser();
  const profile = mkdtempSync(join(tmpdir(), "daybreak-browser-"));
  let said = "";
  let complaints = "";
  let child;
  let timer;
  let server;
  try {
    const picture = await new Promise((done, fail) => {
      timer = setTimeout(() => fail(new Error(`no picture after ${limit_ms / 1000} s\n${complaints}`)), limit_ms);
      server = serve((path, body) => {
        if (path === "/said") said = body.toString();
        else if (path === "/picture") done(new Uint8Array(body));
        else fail(new Error(`the page failed: ${body}\n${complaints}`));
      }).listen(0, "127.0.0.1", () => {
        const flags = ["--headless=new", "--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];
        const address = `http://localhost:${server.address().port}/`;
        child = spawn(browser, [...flags, "--disable-gpu-sandbox", `--user-data-dir=${profile}`, address], {
          detached: true,
        });
        child.on("error", fail);
        child.on("exit", (code) => fail(new Error(`${browser} ended with status ${code}\n${complaints}`)));
        child.stderr.on("data", (chunk) => {
          complaints = (complaints + chunk).slice(-4000);
        });
      });
    });
    return { picture, said };
  } finally {
    clearTimeout(timer);
    server?.close();
    server?.closeAllConnections();
    if (child?.pid && child.exitCode === null) {
      const ended = new Promise((done) => child.once("exit", done));
      process.kill(-child.pid); // the group: the program may be a script around the real one, which has children
      await ended;
    }
    rmSync(profile, { recursive: true, force: true, maxRetries: 20 });
  }
}

async function drawInNode() {
  const { openEngine } = await import("../dist/src/node/index.js");
  const { precision, ...rest } = request;
  const engine = await openEngine({ model, precision, tune: "off" });
  const { images } = await engine.generate({ ...rest, seed });
  const said = engine.info.adapter;
  await engine.close();
  return { picture: images[0].data, said };
}

const [inPage, inNode] = [await drawInPage(), await drawInNode()];
console.log(`page: ${inPage.said}\nNode: ${inNode.said}`);
if (inPage.picture.length !== inNode.picture.length) {
  throw new Error(`got ${inPage.picture.length} bytes from the page, ${inNode.picture.length} from Node`);
}
const differences = inPage.picture.map((value, i) => Math.abs(value - inNode.picture[i]));
const error = differences.reduce((sum, difference) => sum + difference ** 2, 0) / differences.length;
const psnr = 10 * Math.log10(255 ** 2 / error);
const different = differences.filter((difference) => difference > 0).length;
console.log(
  `${different} of ${differences.length} bytes differ, at most by ${Math.max(...differences)}; PSNR ${psnr.toFixed(1)} dB`,
);
if (!(psnr >= 50)) {
  console.error("error: the page's picture is not Node's: expected a PSNR of at least 50 dB");
  process.exitCode = 1;
}
