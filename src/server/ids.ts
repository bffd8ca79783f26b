// Identifiers of API objects: a prefix and 128 random bits, which say nothing about order or number.

import { randomBytes } from "node:crypto";

export function newId(prefix: "resp" | "msg" | "img" | "vid" | "ig" | "cmp" | "req"): string {
  return `${prefix}_${randomBytes(16).toString("hex")}`;
}
