// Rows about line ends: a checkout of which every text has those of Windows, as Git for Windows makes one where a repository
// does not say what it wants, and editors and archives make them anywhere; what Git makes of this one; files that users
// write. node_modules stays as it is.

import { execFileSync, spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect } from "vitest";
import { repository } from "../cli/program.js";
import { postJson, smallRequest } from "../server/running.js";
import { serveProgram } from "../server/served-program.js";
import { daybreakIn, type Need, row, runIn, smallPicture, tool } from "./environment.js";

const folder = mkdtempSync(join(tmpdir(), "daybreak-line-ends-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const checkout = join(folder, "checkout");
const program = join(checkout, "dist/src/cli/main.js");
const needed = ["src", "bench", "kernels", "models", "studio", "package.json", "package-lock.json", "tsconfig.json"];
const key = "a-key-of-some-length";

/** Gives every text below a folder the line ends of Windows. What holds a zero is no text. */
function endLinesAsWindows(path: string): void {
  for (const entry of readdirSync(path, { withFileTypes: true, recursive: true })) {
    if (!entry.isFile()) continue;
    const file = join(entry.parentPath, entry.name);
    const bytes = readFileSync(file);
    if (!bytes.includes(0)) writeFileSync(file, bytes.toString("latin1").replaceAll(/\r?\n/g, "\r\n"), "latin1");
  }
}

/** The picture that a program draws, as the bytes of its file. */
async function drawn(main: string, name: string): Promise<Buffer> {
  const output = join(folder, `${name}.png`);
  const run = await runIn({ cwd: folder }, [process.execPath, main, ...smallPicture, "--output", output]);
  expect([run.status, run.errors]).toEqual([0, []]);
  return readFileSync(output);
}

describe("a checkout with the line ends of Windows", () => {
  beforeAll(() => {
    mkdirSync(checkout);
    for (const name of needed) cpSync(join(repository, name), join(checkout, name), { recursive: true });
    endLinesAsWindows(checkout);
    const kept = ["node_modules", ".daybreak"].filter((name) => existsSync(join(repository, name)));
    for (const name of kept) symlinkSync(join(repository, name), join(checkout, name));
  });

  row("is set up, builds the same kernels, and is called by its name", [], async () => {
    const setUp = await runIn({ cwd: checkout }, [process.execPath, "src/setup/setup.mjs", "--quiet"]);
    expect([setUp.status, setUp.stderr]).toEqual([0, ""]);
    expect(readFileSync(join(checkout, "kernels/matmul.wgsl"), "utf8")).toContain("\r\n");
    const kernels = "src/engine/gpu/kernel-sources.ts";
    const [got, expected] = [checkout, repository].map((root) => readFileSync(join(root, kernels), "utf8"));
    expect(got === expected).toBe(true);
    if (process.platform !== "win32") expect((await runIn({}, [program, "--version"])).stdout).toMatch(/^daybreak \d/);
  });

  row("draws the same picture", [], async () => {
    const expected = await daybreakIn({ cwd: folder }, [...smallPicture, "--output", "expected.png"]);
    expect(expected.status).toBe(0);
    expect((await drawn(program, "got")).equals(readFileSync(join(folder, "expected.png")))).toBe(true);
  });

  row("serves the same pages, reads the keys of a Windows editor, draws, and stops", [], async () => {
    const keys = join(folder, "keys.txt");
    writeFileSync(keys, `\ufeff# keys\r\n${key}\r\n`);
    const args = ["--data-dir", join(folder, "data"), "--api-key-file", keys, "--no-tune"];
    const { url, child, ended } = await serveProgram(args, { program });
    for (const name of ["index.html", "studio.css", "studio.js", "api.js"]) {
      const page = await (await fetch(`${url}/${name === "index.html" ? "" : name}`)).text();
      expect(page === readFileSync(join(repository, "studio", name), "utf8").replaceAll("\r\n", "\n"), name).toBe(true);
    }
    const authorization = { headers: { authorization: `Bearer ${key}` } };
    const answer = await postJson(`${url}/v1/responses`, smallRequest(), authorization);
    expect((await answer.json()).status).toBe("completed");
    child.kill("SIGTERM");
    expect(await ended).toBe(0);
  });
});

/** Whether this is Git's checkout, and not what an archive held. */
const gitCheckout: Need = () => {
  const { status } = spawnSync("git", ["ls-files", "--error-unmatch", ".gitattributes"], { cwd: repository });
  return status === 0 ? undefined : "needs Git's checkout";
};
const git = (...args: string[]) =>
  execFileSync("git", ["-c", "core.autocrlf=true", "-c", "core.eol=crlf", ...args], { cwd: repository });

describe("Git set to the line ends of Windows", () => {
  row("knows of every file whether it is a text, and none is stored with other line ends", [gitCheckout], async () => {
    const lines = git("ls-files", "--eol").toString().trim().split("\n");
    const of = (kind: RegExp) => lines.filter((line) => kind.test(line)).map((line) => line.split("\t")[1] as string);
    expect(of(/^i\/(crlf|mixed)/)).toEqual([]);
    const kinds = new Set(of(/^i\/-text/).map((path) => path.split(".").pop()));
    expect([...kinds].sort()).toEqual(["jpg", "png", "safetensors", "webp"]);
    expect(of(/attr\/-text/).sort()).toEqual(of(/\.(jpg|png|safetensors|webp)$/).sort());
    expect(of(/attr\/text=auto eol=lf/).length + of(/attr\/-text/).length).toBe(lines.length);
  });

  row("writes line feeds all the same: scripts, kernels, tokenizers, golden pictures", [gitCheckout], async () => {
    const paths = [
      ...[".ci/run", "src/setup/setup.mjs", "kernels/matmul.wgsl", "studio/index.html"],
      ...["models/tiny-shapes/tokenizer/tokenizer.json", "tests/golden/README.md", "tests/golden/ref-circle.png"],
    ];
    git("checkout-index", `--prefix=${folder}/git/`, "--", ...paths);
    const index = (path: string) => git("cat-file", "blob", `:${path}`);
    for (const path of paths) expect(readFileSync(join(folder, "git", path)).equals(index(path)), path).toBe(true);
  });

  row("packs archives with line feeds", [gitCheckout, tool("tar")], async () => {
    const archive = git("archive", "HEAD", ".ci/run", "kernels/matmul.wgsl");
    const unpacked = join(folder, "archive");
    mkdirSync(unpacked);
    execFileSync("tar", ["-x", "-C", unpacked], { input: archive });
    for (const path of [".ci/run", "kernels/matmul.wgsl"]) {
      expect(readFileSync(join(unpacked, path), "utf8"), path).not.toContain("\r");
    }
  });
});

describe("files of users with the line ends of Windows", () => {
  row("a list of checksums is read", [], async () => {
    const path = join(folder, "sums");
    mkdirSync(path);
    writeFileSync(join(path, "a.txt"), "");
    const sum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    writeFileSync(join(path, "SHA256SUMS"), `${sum}  a.txt\r\n`);
    const run = await daybreakIn({ cwd: folder }, ["verify", path]);
    expect([run.status, run.stdout.split("\n")[0]]).toEqual([0, "right    a.txt  (SHA256SUMS)"]);
  });

  row("results that an editor has saved anew, with a mark at their beginning, are compared", [], async () => {
    const [name] = readdirSync(join(repository, "bench/results")).filter((file) => /kernels\.json$/.test(file));
    const text = readFileSync(join(repository, "bench/results", name as string), "utf8");
    writeFileSync(join(folder, "a.json"), text);
    writeFileSync(join(folder, "b.json"), `\ufeff${text.replaceAll(/\r?\n/g, "\r\n")}`);
    const run = await daybreakIn({ cwd: folder }, ["bench", "compare", "a.json", "b.json"]);
    expect([run.status, run.errors]).toEqual([0, []]);
    expect(run.stdout).toMatch(/geometric mean of \d+ ratios: 1\.00×/);
  });
});
