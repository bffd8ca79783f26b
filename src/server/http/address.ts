// Addresses to listen on: whether one is free, and why it cannot be had. Knows no listener.

import { once } from "node:events";
import { createServer } from "node:net";
import { DaybreakError } from "../../errors.js";

/**
 * Takes an address and gives it back. Throws DaybreakError `server.address_in_use`, `server.address_invalid`.
 * @param port 0 is always free
 */
export async function checkAddress(host: string, port: number): Promise<void> {
  if (port === 0) return;
  const probe = createServer().listen({ host, port, exclusive: true });
  await once(probe, "listening").catch((error) => {
    throw addressError(error, host, port);
  });
  await new Promise((resolve) => probe.close(resolve));
}

/** Why an address cannot be listened on. */
export function addressError(error: NodeJS.ErrnoException, host: string, port: number): DaybreakError {
  if (error.code === "EADDRINUSE") {
    const message = `port ${port} on ${host} is in use: end the program that has it, or give another --port (0 picks one)`;
    return new DaybreakError("server.address_in_use", message, { cause: error });
  }
  const message = `cannot listen on port ${port} of ${host} (${error.code ?? error.message}): give an address of this machine and a port that this user may take`;
  return new DaybreakError("server.address_invalid", message, { cause: error });
}
