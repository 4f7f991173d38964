/* net/address.h: every form there and back, every refusal, peers as the kernel reports them, URIs.
 * */
#include "net/address.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#define PATH_107                                                                                  \
	"/23456789012345678901234567890123456789012345678901234567890123456789012345678901234567" \
	"89012345678901234567"

static struct address
parsed(const char *text)
{
	struct address address;
	const char *why = "";

	cr_assert_eq(address_parse(text, &address, &why), 0, "%s: %s", text, why);
	return address;
}

/* Parse TEXT, which must be good, and write it again. */
static const char *
reformat(const char *text)
{
	static char formatted[ADDRESS_TEXT_BYTES];
	struct address address = parsed(text);

	address_format(&address, formatted, sizeof(formatted));
	return formatted;
}

static const char *
uri(const char *text)
{
	static char formatted[512];
	struct address address = parsed(text);

	address_format_uri(&address, formatted, sizeof(formatted));
	return formatted;
}

/* TEXT must be refused for a reason that has PART in it, and the address stay as it was. */
static void
assert_refused(const char *text, const char *part)
{
	struct address address, before;
	const char *why = NULL;

	memset(&address, 0x5a, sizeof(address));
	before = address;
	cr_assert_eq(address_parse(text, &address, &why), -EINVAL, "%s", text);
	cr_assert_not_null(why);
	cr_assert_not_null(strstr(why, part), "%s: %s", text, why);
	cr_assert_eq(memcmp(&address, &before, sizeof(address)), 0, "%s", text);
}

Test(address, all_of_a_host)
{
	struct address addresses[4];
	char text[ADDRESS_TEXT_BYTES];
	const char *why = "";

	cr_assert_eq(address_parse_all("127.0.0.1:1", addresses, 4, &why), 1);
	cr_assert_eq(address_parse_all("[::1]:1", addresses, 4, &why), 1);
	cr_assert_eq(address_parse_all("unix:/a", addresses, 4, &why), 1);
	cr_assert_eq(address_parse_all("no.such.host.invalid:1", addresses, 4, &why), -EINVAL);
	/* Whichever it has. */
	cr_assert_geq(address_parse_all("localhost:1", addresses, 4, &why), 1);
	address_format(&addresses[0], text, sizeof(text));
	cr_assert(strcmp(text, "127.0.0.1:1") == 0 || strcmp(text, "[::1]:1") == 0, "%s", text);
}

Test(address, ipv4)
{
	struct address address = parsed("127.0.0.1:10809");
	struct sockaddr_in *in = (struct sockaddr_in *)&address.storage;

	cr_assert_eq(address.bytes, sizeof(*in));
	cr_assert_eq(in->sin_family, AF_INET);
	cr_assert_eq(in->sin_addr.s_addr, htonl(INADDR_LOOPBACK));
	cr_assert_eq(in->sin_port, htons(10809));
}

Test(address, text_survives_parsing_and_formatting)
{
	static const char *const texts[] = {
		"127.0.0.1:10809", "0.0.0.0:0",	      "10.1.2.3:65535", "[::1]:10809",
		"[::]:0",	   "[2001:db8::1]:1", "unix:/run/a",	"unix:relative.sock",
		"unix:a:b",	   "unix:" PATH_107,
	};

	for (size_t i = 0; i < ARRAY_COUNT(texts); i++)
		cr_assert_str_eq(reformat(texts[i]), texts[i]);
}

Test(address, a_host_name_is_its_first_ipv4_address)
{
	cr_assert_str_eq(reformat("localhost:10809"), "127.0.0.1:10809");
}

Test(address, a_leading_zero_in_the_port_is_decimal)
{
	cr_assert_str_eq(reformat("127.0.0.1:010"), "127.0.0.1:10");
}

Test(address, the_longest_unix_path_fits)
{
	struct address address = parsed("unix:" PATH_107);

	cr_assert_eq(strlen(PATH_107), 107);
	cr_assert_eq(address.bytes, sizeof(struct sockaddr_un));
	assert_refused("unix:" PATH_107 "x", "too long");
}

Test(address, refuses_what_has_no_valid_port)
{
	assert_refused("", "port");
	assert_refused("10809", "port");
	assert_refused("localhost", "port");
	assert_refused("localhost:", "port");
	assert_refused("localhost:x", "port");
	assert_refused("localhost:-1", "port");
	assert_refused("localhost:+1", "port");
	assert_refused("localhost: 1", "port");
	assert_refused("localhost:1 ", "port");
	assert_refused("localhost:65536", "port");
	assert_refused("localhost:100000", "port");
	assert_refused("localhost:4294967297", "port"); /* 1, if it wrapped */
	assert_refused("localhost:nbd", "port");
	assert_refused("[::1]", "port");
}

