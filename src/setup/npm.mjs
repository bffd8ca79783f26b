// What npm writes: its record of what it installed, its words about what went wrong. Runs nothing.

/**
 * Whether every package of a lock file is installed in the locked version.
 *
 * @param lock parsed package-lock.json
 * @param installed parsed node_modules/.package-lock.json
 */
export function isInstalled(lock, installed) {
  return Object.entries(lock.packages).every(([path, wanted]) => {
    const got = installed.packages[path];
    if (path === "") return true;
    // npm leaves out optional packages of other platforms
    if (!got) return wanted.optional === true || wanted.devOptional === true;
    return got.version === wanted.version && got.integrity === wanted.integrity;
  });
}

/** What npm says is wrong: its errors come first, its usage text and advertisements after them. */
export function complaint(text) {
  const lines = text.split("\n").filter((line) => /^npm error \S/.test(line));
  return (lines.length > 0 ? lines : text.trim().split("\n")).slice(0, 12).join("\n");
}
