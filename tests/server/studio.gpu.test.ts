// The studio page in a real browser against the real server: drawn by keyboard, watched, cancelled, refused, reloaded.
// Chromium is no dependency: without one the page's tests are skipped and say so. Every page is watched for errors on
// its console, for what its content security policy blocks, and for requests to anybody else.

import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { eventData } from "../../studio/events.js";
import { browserPath } from "./chromium.js";
import { openServer, type TestServer } from "./running.js";

const circleFile = fileURLToPath(new URL("../golden/ref-circle.png", import.meta.url));
const longEnough = { timeout: 60_000 };

describe("events out of a stream", () => {
  const text =
    '\u{feff}: keep-alive\n\nevent: a\ndata: {"ä": "☀️"}\nid: 7\n\ndata:x\r\ndata: y\r\rdata\n\nunknown: z\n\ndata: cut off\n';
  const expected = ['{"ä": "☀️"}', "x\ny", ""];

  test.each([1, 2, 3, 7, 1000])("whose chunks have %i bytes", async (size) => {
    expect(await collect(chunked(new TextEncoder().encode(text), size))).toEqual(expected);
  });

  test("one of 32 MiB in chunks of 4 KiB takes no quadratic time", async () => {
    const data = "A".repeat(32 * 1024 * 1024);
    const began = performance.now();
    const events = await collect(chunked(new TextEncoder().encode(`data: ${data}\n\n`), 4096));
    expect(events.map(({ length }) => length)).toEqual([data.length]);
    // 8192 chunks of which each copies all before it are 128 GiB.
    expect(performance.now() - began).toBeLessThan(10_000);
  });

  function chunked(bytes: Uint8Array, size: number): ReadableStream<Uint8Array> {
    let begin = 0;
    return new ReadableStream({
      pull(controller) {
        if (begin >= bytes.length) controller.close();
        else controller.enqueue(bytes.subarray(begin, begin + size));
        begin += size;
      },
    });
  }

  async function collect(body: ReadableStream<Uint8Array>): Promise<string[]> {
    const events: string[] = [];
    for await (const data of eventData(body)) events.push(data);
    return events;
  }
});

