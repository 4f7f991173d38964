/* Aligned buffers from one fixed region: a buddy allocator.
 * A pool belongs to one core; its region is reserved once, from that core's NUMA node and with huge pages
 * where the system gives them, and never grows.  A full pool returns NULL: the caller waits.
 * Blocks are powers of two from BUFFER_BYTES_MIN up, each aligned to its own size up to 2 MiB. */
#ifndef REACTOR_BUFFER_POOL_H
#define REACTOR_BUFFER_POOL_H

#include "reactor/check.h"
#include <stddef.h>

#define BUFFER_BYTES_MIN ((size_t)4096)

struct buffer_pool;

/* Reserve a region of TOTAL_BYTES (rounded up to a multiple of the largest block) on NUMA_NODE (-1: anywhere).
 * largest_bytes: the largest block that will be asked for; a power of two, at least BUFFER_BYTES_MIN.
 * total_bytes: at least largest_bytes.
 * Memory is touched by its first user, not here.  *pool is the caller's until buffer_pool_destroy.
 * Returns 0, or a negative errno; then *pool is unchanged.
 * Errors: -EINVAL no pool, sizes as above; -ENOMEM no address space or memory. */
int buffer_pool_create(size_t total_bytes, size_t largest_bytes, int numa_node,
		       struct buffer_pool **pool) MUST_USE;

/* Give the region back.  Every block must have been put back. */
void buffer_pool_destroy(struct buffer_pool *pool);

/* A block of at least BYTES (1 to largest_bytes), of undefined content, or NULL when none is free now.
 * Owned by the caller until buffer_pool_put.  Cost, averaged: O(log of the largest block); no system call. */
void *buffer_pool_get(struct buffer_pool *pool, size_t bytes) MUST_USE;

/* Give BLOCK back; BYTES as it was asked for. */
void buffer_pool_put(struct buffer_pool *pool, void *block, size_t bytes);

/* Bytes of the region, those of it that are handed out (in whole blocks), and those that are not. */
size_t buffer_pool_total_bytes(const struct buffer_pool *pool);
size_t buffer_pool_used_bytes(const struct buffer_pool *pool);
size_t buffer_pool_free_bytes(const struct buffer_pool *pool);

#endif
