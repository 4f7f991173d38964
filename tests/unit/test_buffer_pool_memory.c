/* reactor/buffer_pool.h, reactor/core.h: the kernel says that the memory of a pool is of the node that was asked for, and in huge
 * pages; and that nothing of it is there before it is used.  One node is enough for the former: memory that nobody has asked a
 * node for has another policy. */
#include "reactor/buffer_pool.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <numa.h>
#include <numaif.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "reactor/core.h"

#define MIB	   ((size_t)1 << 20)
#define HUGE_BYTES (2 * MIB)
#define NODE_WORDS (1024 / (8 * sizeof(unsigned long)))

TestSuite(buffer_pool_memory, .timeout = 60);

/* The bytes of the mapping that ADDRESS is in that are in anonymous huge pages.  Source: proc(5), smaps. */
static size_t
huge_bytes_at(const void *address)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	unsigned long start, end, kib = 0;
	bool inside = false;
	char line[512];

	cr_assert_not_null(file);
	while (fgets(line, sizeof(line), file) != NULL) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			inside = start <= (uintptr_t)address && (uintptr_t)address < end;
		else if (inside && sscanf(line, "AnonHugePages: %lu kB", &kib) == 1)
			break;
	}
	(void)fclose(file);
	return (size_t)kib << 10;
}

static bool
system_has_huge_pages(void)
{
	FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
	char line[128] = "";

	if (file == NULL)
		return false;
	(void)!fgets(line, sizeof(line), file);
	(void)fclose(file);
	return strstr(line, "[never]") == NULL && line[0] != '\0';
}

/* The node that the page at ADDRESS is on. */
static int
node_of(void *address)
{
	int node = -1;

	if (get_mempolicy(&node, NULL, 0, address, MPOL_F_NODE | MPOL_F_ADDR) != 0)
		cr_skip_test("the kernel does not tell the node: %s", strerror(errno));
	return node;
}

/* The policy of ADDRESS's mapping, and what nodes it names. */
static int
policy_of(void *address, unsigned long nodes[NODE_WORDS])
{
	int policy = -1;

	memset(nodes, 0, NODE_WORDS * sizeof(nodes[0]));
	if (get_mempolicy(&policy, nodes, NODE_WORDS * 8 * sizeof(nodes[0]), address,
			  MPOL_F_ADDR) != 0)
		cr_skip_test("the kernel does not tell the policy: %s", strerror(errno));
	return policy;
}

Test(buffer_pool_memory, is_in_huge_pages_where_the_system_has_them)
{
	struct buffer_pool *pool;
	char *block;

	if (!system_has_huge_pages())
		cr_skip_test("no transparent huge pages here");
	cr_assert_eq(buffer_pool_create(4 * HUGE_BYTES, HUGE_BYTES, -1, &pool), 0);
	block = buffer_pool_get(pool, HUGE_BYTES);
	cr_assert_eq(huge_bytes_at(block), 0);
	block[0] = 1; /* one byte brings the whole page */
	cr_assert_eq(huge_bytes_at(block), HUGE_BYTES);
	buffer_pool_put(pool, block, HUGE_BYTES);
	buffer_pool_destroy(pool);
}

Test(buffer_pool_memory, is_preferred_from_the_node_that_was_asked_for)
{
	unsigned long nodes[NODE_WORDS];
	struct buffer_pool *pool;
	char *block;
	int node;

	if (numa_available() < 0)
		cr_skip_test("no NUMA interface here");
	node = numa_node_of_cpu(0);
	cr_assert_eq(buffer_pool_create(4 * MIB, MIB, node, &pool), 0);
	block = buffer_pool_get(pool, MIB);
	block[0] = 1;
	cr_assert_eq(policy_of(block, nodes), MPOL_PREFERRED);
	cr_assert_eq(nodes[node / 64], 1UL << node % 64);
	cr_assert_eq(node_of(block), node);
	buffer_pool_put(pool, block, MIB);
	buffer_pool_destroy(pool);
}

Test(buffer_pool_memory, is_from_anywhere_without_a_node)
{
	unsigned long nodes[NODE_WORDS];
	struct buffer_pool *pool;
	char *block;

	cr_assert_eq(buffer_pool_create(4 * MIB, MIB, -1, &pool), 0);
	block = buffer_pool_get(pool, MIB);
	cr_assert_eq(policy_of(block, nodes), MPOL_DEFAULT);
	buffer_pool_put(pool, block, MIB);
	buffer_pool_destroy(pool);
}

/* Each core's: of its CPU's node. */
Test(buffer_pool_memory, of_a_core_is_from_its_node)
{
	static const struct reactor_config config = { .disk_slots = 8, .poll_slots = 8 };
	unsigned long nodes[NODE_WORDS];
	struct cpu_list cpus;
	struct cores cores;

	if (numa_available() < 0)
		cr_skip_test("no NUMA interface here");
	cr_assert_eq(cpu_list_auto(&cpus), 0);
	cr_assert_eq(cores_start(&cores, &cpus, &config, 4 * MIB, MIB), 0);
	for (unsigned i = 0; i < cores.count; i++) {
		struct core *core = &cores.cores[i];
		int node = numa_node_of_cpu((int)core->cpu);
		char *block = buffer_pool_get(core->buffers, MIB);

		block[0] = 1;
		cr_assert_eq(policy_of(block, nodes), MPOL_PREFERRED);
		cr_assert_eq(nodes[node / 64], 1UL << node % 64);
		cr_assert_eq(node_of(block), node);
		buffer_pool_put(core->buffers, block, MIB);
	}
	cores_stop(&cores);
}
