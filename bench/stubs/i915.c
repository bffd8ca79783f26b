// The kernel's driver of Intel GPUs, as far as ANV asks it: units, engines, memory. ANV knows everything else by the
// PCI number. See stub.h.

#include "stub.h"

struct gpu {
   const char *name;
   u32 device_id, subslices, units; // execution units of a subslice
   int is_discrete;
};

// Those names and numbers are Mesa's (intel_device_info.c). Since Xe-HP the kernel tells one slice of all subslices.
static const struct gpu gpus[] = {
   {"tgl", 0x9a49, 6, 16, 0}, {"adl", 0x4680, 2, 16, 0}, {"dg2", 0x5690, 32, 16, 1},
   {"mtl", 0x7d60, 8, 16, 0}, {"arl", 0x7d67, 4, 16, 0}, {"lnl", 0x64a0, 8, 8, 0},
   {"bmg", 0xe202, 20, 8, 1}, {"ptl", 0xb080, 12, 8, 0},
};

static const struct gpu *gpu;

static int answer_parameter(void *argument)
{
   struct { int number; int *value; } *p = argument;
   switch (p->number) {
   case 4:
      *p->value = (int)gpu->device_id;
      return 0;
   case 6:
      *p->value = 8; // fences
      return 0;
   case 10: case 17: case 22: case 32: case 56: // video, a shared cache, a revision, probing: none
      *p->value = 0;
      return 0;
   case 18:
      *p->value = 2; // full page tables for each process
      return 0;
   case 28:
      *p->value = 10;
      return 0;
   case 30: case 40:
      *p->value = 4; // mapping by offset
      return 0;
   case 33:
      *p->value = (int)gpu->subslices;
      return 0;
   case 34:
      *p->value = (int)(gpu->subslices * gpu->units);
      return 0;
   case 51:
      *p->value = 19200000; // Hz
      return 0;
   case 54:
      *p->value = 3;
      return 0;
   case 5: case 9: case 11: case 12: case 15: case 19: case 25: case 37: case 43: case 44: case 45: case 48:
   case 49: case 50: case 55:
      *p->value = 1;
      return 0;
   default:
      return EINVAL;
   }
}

// Fills `room` bytes if that is enough; returns how many are needed, or a negative errno.
static int fill(int room, void *into, const void *value, int size)
{
   if (room && room < size)
      return -EINVAL;
   if (room)
      memcpy(into, value, (size_t)size);
   return size;
}

static int topology(int room, void *into)
{
   struct { u16 flags, slices, subslices, units, subslice_at, subslice_stride, unit_at, unit_stride; u8 data[256]; } t = {
      .slices = 1, .subslices = (u16)gpu->subslices, .units = (u16)gpu->units, .subslice_at = 1,
      .subslice_stride = (u16)((gpu->subslices + 7) / 8), .unit_stride = (u16)((gpu->units + 7) / 8),
   };
   t.unit_at = (u16)(t.subslice_at + t.subslice_stride);
   t.data[0] = 1;
   for (u32 i = 0; i < gpu->subslices; i++)
      t.data[t.subslice_at + i / 8] |= (u8)(1 << i % 8);
   for (u32 i = 0; i < gpu->subslices; i++)
      for (u32 unit = 0; unit < gpu->units; unit++)
         t.data[t.unit_at + i * t.unit_stride + unit / 8] |= (u8)(1 << unit % 8);
   return fill(room, into, &t, (int)(16 + t.unit_at + gpu->subslices * t.unit_stride));
}

static int engines(int room, void *into)
{
   struct engine { u16 class, instance; u32 reserved; u64 flags, capabilities; u16 logical, pad[3]; u64 more[3]; };
   struct { u32 count, pad[3]; struct engine list[2]; } all = {.count = 2, .list = {{.class = 0}, {.class = 1}}}; // render, copy
   return fill(room, into, &all, sizeof all);
}

static int memory(int room, void *into)
{
   struct region { u16 class, instance; u32 reserved; u64 bytes, free, more[8]; };
   const u64 bytes = 16ull << 30;
   struct { u32 count, pad[3]; struct region list[2]; } all = {
      .count = gpu->is_discrete ? 2 : 1, .list = {{0, 0, 0, bytes, ~0ull, {0}}, {1, 0, 0, bytes, ~0ull, {0}}}};
   return fill(room, into, &all, (int)(16 + all.count * sizeof *all.list));
}

static int answer_query(void *argument)
{
   struct { u32 count, flags; u64 items; } *query = argument;
   struct item { u64 id; int length; u32 flags; u64 data; } *items = (void *)(uintptr_t)query->items;
   for (u32 i = 0; i < query->count; i++) {
      void *into = (void *)(uintptr_t)items[i].data;
      int room = items[i].length;
      items[i].length = items[i].id == 1 || items[i].id == 6 ? topology(room, into)
                      : items[i].id == 2                     ? engines(room, into)
                      : items[i].id == 4                     ? memory(room, into)
                                                             : -EINVAL;
   }
   return 0;
}

static u32 tilings[1 << 16]; // by buffer

static int answer(u32 number, void *argument)
{
   u32 *words = argument;
   u64 *longs = argument;
   switch (number) {
   case 0x06:
      return answer_parameter(argument);
   case 0x39:
      return answer_query(argument);
   case 0x1b: case 0x3c: { // a new buffer
      u32 handle = new_buffer(longs[0]);
      words[2] = handle;
      return handle ? 0 : ENOMEM;
   }
   case 0x33: { // memory of the process as a buffer
      u32 handle = new_buffer(longs[1]);
      words[5] = handle;
      return handle ? 0 : ENOMEM;
   }
   case 0x1e: // mapped for the caller
      longs[3] = (u64)(uintptr_t)map_buffer(words[0]) + longs[1];
      return 0;
   case 0x24:
      longs[1] = buffer_offset(words[0]);
      return 0;
   case 0x21: // bit 6 of addresses is not swizzled
      tilings[words[0] & 0xffff] = words[1];
      words[3] = 0;
      return 0;
   case 0x22:
      words[1] = tilings[words[0] & 0xffff];
      words[2] = words[3] = 0;
      return 0;
   case 0x2d:
      words[0] = 1;
      return 0;
   case 0x34: // a context's address space, or nothing
      longs[2] = longs[1] == 3 ? 1ull << 48 : 0;
      return 0;
   case 0x23:
      longs[0] = longs[1] = 1ull << 48;
      return 0;
   case 0x3a: // no address spaces of the caller's own
      return EINVAL;
   case 0x17: case 0x1f: case 0x26: case 0x29: case 0x2c: case 0x2e: case 0x2f: case 0x30: case 0x31: case 0x32: case 0x35:
      return 0; // accepted and forgotten
   default:
      return EINVAL;
   }
}

const struct driver *i915_driver(const char *name)
{
   static struct driver driver = {"i915", 1, 6, 0, 0x8086, 0, answer};
   for (size_t i = 0; i < sizeof gpus / sizeof *gpus; i++)
      if (!strcmp(gpus[i].name, name))
         gpu = &gpus[i];
   if (!gpu)
      return NULL;
   driver.device = gpu->device_id;
   return &driver;
}