describe.skipIf(browserPath === undefined)("the studio page", () => {
  let server: TestServer;
  let browser: Browser;
  /** What a page must not do, as it did it. */
  const complaints: string[] = [];

  beforeAll(async () => {
    server = await openServer({ listener: "auto" });
    browser = await chromium.launch({ executablePath: browserPath, args: ["--no-sandbox"] });
  });
  afterAll(async () => {
    await browser?.close();
    await server?.end();
  });
  afterEach(async () => {
    for (const context of browser.contexts()) await context.close();
    expect(complaints.splice(0)).toEqual([]);
  });

  async function openPage(options: BrowserContextOptions = {}, url = server.url): Promise<Page> {
    const permissions = ["clipboard-read", "clipboard-write"];
    const context = await browser.newContext({
      viewport: { width: 1280, height: 800 },
      reducedMotion: "reduce",
      permissions,
      ...options,
    });
    const page = await context.newPage();
    page.on("pageerror", (error) => complaints.push(`${error}`));
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) complaints.push(message.text());
    });
    page.on("request", (request) => {
      const isOwn = request.url().startsWith(`${url}/`) || /^(data|blob):/.test(request.url());
      if (!isOwn) complaints.push(`a request to ${request.url()}`);
    });
    await page.goto(`${url}/`);
    return page;
  }

  /** A page whose server has answered. */
  async function openReady(options?: BrowserContextOptions): Promise<Page> {
    const page = await openPage(options);
    await page.waitForSelector("#server[data-state=online]");
    return page;
  }

  /** The size and number of pixels of each finished picture on the page, newest first. */
  async function loadedPictures(page: Page, count: number): Promise<number[][]> {
    await page.waitForFunction(
      (wanted) => {
        const images = [...document.querySelectorAll<HTMLImageElement>(".card:not(.waiting) .picture img")];
        return images.length === wanted && images.every(({ complete, naturalWidth }) => complete && naturalWidth > 0);
      },
      count,
      longEnough,
    );
    return page
      .locator(".card .picture img")
      .evaluateAll((images: HTMLImageElement[]) => images.map((image) => [image.naturalWidth, image.naturalHeight]));
  }

  async function drawSmall(page: Page, prompt: string): Promise<void> {
    await page.fill("[name=input]", prompt);
    await page.fill("[name=width]", "128");
    await page.fill("[name=height]", "128");
    await page.press("[name=input]", "Control+Enter");
  }

  test("draws by keyboard alone, showing steps and rough pictures, then the picture", async () => {
    const page = await openReady();
    await page.evaluate(() => {
      const seen = { states: [] as string[], partials: 0, progress: [] as number[] };
      Object.assign(globalThis, { seen });
      new MutationObserver(() => {
        const state = document.querySelector("#state")?.textContent ?? "";
        if (seen.states.at(-1) !== state) seen.states.push(state);
        const bar = document.querySelector("progress") as HTMLProgressElement;
        if (bar.hasAttribute("value") && seen.progress.at(-1) !== bar.value) seen.progress.push(bar.value);
        const partial = document.querySelector<HTMLImageElement>(".waiting .partial");
        if (partial && partial.naturalWidth === 256 && partial.dataset.seen !== "yes") {
          partial.dataset.seen = "yes";
          seen.partials++;
        }
      }).observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
    });
    await page.keyboard.press("Tab");
    await page.keyboard.type("a red circle, it's on a blue background");
    const sent = page.waitForRequest((request) => request.method() === "POST");
    await page.keyboard.press("Control+Enter");
    const body = (await sent).postDataJSON();
    expect(await loadedPictures(page, 1)).toEqual([[256, 256]]);

    const seen = await page.evaluate(() => (globalThis as unknown as { seen: Seen }).seen);
    expect(seen.states.join("\n")).toMatch(/Step 1 of 4 · about \d+ s left[\s\S]*Step 4 of 4/);
    expect(seen.progress).toEqual([0.25, 0.5, 0.75, 1]);
    expect(seen.partials).toBe(2);
    expect(await page.textContent("#announcer")).toBe("The picture is ready.");
    expect(body).toMatchObject({ stream: true, provider_options: { image: { progress: true, partial_images: 2 } } });

    const facts = await page.textContent(".card .facts");
    expect(facts).toMatch(new RegExp(`^Seed${body.seed}Size256 × 256Steps4Time`));
    await checkCurl(page, body);
    await checkReuse(page, body);
  });
  type Seen = { states: string[]; partials: number; progress: number[] };

  /** Copies the command, runs it in a shell and compares what it drew. */
  async function checkCurl(page: Page, body: unknown): Promise<void> {
    await page.focus("[data-action=curl]");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.querySelector("[data-action=curl]")?.textContent === "Copied");
    const command = await page.evaluate(() => navigator.clipboard.readText());
    const json = JSON.stringify(body).replaceAll("'", "'\\''");
    expect(command).toBe(
      `curl -N '${server.url}/v1/responses' \\\n  -H 'content-type: application/json' \\\n  -d '${json}'`,
    );
    const options = { maxBuffer: 64 * 1024 * 1024 };
    const { stdout } = await promisify(execFile)("sh", ["-c", command.replace("curl", "curl -s")], options);
    const id = /"type":"response.completed".*"asset_id":"(img_[0-9a-f]{32})"/.exec(stdout)?.[1];
    const picture = async (path: string) => Buffer.from(await (await fetch(new URL(path, server.url))).arrayBuffer());
    const shown = await page.getAttribute(".card .picture img", "src");
    const [drawn, again] = [await picture(shown ?? ""), await picture(`/v1/images/${id}/content`)];
    expect(drawn.length).toBeGreaterThan(1000);
    expect(again.equals(drawn)).toBe(true);
  }

  async function checkReuse(page: Page, { input, seed }: { input: string; seed: number }): Promise<void> {
    await page.fill("[name=input]", "something else");
    await page.click("[data-action=seed]");
    expect(await page.isChecked("#random")).toBe(false);
    expect(await page.inputValue("[name=seed]")).toBe(String(seed));
    await page.click("[data-action=reuse]");
    expect(await page.inputValue("[name=input]")).toBe(input);
    const [download] = await Promise.all([page.waitForEvent("download"), page.click("[data-action=download]")]);
    expect(download.suggestedFilename()).toMatch(/^img_[0-9a-f]{32}\.png$/);
    expect(
      readFileSync(await download.path())
        .subarray(1, 4)
        .toString(),
    ).toBe("PNG");
  }

  test("several pictures in another format, from seeds that follow each other", async () => {
    const page = await openReady();
    await page.uncheck("#random");
    await page.fill("[name=seed]", "41");
    await page.fill("[name=num_images]", "2");
    await page.fill("[name=steps]", "2");
    await page.selectOption("[name=output_format]", "webp");
    await drawSmall(page, "a green square");
    expect(await loadedPictures(page, 2)).toEqual([
      [128, 128],
      [128, 128],
    ]);
    expect(await page.locator("[data-action=seed]").allTextContents()).toEqual(["41", "42"]);
    const source = await page.getAttribute(".card .picture img", "src");
    expect((await fetch(`${server.url}/${source}`)).headers.get("content-type")).toBe("image/webp");
    expect(await page.isVisible("[name=guidance_scale]")).toBe(false);
    await page.locator("[data-action=remove]").first().click();
    await loadedPictures(page, 1);
    expect((await fetch(`${server.url}/${source}`)).status).toBe(404);
  });

  test("references by file, by paste, by drop and from a result; one is removed again", async () => {
    const page = await openReady();
    await drawSmall(page, "a yellow star");
    await loadedPictures(page, 1);
    await page.setInputFiles("#files", circleFile);
    await page.waitForSelector("#thumbnails img");
    const base64 = readFileSync(circleFile).toString("base64");
    for (const type of ["paste", "drop"]) await giveFile(page, type, base64);
    await page.click("[data-action=reference]");
    await expect.poll(() => page.locator("#thumbnails img").count()).toBe(4);
    await page.click("[aria-label='Remove reference 2']");
    const sent = page.waitForRequest((request) => request.method() === "POST");
    await drawSmall(page, "the same as before");
    const { input } = (await sent).postDataJSON();
    const urls = input[0].content.slice(1).map(({ image_url }: { image_url: string }) => image_url);
    const file = `data:image/png;base64,${base64}`;
    expect(urls).toEqual([file, file, expect.stringMatching(/^\/v1\/images\/img_[0-9a-f]{32}\/content$/)]);
    await loadedPictures(page, 2);

    await page.reload();
    await loadedPictures(page, 2);
    expect(await page.evaluate(() => JSON.stringify(localStorage))).not.toContain("data:image");
    expect(await page.locator("[data-action=curl]").first().isDisabled()).toBe(true);
  });

  async function giveFile(page: Page, type: string, base64: string): Promise<void> {
    const handOver = ([name, content]: string[]) => {
      const bytes = Uint8Array.from(atob(content ?? ""), (character) => character.charCodeAt(0));
      const data = new DataTransfer();
      data.items.add(new File([bytes], "circle.png", { type: "image/png" }));
      const options = { bubbles: true, cancelable: true };
      const event =
        name === "paste"
          ? new ClipboardEvent("paste", { ...options, clipboardData: data })
          : new DragEvent("drop", { ...options, dataTransfer: data });
      document.querySelector("[name=input]")?.dispatchEvent(event);
    };
    const before = await page.locator("#thumbnails img").count();
    await page.evaluate(handOver, [type, base64]);
    await expect.poll(() => page.locator("#thumbnails img").count()).toBe(before + 1);
  }

  test("tells which marks a file carries that is chosen or dropped, and what it cannot be told of", async () => {
    const page = await openReady();
    const [marked, plain] = ["cat-256-jpeg75.jpg", "../../golden/ref-narrow.png"].map((name) =>
      fileURLToPath(new URL(`../watermark/cases/${name}`, import.meta.url)),
    ) as [string, string];
    const layers = () => page.locator("#marks-layers dd").allTextContents();
    await page.setInputFiles("#marked", marked);
    await page.waitForSelector("#marks:not([hidden])", longEnough);
    expect(await page.textContent("#marks-file")).toBe("cat-256-jpeg75.jpg");
    expect(await page.textContent("#marks-verdict")).toBe("Made by Daybreak");
    expect(await layers()).toEqual(["not found", "not found", "found, drawn from text, id 0"]);
    expect(await page.textContent("#announcer")).toBe("cat-256-jpeg75.jpg: Made by Daybreak.");
    expect(await page.isHidden("#marks-note")).toBe(true);

    // A picture without marks, dropped: what is dropped here is no reference.
    const bytes = [...readFileSync(plain)];
    await page.evaluate((content) => {
      const dropped = new DataTransfer();
      dropped.items.add(new File([new Uint8Array(content)], "plain.png"));
      const init = { bubbles: true, cancelable: true, dataTransfer: dropped };
      document.querySelector("#detector .drop")?.dispatchEvent(new DragEvent("drop", init));
    }, bytes);
    await page.waitForFunction(
      () => document.querySelector("#marks-verdict")?.textContent === "No mark found",
      undefined,
      longEnough,
    );
    expect(await layers()).toEqual(["not found", "not found", "not found"]);
    expect(await page.isVisible("#marks-note")).toBe(true);
    expect(await page.locator("#thumbnails li").count()).toBe(0);

    await page.setInputFiles("#marked", { name: "a.txt", mimeType: "text/plain", buffer: Buffer.from("no picture") });
    await page.waitForSelector("#marks-state[data-error]", longEnough);
    expect(await page.textContent("#marks-state")).toMatch(/^a\.txt: got 10 bytes .*expected PNG, JPEG, WebP or MP4$/);
    expect(await page.isHidden("#marks")).toBe(true);
    expect(await page.getAttribute("#detector", "aria-busy")).toBe("false");
    complaints.splice(0); // the browser notes the refusal
  });

  test("shows an error with its code at the field it is about", async () => {
    const page = await openReady();
    const errorOf = async (field: string) => {
      await page.waitForSelector(`${field}[aria-invalid=true]`);
      return [await page.textContent("#error-message"), await page.textContent("#error-code")];
    };
    await page.fill("[name=input]", "a red circle");
    await page.fill("[name=width]", "250");
    await page.press("[name=width]", "Enter");
    expect(await errorOf("[name=width]")).toEqual([
      "provider_options.image.width got 250: expected a multiple of 16",
      "invalid_value · provider_options.image.width",
    ]);
    expect(await page.evaluate(() => document.activeElement?.getAttribute("name"))).toBe("width");
    await page.fill("[name=width]", "");
    expect(await page.isVisible("#error")).toBe(false);

    await page.fill("[name=input]", "a red circle ".repeat(600));
    await page.click("#draw");
    expect(await errorOf("[name=input]")).toEqual([
      expect.stringContaining("512"),
      expect.stringMatching(/^request_prompt_too_long · input$/),
    ]);

    await page.fill("[name=input]", "a red circle");
    const broken = { name: "broken.png", mimeType: "image/png", buffer: Buffer.from("no picture") };
    await page.setInputFiles("#files", [circleFile]);
    await page.setInputFiles("#files", [broken]);
    await page.click("#draw");
    const [, code] = await errorOf("#references");
    expect(code).toMatch(/^reference_\w+ · input\[0\]\.content\[2\]\.image_url$/);
    expect(await page.getAttribute("#thumbnails li:nth-child(2)", "class")).toBe("invalid");
    expect(await page.locator(".card").count()).toBe(0);
    const statuses = complaints.splice(0).filter((text) => !text.includes("ERR_INVALID_URL"));
    expect(statuses.map((text) => /status of (\d+)/.exec(text)?.[1])).toEqual(["400", "400", "400"]);
  });

  test("a drawing is cancelled by keyboard, and the server stops", async () => {
    const page = await openReady();
    await page.fill("[name=steps]", "8");
    await page.fill("[name=num_images]", "10");
    await page.fill("[name=input]", "a red circle");
    await page.focus("[name=input]");
    await page.keyboard.press("Control+Enter");
    await page.waitForFunction(() => document.querySelector("#state")?.textContent?.includes("Step 1 of 8"));
    expect(await page.locator(".card.waiting").count()).toBe(10);
    await page.keyboard.press("Tab");
    await page.keyboard.press("Tab");
    expect(await page.evaluate(() => document.activeElement?.id)).toBe("cancel");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.querySelector("#announcer")?.textContent === "Cancelled.");
    expect(await page.locator(".card").count()).toBe(0);
    expect(await page.evaluate(() => document.activeElement?.id)).toBe("draw");
    expect(await page.isVisible("#error")).toBe(false);
    const running = async () => /daybreak_jobs\{state="running"\} (\d+)/.exec(await metrics())?.[1];
    const metrics = async () => (await fetch(`${server.url}/metrics`)).text();
    await expect.poll(running, { timeout: 20_000 }).toBe("0");
  });

  test("results survive a reload for as long as the server has them, and fit a narrow phone", async () => {
    const page = await openReady({ viewport: { width: 360, height: 740 }, hasTouch: true });
    await page.locator("summary").click();
    await drawSmall(page, "a red circle");
    await loadedPictures(page, 1);
    await page.waitForSelector("#cancel", { state: "hidden" });
    await drawSmall(page, `averylongword${"without a space".replaceAll(" ", "").repeat(12)}`);
    await loadedPictures(page, 2);
    await page.reload();
    await loadedPictures(page, 2);
    await page.locator("summary").click();
    const width = () => page.evaluate(() => document.documentElement.scrollWidth);
    expect(await width()).toBe(360);
    const tooWide = await page.evaluate(() =>
      [...document.querySelectorAll("body *")]
        .filter((element) => element.getBoundingClientRect().right > 360.5 && element.checkVisibility())
        .map(({ outerHTML }) => outerHTML.slice(0, 80)),
    );
    expect(tooWide).toEqual([]);

    const path = await page.getAttribute(".card:first-child .picture img", "src");
    await fetch(`${server.url}/${path?.replace("/content", "")}`, { method: "DELETE" });
    await page.evaluate(() => localStorage.setItem("other", "kept"));
    await page.route(`**/${path}`, (route) => route.continue({ headers: { "cache-control": "no-cache" } }));
    await page.reload();
    await loadedPictures(page, 1);
    expect(await page.evaluate(() => JSON.parse(localStorage.getItem("daybreak.results") ?? "").length)).toBe(1);
    for (const text of complaints.splice(0)) expect(text).toContain("404");
  });

  test("makes a video", async () => {
    const page = await openReady();
    await page.locator("label:has([value=video])").click();
    await page.fill("[name=num_frames]", "3");
    await page.fill("[name=steps]", "1");
    expect(await page.isVisible("[name=num_images]")).toBe(false);
    await drawSmall(page, "a red circle");
    await page.waitForSelector(".card:not(.waiting) video", longEnough);
    const video = page.locator(".card video");
    expect(await video.evaluate((element: HTMLVideoElement) => [element.videoWidth, element.paused])).toEqual([
      128,
      true,
    ]);
    expect(await page.isVisible("[data-action=reference]")).toBe(false);
  });

  test("asks for a key where the server wants one, and uses it for media as well", async () => {
    const folder = await mkdtemp(join(tmpdir(), "daybreak-keys-"));
    await writeFile(join(folder, "keys"), "opensesame\n");
    const guarded = await openServer({ apiKeyFile: join(folder, "keys"), protectMedia: true });
    try {
      const page = await openPage({}, guarded.url);
      for (const key of ["wrong", "opensesame"]) {
        await page.waitForSelector("#key-dialog[open]");
        await page.fill("#key", key);
        await page.keyboard.press("Enter");
      }
      await page.waitForSelector("#server[data-state=online]");
      await drawSmall(page, "a red circle");
      expect(await loadedPictures(page, 1)).toEqual([[128, 128]]);
      expect(await page.evaluate(() => JSON.stringify(localStorage))).not.toContain("opensesame");
      for (const text of complaints.splice(0)) expect(text).toContain("401");
    } finally {
      await guarded.end();
      await rm(folder, { recursive: true });
    }
  });

  test("says that the server is away, and goes on when it is back", async () => {
    const first = await openServer();
    const port = Number(new URL(first.url).port);
    const page = await openPage({}, first.url);
    await page.waitForSelector("#server[data-state=online]");
    await first.end();
    await drawSmall(page, "a red circle");
    await page.waitForSelector("#server[data-state=offline]");
    expect(await page.textContent("#error-message")).toBe("The server does not answer.");
    const second = await openServer({ port });
    try {
      await page.waitForSelector("#server[data-state=online]");
      await page.click("#draw");
      expect(await loadedPictures(page, 1)).toEqual([[128, 128]]);
      expect(await page.isVisible("#error")).toBe(false);
      for (const text of complaints.splice(0)) expect(text).toContain("ERR_CONNECTION");
    } finally {
      await second.end();
    }
  });
});
