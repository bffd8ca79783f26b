// The asset store: images, videos and stored responses in one folder, within a budget and a time to live.
// Owns the index, the order of eviction and the folder's lock; knows nothing of HTTP. What files look like and how they
// survive a crash is in asset-files.ts. The index is a Map in the order of the last reads: of an owner's assets the first
// is evicted first; whose turn that is, shares.ts says.

import { createReadStream } from "node:fs";
import { rm, stat, statfs, utimes } from "node:fs/promises";
import { dirname, join } from "node:path";
import { assert, DaybreakError } from "../errors.js";
import { makeFolder } from "../make-folder.js";
import { type Checks, checksOf, chunkBytes, startChecks } from "./asset-checks.js";
import {
  type Asset,
  type AssetKind,
  type Content,
  hasSideCar,
  isAssetId,
  isTemporaryName,
  loadAssets,
  newAssetId,
  nextContentName,
  parseSideCar,
  removeAsset,
  type StoredAsset,
  sideCarText,
  syncFolder,
  temporaryName,
  writeAsset,
  writeDurably,
  writeError,
} from "./asset-files.js";
import { type AssetReader, assetReader, type HeldAsset, readWhole, unreadable, verify } from "./asset-reader.js";
import { lockFolder } from "./folder-lock.js";
import { type HeldFile, OpenFiles } from "./open-files.js";
import { type Shares, sharesOf } from "./shares.js";

export type { Asset, AssetKind } from "./asset-files.js";
export type { AssetReader } from "./asset-reader.js";

/** What the caller says of a new asset; an id it brings must have the right form and be new. */
export type AssetFacts = Omit<Asset, "id" | "kind" | "bytes" | "sha256" | "created_ms" | "expires_ms"> & {
  id?: string;
};

export type StoreOptions = {
  /** Created with its parents if missing, for this user only. */
  folder: string;
  /** Content and side-cars together; 0: no limit. */
  budgetBytes: number;
  /** From an asset's creation on; 0: for ever. */
  ttl_ms: number;
  /** Milliseconds since 1970; by default the system's clock. */
  now?: () => number;
  /** Told of each asset that is evicted for the budget. */
  onEvict?: (asset: Asset) => void;
  /** Aborted: the folder is not waited for any longer. */
  signal?: AbortSignal;
};

/**
 * `size`: content and side-car in bytes. `busy` settles, without an error, when nothing writes the asset's files.
 * `chunks`: what its bytes are checked by, or why they are wrong; undefined until it is first read after a start.
 */
type Entry = StoredAsset & {
  size: number;
  readers: number;
  touched_ms: number;
  busy: Promise<unknown>;
  chunks: Promise<Uint32Array> | undefined;
};

const openFileLimit = 64;
const sweepPeriod_ms = 60_000;
/** How often a read is noted on the disk, for the order of eviction after a restart. */
const touchPeriod_ms = 60_000;
/** A disk with less room than a small picture takes is full. */
const leastFreeBytes = 256 * 1024;
/** What is written to find out whether a disk that failed takes anything again. */
const trialBytes = 4096;

export class MediaStore {
  readonly #folder: string;
  readonly #budgetBytes: number;
  readonly #ttl_ms: number;
  readonly #now: () => number;
  readonly #onEvict: (asset: Asset) => void;
  /** Gives the folder back. Undefined: it could not be taken, because nothing can be written there. */
  readonly #unlock: (() => Promise<void>) | undefined;
  /** From the least to the most recently read. */
  readonly #entries = new Map<string, Entry>();
  /** Ids of assets being written for the first time. */
  readonly #arriving = new Set<string>();
  /** Assets whose files are being removed, by id. */
  readonly #leaving = new Map<string, Promise<unknown>>();
  readonly #files = new OpenFiles(openFileLimit);
  /** Of all that is stored or just being written. */
  readonly #shares: Shares;
  /** Work on the disk under way. */
  readonly #work = new Set<Promise<unknown>>();
  /** Writes that find no room until another write ends. */
  readonly #waiting: (() => void)[] = [];
  readonly #timer: NodeJS.Timeout;
  #storedBytes = 0;
  #reservedBytes = 0;
  #evictions = 0;
  #isClosed = false;
  /** Why nothing is written, as long as this store lives. */
  #unwritable: DaybreakError | undefined;
  /** How the last write failed, if it did. */
  #lastFailure: DaybreakError | undefined;

