// A process that stores, replaces and deletes as fast as it can, to be killed at any moment; or, with a size, one that
// stores a single asset and says how that went. Runs the built store: `node store-writer.mjs FOLDER [BYTES]`.

import { randomBytes } from "node:crypto";
import { MediaStore } from "../../dist/src/media/store.js";

const [folder, size] = process.argv.slice(2);
const store = await MediaStore.open({ folder, budgetBytes: 0, ttl_ms: 0 });
const facts = { mime: "application/octet-stream", isPublic: true };
const say = (line) => process.stdout.write(`${line}\n`);

if (size) {
  const stored = store.put("img", randomBytes(Number(size)), facts);
  say(
    await stored.then(
      ({ id }) => `stored ${id}`,
      ({ code }) => `failed ${code}`,
    ),
  );
  await store.close();
} else {
  say("ready");
  await Promise.all(Array.from({ length: 4 }, writeOn));
}

/** Says what is true for good: "has ID SHA256" once an asset is stored, "gone ID" before it is deleted. */
async function writeOn() {
  for (let i = 0; ; i++) {
    const { id, sha256 } = await store.put("resp", randomBytes(Math.random() * 100_000), facts);
    say(`has ${id} ${sha256}`);
    if (i % 3 === 1) {
      const next = randomBytes(Math.random() * 100_000);
      say(`may ${id}`);
      say(`has ${id} ${(await store.replace(id, next)).sha256}`);
    }
    if (i % 3 === 2) {
      say(`gone ${id}`);
      await store.delete(id);
    }
  }
}