Test(address, refuses_ipv6_without_brackets)
{
	assert_refused("::1:10809", "brackets");
	assert_refused("[::1:10809", "brackets");
	assert_refused("2001:db8::1:80", "brackets");
}

Test(address, refuses_other_things_between_brackets)
{
	assert_refused("[127.0.0.1]:10809", "not an IPv6 address");
	assert_refused("[localhost]:10809", "not an IPv6 address");
	assert_refused("[::g]:10809", "not an IPv6 address");
}

Test(address, refuses_an_empty_host_or_path)
{
	assert_refused(":10809", "host is missing");
	assert_refused("[]:10809", "host is missing");
	assert_refused("unix:", "path is missing");
}

Test(address, refuses_a_host_that_is_too_long)
{
	char text[1100];

	memset(text, 'a', sizeof(text));
	strcpy(text + sizeof(text) - 3, ":1");
	assert_refused(text, "too long");
}

/* An invalid name is refused by the resolver itself: no name server is asked. */
Test(address, refuses_a_host_that_is_not_known)
{
	assert_refused("256.256.256.256.:1", "host");
	assert_refused("a..b:1", "host");
}

Test(address, an_unnamed_unix_peer_has_no_path)
{
	struct address address = { .bytes = sizeof(address.storage) };
	char text[ADDRESS_TEXT_BYTES];
	int pair[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	cr_assert_eq(getpeername(pair[0], (struct sockaddr *)&address.storage, &address.bytes), 0);
	address_format(&address, text, sizeof(text));
	cr_assert_str_eq(text, "unix:");
	close(pair[0]);
	close(pair[1]);
}

Test(address, an_abstract_unix_peer_has_no_path)
{
	struct address address = { .storage.ss_family = AF_UNIX };
	struct sockaddr_un *un = (struct sockaddr_un *)&address.storage;
	char text[ADDRESS_TEXT_BYTES];

	memcpy(un->sun_path, "\0name", 5);
	address.bytes = offsetof(struct sockaddr_un, sun_path) + 5;
	address_format(&address, text, sizeof(text));
	cr_assert_str_eq(text, "unix:");
}

Test(address, a_path_without_a_nul_is_not_read_past)
{
	struct address address = { .storage.ss_family = AF_UNIX,
				   .bytes = sizeof(struct sockaddr_un) };
	struct sockaddr_un *un = (struct sockaddr_un *)&address.storage;
	char text[ADDRESS_TEXT_BYTES];

	memset(&address.storage.ss_family + 1, 'x',
	       sizeof(address.storage) - sizeof(address.storage.ss_family));
	address_format(&address, text, sizeof(text));
	cr_assert_eq(strlen(text), strlen("unix:") + sizeof(un->sun_path));
}

Test(address, another_family_is_said_to_be_none)
{
	struct address address = { .storage.ss_family = AF_NETLINK, .bytes = 12 };
	char text[ADDRESS_TEXT_BYTES];

	address_format(&address, text, sizeof(text));
	cr_assert_str_eq(text, "(not an address)");
}

Test(address, text_is_cut_where_it_does_not_fit)
{
	struct address address = parsed("127.0.0.1:10809");
	char text[8];

	address_format(&address, text, sizeof(text));
	cr_assert_str_eq(text, "127.0.0");
	address_format_uri(&address, text, sizeof(text));
	cr_assert_str_eq(text, "nbd://1");
}

Test(address, uris)
{
	cr_assert_str_eq(uri("127.0.0.1:10809"), "nbd://127.0.0.1:10809");
	cr_assert_str_eq(uri("[::1]:10809"), "nbd://[::1]:10809");
	cr_assert_str_eq(uri("unix:/run/millrace.sock"), "nbd+unix:///?socket=/run/millrace.sock");
}

Test(address, a_uri_escapes_what_would_end_its_path)
{
	cr_assert_str_eq(uri("unix:/a b&c#d%e?f=\xc3\xa9"),
			 "nbd+unix:///?socket=/a%20b%26c%23d%25e%3Ff%3D%C3%A9");
}

Test(address, vsock)
{
	struct address address = parsed("vsock:any:10809");
	struct sockaddr_vm *vm = (struct sockaddr_vm *)&address.storage;

	cr_assert_eq(address.bytes, sizeof(*vm));
	cr_assert_eq(vm->svm_family, AF_VSOCK);
	cr_assert_eq(vm->svm_cid, VMADDR_CID_ANY);
	cr_assert_eq(vm->svm_port, 10809);
	address = parsed("vsock:local:0");
	cr_assert_eq(vm->svm_cid, VMADDR_CID_LOCAL);
	cr_assert_eq(vm->svm_port, VMADDR_PORT_ANY);
	cr_assert_str_eq(reformat("vsock:any:0"), "vsock:any:0");
	cr_assert_str_eq(reformat("vsock:local:7"), "vsock:1:7");
	cr_assert_str_eq(reformat("vsock:3:4294967294"), "vsock:3:4294967294");
	cr_assert_str_eq(uri("vsock:3:10809"), "nbd+vsock://3:10809");
	cr_assert_str_eq(uri("vsock:any:10809"), "nbd+vsock://1:10809");
}

Test(address, refuses_wrong_vsock_addresses)
{
	assert_refused("vsock:", "port");
	assert_refused("vsock:3", "port");
	assert_refused("vsock:3:", "port");
	assert_refused("vsock:3:x", "port");
	assert_refused("vsock:3:4294967295", "port"); /* VMADDR_PORT_ANY */
	assert_refused("vsock:3:10809:1", "port");
	assert_refused("vsock::1", "CID");
	assert_refused("vsock:4294967295:1", "CID"); /* VMADDR_CID_ANY */
	assert_refused("vsock:anyone:1", "CID");
	assert_refused("vsock:-1:1", "CID");
	assert_refused("vsock:10000000000:1", "CID");
	assert_refused("vsock:00000000000000000003:1", "CID");
}

static bool
collide(const char *left, const char *right)
{
	struct address first = parsed(left), second = parsed(right);
	bool result = address_collides(&first, &second);

	cr_assert_eq(address_collides(&second, &first), result, "%s, %s", left, right);
	return result;
}

Test(address, the_same_or_every_address_with_a_port_collide)
{
	cr_assert(collide("127.0.0.1:1", "127.0.0.1:1"));
	cr_assert(collide("0.0.0.0:1", "127.0.0.1:1"));
	cr_assert(collide("[::]:1", "[::1]:1"));
	cr_assert(collide("vsock:any:1", "vsock:local:1"));
	cr_assert(collide("unix:/a", "unix:/a"));

	cr_assert_not(collide("127.0.0.1:1", "127.0.0.2:1"));
	cr_assert_not(collide("0.0.0.0:1", "127.0.0.1:11"));
	cr_assert_not(collide("0.0.0.0:1", "[::]:1"));
	cr_assert_not(collide("[::1]:1", "[::2]:1"));
	cr_assert_not(collide("vsock:2:1", "vsock:local:1"));
	cr_assert_not(collide("unix:/a:1", "unix:/b:1"));
	cr_assert_not(collide("unix:/a:1", "127.0.0.1:1"));
}

Test(address, any_port_collides_with_none)
{
	cr_assert_not(collide("127.0.0.1:0", "127.0.0.1:0"));
	cr_assert_not(collide("0.0.0.0:0", "127.0.0.1:0"));
	cr_assert_not(collide("vsock:any:0", "vsock:any:0"));
	cr_assert(collide("unix:/a:0", "unix:/a:0"));
}

static bool
same(const char *left, const char *right)
{
	struct address first = parsed(left), second = parsed(right);

	return address_equal(&first, &second);
}

Test(address, two_are_equal_that_are_written_alike)
{
	cr_assert(same("127.0.0.1:0", "127.0.0.1:00"));
	cr_assert(same("[::1]:10809", "[0:0::1]:10809"));
	cr_assert(same("vsock:local:1", "vsock:1:1"));
	cr_assert(same("unix:/a", "unix:/a"));

	cr_assert_not(same("0.0.0.0:1", "127.0.0.1:1"));
	cr_assert_not(same("127.0.0.1:1", "127.0.0.1:2"));
	cr_assert_not(same("[::]:1", "0.0.0.0:1"));
	cr_assert_not(same("vsock:any:1", "vsock:local:1"));
	cr_assert_not(same("unix:/a", "unix:/a/"));
}
