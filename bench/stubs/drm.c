// The part of the stub that every driver has: libc's functions by which libdrm and Mesa look for render nodes, open one
// and talk to it, and the requests that all of the kernel's drivers know. DAYBREAK_STUB=DRIVER:GPU says what is there.
// Other render nodes of the machine are hidden. See stub.h.

#define _GNU_SOURCE
#undef _FILE_OFFSET_BITS
#undef _FORTIFY_SOURCE
#include "stub.h"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))
#define REAL(name) \
   static __typeof__(name) *real; \
   if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static const char node[] = "/dev/dri/renderD128";
static const char folder[] = "/sys/dev/char/226:128/device";
static const u32 node_major = 226, node_minor = 128;

static const struct driver *driver;
static u8 is_stub[65536]; // by file descriptor
static int memory = -1;
static struct { u64 offset, bytes; } buffers[1 << 16];
static u32 buffer_count = 1; // a handle of 0 is none
static u64 memory_end = 4096;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void choose(void)
{
   const char *asked = getenv("DAYBREAK_STUB");
   const char *gpu = asked ? strchr(asked, ':') : NULL;
   if (!gpu)
      return;
   if (!strncmp(asked, "amdgpu:", 7))
      driver = amdgpu_driver(gpu + 1);
   else if (!strncmp(asked, "i915:", 5))
      driver = i915_driver(gpu + 1);
   else if (!strncmp(asked, "nouveau:", 8))
      driver = nouveau_driver(gpu + 1);
   if (!driver)
      fprintf(stderr, "stub: unknown GPU %s\n", asked);
   memory = memfd_create("stub", MFD_CLOEXEC);
   if (ftruncate(memory, 1ll << 40))
      perror("stub: ftruncate");
}

u32 new_buffer(u64 bytes)
{
   pthread_mutex_lock(&lock);
   u32 handle = buffer_count < sizeof buffers / sizeof *buffers ? buffer_count++ : 0;
   if (handle) {
      buffers[handle].offset = memory_end;
      buffers[handle].bytes = bytes;
      memory_end += (bytes + 65535) & ~65535ull;
   }
   pthread_mutex_unlock(&lock);
   return handle;
}

u64 buffer_offset(u32 handle)
{
   return handle < buffer_count ? buffers[handle].offset : 0;
}

u64 buffer_bytes(u32 handle)
{
   return handle < buffer_count ? buffers[handle].bytes : 0;
}

void *map_buffer(u32 handle)
{
   return mmap(NULL, buffer_bytes(handle), PROT_READ | PROT_WRITE, MAP_SHARED, memory, (off_t)buffer_offset(handle));
}

static bool is_node(const char *path)
{
   return driver && !strcmp(path, node);
}

// What a real machine has beside the node must not be found.
static bool is_hidden(const char *path)
{
   if (!driver || is_node(path) || !strncmp(path, folder, sizeof folder - 1))
      return false;
   return !strncmp(path, "/dev/dri/", 9) || !strncmp(path, "/sys/dev/char/226:", 18);
}

static bool is_stubbed(int fd)
{
   return fd >= 0 && fd < (int)sizeof is_stub && is_stub[fd];
}

// A file of the device's folder as one in memory, or -1.
static int open_fact(const char *path)
{
   if (!driver || strncmp(path, folder, sizeof folder - 1) || path[sizeof folder - 1] != '/')
      return -1;
   const char *name = path + sizeof folder;
   char text[512];
   if (!strcmp(name, "uevent"))
      snprintf(text, sizeof text,
               "DRIVER=%s\nPCI_CLASS=30000\nPCI_ID=%04X:%04X\nPCI_SUBSYS_ID=1028:1636\nPCI_SLOT_NAME=0000:04:00.0\n",
               driver->name, driver->vendor, driver->device);
   else if (!strcmp(name, "vendor") || !strcmp(name, "subsystem_vendor"))
      snprintf(text, sizeof text, "0x%04x\n", driver->vendor);
   else if (!strcmp(name, "device") || !strcmp(name, "subsystem_device"))
      snprintf(text, sizeof text, "0x%04x\n", driver->device);
   else if (!strcmp(name, "revision"))
      snprintf(text, sizeof text, "0x00\n");
   else
      return -1;
   int fd = memfd_create("fact", MFD_CLOEXEC);
   if (write(fd, text, strlen(text)) < 0)
      perror("stub: write");
   lseek(fd, 0, SEEK_SET);
   return fd;
}

