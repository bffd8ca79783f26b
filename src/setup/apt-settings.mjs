// What a machine's apt says of itself: the archives it asks, whom it trusts, how it reaches them, what is installed.
// Reads text; runs nothing.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const loadedByNode = /^(libc6|libcrypt1|libgcc-s1|libstdc\+\+6|gcc-\d+-base)$/;
const oneLineOptions = {
  "signed-by": "Signed-By",
  trusted: "Trusted",
  "allow-insecure": "Allow-Insecure",
  "check-valid-until": "Check-Valid-Until",
  "check-date": "Check-Date",
  "by-hash": "By-Hash",
};

/**
 * The package sources of a machine: sources.list and sources.list.d in both of apt's formats, switched-off ones left out.
 *
 * @param folder "/etc/apt"
 * @returns list of `{ uris, suites, components, fields }`; `fields` are the deb822 fields that say whom to trust
 */
export function readSources(folder) {
  const parts = join(folder, "sources.list.d");
  const names = existsSync(parts) ? readdirSync(parts).sort() : [];
  const paths = [join(folder, "sources.list"), ...names.map((name) => join(parts, name))];
  return paths.filter(existsSync).flatMap((path) => {
    if (path.endsWith(".sources")) return parseStanzas(readFileSync(path, "utf8"));
    return path.endsWith(".list") ? parseLines(readFileSync(path, "utf8")) : [];
  });
}

/** Sources in the one-line format: `deb [option=value …] uri suite component…`. */
function parseLines(text) {
  const lines = text.split("\n").map((line) => line.replace(/#.*/, "").trim());
  return lines.flatMap((line) => {
    const match = /^deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*(.*)$/.exec(line);
    if (!match) return [];
    const [, options = "", uri, suite, components] = match;
    const fields = [...options.matchAll(/([\w-]+)=(\S+)/g)]
      .filter(([, name]) => name in oneLineOptions)
      .map(([, name, value]) => `${oneLineOptions[name]}: ${value.replaceAll(",", " ")}`);
    return [{ uris: [uri], suites: [suite], components: words(components), fields }];
  });
}

/** Sources in the deb822 format: stanzas of `Field: value`, a value may go on in indented lines. */
function parseStanzas(text) {
  const lines = text.split("\n").filter((line) => !line.startsWith("#"));
  return lines
    .join("\n")
    .split(/\n\s*\n/)
    .flatMap((stanza) => {
      const fields = stanza.split(/\n(?=\S)/).filter((field) => /^[\w-]+:/.test(field.trim()));
      const value = (name) => {
        const field = fields.find((line) => line.trim().toLowerCase().startsWith(`${name}:`));
        return field ? field.slice(field.indexOf(":") + 1).trim() : "";
      };
      if (!words(value("types")).includes("deb") || /^(no|false|off|0)$/i.test(value("enabled"))) return [];
      const kept = new Set(Object.values(oneLineOptions).map((name) => name.toLowerCase()));
      return {
        uris: words(value("uris")),
        suites: words(value("suites")),
        components: words(value("components")),
        fields: fields.filter((field) => kept.has(field.trim().split(":")[0].toLowerCase())).map((f) => f.trimEnd()),
      };
    });
}

/**
 * The sources to ask: those of a release and its updates, from the archives that the machine itself uses.
 *
 * @param sources as of {@link readSources}
 * @param codename of the release, "bookworm"
 * @param extraSuites suites of the same archives that the machine does not use, "bookworm-backports"
 * @returns text of a deb822 sources file; "" if the machine names no archive of the release
 */
export function privateSources(sources, codename, extraSuites = []) {
  const pockets = new Set([codename, ...["updates", "security", "backports"].map((pocket) => `${codename}-${pocket}`)]);
  const stanzas = sources.flatMap(({ uris, suites, components, fields }) => {
    const wanted = suites.filter((suite) => pockets.has(suite));
    if (wanted.length === 0 || !components.includes("main")) return [];
    // an archive that lacks an extra suite only makes apt warn; other people's archives may carry the same code name
    const all = new Set(wanted.includes(codename) ? [...wanted, ...extraSuites] : wanted);
    const lines = ["Types: deb", `URIs: ${uris.join(" ")}`, `Suites: ${[...all].join(" ")}`, "Components: main"];
    return [[...lines, ...fields].join("\n")];
  });
  return stanzas.length === 0 ? "" : `${stanzas.join("\n\n")}\n`;
}

/** The records in a dpkg status file of the packages whose libraries every Node process has loaded already. */
export function statusOfLoaded(status) {
  const records = status.split(/\n\n+/).filter((record) => {
    const name = /^Package: (\S+)$/m.exec(record)?.[1] ?? "";
    return loadedByNode.test(name) && /^Status: \S+ ok installed$/m.test(record);
  });
  return records.map((record) => `${record.trim()}\n\n`).join("");
}

/** The lines of `apt-config dump` that say how archives are reached: no hooks, folders or extra indexes. */
export function networkSettings(dump) {
  const lines = dump
    .split("\n")
    .filter((line) => /^Acquire::/.test(line) && !/^Acquire::(IndexTargets|Languages)/.test(line));
  return lines.join("\n");
}

function words(text) {
  return text.split(/\s+/).filter(Boolean);
}
