// The package as it is installed: in the layouts of package managers, under other names for the same folders, with parts of
// it missing or denied, and inside a bundle. What draws has to draw the checkout's picture, to the byte.

import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { rolldown } from "rolldown";
import { afterAll, beforeAll, expect } from "vitest";
import { decodePng } from "../../src/media/png.js";
import { program, repository } from "../cli/program.js";
import { linux, type Need, row, runIn, smallPicture, tool } from "./environment.js";
import {
  allPackages,
  drawn,
  installedProgram,
  installInto,
  linkPackages,
  makeProject,
  neededPackages,
  optionalPackages,
  type Packed,
  packPackage,
} from "./project.js";

const needs: Need[] = [linux, tool("npm"), tool("tar")];
const node = process.execPath;
const yarnHandles = join(repository, "tests", "environments", "yarn-handles.cjs");

let packed: Packed;
let expected: Buffer;
let pixels: string;
/** Laid out as npm does, in a folder whose name has blanks; without optional packages. */
let project: string;

beforeAll(async () => {
  packed = await packPackage();
  project = makeProject(packed, "a project 'of mine'");
  installInto(join(project, "node_modules"), packed, neededPackages);
  expected = await drawn({ cwd: packed.folder }, [node, program]);
  const { data } = await decodePng(expected);
  pixels = createHash("sha256").update(data).digest("hex");
});
afterAll(() => packed?.remove());

row("a project of npm's, with blanks and quotes in its path, without optional packages", needs, async () => {
  const command = [join(project, "node_modules", ".bin", "daybreak")];
  expect(await drawn({ cwd: project }, command)).toEqual(expected);
});

row("npx, in that project", needs, async () => {
  const run = await runIn({ cwd: project }, ["npx", "--offline", "--no", "--", "daybreak", "--version"]);
  expect([run.status, run.stdout], run.stderr).toEqual([0, expect.stringMatching(/^daybreak \d/)]);
});

row("the library in a workspace of npm's, whose packages lie in the folder above", needs, async () => {
  const workspace = join(project, "packages", "drawing");
  mkdirSync(workspace, { recursive: true });
  writeFileSync(join(workspace, "package.json"), JSON.stringify({ name: "drawing", type: "module" }));
  cpSync(join(project, "draw.mjs"), join(workspace, "draw.mjs"));
  const run = await runIn({ cwd: workspace }, [node, "draw.mjs"]);
  expect([run.status, run.stdout.trim()], run.stderr).toEqual([0, pixels]);
});

row("installed for everybody, below a prefix, called through a link from elsewhere", needs, async () => {
  const prefix = join(packed.folder, "prefix");
  const modules = join(prefix, "lib", "node_modules");
  cpSync(packed.contents, join(modules, "daybreak"), { recursive: true });
  linkPackages(join(modules, "daybreak", "node_modules"), [...neededPackages, ...optionalPackages]);
  mkdirSync(join(prefix, "bin"));
  symlinkSync("../lib/node_modules/daybreak/dist/src/cli/main.js", join(prefix, "bin", "daybreak"));
  const env = { PATH: `${join(prefix, "bin")}:${process.env.PATH}` };
  expect(await drawn({ cwd: packed.folder, env }, ["daybreak"])).toEqual(expected);
});

/** Each package in a folder of its own, beside links to what it depends on, and a link to that in the project. */
function linkedProject(): string {
  const linked = makeProject(packed, "linked");
  const store = join(linked, "node_modules", ".pnpm", "daybreak@0.1.0", "node_modules");
  installInto(store, packed, [...neededPackages, ...optionalPackages]);
  symlinkSync(join(".pnpm", "daybreak@0.1.0", "node_modules", "daybreak"), join(linked, "node_modules", "daybreak"));
  return linked;
}

row("a project of pnpm's: draws, and doctor finds every package", needs, async () => {
  const linked = linkedProject();
  expect(await drawn({ cwd: linked }, [node, installedProgram])).toEqual(expected);
  const { stdout } = await runIn({ cwd: linked }, [node, installedProgram, "doctor", "--json"]);
  const { packages } = JSON.parse(stdout);
  expect(Object.keys(packages).toSorted()).toEqual([...neededPackages, ...optionalPackages].toSorted());
  expect(Object.values(packages)).not.toContain(null);
});

row("a project of pnpm's with --preserve-symlinks, which hides its packages: says which", needs, async () => {
  const env = { NODE_OPTIONS: "--preserve-symlinks --preserve-symlinks-main" };
  const run = await runIn({ cwd: join(packed.folder, "linked"), env }, [node, installedProgram, ...smallPicture]);
  expect(run.status).toBe(1);
  expect(run.errors).toEqual([
    expect.stringMatching(
      /^error: runtime\.files_missing: got an installation without the package "[\w@/.-]+", expected .*: install anew, and leave out --preserve-symlinks/,
    ),
  ]);
});

