// What a compacted conversation is sealed into: AES-256-GCM over what it carries, so that a client can keep it and give
// it back, and can neither read nor change it. Whose it is belongs to what the seal proves: it opens for that API key
// alone. Source of the construction: NIST SP 800-38D; 96-bit random nonces.

import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { ApiError } from "../http/api-error.js";
import type { Carried } from "./conversation.js";

const version = "d1.";
const nonceBytes = 12;
const tagBytes = 16;

/**
 * @param key 32 bytes
 * @param owner stands for the caller's API key; undefined: the server has none
 */
export function seal(key: Uint8Array, carried: Carried, owner: string | undefined): string {
  const nonce = randomBytes(nonceBytes);
  const cipher = createCipheriv("aes-256-gcm", key, nonce).setAAD(associated(owner));
  const text = Buffer.concat([cipher.update(JSON.stringify(carried), "utf8"), cipher.final()]);
  return version + Buffer.concat([nonce, cipher.getAuthTag(), text]).toString("base64url");
}

/**
 * Opens what {@link seal} made for the same owner. Throws ApiError `invalid_compaction`.
 * @param param the member of the request that holds it
 */
export function unseal(key: Uint8Array, sealed: string, owner: string | undefined, param: string): Carried {
  try {
    if (!sealed.startsWith(version)) throw new Error("another version");
    const bytes = Buffer.from(sealed.slice(version.length), "base64url");
    const decipher = createDecipheriv("aes-256-gcm", key, bytes.subarray(0, nonceBytes), { authTagLength: tagBytes });
    decipher.setAAD(associated(owner));
    decipher.setAuthTag(bytes.subarray(nonceBytes, nonceBytes + tagBytes));
    const text = Buffer.concat([decipher.update(bytes.subarray(nonceBytes + tagBytes)), decipher.final()]);
    const carried = JSON.parse(text.toString("utf8")) as Carried;
    return { ...carried, image: carried.image && { ...carried.image, param } };
  } catch (cause) {
    const message =
      "got encrypted_content that this server did not seal for this API key, or with another --state-key: begin a new conversation";
    throw new ApiError("invalid_request", "invalid_compaction", message, { param, cause });
  }
}

function associated(owner: string | undefined): Buffer {
  return Buffer.from(owner ?? "");
}
