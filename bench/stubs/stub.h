// What the files of the stub share: buffers, and how a driver answers. The stub stands in for the kernel's driver of a
// GPU that is not there, so that Mesa opens it and compiles; nothing is ever executed. After the manner of Mesa's
// drm-shim (src/drm-shim, MIT), with as much of it as opening a device and compiling compute pipelines needs.

#ifndef DAYBREAK_STUB_H
#define DAYBREAK_STUB_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

// A driver of the kernel. `answer` gets the number of a request and its argument; 0 or an errno.
struct driver {
   const char *name;
   int major, minor, patch;
   u32 vendor, device;
   int (*answer)(u32 number, void *argument);
};

const struct driver *amdgpu_driver(const char *gpu);
const struct driver *i915_driver(const char *gpu);
const struct driver *nouveau_driver(const char *gpu);

// Buffers live in one sparse file; a buffer's offset in it is what mmap is asked for. They are never freed: the
// process ends when everything is compiled.
u32 new_buffer(u64 bytes);
u64 buffer_offset(u32 handle);
u64 buffer_bytes(u32 handle);
void *map_buffer(u32 handle);

#endif
