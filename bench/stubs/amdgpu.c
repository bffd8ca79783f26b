// The kernel's driver of AMD GPUs, as far as RADV asks it. The facts of navi21 and navi31 are those in Mesa's drm-shim,
// read from real cards; the others are theirs with the GFX version, and the units that cards of that name have. RADV
// chooses what it compiles for by family and revision. See stub.h.

#include "stub.h"

// As in the kernel's include/uapi/drm/amdgpu_drm.h.
struct device {
   u32 device_id, chip_rev, external_rev, pci_rev, family, shader_engines, arrays_per_engine, counter_kHz;
   u64 max_engine_kHz, max_memory_kHz;
   u32 active_cus, cu_ao_mask, cu_bitmap[4][4], rb_mask, rbs, contexts, pcie_gen;
   u64 flags, va_offset, va_max;
   u32 va_alignment, pte_fragment, gart_page, ce_ram, vram_type, vram_bits, vce_harvest, double_offchip;
   u64 buffers[4];
   u32 buffer_sizes[4];
   u32 wave_size, vgprs, cus_per_array, tccs, gs_table, gs_prims, gs_waves, pcie_lanes, cu_ao_bitmap[4][4];
   u64 high_va_offset, high_va_max;
   u32 tile_steering;
   u64 tcc_disabled, min_engine_kHz, min_memory_kHz;
   u32 tcp_KiB, sqc_per_wgp, sqc_data_KiB, sqc_inst_KiB, gl1_KiB, gl2_KiB;
   u64 mall_bytes;
   u32 rb_mask_high, shadow_bytes, shadow_alignment, csa_bytes, csa_alignment;
};

struct gpu {
   const char *name;
   u32 gfx; // major << 16 | minor << 8 | revision
   u32 family, external_rev, device_id, engines, cus_per_array, vgprs, rbs, vram_bits, gl2_KiB, address_config;
   u64 mall_bytes;
};

static const struct gpu gpus[] = {
   {"navi21", 0xa0300, 143, 0x29, 0x73bf, 4, 10, 1024, 16, 256, 4096, 0x444, 128ull << 20},
   {"navi31", 0xb0000, 145, 0x01, 0x744c, 6, 8, 1536, 24, 384, 6144, 0x545, 96ull << 20},
   {"navi33", 0xb0002, 145, 0x10, 0x7480, 2, 8, 1024, 8, 128, 2048, 0x444, 32ull << 20},
   {"gfx1150", 0xb0500, 150, 0x01, 0x150e, 1, 8, 1024, 4, 128, 2048, 0x444, 0},
   {"gfx1151", 0xb0501, 150, 0xc1, 0x1586, 2, 10, 1536, 8, 256, 2048, 0x444, 32ull << 20},
   {"navi44", 0xc0000, 152, 0x40, 0x7590, 2, 8, 1536, 8, 128, 4096, 0x545, 32ull << 20},
   {"navi48", 0xc0001, 152, 0x50, 0x7550, 4, 8, 1536, 16, 256, 8192, 0x545, 64ull << 20},
};

static const struct gpu *gpu;

static struct device facts(void)
{
   struct device d = {
      .device_id = gpu->device_id, .external_rev = gpu->external_rev, .family = gpu->family,
      .shader_engines = gpu->engines, .arrays_per_engine = 2, .counter_kHz = 100000,
      .max_engine_kHz = 2400000, .max_memory_kHz = 1250000, .active_cus = gpu->engines * 2 * gpu->cus_per_array,
      .rb_mask = (u32)((1ull << gpu->rbs) - 1), .rbs = gpu->rbs, .contexts = 8, .pcie_gen = 4,
      .va_offset = 0x200000, .va_max = 0x800000000000, .va_alignment = 4096, .pte_fragment = 2097152,
      .gart_page = 4096, .vram_type = 9, .vram_bits = gpu->vram_bits, .wave_size = 32, .vgprs = gpu->vgprs,
      .cus_per_array = gpu->cus_per_array, .tccs = gpu->rbs, .gs_table = 32, .gs_prims = 1792, .gs_waves = 32,
      .pcie_lanes = 16, .high_va_offset = 0xffff800000000000, .high_va_max = 0xffffffffffe00000,
      .min_engine_kHz = 500000, .min_memory_kHz = 96000, .tcp_KiB = 32, .sqc_per_wgp = 1, .sqc_data_KiB = 16,
      .sqc_inst_KiB = 32, .gl1_KiB = 256, .gl2_KiB = gpu->gl2_KiB, .mall_bytes = gpu->mall_bytes,
   };
   // engine 4 and 5 follow in the upper columns, see the kernel's amdgpu_kms.c
   for (u32 engine = 0; engine < gpu->engines; engine++)
      for (u32 array = 0; array < 2; array++)
         d.cu_bitmap[engine % 4][array + 2 * (engine / 4)] = (1u << gpu->cus_per_array) - 1;
   return d;
}

