/* An allocator to be preloaded as tcmalloc and jemalloc are: what it gives, the C library's own free() refuses. */
#include <errno.h>
#include <stddef.h>
#include <string.h>

void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_memalign(size_t, size_t);
void __libc_free(void *);

static void *give(char *memory, size_t before, size_t size) {
    if (!memory) return NULL;
    ((void **)(memory + before))[-1] = memory;
    ((size_t *)(memory + before))[-2] = size;
    return memory + before;
}

void *malloc(size_t size) { return give(__libc_malloc(size + 16), 16, size); }
void *calloc(size_t count, size_t size) { return give(__libc_calloc(1, count * size + 16), 16, count * size); }
void free(void *memory) { if (memory) __libc_free(((void **)memory)[-1]); }
size_t malloc_usable_size(void *memory) { return memory ? ((size_t *)memory)[-2] : 0; }

void *memalign(size_t alignment, size_t size) {
    if (alignment < 16) alignment = 16;
    return give(__libc_memalign(alignment, size + alignment), alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }
void *valloc(size_t size) { return memalign(4096, size); }
int posix_memalign(void **memory, size_t alignment, size_t size) {
    *memory = memalign(alignment, size);
    return *memory ? 0 : ENOMEM;
}

void *realloc(void *memory, size_t size) {
    void *moved = malloc(size);
    if (moved && memory) {
        size_t old = malloc_usable_size(memory);
        memcpy(moved, memory, old < size ? old : size);
        free(memory);
    }
    return moved;
}
