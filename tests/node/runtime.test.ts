// What errors of a runtime mean: its permissions, packages that were not installed, and all others, which are defects.

import { expect, it } from "vitest";
import { deniedByRuntime, missingPackage, runtimeName } from "../../src/node/runtime.js";

function nodeError(message: string, fields: Record<string, string>): Error {
  return Object.assign(new Error(message), fields);
}

const restricted = "Access to this API has been restricted";

it.each([
  ["FileSystemWrite", "/srv/out.png", /\(FileSystemWrite \/srv\/out\.png\).*add --allow-fs-write,/],
  ["FileSystemRead", "/srv/model", /add --allow-fs-read,/],
  ["ChildProcess", "", /\(ChildProcess\).*add --allow-child-process,/],
  ["WorkerThreads", "", /add --allow-worker,/],
  ["SomethingNew", "", /add its option, or leave out --permission$/],
])("Node's refusal of %s names the option", (permission, resource, message) => {
  const error = deniedByRuntime(nodeError(restricted, { code: "ERR_ACCESS_DENIED", permission, resource }));
  expect(error).toMatchObject({ code: "runtime.denied", message: expect.stringMatching(message) });
});

it("Node's refusal of addons and Deno's refusals are known", () => {
  const addons = nodeError("Cannot load native addon because loading addons is disabled.", {
    code: "ERR_DLOPEN_DISABLED",
  });
  expect(deniedByRuntime(addons)?.message).toMatch(/add --allow-addons,/);
  const deno = nodeError('Requires read access to "/a", run again with the --allow-read flag', { name: "NotCapable" });
  expect(deniedByRuntime(deno)?.message).toMatch(/\(Requires read access to "\/a".*start it with "deno run -A"$/);
});

it.each([
  ["Cannot find package 'zod' imported from /srv/app/main.js", "zod"],
  ["Cannot find package '@fastify/busboy' imported from /srv/app/main.js", "@fastify/busboy"],
  ["Cannot find module 'wgsl_reflect/wgsl_reflect.module.js' imported from /srv/app/main.js", "wgsl_reflect/"],
])("%s: the installation lacks it", (message, name) => {
  expect(missingPackage(new Error(message))).toMatchObject({
    code: "runtime.files_missing",
    message: expect.stringContaining(`without the package "${name}`),
  });
});

it("other errors stay defects", () => {
  for (const error of [
    new Error("Cannot find module '/srv/app/dist/x.js' imported from /srv/app/main.js"),
    new Error("Cannot find module './x.js'"),
    nodeError("EACCES: permission denied", { code: "EACCES" }),
    "Cannot find package 'zod'",
  ]) {
    expect([deniedByRuntime(error), missingPackage(error)]).toEqual([undefined, undefined]);
  }
});

it("runtimeName names what runs this", () => {
  expect(runtimeName()).toBe(`Node ${process.versions.node}`);
});