PUBLIC FILE *fopen(const char *path, const char *mode)
{
   REAL(fopen);
   int fd = open_fact(path);
   return fd >= 0 ? fdopen(fd, "r") : real(path, mode);
}
PUBLIC FILE *fopen64(const char *, const char *) __attribute__((alias("fopen")));

PUBLIC int access(const char *path, int mode)
{
   REAL(access);
   if (is_hidden(path)) {
      errno = ENOENT;
      return -1;
   }
   return is_node(path) ? 0 : real(path, mode);
}

PUBLIC int open(const char *path, int flags, ...)
{
   REAL(open);
   va_list rest;
   va_start(rest, flags);
   int mode = va_arg(rest, int);
   va_end(rest);
   int fd = open_fact(path);
   if (fd >= 0)
      return fd;
   if (is_hidden(path)) {
      errno = ENOENT;
      return -1;
   }
   if (!is_node(path))
      return real(path, flags, mode);
   fd = real("/dev/null", O_RDWR | O_CLOEXEC, 0);
   if (fd >= 0 && fd < (int)sizeof is_stub)
      is_stub[fd] = 1;
   return fd;
}
PUBLIC int open64(const char *, int, ...) __attribute__((alias("open")));

PUBLIC int __open64_2(const char *path, int flags)
{
   return open(path, flags, 0);
}
PUBLIC int __open_2(const char *, int) __attribute__((alias("__open64_2")));

PUBLIC int close(int fd)
{
   REAL(close);
   if (is_stubbed(fd))
      is_stub[fd] = 0;
   return real(fd);
}

static int describe_node(struct stat *into)
{
   memset(into, 0, sizeof *into);
   into->st_rdev = makedev(node_major, node_minor);
   into->st_mode = S_IFCHR;
   return 0;
}

PUBLIC int stat(const char *path, struct stat *into)
{
   REAL(stat);
   if (is_hidden(path)) {
      errno = ENOENT;
      return -1;
   }
   char drm[sizeof folder + 4];
   snprintf(drm, sizeof drm, "%s/drm", folder);
   return is_node(path) || (driver && !strcmp(path, drm)) ? describe_node(into) : real(path, into);
}
PUBLIC int stat64(const char *, struct stat64 *) __attribute__((alias("stat")));

PUBLIC int fstat(int fd, struct stat *into)
{
   REAL(fstat);
   return is_stubbed(fd) ? describe_node(into) : real(fd, into);
}
PUBLIC int fstat64(int, struct stat64 *) __attribute__((alias("fstat")));

// A machine may have no /dev/dri. Its listing is the one node, once.
static int listing;
static bool is_listed;

PUBLIC DIR *opendir(const char *path)
{
   REAL(opendir);
   if (!driver || (strcmp(path, "/dev/dri") && strcmp(path, "/dev/dri/")))
      return real(path);
   is_listed = false;
   return (DIR *)&listing;
}

PUBLIC struct dirent *readdir(DIR *directory)
{
   REAL(readdir);
   if (directory != (DIR *)&listing)
      return real(directory);
   static struct dirent entry = {.d_type = DT_CHR, .d_name = "renderD128"};
   if (is_listed)
      return NULL;
   is_listed = true;
   return &entry;
}
PUBLIC struct dirent64 *readdir64(DIR *) __attribute__((alias("readdir")));

PUBLIC int closedir(DIR *directory)
{
   REAL(closedir);
   return directory == (DIR *)&listing ? 0 : real(directory);
}

