/* net/client_table.h: who counts as one client, the limit, and that nothing is forgotten or kept too long.  The random test prints
 * its seed; SEED=n repeats it. */
#include "net/client_table.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/seed.h"

static struct access_peer
ipv4(uint8_t last)
{
	return (struct access_peer){ .family = AF_INET, .bytes = { 10, 0, 0, last } };
}

static struct access_peer
ipv6(uint8_t network, uint8_t host)
{
	return (struct access_peer){ .family = AF_INET6,
				     .bytes = { 0x20, 1, [7] = network, [8] = host, [15] = host } };
}

/* Of each client in the test. */
static unsigned connections_max;

static struct client_table
table_of(unsigned clients_max, unsigned connections_of_each)
{
	struct client_table table;

	connections_max = connections_of_each;
	cr_assert_eq(client_table_init(&table, clients_max), 0);
	return table;
}

static bool
enter(struct client_table *table, struct access_peer peer)
{
	return client_table_enter(table, &peer, connections_max);
}

static void
leave(struct client_table *table, struct access_peer peer)
{
	client_table_leave(table, &peer);
}

Test(client_table, each_client_has_its_own_limit)
{
	struct client_table table = table_of(8, 2);

	cr_assert(enter(&table, ipv4(1)));
	cr_assert(enter(&table, ipv4(1)));
	cr_assert_not(enter(&table, ipv4(1)));
	cr_assert(enter(&table, ipv4(2)));
	leave(&table, ipv4(1));
	cr_assert(enter(&table, ipv4(1)));
	cr_assert_not(enter(&table, ipv4(1)));
	client_table_fini(&table);
}

Test(client_table, ipv6_network_of_64_bits_is_one_client)
{
	struct client_table table = table_of(8, 2);

	cr_assert(enter(&table, ipv6(1, 1)));
	cr_assert(enter(&table, ipv6(1, 2)));
	cr_assert_not(enter(&table, ipv6(1, 3)));
	cr_assert(enter(&table, ipv6(2, 1)));
	leave(&table, ipv6(1, 1));
	cr_assert(enter(&table, ipv6(1, 4)));
	client_table_fini(&table);
}

Test(client_table, hosts_of_one_link_are_apart)
{
	struct client_table table = table_of(8, 1);
	struct access_peer one = { .family = AF_INET6, .bytes = { 0xfe, 0x80, [15] = 1 } };
	struct access_peer other = { .family = AF_INET6, .bytes = { 0xfe, 0x80, [15] = 2 } };

	cr_assert(enter(&table, one));
	cr_assert_not(enter(&table, one));
	cr_assert(enter(&table, other));
	client_table_fini(&table);
}

Test(client_table, families_are_apart)
{
	struct client_table table = table_of(8, 1);
	struct access_peer vsock = { .family = AF_VSOCK, .bytes = { 10, 0, 0, 1 } };

	cr_assert(enter(&table, ipv4(1)));
	cr_assert(enter(&table, vsock));
	cr_assert_not(enter(&table, vsock));
	client_table_fini(&table);
}

Test(client_table, unix_clients_are_not_counted)
{
	struct client_table table = table_of(1, 1);
	struct access_peer local = { .family = AF_UNIX };

	for (int i = 0; i < 10; i++)
		cr_assert(enter(&table, local));
	for (int i = 0; i < 10; i++)
		leave(&table, local);
	client_table_fini(&table);
}

Test(client_table, without_a_limit_any_number_may_come)
{
	struct client_table table = table_of(1, 0);

	for (int i = 0; i < 10; i++)
		cr_assert(enter(&table, ipv4(0)));
	for (int i = 0; i < 10; i++)
		leave(&table, ipv4(0));
	client_table_fini(&table);
}

Test(client_table, a_limit_that_is_lowered_counts_those_that_are_there)
{
	struct client_table table = table_of(4, 0);

	for (int i = 0; i < 3; i++)
		cr_assert(enter(&table, ipv4(1)));
	connections_max = 3;
	cr_assert_not(enter(&table, ipv4(1)));
	leave(&table, ipv4(1));
	cr_assert(enter(&table, ipv4(1)));
	client_table_fini(&table);
}

Test(client_table, more_room_keeps_what_was_counted)
{
	struct client_table table = table_of(2, 2);

	cr_assert(enter(&table, ipv4(1)));
	cr_assert(enter(&table, ipv4(1)));
	cr_assert(enter(&table, ipv4(2)));
	cr_assert_not(enter(&table, ipv4(3)));
	cr_assert_eq(client_table_resize(&table, 100), 0);
	for (uint8_t i = 3; i < 100; i++)
		cr_assert(enter(&table, ipv4(i)));
	cr_assert_not(enter(&table, ipv4(1)));
	leave(&table, ipv4(1));
	cr_assert(enter(&table, ipv4(1)));
	/* Less room is not taken away. */
	cr_assert_eq(client_table_resize(&table, 1), 0);
	cr_assert(enter(&table, ipv4(2)));
	client_table_fini(&table);
}

Test(client_table, more_clients_than_there_is_room_for_are_refused)
{
	struct client_table table = table_of(2, 5);

	cr_assert(enter(&table, ipv4(1)));
	cr_assert(enter(&table, ipv4(2)));
	cr_assert_not(enter(&table, ipv4(3)));
	cr_assert(enter(&table, ipv4(1)));
	leave(&table, ipv4(2));
	cr_assert(enter(&table, ipv4(3)));
	client_table_fini(&table);
}

#define CLIENTS	   200
#define PER_CLIENT 3

/* Against plain counters, with chains of every length. */
Test(client_table, random_coming_and_going_is_counted_right)
{
	unsigned seed = (unsigned)test_seed();
	struct client_table table = table_of(CLIENTS, PER_CLIENT);
	unsigned counts[CLIENTS] = { 0 };

	for (unsigned i = 0; i < 100000; i++) {
		unsigned client = (unsigned)rand_r(&seed) % CLIENTS;
		struct access_peer peer =
			client % 2 ? ipv4((uint8_t)client) : ipv6((uint8_t)client, (uint8_t)i);

		if (rand_r(&seed) % 2) {
			cr_assert_eq(client_table_enter(&table, &peer, PER_CLIENT),
				     counts[client] < PER_CLIENT);
			counts[client] += counts[client] < PER_CLIENT;
		} else if (counts[client] > 0) {
			client_table_leave(&table, &peer);
			counts[client]--;
		}
	}
	client_table_fini(&table);
}

static void *
come_and_go(void *context)
{
	for (unsigned i = 0; i < 100000; i++) {
		if (enter(context, ipv4((uint8_t)(i % 7))))
			leave(context, ipv4((uint8_t)(i % 7)));
	}
	return NULL;
}

Test(client_table, threads_lose_no_count)
{
	struct client_table table = table_of(7, 2);
	pthread_t threads[3];

	for (size_t i = 0; i < ARRAY_COUNT(threads); i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, come_and_go, &table), 0);
	for (size_t i = 0; i < ARRAY_COUNT(threads); i++)
		pthread_join(threads[i], NULL);
	for (uint8_t i = 0; i < 7; i++) {
		cr_assert(enter(&table, ipv4(i)));
		cr_assert(enter(&table, ipv4(i)));
		cr_assert_not(enter(&table, ipv4(i)));
	}
	client_table_fini(&table);
}
