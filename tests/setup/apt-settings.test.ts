// The reading of apt's sources and the private configuration made from them, on the forms that machines really have.

import { describe, expect, it } from "vitest";
import { networkSettings, privateSources, readSources, statusOfLoaded } from "../../src/setup/apt-settings.mjs";
import { temporaryFolder } from "./temporary-folder.js";

/** The sources in a file of this name. */
function sourcesIn(name: string, text: string) {
  const folder = temporaryFolder();
  folder.write(name, text);
  return readSources(folder.path);
}
const parseLines = (text: string) => sourcesIn("sources.list", text);
const parseStanzas = (text: string) => sourcesIn("sources.list.d/some.sources", text);

describe("sources.list", () => {
  it("reads options, several components and comments", () => {
    const text = `
# deb http://off.example/debian bookworm main
deb-src http://mirror.example/debian bookworm main
deb [arch=amd64,arm64 signed-by=/usr/share/keyrings/a.gpg trusted=yes] http://mirror.example/debian bookworm main contrib # note
deb http://plain.example/debian bookworm-updates main`;
    expect(parseLines(text)).toEqual([
      {
        uris: ["http://mirror.example/debian"],
        suites: ["bookworm"],
        components: ["main", "contrib"],
        fields: ["Signed-By: /usr/share/keyrings/a.gpg", "Trusted: yes"],
      },
      { uris: ["http://plain.example/debian"], suites: ["bookworm-updates"], components: ["main"], fields: [] },
    ]);
  });
});

describe("a .sources file", () => {
  it("reads the file of Debian's container images, whose stanzas hold comments", () => {
    const text = `Types: deb
# http://snapshot.example/archive/debian/20250520T000000Z
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb deb-src
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
`;
    expect(parseStanzas(text)).toEqual([
      {
        uris: ["http://mirror.example/debian"],
        suites: ["bookworm", "bookworm-updates"],
        components: ["main"],
        fields: ["Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg"],
      },
      {
        uris: ["http://mirror.example/debian-security"],
        suites: ["bookworm-security"],
        components: ["main"],
        fields: [],
      },
    ]);
  });

  it("keeps a key that is written out in the stanza", () => {
    const key = "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBF\n -----END PGP PUBLIC KEY BLOCK-----";
    const [source] = parseStanzas(`types: deb\nuris: http://a.example\nsuites: noble\ncomponents: main\n${key}\n`);
    expect(source?.fields).toEqual([key]);
  });

  it("leaves out what is switched off and what holds only source code", () => {
    const rest = "URIs: http://a.example\nSuites: bookworm\nComponents: main";
    expect(parseStanzas(`Enabled: no\nTypes: deb\n${rest}\n\nTypes: deb-src\n${rest}\n`)).toEqual([]);
  });
});

describe("readSources", () => {
  it("reads both formats and ignores other files", () => {
    const folder = temporaryFolder();
    folder.write("sources.list", "deb http://one.example/debian bookworm main\n");
    folder.write("sources.list.d/two.list", "deb http://two.example/debian bookworm main\n");
    folder.write("sources.list.d/two.list.save", "deb http://saved.example/debian bookworm main\n");
    folder.write(
      "sources.list.d/three.sources",
      "Types: deb\nURIs: http://three.example/debian\nSuites: bookworm\nComponents: main\n",
    );
    expect(readSources(folder.path).flatMap((source) => source.uris)).toEqual([
      "http://one.example/debian",
      "http://three.example/debian",
      "http://two.example/debian",
    ]);
  });

  it("answers nothing where apt has no folder", () => {
    expect(readSources("/nonexistent")).toEqual([]);
  });
});

describe("privateSources", () => {
  const mirror = { uris: ["http://m.example/debian"], components: ["main", "contrib"], fields: ["Signed-By: /k.gpg"] };

  it("asks the machine's own archive for the extra suite, with the key that the machine trusts", () => {
    const sources = privateSources([{ ...mirror, suites: ["bookworm", "bookworm-updates"] }], "bookworm", [
      "bookworm-backports",
    ]);
    expect(sources).toBe(`Types: deb
URIs: http://m.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main
Signed-By: /k.gpg
`);
  });

  it("does not ask the security archive for the extra suite", () => {
    const sources = privateSources([{ ...mirror, suites: ["bookworm-security"] }], "bookworm", ["bookworm-backports"]);
    expect(sources).toContain("Suites: bookworm-security\n");
  });

  it("leaves out other people's packages and other releases", () => {
    const others = [
      { uris: ["http://node.example"], suites: ["nodistro"], components: ["main"], fields: [] },
      { uris: ["http://docker.example"], suites: ["bookworm"], components: ["stable"], fields: [] },
      { uris: ["http://cloud.example"], suites: ["cloud-sdk-bookworm"], components: ["main"], fields: [] },
      { ...mirror, suites: ["trixie"] },
    ];
    expect(privateSources(others, "bookworm")).toBe("");
  });

  it("separates stanzas", () => {
    const sources = [
      { ...mirror, suites: ["noble"] },
      { ...mirror, suites: ["noble-security"] },
    ];
    expect(parseStanzas(privateSources(sources, "noble"))).toHaveLength(2);
  });
});

describe("statusOfLoaded", () => {
  it("keeps the installed packages whose libraries Node itself has loaded", () => {
    const record = (name: string, status = "install ok installed") =>
      `Package: ${name}\nStatus: ${status}\nVersion: 1\n`;
    const text = [
      record("libc6"),
      record("libc6-dev"),
      record("libllvm15"),
      record("libstdc++6"),
      record("gcc-12-base"),
      record("libgcc-s1", "deinstall ok config-files"),
    ].join("\n");
    expect([...statusOfLoaded(text).matchAll(/^Package: (\S+)$/gm)].map(([, name]) => name)).toEqual([
      "libc6",
      "libstdc++6",
      "gcc-12-base",
    ]);
  });
});

describe("networkSettings", () => {
  it("keeps proxies and drops hooks, folders and further indexes", () => {
    const dump = [
      'Acquire "";',
      'Acquire::http::Proxy "http://proxy.example:3128";',
      'Acquire::IndexTargets::deb::DEP-11 "";',
      'Acquire::Languages:: "de";',
      'APT::Update::Post-Invoke:: "rm -f /var/cache/apt/archives/*.deb";',
      'Dir::Cache "/var/cache/apt";',
      'DPkg::Post-Invoke:: "true";',
    ].join("\n");
    expect(networkSettings(dump)).toBe('Acquire::http::Proxy "http://proxy.example:3128";');
  });
});