  private constructor(options: StoreOptions, unlock: (() => Promise<void>) | undefined) {
    this.#folder = options.folder;
    this.#budgetBytes = options.budgetBytes;
    this.#shares = sharesOf(options.budgetBytes);
    this.#ttl_ms = options.ttl_ms;
    this.#now = options.now ?? Date.now;
    this.#onEvict = options.onEvict ?? (() => {});
    this.#unlock = unlock;
    this.#timer = setInterval(() => this.#sweep(), sweepPeriod_ms).unref();
  }

  /**
   * Takes the folder, clears what a crash left in it, and finds the assets that are whole. They live as long from their
   * creation as `ttl_ms` says now; one that was made in the future, because a clock was wrong, counts as made now.
   * A folder in which nothing can be written is opened for reading, and {@link unwritable} tells why.
   * Errors: `media.folder_in_use`; `media.unwritable`, `media.storage_full` where there is no folder to read;
   * `request.cancelled` if `signal` is aborted meanwhile.
   */
  static async open(options: StoreOptions): Promise<MediaStore> {
    const { folder } = options;
    let store: MediaStore | undefined;
    try {
      makeFolder(folder, 0o700);
      const onLost = (error: DaybreakError) => {
        if (store) store.#stopWriting(error);
      };
      const unlock = await lockFolder(folder, onLost, options.signal);
      store = new MediaStore(options, unlock);
    } catch (cause) {
      const error = namingFolder(cause, folder);
      if (!(error instanceof DaybreakError) || !(await canOnlyRead(folder, error))) throw error;
      store = new MediaStore(options, undefined);
      store.#stopWriting(error);
    }
    try {
      await store.#load();
      return store;
    } catch (cause) {
      await store.close();
      throw namingFolder(cause, folder);
    }
  }

  /** Why nothing can be stored or deleted, where that is so for as long as this store is open. */
  get unwritable(): DaybreakError | undefined {
    return this.#unwritable;
  }

