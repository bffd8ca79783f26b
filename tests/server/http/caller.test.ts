// By which address a caller knows the server, as itself or its proxies say.

import fc from "fast-check";
import { expect, test } from "vitest";
import { baseUrlOf } from "../../../src/server/http/caller.js";
import { clocked } from "../../clocked.js";
import { requestOf } from "../refusal.js";

const base = (headers: Record<string, string>, trustProxy = true) =>
  baseUrlOf({ trustProxy }, requestOf([], { host: "127.0.0.1:8080", ...headers }));

test.each([
  [{}, "http://127.0.0.1:8080"],
  [{ "x-forwarded-proto": "https" }, "https://127.0.0.1:8080"],
  [{ "x-forwarded-proto": "HTTPS", "x-forwarded-host": "Draw.Example" }, "https://draw.example"],
  // a chain of proxies, in one header or in several that the listener has joined
  [{ "x-forwarded-proto": "https,http", "x-forwarded-host": "draw.example, inner:81" }, "https://draw.example"],
  [{ "x-forwarded-proto": "https, http" }, "https://127.0.0.1:8080"],
  [{ "x-forwarded-proto": "gopher", "x-forwarded-host": "a b" }, "http://127.0.0.1:8080"],
  [{ "x-forwarded-host": "draw.example", "x-forwarded-port": "8443" }, "http://draw.example:8443"],
  [{ "x-forwarded-host": "draw.example:81", "x-forwarded-port": "8443" }, "http://draw.example:81"],
  [{ host: "draw.example", "x-forwarded-proto": "https", "x-forwarded-port": "443" }, "https://draw.example"],
  // a proxy behind one that ends TLS
  [{ host: "draw.example", "x-forwarded-proto": "https", "x-forwarded-port": "80" }, "https://draw.example"],
  [{ host: "draw.example", "x-forwarded-port": "80" }, "http://draw.example"],
  [{ host: "[::1]", "x-forwarded-port": "8443, 80" }, "http://[::1]:8443"],
  [{ host: "draw.example", "x-forwarded-prefix": "/draw/" }, "http://draw.example/draw"],
  [{ host: "draw.example", "x-forwarded-prefix": "/a, /b" }, "http://draw.example/a/b"],
  [{ host: "draw.example", "x-forwarded-prefix": "//evil.example" }, "http://draw.example"],
  [{ host: "draw.example", "x-forwarded-prefix": "/a?b" }, "http://draw.example"],
  [{ forwarded: "for=192.0.2.43;proto=https;host=draw.example" }, "https://draw.example"],
  [
    { forwarded: 'For="[2001:db8::1]:47011"; Host="draw.example:8443"; Proto=HTTPS, host=inner' },
    "https://draw.example:8443",
  ],
  [{ forwarded: "for=192.0.2.43, host=inner;proto=https" }, "http://127.0.0.1:8080"],
  [{ forwarded: 'host="dr\\aw.example"' }, "http://draw.example"],
  [{ forwarded: ";;=" }, "http://127.0.0.1:8080"],
  [{ forwarded: "host=other.example;proto=http", "x-forwarded-host": "draw.example" }, "http://draw.example"],
])("%o → %s", (headers, url) => {
  expect(base(headers as Record<string, string>)).toBe(url);
});

test("nothing of it counts unless the operator says that a proxy sets it", () => {
  const said = { "x-forwarded-proto": "https", "x-forwarded-host": "a.example", "x-forwarded-prefix": "/b" };
  expect(base({ ...said, forwarded: "host=c.example;proto=https" }, false)).toBe("http://127.0.0.1:8080");
  const request = requestOf([], { ...said, host: "d.example" });
  expect(baseUrlOf({ trustProxy: true, publicUrl: "https://e.example/f" }, request)).toBe("https://e.example/f");
});

test("whatever is sent, a URL comes of it, with the host of a header or the own one, and soon", clocked, () => {
  const header = fc.string({ unit: "binary", maxLength: 60 });
  fc.assert(
    fc.property(header, header, header, header, header, (forwarded, host, proto, port, prefix) => {
      const url = base({
        ...{ forwarded, host, "x-forwarded-host": host, "x-forwarded-proto": proto, "x-forwarded-port": port },
        "x-forwarded-prefix": prefix,
      });
      expect(url).toMatch(/^https?:\/\/(?:[\w.-]+|\[[\da-f:.]+\])(?::\d{1,5})?(?:\/[\w.~%-]+)*$/);
    }),
  );
  const began = performance.now();
  for (const text of ['host="', "a=b;", 'a="\\"', "/a", ","])
    base({ forwarded: text.repeat(8000), "x-forwarded-prefix": text.repeat(8000) });
  expect(performance.now() - began).toBeLessThan(500);
});