static void give(u64 pointer, u32 room, const void *value, size_t size)
{
   memcpy((void *)(uintptr_t)pointer, value, size < room ? size : room);
}

static int answer_info(void *argument)
{
   struct { u64 pointer; u32 room, query, a, b, c, d; } *info = argument;
   switch (info->query) {
   case 0x00: // acceleration works
      give(info->pointer, info->room, &(u32){1}, 4);
      return 0;
   case 0x02: { // a unit: graphics or compute
      if (info->a > 1)
         return 0;
      struct { u32 major, minor; u64 capabilities; u32 start, size, rings, version; } ip = {
         gpu->gfx >> 16, 0, 0, 32, 32, info->a ? 0xf : 0x1, gpu->gfx};
      give(info->pointer, info->room, &ip, sizeof ip);
      return 0;
   }
   case 0x0e: // a firmware: of the micro engine, the prefetcher, the compute engine
      if (info->a == 0x04 || info->a == 0x05 || info->a == 0x08)
         give(info->pointer, info->room, (u32[]){2000, gpu->gfx >> 16 >= 11 ? 29 : 42}, 8);
      return 0;
   case 0x15: // registers: one is asked for, GB_ADDR_CONFIG
      for (u32 i = 0; i < info->b; i++)
         ((u32 *)(uintptr_t)info->pointer)[i] = info->a + i == 0x263e ? gpu->address_config : 0;
      return 0;
   case 0x16: {
      struct device d = facts();
      give(info->pointer, info->room, &d, sizeof d);
      return 0;
   }
   case 0x19: { // memory: on the card, that part of it which the processor sees, the machine's
      const u64 GiB = 1ull << 30;
      const u64 heaps[3][4] = {{16 * GiB, 16 * GiB, 0, 12 * GiB}, {16 * GiB, 16 * GiB, 0, 12 * GiB}, {16 * GiB, 16 * GiB, 0, 12 * GiB}};
      give(info->pointer, info->room, heaps, sizeof heaps);
      return 0;
   }
   case 0x21: // no video
      return 0;
   default:
      return EINVAL;
   }
}

static int answer(u32 number, void *argument)
{
   switch (number) {
   case 0x00: { // a new buffer
      u32 handle = new_buffer(*(u64 *)argument);
      ((u32 *)argument)[0] = handle;
      return handle ? 0 : ENOMEM;
   }
   case 0x01: // where a buffer is mapped
      *(u64 *)argument = buffer_offset(*(u32 *)argument);
      return 0;
   case 0x05:
      return answer_info(argument);
   default: // contexts, addresses, submissions, fences: accepted and forgotten
      return number <= 0x15 ? 0 : EINVAL;
   }
}

const struct driver *amdgpu_driver(const char *name)
{
   static struct driver driver = {"amdgpu", 3, 64, 0, 0x1002, 0, answer};
   for (size_t i = 0; i < sizeof gpus / sizeof *gpus; i++)
      if (!strcmp(gpus[i].name, name))
         gpu = &gpus[i];
   if (!gpu)
      return NULL;
   driver.device = gpu->device_id;
   return &driver;
}
