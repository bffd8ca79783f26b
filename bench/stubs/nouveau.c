// The kernel's driver of NVIDIA GPUs, as far as NVK asks it: the chip set in hexadecimal, as in "nv172", and the classes
// of its engines. See stub.h.

#include "stub.h"

static u32 chipset;

// By the chip set without its last digit: classes of copies, 3D and computing.
static const struct generation { u32 chips, copy, graphics, compute; } generations[] = {
   {0x16, 0xc5b5, 0xc597, 0xc5c0}, {0x17, 0xc7b5, 0xc797, 0xc7c0}, {0x19, 0xc7b5, 0xc997, 0xc9c0},
};

static const u64 video_bytes = 16ull << 30;

static int answer_parameter(void *argument)
{
   struct { u64 number, value; } *p = argument;
   switch (p->number) {
   case 3:
      p->value = 0x10de;
      return 0;
   case 4:
      p->value = 0x1004;
      return 0;
   case 5:
      p->value = 2; // PCI Express
      return 0;
   case 8:
      p->value = video_bytes;
      return 0;
   case 9:
      p->value = 1ull << 40;
      return 0;
   case 11:
      p->value = chipset;
      return 0;
   case 13:
      p->value = 0x01000101; // graphics clusters and their units
      return 0;
   case 14:
      p->value = 0;
      return 0;
   case 15:
      p->value = 1;
      return 0;
   default:
      return EINVAL;
   }
}

// nouveau's own objects, within one request (nvif in the kernel's headers).
static int answer_object(void *argument)
{
   struct { u8 version, type, pad[4], owner, route; u64 token, object; u8 data[]; } *request = argument;
   if (request->type == 1) { // which classes there are
      struct { u8 version, count, pad[6]; struct { int class; short least, most; } list[]; } *answer = (void *)request->data;
      for (size_t i = 0; i < sizeof generations / sizeof *generations; i++) {
         const struct generation *g = &generations[i];
         if (g->chips != chipset >> 4)
            continue;
         const u32 classes[] = {0xa140, g->copy, 0x902d, g->graphics, g->compute}; // the first: inline to memory; third: 2D
         for (u32 c = 0; c < 5 && c < answer->count; c++) {
            answer->list[c].class = (int)classes[c];
            answer->list[c].least = answer->list[c].most = -1;
         }
      }
   }
   if (request->type == 4) { // a device's method
      struct { u8 version, method, pad[6]; u8 more, platform; u16 chipset; u8 rest[4]; u64 bytes, user_bytes; } *call = (void *)request->data;
      if (call->method == 0) { // about itself
         call->platform = 3; // PCI Express
         call->chipset = (u16)chipset;
         call->bytes = call->user_bytes = video_bytes;
      }
   }
   return 0;
}

struct buffer { u32 handle, domain; u64 bytes, address, map; u32 tile_mode, tile_flags, channel, alignment; };
static u64 addresses[1 << 16], address_end = 4096;

static int answer(u32 number, void *argument)
{
   struct buffer *b = argument;
   switch (number) {
   case 0x00:
      return answer_parameter(argument);
   case 0x02: { // a channel: where its notifications go, and that it takes from both memories
      u32 *channel = argument;
      channel[3] = 6;
      channel[4] = new_buffer(4096);
      return channel[4] ? 0 : ENOMEM;
   }
   case 0x07:
      return answer_object(argument);
   case 0x40: // a new buffer
      b->handle = new_buffer(b->bytes);
      if (!b->handle)
         return ENOMEM;
      b->map = buffer_offset(b->handle);
      if (b->alignment)
         address_end = (address_end + b->alignment - 1) / b->alignment * b->alignment;
      b->address = addresses[b->handle & 0xffff] = address_end;
      address_end += b->bytes;
      return 0;
   case 0x41: { // a submission, forgotten
      u64 *submission = argument;
      submission[6] = video_bytes;
      submission[7] = 1ull << 40;
      return 0;
   }
   case 0x44:
      b->map = buffer_offset(b->handle);
      b->bytes = buffer_bytes(b->handle);
      b->address = addresses[b->handle & 0xffff];
      return 0;
   case 0x03: case 0x04: case 0x05: case 0x06: case 0x10: case 0x11: case 0x12: case 0x42: case 0x43:
      return 0;
   default:
      return EINVAL;
   }
}

const struct driver *nouveau_driver(const char *name)
{
   static const struct driver driver = {"nouveau", 1, 3, 1, 0x10de, 0x1004, answer};
   if (strncmp(name, "nv", 2))
      return NULL;
   chipset = (u32)strtoul(name + 2, NULL, 16);
   for (size_t i = 0; i < sizeof generations / sizeof *generations; i++)
      if (generations[i].chips == chipset >> 4)
         return &driver;
   return NULL;
}
