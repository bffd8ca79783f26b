// Where the user's cache lies, whatever the variables say: nothing, a relative path, or a folder.

import { userInfo } from "node:os";
import { isAbsolute, join } from "node:path";
import { afterEach, expect, it, vi } from "vitest";
import { cacheFolder, home } from "../../src/node/cache-folder.js";
import { baseFolders } from "../../src/node/software-driver.js";

afterEach(() => void vi.unstubAllEnvs());

it.each(["", "cache", "./cache", " "])("a variable that names no absolute path counts for nothing: %j", (text) => {
  for (const name of ["XDG_CACHE_HOME", "HOME", "USERPROFILE"]) vi.stubEnv(name, text);
  expect(home()).toBe(userInfo().homedir);
  for (const folder of [cacheFolder(), ...baseFolders()]) expect(isAbsolute(folder), folder).toBe(true);
});

it("a variable that does is followed", () => {
  const folder = process.platform === "win32" ? "C:\\elsewhere" : "/elsewhere";
  vi.stubEnv("XDG_CACHE_HOME", folder);
  expect(cacheFolder()).toBe(join(folder, "daybreak"));
});

it.runIf(process.platform === "linux")(
  "a name that is not UTF-8 has come out as another one, and counts for nothing",
  () => {
    for (const name of ["XDG_CACHE_HOME", "HOME"]) vi.stubEnv(name, "/srv/\ufffd");
    expect(home()).toBe(userInfo().homedir);
    expect(cacheFolder()).toBe(join(userInfo().homedir, ".cache", "daybreak"));
  },
);

it.runIf(process.platform === "linux").each(["/srv/a:b", "/srv/a b", "/srv/a\nb", "/"])(
  "a home named %j is taken",
  (folder) => {
    vi.stubEnv("XDG_CACHE_HOME", "");
    vi.stubEnv("HOME", folder);
    expect(cacheFolder()).toBe(join(folder, ".cache", "daybreak"));
  },
);
