// Which IP addresses are on the public internet.

import { BlockList, isIP } from "node:net";

/** Addresses that are not on the public internet. Sources: IANA's special-purpose address registries. */
const privateAddresses = new BlockList();
for (const [network, bits] of [
  ["0.0.0.0", 8],
  ["10.0.0.0", 8],
  ["100.64.0.0", 10],
  ["127.0.0.0", 8],
  ["169.254.0.0", 16],
  ["172.16.0.0", 12],
  ["192.0.0.0", 24],
  ["192.0.2.0", 24],
  ["192.88.99.0", 24],
  ["192.168.0.0", 16],
  ["198.18.0.0", 15],
  ["198.51.100.0", 24],
  ["203.0.113.0", 24],
  ["224.0.0.0", 3],
] as const) {
  privateAddresses.addSubnet(network, bits, "ipv4");
}
const publicIpv6 = new BlockList();
publicIpv6.addSubnet("2000::", 3, "ipv6");
for (const [network, bits] of [
  ["2001::", 23], // protocol assignments, Teredo among them
  ["2001:db8::", 32], // documentation
  ["2002::", 16], // 6to4, which embeds any IPv4 address
] as const) {
  privateAddresses.addSubnet(network, bits, "ipv6");
}

/** Whether an IP address is one that a server on the public internet has. */
export function isPublicAddress(address: string): boolean {
  // An IPv4 address in IPv6's clothes falls outside of 2000::/3.
  if (isIP(address) === 4) return !privateAddresses.check(address, "ipv4");
  return publicIpv6.check(address, "ipv6") && !privateAddresses.check(address, "ipv6");
}
