// Result files are whole or absent.

import { mkdirSync, readdirSync, readFileSync, readlinkSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { checkOutput, writeFiles } from "../../src/cli/output-files.js";
import { temporaryFolder } from "../setup/temporary-folder.js";

const bytes = new TextEncoder().encode("whole");

describe("writeFiles", () => {
  it("writes all and leaves nothing else", async () => {
    const { path } = temporaryFolder();
    await writeFiles([
      { path: join(path, "a.png"), bytes },
      { path: join(path, "b.png"), bytes },
    ]);
    expect(readdirSync(path).sort()).toEqual(["a.png", "b.png"]);
    expect(readFileSync(join(path, "b.png"), "utf8")).toBe("whole");
  });

  it("writes none if one cannot be written", async () => {
    const { path, write } = temporaryFolder();
    write("b.png", "old");
    const files = ["a.png", "b.png", "missing/c.png"].map((name) => ({ path: join(path, name), bytes }));
    await expect(writeFiles(files)).rejects.toMatchObject({ code: "output.unwritable" });
    expect(readdirSync(path)).toEqual(["b.png"]);
    expect(readFileSync(join(path, "b.png"), "utf8")).toBe("old");
  });

  it("removes what it wrote if the last step fails", async () => {
    const { path, write } = temporaryFolder();
    write("folder.png/file", "");
    const files = [{ path: join(path, "folder.png"), bytes }];
    await expect(writeFiles(files)).rejects.toMatchObject({ code: "output.unwritable" });
    expect(readdirSync(path)).toEqual(["folder.png"]);
  });

  it("replaces the file behind a link, not the link", async () => {
    const { path, write } = temporaryFolder();
    write("real.png", "old");
    symlinkSync("real.png", join(path, "link.png"));
    await writeFiles([{ path: join(path, "link.png"), bytes }]);
    expect(readlinkSync(join(path, "link.png"))).toBe("real.png");
    expect(readFileSync(join(path, "real.png"), "utf8")).toBe("whole");
    expect(readdirSync(path).sort()).toEqual(["link.png", "real.png"]);
  });
});

describe("checkOutput", () => {
  it("accepts new and existing files and leaves no trace", async () => {
    const { path } = temporaryFolder();
    writeFileSync(join(path, "old.png"), "old");
    mkdirSync(join(path, "folder"));
    for (const name of ["new.png", "old.png", "NEW.PNG", "folder/ä ö.png"]) {
      await checkOutput("output", join(path, name), ".png");
    }
    expect(readdirSync(path).sort()).toEqual(["folder", "old.png"]);
    expect(readdirSync(join(path, "folder"))).toEqual([]);
    expect(readFileSync(join(path, "old.png"), "utf8")).toBe("old");
  });
});
