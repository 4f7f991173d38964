/* net/access.h: ranges there and back, each refusal, what a range contains at its very edges, and the rules. */
#include "net/access.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

static struct access_range
range_of(const char *text)
{
	struct access_range range;
	const char *why = "";

	cr_assert_eq(access_range_parse(text, &range, &why), 0, "%s: %s", text, why);
	return range;
}

/* TEXT: an IP address, "unix", or "vsock:CID". */
static struct access_peer
peer_of(const char *text)
{
	struct address address = { .bytes = sizeof(struct sockaddr_in6) };
	struct sockaddr_in *in = (struct sockaddr_in *)&address.storage;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&address.storage;
	struct sockaddr_vm *vm = (struct sockaddr_vm *)&address.storage;

	if (strcmp(text, "unix") == 0) {
		address.storage.ss_family = AF_UNIX;
		address.bytes = sizeof(sa_family_t); /* unnamed, as accept gives it */
	} else if (sscanf(text, "vsock:%u", &vm->svm_cid) == 1) {
		vm->svm_family = AF_VSOCK;
		vm->svm_port = 1234;
	} else if (inet_pton(AF_INET, text, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = 1234;
	} else {
		cr_assert_eq(inet_pton(AF_INET6, text, &in6->sin6_addr), 1, "%s", text);
		in6->sin6_family = AF_INET6;
		in6->sin6_port = 1234;
		in6->sin6_flowinfo = 5678;
	}
	return access_peer_of(&address);
}

static bool
contains(const char *range_text, const char *peer_text)
{
	struct access_range range = range_of(range_text);
	struct access_peer peer = peer_of(peer_text);

	return access_range_contains(&range, &peer);
}

static const char *
reformat(const char *text)
{
	static char formatted[ACCESS_RANGE_TEXT_BYTES];
	struct access_range range = range_of(text);

	access_range_format(&range, formatted);
	return formatted;
}

static void
assert_refused(const char *text, const char *part)
{
	struct access_range range, before;
	const char *why = NULL;

	memset(&range, 0x5a, sizeof(range));
	before = range;
	cr_assert_eq(access_range_parse(text, &range, &why), -EINVAL, "%s", text);
	cr_assert_not_null(strstr(why, part), "%s: %s", text, why);
	cr_assert_eq(memcmp(&range, &before, sizeof(range)), 0, "%s", text);
}

Test(access, text_survives_parsing_and_formatting)
{
	static const char *const texts[] = {
		"all",		 "unix", "vsock",      "vsock:3",	 "vsock:4294967294",
		"0.0.0.0/0",	 "::/0", "10.0.0.0/8", "10.1.2.3",	 "10.1.2.2/31",
		"2001:db8::/32", "::1",	 "::/1",       "2001:db8::/127", "128.0.0.0/1",
	};

	for (size_t i = 0; i < ARRAY_COUNT(texts); i++)
		cr_assert_str_eq(reformat(texts[i]), texts[i]);
	cr_assert_str_eq(reformat("10.1.2.3/32"), "10.1.2.3");
	cr_assert_str_eq(reformat("::1/128"), "::1");
}

Test(access, mapped_ipv4_range_is_an_ipv4_range)
{
	cr_assert_str_eq(reformat("::ffff:10.0.0.0/104"), "10.0.0.0/8");
	cr_assert_str_eq(reformat("::ffff:10.1.2.3"), "10.1.2.3");
	cr_assert_str_eq(reformat("::ffff:0.0.0.0/96"), "0.0.0.0/0");
	cr_assert(contains("::ffff:10.0.0.0/104", "10.9.9.9"));
}

Test(access, what_is_no_range_is_refused)
{
	static const char *const wrong[] = { "",	   "10.0.0", "10.0.0.0.0", "256.0.0.0",
					     "localhost",  "ALL",    "1::2::3",	   "fe80::1%lo",
					     " ::1",	   "[::1]",  "/8",	   "unix:",
					     "10.0.0.0:80" };

	for (size_t i = 0; i < ARRAY_COUNT(wrong); i++)
		assert_refused(wrong[i], "not an address range");
	assert_refused("1111:2222:3333:4444:5555:6666:7777:8888:9999:0000:1111", "not an address");
}

Test(access, wrong_prefix_lengths_are_refused)
{
	assert_refused("10.0.0.0/33", "0 to 32");
	assert_refused("10.0.0.0/", "0 to 32");
	assert_refused("10.0.0.0/-1", "0 to 32");
	assert_refused("10.0.0.0/8x", "0 to 32");
	assert_refused("10.0.0.0/4294967304", "0 to 32");
	assert_refused("10.0.0.0/255.0.0.0", "0 to 32");
	assert_refused("::/129", "0 to 128");
	assert_refused("::/", "0 to 128");
}

Test(access, bits_behind_the_prefix_are_refused)
{
	assert_refused("10.0.0.1/8", "behind its prefix");
	assert_refused("10.0.0.1/31", "behind its prefix");
	assert_refused("128.0.0.0/0", "behind its prefix");
	assert_refused("2001:db8::1/32", "behind its prefix");
	assert_refused("2001:db8::/28", "behind its prefix");
}

Test(access, wrong_cids_are_refused)
{
	assert_refused("vsock:", "CID");
	assert_refused("vsock:any", "CID");
	assert_refused("vsock:4294967295", "CID"); /* VMADDR_CID_ANY is nobody */
	assert_refused("vsock:99999999999", "CID");
}

Test(access, ipv4_range_ends_where_its_prefix_does)
{
	cr_assert(contains("10.1.2.0/23", "10.1.2.0"));
	cr_assert(contains("10.1.2.0/23", "10.1.3.255"));
	cr_assert_not(contains("10.1.2.0/23", "10.1.1.255"));
	cr_assert_not(contains("10.1.2.0/23", "10.1.4.0"));
	cr_assert(contains("10.1.2.3", "10.1.2.3"));
	cr_assert_not(contains("10.1.2.3", "10.1.2.2"));
	cr_assert(contains("0.0.0.0/0", "255.255.255.255"));
	cr_assert(contains("128.0.0.0/1", "128.0.0.0"));
	cr_assert_not(contains("128.0.0.0/1", "127.255.255.255"));
}

Test(access, ipv6_range_ends_where_its_prefix_does)
{
	cr_assert(contains("2001:db8::/32", "2001:db8:ffff::1"));
	cr_assert_not(contains("2001:db8::/32", "2001:db9::"));
	cr_assert(contains("2001:db8::/61", "2001:db8:0:7::1"));
	cr_assert_not(contains("2001:db8::/61", "2001:db8:0:8::"));
	cr_assert(contains("::1", "::1"));
	cr_assert_not(contains("::1", "::2"));
}

Test(access, families_are_apart)
{
	cr_assert_not(contains("::/0", "10.0.0.1"));
	cr_assert_not(contains("::/0", "::ffff:10.0.0.1"));
	cr_assert_not(contains("0.0.0.0/0", "::1"));
	cr_assert_not(contains("0.0.0.0/0", "unix"));
	cr_assert_not(contains("unix", "127.0.0.1"));
	cr_assert_not(contains("vsock", "unix"));
	cr_assert_not(contains("vsock", "10.0.0.1"));
}

Test(access, mapped_peer_is_an_ipv4_peer)
{
	cr_assert(contains("10.0.0.0/8", "::ffff:10.0.0.1"));
	cr_assert_not(contains("10.0.0.0/8", "::ffff:11.0.0.1"));
	cr_assert_not(contains("10.0.0.0/8", "::10.0.0.1")); /* compatible, not mapped */
}

Test(access, vsock_range_is_a_machine_or_all_of_them)
{
	cr_assert(contains("vsock", "vsock:3"));
	cr_assert(contains("vsock:3", "vsock:3"));
	cr_assert_not(contains("vsock:3", "vsock:4"));
	cr_assert_not(contains("vsock:3", "vsock:50331648")); /* 3, the other way round */
}

Test(access, all_contains_everybody)
{
	struct access_range all = range_of("all");
	struct access_peer unknown = { .family = AF_UNSPEC };

	cr_assert(contains("all", "10.0.0.1"));
	cr_assert(contains("all", "::1"));
	cr_assert(contains("all", "unix"));
	cr_assert(contains("all", "vsock:9"));
	cr_assert(access_range_contains(&all, &unknown));
}

static bool
allowed(const char *const *allow, const char *const *deny, const char *peer_text)
{
	struct access_rules rules = { 0 };
	struct access_peer peer = peer_of(peer_text);
	struct access_range range;
	bool result;

	for (; *allow; allow++) {
		range = range_of(*allow);
		cr_assert_eq(access_list_add(&rules.allow, &range, 1), 0);
	}
	for (; *deny; deny++) {
		range = range_of(*deny);
		cr_assert_eq(access_list_add(&rules.deny, &range, 1), 0);
	}
	result = access_allowed(&rules, &peer);
	access_rules_clear(&rules);
	return result;
}

#define TEXTS(...) ((const char *const[]){ __VA_ARGS__ NULL })

Test(access, without_rules_everybody_may)
{
	cr_assert(allowed(TEXTS(), TEXTS(), "10.0.0.1"));
	cr_assert(allowed(TEXTS(), TEXTS(), "unix"));
}

Test(access, an_allow_keeps_all_others_out)
{
	cr_assert(allowed(TEXTS("10.0.0.0/8", "::1", ), TEXTS(), "10.0.0.1"));
	cr_assert(allowed(TEXTS("10.0.0.0/8", "::1", ), TEXTS(), "::1"));
	cr_assert_not(allowed(TEXTS("10.0.0.0/8", "::1", ), TEXTS(), "11.0.0.1"));
	cr_assert_not(allowed(TEXTS("10.0.0.0/8", "::1", ), TEXTS(), "unix"));
}

Test(access, a_deny_wins_over_an_allow)
{
	cr_assert_not(allowed(TEXTS("all", ), TEXTS("10.0.0.0/8", ), "10.0.0.1"));
	cr_assert(allowed(TEXTS("all", ), TEXTS("10.0.0.0/8", ), "11.0.0.1"));
	cr_assert_not(allowed(TEXTS("10.0.0.1", ), TEXTS("10.0.0.0/8", ), "10.0.0.1"));
	cr_assert_not(allowed(TEXTS(), TEXTS("all", ), "unix"));
	cr_assert(allowed(TEXTS(), TEXTS("10.0.0.0/8", ), "11.0.0.1"));
}

Test(access, a_list_holds_all_that_was_added)
{
	struct access_list list = { 0 };
	struct access_range ranges[2] = { range_of("10.0.0.0/8"), range_of("unix") };
	struct access_peer ipv4 = peer_of("10.0.0.1"), local = peer_of("unix");

	cr_assert_eq(access_list_add(&list, &ranges[0], 1), 0);
	cr_assert_not(access_list_contains(&list, &local));
	cr_assert_eq(access_list_add(&list, ranges, 2), 0);
	cr_assert_eq(list.count, 3);
	cr_assert(access_list_contains(&list, &ipv4));
	cr_assert(access_list_contains(&list, &local));
	access_list_clear(&list);
	cr_assert_not(access_list_contains(&list, &ipv4));
}