row("a flat project with --preserve-symlinks", needs, async () => {
  const flat = makeProject(packed, "flat");
  installInto(join(flat, "node_modules"), packed, allPackages());
  const env = { NODE_OPTIONS: "--preserve-symlinks --preserve-symlinks-main" };
  expect(await drawn({ cwd: flat, env }, [node, installedProgram])).toEqual(expected);
});

row("an installation that lost a package: says which", needs, async () => {
  const pruned = makeProject(packed, "pruned");
  installInto(
    join(pruned, "node_modules"),
    packed,
    neededPackages.filter((name) => name !== "wgsl_reflect"),
  );
  const run = await runIn({ cwd: pruned }, [node, installedProgram, ...smallPicture]);
  expect([run.status, run.errors]).toEqual([
    1,
    [expect.stringMatching(/^error: runtime\.files_missing: .*"wgsl_reflect/)],
  ]);
});

const [major = 0] = process.versions.node.split(".").map(Number);
const permission = major >= 24 ? "--permission" : "--experimental-permission";

row("Node's permissions, reading and writing alone: says what to add", needs, async () => {
  const options = [permission, "--allow-fs-read=*", "--allow-fs-write=*"];
  const run = await runIn({ cwd: project }, [node, ...options, installedProgram, ...smallPicture]);
  expect([run.status, run.errors], run.stderr).toEqual([
    1,
    [
      "error: runtime.denied: got a refusal of Node's permissions (addons), expected to be allowed it: " +
        "add --allow-addons, or leave out --permission",
    ],
  ]);
});

row("Node's permissions with addons: draws; serve says that it needs processes", needs, async () => {
  const options = [permission, "--allow-fs-read=*", "--allow-fs-write=*", "--allow-addons"];
  expect(await drawn({ cwd: project }, [node, ...options, installedProgram])).toEqual(expected);
  const serve = ["serve", "--port", "0", "--data-dir", "media"];
  const run = await runIn({ cwd: project }, [node, ...options, installedProgram, ...serve]);
  expect([run.status, run.errors], run.stderr).toEqual([
    1,
    [
      expect.stringMatching(
        /^error: runtime\.denied: .*(--allow-child-process|--allow-worker), or leave out --permission$/,
      ),
    ],
  ]);
});

row("Yarn's file handles, which cannot sync: pictures are written", needs, async () => {
  const env = { NODE_OPTIONS: `--require "${yarnHandles}"` };
  expect(await drawn({ cwd: packed.folder, env }, [node, program])).toEqual(expected);
});

/** A program that has this package's code inside. */
async function bundle(folder: string): Promise<string> {
  const build = await rolldown({
    input: join(folder, "draw.mjs"),
    platform: "node",
    external: ["webgpu", "sharp"],
    logLevel: "silent",
  });
  const file = join(folder, "dist", "app.mjs");
  await build.write({ file, format: "esm", codeSplitting: false });
  await build.close();
  return file;
}

row("a bundle beside the package: finds the package's files", needs, async () => {
  const run = await runIn({ cwd: project }, [node, await bundle(project)]);
  expect([run.status, run.stdout.trim()], run.stderr).toEqual([0, pixels]);
});

row("a bundle without the package: says what is missing", needs, async () => {
  const bare = makeProject(packed, "bare");
  cpSync(await bundle(project), join(bare, "app.mjs"));
  const run = await runIn({ cwd: bare }, [node, "app.mjs"]);
  expect(run.status).toBe(1);
  expect(run.stderr).toMatch(
    /DaybreakError: got a bundle without the package "daybreak" beside it, expected the package's own files: keep "daybreak" external/,
  );
});

row("a page's bundle has what it imports and no more", needs, async () => {
  const sizeOf = async (name: string) => {
    const input = join(project, "page.mjs");
    writeFileSync(input, `import { ${name} } from "daybreak"; console.log(${name});`);
    const build = await rolldown({ input, platform: "browser", logLevel: "silent" });
    const { output } = await build.generate({ format: "esm", minify: true });
    await build.close();
    return output.reduce((sum, part) => sum + (part.type === "chunk" ? part.code.length : 0), 0);
  };
  expect(await sizeOf("urlSource")).toBeLessThan(8_000);
  expect(await sizeOf("DaybreakError")).toBeLessThan(1_000);
  expect(await sizeOf("Engine")).toBeLessThan(800_000);
});

row("the package's own description can be imported", needs, async () => {
  const line = 'import("daybreak/package.json", { with: { type: "json" } }).then((m) => console.log(m.default.name))';
  const run = await runIn({ cwd: project }, [node, "--input-type=module", "--eval", line]);
  expect([run.status, run.stdout], run.stderr).toEqual([0, "daybreak\n"]);
});

row(
  "a clone that nobody has built: packing it builds it, or says what is missing",
  [...needs, tool("git")],
  async () => {
    const clone = join(packed.folder, "clone");
    const files = await runIn({}, ["git", "ls-files", "-z"]);
    for (const name of files.stdout.split("\0").filter((path) => /^(src|bench|kernels|studio|[^/]+$)/.test(path))) {
      cpSync(join(repository, name), join(clone, name));
    }
    const pack = ["npm", "pack", "--json"];
    const without = await runIn({ cwd: clone }, pack);
    expect([without.status === 0, without.stderr]).toEqual([
      false,
      expect.stringMatching(
        /^daybreak: build failed: the compiler is not installed: run `npm run setup`, or `npm ci`, first$/m,
      ),
    ]);
    symlinkSync(join(repository, "node_modules"), join(clone, "node_modules"));
    const packing = await runIn({ cwd: clone }, pack);
    expect(packing.status, packing.stderr).toBe(0);
    const [{ files: packedFiles }] = JSON.parse(packing.stdout) as { files: { path: string }[] }[];
    expect(packedFiles.map(({ path }) => path)).toEqual(
      expect.arrayContaining(["dist/src/cli/main.js", "dist/src/index.js", "dist/src/index.d.ts"]),
    );
  },
);

/** Types of a program: a GPU of the page, one that is none, and what only Node has. */
const typedProgram = `
import { Engine, type GenerateRequest, urlSource } from "daybreak";
import { EngineProcess, openEngine } from "daybreak/node";
const request: GenerateRequest = { prompt: "a cat" };
const engine = await openEngine({ memoryBudgetBytes: 1e9 });
export const width: number = (await engine.generate(request)).images[0]!.width;
export const onPage = async (gpu: GPU) => Engine.open({ gpu, source: await urlSource("https://example.org/", []) });
// @ts-expect-error a number is no GPU
export const wrong = () => openEngine({ gpu: 42 });
export const started = EngineProcess.open();
`;

/** An older one is none of this package's: it would take its place among the programs of node_modules. */
const compilers: [version: string, folder: string][] = [
  ["7", join(repository, "node_modules", "typescript")],
  ["5.9", join(process.env.DAYBREAK_TOOLS ?? "", "typescript-5")],
];
for (const [version, compilerFolder] of compilers) {
  const compiler = join(compilerFolder, "bin", "tsc");
  const isThere: Need = () => (existsSync(compiler) ? undefined : `needs TypeScript in ${compilerFolder}`);
  row(`TypeScript ${version}, strict, libraries checked: types need nothing else`, [...needs, isThere], async () => {
    const folder = makeProject(packed, `typed-${version}`);
    installInto(join(folder, "node_modules"), packed, [...neededPackages, "@types/node", "undici-types"]);
    writeFileSync(join(folder, "program.ts"), typedProgram);
    const strict = ["--noEmit", "--strict", "--skipLibCheck", "false", "--target", "es2022", "--types", "node"];
    const resolutions = { node16: "node16", nodenext: "nodenext", bundler: "esnext" };
    for (const [resolution, module] of Object.entries(resolutions)) {
      for (const lib of ["es2022", "es2022,dom"]) {
        const options = [...strict, "--lib", lib, "--module", module, "--moduleResolution", resolution];
        const run = await runIn({ cwd: folder }, [node, compiler, ...options, "program.ts"]);
        expect([run.status, run.stdout], `${resolution} ${lib}`).toEqual([0, ""]);
      }
    }
  });
}

row("maps of the package hold the sources that it does not ship", needs, async () => {
  const map = JSON.parse(readFileSync(join(packed.contents, "dist/src/index.js.map"), "utf8"));
  expect(map.sourcesContent).toEqual([readFileSync(join(repository, "src/index.ts"), "utf8")]);
});

row("the tarball holds what runs, and no tests", needs, async () => {
  const { stdout } = await runIn({}, ["tar", "-tzf", packed.tarball]);
  const paths = stdout.trim().split("\n");
  const top = new Set(paths.map((path) => path.split("/")[1]));
  const wanted = ["CHANGELOG.md", "LICENSE", "README.md", "dist", "kernels", "models", "package.json", "studio"];
  expect([...top]).toEqual(expect.arrayContaining(wanted));
  for (const name of ["tests", "node_modules", ".ci", "tsconfig.json"]) expect([...top]).not.toContain(name);
  // Of the benchmarks, besides what is built, the stubs that a C compiler makes libraries of.
  expect(paths.filter((path) => /^package\/bench\/(?!stubs\/|README\.md$)/.test(path))).toEqual([]);
});
