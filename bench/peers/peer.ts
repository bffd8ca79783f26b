// What the benchmark asks of another program that does the same work, and which of them are installed. A peer is found
// where the user has installed it, never a dependency of ours. Knows no clock and no operator.

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { DaybreakError } from "../../src/errors.js";
import { packageRoot } from "../../src/node/package.js";
import type { BenchCase } from "../cases.js";
import { onnxruntimePeer } from "./onnxruntime.js";
import { tfjsPeer } from "./tfjs.js";

/** Work that the peer is ready to run. */
export type PeerRun = {
  /** Runs all repetitions and waits for them. */
  run(): Promise<void>;
  /** The last repetition's result in our order of elements. */
  result(): Promise<Float32Array>;
  close(): Promise<void>;
};

/** One way in which a peer can do a case's work. */
export type PeerWork = {
  /** What it is made of there, for people. */
  operators: string;
  /** Throws the peer's own errors. */
  open(): Promise<PeerRun>;
};

export type Peer = {
  /** As in results. */
  name: string;
  /** Package → version, for results. */
  versions: Record<string, string>;
  /**
   * The ways to do a case's work `repetitions` times, the one that is expected to be fastest first; none where the peer
   * has nothing for it. Each is made when it is called for: its constants are large.
   */
  works(benchCase: BenchCase, repetitions: number): (() => PeerWork)[];
  close(): Promise<void>;
};

/** How a peer is opened: `load` is `require` of the folder in which its packages are installed. */
export type PeerKind = {
  packages: readonly string[];
  /** For `npm install`. */
  install: string;
  open(load: (name: string) => unknown, gpu: GPU): Promise<Peer>;
};

const kinds: readonly PeerKind[] = [onnxruntimePeer, tfjsPeer];

/**
 * Opens the peers installed in DIR/node_modules or that of a parent, by default from where this package lies. They may
 * look for drivers by themselves, so open our device first: then all share the software driver.
 * Errors: `request.option_invalid` where none is installed, or one does not load.
 */
export async function openPeers(gpu: GPU, from?: string): Promise<Peer[]> {
  const folder = resolve(from ?? packageRoot());
  const load = createRequire(join(folder, "package.json"));
  const isInstalled = (name: string) =>
    (load.resolve.paths(name) ?? []).some((modules) => existsSync(join(modules, name, "package.json")));
  const installed = kinds.filter(({ packages }) => packages.every(isInstalled));
  if (installed.length === 0) {
    const names = kinds.map(({ packages }) => packages.at(-1)).join(" and no ");
    const install = kinds.map((kind) => kind.install).join(" ");
    throw new DaybreakError(
      "request.option_invalid",
      `no ${names} for --peers in ${folder}: run "npm install --no-save --ignore-scripts ${install}" in some folder and name it with --peers-from`,
    );
  }
  const peers: Peer[] = [];
  for (const { packages, open } of installed) {
    try {
      peers.push(await open(load, gpu));
    } catch (cause) {
      for (const peer of peers) await peer.close();
      const reason = String((cause as Error).message).split("\n")[0];
      throw new DaybreakError(
        "request.option_invalid",
        `${packages.at(-1)} in ${folder} does not load (${reason}): install it anew, or remove it`,
        { cause },
      );
    }
  }
  return peers;
}