  #stopWriting(error: DaybreakError): void {
    this.#unwritable ??= error;
  }

  async #load(): Promise<void> {
    const found = await loadAssets(this.#folder, !this.#unwritable);
    found.sort((a, b) => a.read_ms - b.read_ms || a.asset.created_ms - b.asset.created_ms);
    const now = this.#now();
    for (const { asset, contentName, size } of found) {
      const created_ms = Math.min(asset.created_ms, now);
      const current = { ...asset, created_ms, expires_ms: this.#expiry(created_ms) };
      this.#add({ asset: current, contentName }, size);
    }
    this.#sweep();
    if (!this.#unwritable) await this.#reserve(0, undefined);
    await Promise.all(this.#work);
  }

  /**
   * Why nothing could be stored now: the disk is full, or does not take anything for another reason. Tries it where the
   * last write failed.
   */
  async checkRoom(): Promise<DaybreakError | undefined> {
    if (this.#unwritable) return this.#unwritable;
    const { bavail, bsize } = await statfs(this.#folder).catch(() => ({ bavail: Number.POSITIVE_INFINITY, bsize: 1 }));
    if (bavail * bsize < leastFreeBytes) return noRoom(bavail * bsize);
    if (!this.#lastFailure) return undefined;
    const path = join(this.#folder, temporaryName());
    const trial = writeDurably(path, new Uint8Array(trialBytes)).finally(() => rm(path, { force: true }));
    await this.#noted(trial).catch(() => undefined); // it is noted
    return this.#lastFailure;
  }

  /** A write whose failure is an error of the store, and is remembered until one succeeds. */
  async #noted<T>(writing: Promise<T>): Promise<T> {
    try {
      const result = await writing;
      this.#lastFailure = undefined;
      return result;
    } catch (cause) {
      const error = writeError(cause);
      if (error instanceof DaybreakError && error !== cause) this.#lastFailure = error;
      throw error;
    }
  }

  /** Content bytes and side-cars of all assets, and what is just being written. */
  get totalBytes(): number {
    return this.#storedBytes + this.#reservedBytes;
  }

  /** How many assets were evicted for the budget so far. */
  get evictions(): number {
    return this.#evictions;
  }

  /**
   * Stores bytes as a new asset. It is on the disk when this resolves; `bytes` must not change before.
   * Errors: `media.too_large`, `media.storage_full`, `media.unwritable`, `media.closed`; then nothing of it is left.
   */
  async put(kind: AssetKind, bytes: Uint8Array, facts: AssetFacts): Promise<Asset> {
    const { asset, stored } = this.begin(kind, bytes, facts);
    await stored;
    return asset;
  }

  /**
   * {@link put}, for those who go on while it is written: what the asset is, at once, and `stored`, which resolves when
   * it is on the disk and can be found. Errors: `media.closed`; of `stored`, as of {@link put}.
   */
  begin(kind: AssetKind, bytes: Uint8Array, facts: AssetFacts): { asset: Asset; stored: Promise<void> } {
    return this.#create(kind, { bytes }, { bytes: bytes.length, checks: checksOf(bytes) }, facts);
  }

  /**
   * Takes over a finished file made at {@link temporaryPath} as a new asset; if that fails the file is removed.
   * Errors: as of {@link put}.
   */
  async putFile(kind: AssetKind, path: string, facts: AssetFacts): Promise<Asset> {
    const name = path.slice(dirname(path).length + 1);
    assert(path === join(this.#folder, name) && isTemporaryName(name), `got ${path}, expected a temporaryPath()`);
    try {
      const checks = startChecks();
      for await (const chunk of createReadStream(path, { highWaterMark: chunkBytes })) checks.update(chunk);
      const { size } = await stat(path);
      const { asset, stored } = this.#create(kind, { path }, { bytes: size, checks: checks.finish() }, facts);
      await stored;
      return asset;
    } catch (error) {
      await rm(path, { force: true });
      throw writeError(error);
    }
  }

  /**
   * Gives a stored response new content; id, creation and expiry stay. A reader sees the old or the new content whole,
   * a crash leaves one of them.
   * @param facts instead of those it has
   * Errors: `media.not_found` if it is gone, and then nothing is created; otherwise as of {@link put}.
   */
  async replace(id: string, bytes: Uint8Array, facts?: Asset["facts"]): Promise<Asset> {
    this.#checkWritable();
    const entry = this.get(id) && this.#entries.get(id);
    if (!entry) throw notFound(id);
    assert(entry.asset.kind === "resp", `got ${id} to replace, expected a resp_…`);
    const previous = entry.busy;
    const turn = previous.then(() => this.#replaceNow(entry, bytes, facts ?? entry.asset.facts));
    entry.busy = turn.catch(() => {});
    return this.#tracked(turn);
  }

  async #replaceNow(entry: Entry, bytes: Uint8Array, facts: Asset["facts"]): Promise<Asset> {
    const { id } = entry.asset;
    if (this.#entries.get(id) !== entry) throw notFound(id);
    const { sha256, chunks } = checksOf(bytes);
    const old = join(this.#folder, entry.contentName);
    const stored = {
      asset: { ...entry.asset, bytes: bytes.length, sha256, facts },
      contentName: nextContentName(entry.contentName),
    };
    const text = sideCarText(stored);
    const size = bytes.length + Buffer.byteLength(text);
    entry.readers++; // not to be evicted for its own successor
    const adopt = () => {
      if (this.#entries.get(id) === entry) this.#countStored(entry.asset, size - entry.size);
      // A deletion that came meanwhile waits for `busy` and then removes what the entry names by now.
      Object.assign(entry, stored, { size, chunks: Promise.resolve(chunks) });
      this.#files.forget(old);
    };
    try {
      const write = () => this.#noted(writeAsset(this.#folder, { bytes }, stored, text));
      const room = { size, growth: Math.max(0, size - entry.size), owner: entry.asset.owner };
      await this.#withRoom(room, write, adopt);
      await syncFolder(this.#folder);
      await rm(old, { force: true });
    } catch (error) {
      throw writeError(error);
    } finally {
      entry.readers--;
    }
    if (this.#entries.get(id) !== entry) throw notFound(id);
    this.#markRead(entry);
    return stored.asset;
  }

  /**
   * A path for a file that is written elsewhere and then handed to {@link putFile}; removed at the next open if left.
   * Errors: as of {@link unwritable}, before anything is made for nothing.
   */
  temporaryPath(extension: string): string {
    this.#checkWritable();
    assert(/^[a-z0-9]{1,8}$/.test(extension), `got the extension ${extension}, expected 1 to 8 of a-z, 0-9`);
    return join(this.#folder, temporaryName(extension));
  }

  /** What is known of an asset, from memory. Undefined: an unknown id, or no id at all, or expired (then deleted). */
  get(id: string): Asset | undefined {
    if (this.#isClosed || !isAssetId(id)) return undefined;
    const entry = this.#entries.get(id);
    if (!entry || !this.#isExpired(entry.asset)) return entry?.asset;
    this.#removeLater(entry);
    return undefined;
  }

  /** An asset's content as a whole; counts as a read. Errors: `media.damaged`, `file.unreadable`, `media.closed`. */
  async read(id: string): Promise<Uint8Array | undefined> {
    const held = await this.#hold(id);
    if (!held) return undefined;
    try {
      return await readWhole(held);
    } finally {
      held.release();
    }
  }

  /**
   * Holds an asset for reading in ranges; counts as a read. Close it. The first time after a start all of it is read and
   * compared with its hash. Errors: `media.damaged`, `file.unreadable`, `media.closed`.
   */
  async open(id: string): Promise<AssetReader | undefined> {
    const held = await this.#hold(id);
    return held && assetReader(held);
  }

  /**
   * Deletes an asset, for good when this resolves; who is reading it can finish. False: there was none. Where it cannot
   * be deleted it stays, for everybody.
   * Errors: `media.unwritable`.
   */
  async delete(id: string): Promise<boolean> {
    this.#checkWritable();
    const entry = this.get(id) && this.#entries.get(id);
    if (!entry) return false;
    await this.#remove(entry);
    await this.#tracked(syncFolder(this.#folder)).catch((error) => {
      throw writeError(error);
    });
    return true;
  }

  /** The assets of a kind, the least recently read first. */
  list(kind: AssetKind): Asset[] {
    if (!this.#isClosed) this.#sweep();
    const assets = [...this.#entries.values()].map(({ asset }) => asset);
    return assets.filter((asset) => asset.kind === kind && !this.#isExpired(asset));
  }

  /** Waits for work under way and gives the folder back. Open readers can finish. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearInterval(this.#timer);
    while (this.#work.size > 0) await Promise.allSettled(this.#work);
    await this.#files.close();
    await this.#unlock?.();
  }

  #checkOpen(): void {
    if (this.#isClosed) {
      throw new DaybreakError("media.closed", "got a call on a closed media store, expected an open one");
    }
  }

  #checkWritable(): void {
    this.#checkOpen();
    if (this.#unwritable) throw this.#unwritable;
  }

  #expiry(created_ms: number): number | null {
    return this.#ttl_ms > 0 ? created_ms + this.#ttl_ms : null;
  }

  #isExpired(asset: Asset): boolean {
    return asset.expires_ms !== null && this.#now() >= asset.expires_ms;
  }

  #create(
    kind: AssetKind,
    content: Content,
    { bytes, checks }: { bytes: number; checks: Checks },
    facts: AssetFacts,
  ): { asset: Asset; stored: Promise<void> } {
    this.#checkWritable();
    const id = facts.id ?? newAssetId(kind);
    assert(isAssetId(id) && id.startsWith(`${kind}_`), `got the id ${id}, expected ${kind}_ and 32 hexadecimal digits`);
    assert(!this.#entries.has(id) && !this.#arriving.has(id), `got the id ${id} for a new asset, which exists`);
    const created_ms = Math.max(0, Math.round(this.#now()));
    const times = { created_ms, expires_ms: this.#expiry(created_ms) };
    const stored = { asset: { ...facts, id, kind, bytes, sha256: checks.sha256, ...times }, contentName: id };
    const text = sideCarText(stored);
    assert(parseSideCar(text, id), `got facts that a side-car cannot hold: ${text}`);
    const size = bytes + Buffer.byteLength(text);
    const write = async () => {
      await writeAsset(this.#folder, content, stored, text);
      await syncFolder(this.#folder).catch(async (error) => {
        await removeAsset(this.#folder, stored);
        throw error;
      });
    };
    const arrive = async () => {
      this.#arriving.add(id);
      try {
        await this.#leaving.get(id); // the removal of an asset of the same name would take the new files
        const adopt = () => this.#add(stored, size, Promise.resolve(checks.chunks));
        const room = { size, growth: size, owner: stored.asset.owner };
        await this.#tracked(this.#withRoom(room, () => this.#noted(write()), adopt));
      } catch (error) {
        throw writeError(error);
      } finally {
        this.#arriving.delete(id);
      }
    };
    return { asset: stored.asset, stored: arrive() };
  }

  /**
   * Makes room for `growth` more bytes of `owner`, keeps it during `write`, and hands it over to `adopt`, which does the
   * counting.
   * @param room `size`: the asset's own, which the budget must allow
   */
  async #withRoom(
    { size, growth, owner }: { size: number; growth: number; owner: string | undefined },
    write: () => Promise<void>,
    adopt: () => void,
  ): Promise<void> {
    if (this.#budgetBytes > 0 && size > this.#budgetBytes) {
      throw new DaybreakError(
        "media.too_large",
        `got an asset of ${size} bytes, expected at most the media budget of ${this.#budgetBytes}: ` +
          "ask for a smaller one, or raise --media-budget",
      );
    }
    await this.#reserve(growth, owner);
    try {
      await write();
      adopt();
    } finally {
      this.#reservedBytes -= growth;
      this.#shares.count(owner, -growth);
      for (const wake of this.#waiting.splice(0)) wake();
    }
  }

  /** Evicts until `growth` more bytes of `owner` fit, and reserves them in the moment in which they do. */
  async #reserve(growth: number, owner: string | undefined): Promise<void> {
    const fits = () => this.#budgetBytes === 0 || this.totalBytes + growth <= this.#budgetBytes;
    if (!fits()) this.#sweep();
    while (!fits()) {
      const removals: Promise<void>[] = [];
      for (let entry = this.#victim(growth, owner); entry && !fits(); entry = this.#victim(growth, owner)) {
        removals.push(this.#remove(entry));
        this.#evictions++;
        this.#onEvict(entry.asset);
      }
      if (removals.length > 0) await Promise.all(removals);
      else if (this.#reservedBytes > 0) await new Promise<void>((wake) => this.#waiting.push(wake));
      else {
        throw new DaybreakError(
          "media.storage_full",
          `got ${growth} bytes to store while every asset within the budget of ${this.#budgetBytes} is being read or ` +
            "within another key's share, expected some to be free: try again later, or raise --media-budget",
        );
      }
    }
    this.#reservedBytes += growth;
    this.#shares.count(owner, growth);
  }

  /** What is evicted next, so that `growth` more bytes of `owner` fit: of whoever gives way, the least recently read. */
  #victim(growth: number, owner: string | undefined): Entry | undefined {
    for (const giving of this.#shares.givingWay(owner, growth)) {
      for (const entry of this.#entries.values()) {
        if (entry.readers === 0 && entry.asset.owner === giving) return entry;
      }
    }
    return undefined;
  }

  #countStored({ owner }: Asset, bytes: number): void {
    this.#storedBytes += bytes;
    this.#shares.count(owner, bytes);
  }

  #add(stored: StoredAsset, size: number, chunks?: Entry["chunks"]): void {
    this.#enter({ ...stored, size, chunks, readers: 0, touched_ms: -Infinity, busy: Promise.resolve() });
  }

  #enter(entry: Entry): void {
    this.#entries.set(entry.asset.id, entry);
    this.#countStored(entry.asset, entry.size);
  }

  /** Takes an asset out of the index at once and its files off the disk. One that stays there comes back. */
  #remove(entry: Entry): Promise<void> {
    this.#entries.delete(entry.asset.id);
    this.#countStored(entry.asset, -entry.size);
    this.#files.forget(join(this.#folder, entry.contentName));
    const { id } = entry.asset;
    const removal = entry.busy
      .then(() => removeAsset(this.#folder, entry))
      .catch(async (error) => {
        if (await hasSideCar(this.#folder, id)) this.#enter(entry);
        throw writeError(error);
      });
    const left = removal
      .catch(() => {})
      .then(() => {
        if (this.#leaving.get(id) === left) this.#leaving.delete(id);
      });
    this.#leaving.set(id, left);
    return this.#tracked(removal);
  }

  /** Files that cannot be removed now are tried again later: their side-car says when they expired. */
  #removeLater(entry: Entry): void {
    if (!this.#unwritable) this.#remove(entry).catch(() => {});
  }

  #sweep(): void {
    for (const entry of this.#entries.values()) if (this.#isExpired(entry.asset)) this.#removeLater(entry);
  }

  #tracked<T>(work: Promise<T>): Promise<T> {
    const settled: Promise<unknown> = work.then(
      () => this.#work.delete(settled),
      () => this.#work.delete(settled),
    );
    this.#work.add(settled);
    return work;
  }

  async #hold(id: string): Promise<HeldAsset | undefined> {
    this.#checkOpen();
    const entry = this.get(id) && this.#entries.get(id);
    if (!entry) return undefined;
    const { asset, contentName, chunks: known } = entry; // read together: a replacement changes all of them
    entry.readers++;
    this.#markRead(entry);
    let file: HeldFile;
    try {
      file = await this.#files.hold(join(this.#folder, contentName));
    } catch (cause) {
      entry.readers--;
      if ((cause as NodeJS.ErrnoException).code !== "ENOENT") throw unreadable(id, cause);
      if (entry.contentName !== contentName) return this.#hold(id); // replaced since
      if (this.#entries.get(id) === entry) this.#removeLater(entry); // deleted under our feet
      return undefined;
    }
    let isHeld = true;
    const release = () => {
      if (isHeld) entry.readers--;
      isHeld = false;
      file.release();
    };
    const open = { asset, read: file.read, release };
    const isCurrent = () => entry.contentName === contentName;
    const setChunks = (chunks: Entry["chunks"]) => {
      chunks?.catch(() => {}); // whoever reads gets the error
      if (isCurrent()) entry.chunks = chunks;
    };
    try {
      let chunks = isCurrent() ? entry.chunks : known;
      if (!chunks) {
        chunks = verify(open);
        setChunks(chunks);
      }
      return { ...open, chunks: await chunks, noteDamage: (error) => setChunks(Promise.reject(error)) };
    } catch (error) {
      release();
      // What could not be read may be readable later; what is damaged stays so.
      if (!(error instanceof DaybreakError && error.code === "media.damaged")) setChunks(undefined);
      throw error;
    }
  }

  #markRead(entry: Entry): void {
    const { id } = entry.asset;
    if (this.#entries.get(id) !== entry) return;
    this.#entries.delete(id);
    this.#entries.set(id, entry);
    const elapsed_ms = performance.now(); // no clock that jumps
    if (elapsed_ms - entry.touched_ms < touchPeriod_ms) return;
    entry.touched_ms = elapsed_ms;
    const now = new Date();
    const touching = utimes(join(this.#folder, entry.contentName), now, now);
    this.#tracked(touching.catch(() => {})); // costs no more than the order after a restart
  }
}

/** An error of the file system as one that names the folder: it is for whoever starts the server. */
function namingFolder(cause: unknown, folder: string): unknown {
  const error = writeError(cause);
  if (error === cause || !(error instanceof DaybreakError)) return cause;
  return new DaybreakError(error.code, `${error.message} (${folder}), or choose another with --data-dir`, { cause });
}

/** Whether an error says that a folder that is there cannot be written to. */
async function canOnlyRead(folder: string, { code }: DaybreakError): Promise<boolean> {
  if (code === "media.folder_in_use" || code === "request.cancelled") return false;
  return stat(folder).then(
    (found) => found.isDirectory(),
    () => false,
  );
}

function noRoom(freeBytes: number): DaybreakError {
  return new DaybreakError(
    "media.storage_full",
    `got a disk with ${freeBytes} bytes left, expected at least ${leastFreeBytes}: free some, or lower the media budget`,
  );
}

function notFound(id: string): DaybreakError {
  return new DaybreakError("media.not_found", `got ${id}, expected a stored asset: it was deleted, evicted or expired`);
}