PUBLIC ssize_t readlink(const char *path, char *into, size_t size)
{
   REAL(readlink);
   if (is_hidden(path)) {
      errno = ENOENT;
      return -1;
   }
   char subsystem[sizeof folder + 10];
   snprintf(subsystem, sizeof subsystem, "%s/subsystem", folder);
   if (!driver || strcmp(path, subsystem))
      return real(path, into, size);
   snprintf(into, size, "/pci");
   return 4;
}

PUBLIC ssize_t __readlink_chk(const char *path, char *into, size_t size, size_t room)
{
   return readlink(path, into, size < room ? size : room);
}

PUBLIC char *realpath(const char *path, char *into)
{
   REAL(realpath);
   if (!driver || strcmp(path, folder))
      return real(path, into);
   return into ? strcpy(into, path) : strdup(path);
}

PUBLIC int fcntl(int fd, int command, ...)
{
   REAL(fcntl);
   va_list rest;
   va_start(rest, command);
   void *argument = va_arg(rest, void *);
   va_end(rest);
   int result = real(fd, command, argument);
   if (is_stubbed(fd) && (command == F_DUPFD || command == F_DUPFD_CLOEXEC) && result >= 0)
      is_stub[result] = 1;
   return result;
}
PUBLIC int fcntl64(int, int, ...) __attribute__((alias("fcntl")));

PUBLIC int dup(int fd)
{
   REAL(dup);
   int result = real(fd);
   if (is_stubbed(fd) && result >= 0)
      is_stub[result] = 1;
   return result;
}

PUBLIC void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
   REAL(mmap);
   return real(address, length, protection, flags, is_stubbed(fd) ? memory : fd, offset);
}
PUBLIC void *mmap64(void *, size_t, int, int, int, off64_t) __attribute__((alias("mmap")));

struct version { int major, minor, patch; size_t name_length; char *name; size_t date_length; char *date; size_t text_length; char *text; };

static size_t told(const char *text, char *into, size_t room)
{
   size_t length = strlen(text);
   if (into && room)
      memcpy(into, text, room < length ? room : length);
   return length;
}

static int answer_common(u32 number, void *argument)
{
   switch (number) {
   case 0x00: { // version
      struct version *v = argument;
      v->major = driver->major;
      v->minor = driver->minor;
      v->patch = driver->patch;
      v->name_length = told(driver->name, v->name, v->name_length);
      v->date_length = told("20260101", v->date, v->date_length);
      v->text_length = told("stub", v->text, v->text_length);
      return 0;
   }
   case 0x0c: { // capability: prime, sync objects and their timelines
      struct { u64 capability, value; } *c = argument;
      if (c->capability != 0x5 && c->capability != 0x13 && c->capability != 0x14)
         return EINVAL;
      c->value = 1;
      return 0;
   }
   case 0x01: // unique name: none
      ((u64 *)argument)[0] = 0;
      return 0;
   case 0xbf: // a new sync object; what waits for one finds everything done
      *(u32 *)argument = 1;
      return 0;
   case 0x09: // close a buffer
      return 0;
   default:
      return number >= 0xc0 && number <= 0xcf ? 0 : EINVAL;
   }
}

PUBLIC int ioctl(int fd, unsigned long request, ...)
{
   REAL(ioctl);
   va_list rest;
   va_start(rest, request);
   void *argument = va_arg(rest, void *);
   va_end(rest);
   if (!is_stubbed(fd))
      return real(fd, request, argument);
   u32 number = _IOC_NR(request);
   bool is_own = number >= 0x40 && number < 0xa0;
   int error = is_own ? driver->answer(number - 0x40, argument) : answer_common(number, argument);
   if (error && getenv("DAYBREAK_STUB_DEBUG"))
      fprintf(stderr, "stub: request 0x%x refused\n", number);
   if (!error)
      return 0;
   errno = error;
   return -1;
}
