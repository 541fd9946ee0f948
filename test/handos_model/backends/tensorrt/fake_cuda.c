/* A stand-in for libcuda: host memory plays the GPU's, and queued work waits for a synchronize.

   It is stricter than the driver: a thread without the context, memory that is not the GPU's, and
   copies beyond what was allocated are errors; fresh memory holds 0xA5, never zeros. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALISED = 3, NO_DEVICE = 100,
       INVALID_CONTEXT = 201, INVALID_HANDLE = 400, LAUNCH_FAILED = 719 };
enum { DEVICE = 1, HOST = 2 };
#define CONTEXT ((void *)0x7ff512345678u)
#define STREAM ((void *)0x7ff587654321u)
#define EXPORT __attribute__((visibility("default")))

typedef struct { uint64_t address; size_t bytes; int kind; } Block;
typedef struct { void *to; const void *from; size_t bytes; int (*run)(void); } Work;

static Block blocks[4096];
static Work queue[4096];
static int block_count, queue_count, initialised, devices = 1, streams, broken;
static size_t limit = (size_t)1 << 32, used;
static __thread void *current;

static Block *find(uint64_t address, size_t bytes, int kind) {
    for (int i = 0; i < block_count; i++)
        if (blocks[i].kind == kind && address >= blocks[i].address &&
            address + bytes <= blocks[i].address + blocks[i].bytes)
            return &blocks[i];
    return NULL;
}
static int ready(void) {
    if (!initialised) return NOT_INITIALISED;
    if (broken) return LAUNCH_FAILED; /* such an error stays until the process ends */
    return current == CONTEXT ? OK : INVALID_CONTEXT;
}
static int allocate(uint64_t *out, size_t bytes, int kind) {
    int state = ready();
    if (state) return state;
    if (bytes == 0 || block_count == 4096) return INVALID_VALUE;
    if (used + bytes > limit) return OUT_OF_MEMORY;
    void *memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
    memset(memory, 0xA5, bytes);
    used += bytes;
    blocks[block_count++] = (Block){(uint64_t)memory, bytes, kind};
    *out = (uint64_t)memory;
    return OK;
}
static int release(uint64_t address, int kind) {
    Block *block = find(address, 1, kind);
    if (!initialised || current != CONTEXT) return INVALID_CONTEXT;
    if (!block || block->address != address) return INVALID_VALUE;
    memset((void *)address, 0x5A, block->bytes);
    free((void *)address);
    used -= block->bytes;
    *block = blocks[--block_count];
    return OK;
}
static int push(Work work, void *stream) {
    int state = ready();
    if (state) return state;
    if (stream != STREAM || queue_count == 4096) return INVALID_HANDLE;
    queue[queue_count++] = work;
    return OK;
}

EXPORT int cuInit(unsigned flags) {
    if (flags || !devices) return flags ? INVALID_VALUE : NO_DEVICE;
    initialised = 1;
    return OK;
}
EXPORT int cuDeviceGet(int *device, int ordinal) {
    *device = 0;
    return ordinal == 0 ? OK : INVALID_VALUE;
}
EXPORT int cuDeviceGetName(char *name, int length, int device) {
    strncpy(name, "Fake GPU", (size_t)length);
    return device ? INVALID_VALUE : OK;
}
EXPORT int cuDeviceGetAttribute(int *value, int attribute, int device) {
    if (device || (attribute != 75 && attribute != 76)) return INVALID_VALUE;
    *value = attribute == 75 ? 8 : 7;
    return OK;
}
EXPORT int cuDevicePrimaryCtxRetain(void **context, int device) {
    *context = CONTEXT;
    return initialised && !device ? OK : NOT_INITIALISED;
}
EXPORT int cuCtxSetCurrent(void *context) {
    if (context != CONTEXT) return INVALID_CONTEXT;
    current = context;
    return OK;
}
EXPORT int cuMemGetInfo_v2(size_t *available, size_t *total) {
    *available = limit - used;
    *total = limit;
    return ready();
}
EXPORT int cuMemAlloc_v2(uint64_t *out, size_t bytes) { return allocate(out, bytes, DEVICE); }
EXPORT int cuMemFree_v2(uint64_t address) { return release(address, DEVICE); }
EXPORT int cuMemAllocHost_v2(void **out, size_t bytes) {
    return allocate((uint64_t *)out, bytes, HOST);
}
EXPORT int cuMemFreeHost(void *address) { return release((uint64_t)address, HOST); }
EXPORT int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) {
    if (!find(to, bytes, DEVICE)) return INVALID_VALUE;
    return push((Work){(void *)to, from, bytes, NULL}, stream);
}
EXPORT int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
    if (!find(from, bytes, DEVICE)) return INVALID_VALUE;
    return push((Work){to, (void *)from, bytes, NULL}, stream);
}
EXPORT int cuStreamCreate(void **stream, unsigned flags) {
    *stream = STREAM;
    streams++;
    return flags <= 1 ? ready() : INVALID_VALUE;
}
EXPORT int cuStreamSynchronize(void *stream) {
    int state = ready();
    if (state || stream != STREAM) return state ? state : INVALID_HANDLE;
    for (int i = 0; i < queue_count && !state; i++) {
        if (queue[i].run) state = queue[i].run() ? LAUNCH_FAILED : OK;
        else memcpy(queue[i].to, queue[i].from, queue[i].bytes);
    }
    queue_count = 0;
    broken = state == LAUNCH_FAILED;
    return state;
}
EXPORT int cuGetErrorName(int error, const char **name) {
    *name = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY"
          : error == NO_DEVICE ? "CUDA_ERROR_NO_DEVICE"
          : error == INVALID_VALUE ? "CUDA_ERROR_INVALID_VALUE"
          : error == INVALID_CONTEXT ? "CUDA_ERROR_INVALID_CONTEXT"
          : error == LAUNCH_FAILED ? "CUDA_ERROR_LAUNCH_FAILED" : NULL;
    return *name ? OK : INVALID_VALUE;
}

/* For the tests. */
EXPORT int fake_enqueue(int (*run)(void), void *stream) {
    return push((Work){NULL, NULL, 0, run}, stream);
}
EXPORT int fake_is_device(uint64_t address, size_t bytes) {
    return find(address, bytes, DEVICE) != NULL;
}
EXPORT int fake_live_blocks(void) { return block_count; }
EXPORT size_t fake_used(void) { return used; }
EXPORT void fake_set_limit(size_t bytes) { limit = bytes; }
EXPORT void fake_set_devices(int count) { devices = count; }
EXPORT int fake_waiting(void) { return queue_count; }
EXPORT int fake_has_context(void) { return ready() == OK; }
