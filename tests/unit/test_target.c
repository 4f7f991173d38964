/* NBD URIs: what they mean, and what is said of those that mean nothing. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bench/load/target.h"

static struct target target;
static char *errors;
static size_t error_bytes;
static FILE *errors_file;

static void
set_up(void)
{
	errors_file = open_memstream(&errors, &error_bytes);
}

static void
tear_down(void)
{
	fclose(errors_file);
	free(errors);
}

TestSuite(target, .init = set_up, .fini = tear_down);

static void
check_target(const char *uri, const char *address, const char *export_name)
{
	char text[ADDRESS_TEXT_BYTES];

	cr_assert_eq(target_parse(uri, &target, errors_file), 0, "%s", uri);
	address_format(&target.addresses[0], text, sizeof(text));
	cr_assert_str_eq(text, address);
	cr_assert_str_eq(target.export_name, export_name);
	target_fini(&target);
}

Test(target, a_uri_names_host_port_and_export)
{
	check_target("nbd://127.0.0.1:1234/disk", "127.0.0.1:1234", "disk");
}

Test(target, the_port_is_10809_if_none_is_given)
{
	check_target("nbd://127.0.0.1/disk", "127.0.0.1:10809", "disk");
}

Test(target, the_kind_is_in_either_case)
{
	check_target("NBD://127.0.0.1/disk", "127.0.0.1:10809", "disk");
	check_target("nbd+UNIX:///disk?socket=/run/s", "unix:/run/s", "disk");
}

Test(target, no_path_is_the_default_export)
{
	check_target("nbd://127.0.0.1", "127.0.0.1:10809", "");
	check_target("nbd://127.0.0.1/", "127.0.0.1:10809", "");
}

Test(target, ipv6_is_in_brackets)
{
	check_target("nbd://[::1]:99/a", "[::1]:99", "a");
}

Test(target, percent_encoding_is_decoded_and_slashes_belong_to_the_name)
{
	check_target("nbd://127.0.0.1/a%20b/c%2Fd", "127.0.0.1:10809", "a b/c/d");
}

Test(target, slashes_at_the_ends_and_in_a_row_belong_to_the_name)
{
	static const struct {
		const char *path, *name;
	} paths[] = {
		{ "//abs", "/abs" }, { "/a/", "a/" },	    { "/a/?tls-hostname=x", "a/" },
		{ "/a//b", "a//b" }, { "//", "/" },	    { "///", "//" },
		{ "/?x=1", "" },     { "//%2F%20", "// " },
	};
	char uri[80];

	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		snprintf(uri, sizeof(uri), "nbd://127.0.0.1%s", paths[i].path);
		check_target(uri, "127.0.0.1:10809", paths[i].name);
	}
	check_target("nbd+unix:////abs?socket=/s", "unix:/s", "/abs");
	check_target("nbd+unix:///a/?socket=/s", "unix:/s", "a/");
	check_target("nbd+unix:///a//b?socket=/s", "unix:/s", "a//b");
	check_target("nbd+unix:////?socket=/s", "unix:/s", "/");
}

Test(target, a_unix_socket_is_in_the_query)
{
	check_target("nbd+unix:///disk?socket=/run/my%20nbd.sock", "unix:/run/my nbd.sock", "disk");
	check_target("nbd+unix:///?socket=/run/s", "unix:/run/s", "");
	check_target("nbd+unix:///a+b?socket=/run/c+d", "unix:/run/c+d", "a+b");
}

Test(target, a_vsock_has_a_cid_and_is_the_hosts_if_none_is_given)
{
	check_target("nbd+vsock://3:1234/disk", "vsock:3:1234", "disk");
	check_target("nbd+vsock://1/disk", "vsock:1:10809", "disk");
	check_target("nbd+vsock:///disk", "vsock:2:10809", "disk");
	check_target("nbd+vsock://3:4000000000/", "vsock:3:4000000000", "");
}

Test(target, with_tls_there_are_credentials)
{
	static const char *const uris[] = { "nbds://127.0.0.1/a?tls-verify-peer=false",
					    "nbds+unix:///a?socket=/run/s&tls-verify-peer=no",
					    "nbds+vsock://3/a?tls-verify-peer=0" };

	for (unsigned i = 0; i < sizeof(uris) / sizeof(uris[0]); i++) {
		cr_assert_eq(target_parse(uris[i], &target, errors_file), 0);
		cr_assert_not_null(target.credentials);
		cr_assert_not(target.credentials->client.verify);
		cr_assert_str_eq(target.export_name, "a");
		/* A Unix socket has no name, nor has a vsock. */
		cr_assert_eq(target.credentials->client.host != NULL, i == 0);
		target_fini(&target);
	}
	cr_assert_eq(target_parse("nbd://127.0.0.1/a", &target, errors_file), 0);
	cr_assert_null(target.credentials);
	target_fini(&target);
}

Test(target, the_name_to_verify_may_be_another_than_the_hosts)
{
	cr_assert_eq(target_parse("nbds://127.0.0.1/?tls-verify-peer=0&tls-hostname=a.example",
				  &target, errors_file),
		     0);
	cr_assert_str_eq(target.credentials->client.host, "a.example");
	target_fini(&target);
}

static void
check_refused(const char *uri, const char *why)
{
	cr_assert_eq(target_parse(uri, &target, errors_file), -EINVAL, "%s", uri);
	fflush(errors_file);
	cr_assert_not_null(strstr(errors, uri), "%s", errors);
	cr_assert_not_null(strstr(errors, why), "%s", errors);
}

Test(target, a_nul_is_refused)
{
	check_refused("nbd://127.0.0.1/disk%00old", "NUL");
}

Test(target, other_kinds_are_refused)
{
	check_refused("http://127.0.0.1/", "is not of a kind that is known");
}

Test(target, no_kind_is_refused)
{
	check_refused("127.0.0.1/disk", "says no kind");
}

Test(target, no_host_is_refused)
{
	check_refused("nbd:///disk", "says no host");
}

Test(target, what_is_no_cid_is_refused)
{
	check_refused("nbd+vsock://storage.example/disk", "a CID below 4294967295");
}

Test(target, no_socket_is_refused)
{
	check_refused("nbd+unix:///disk", "says no socket");
}

Test(target, what_is_no_uri_is_refused)
{
	check_refused("nbd://[::1/x", "is not a URI");
}

Test(target, mistakes_of_tls_are_refused)
{
	check_refused("nbds://127.0.0.1/?tls-verify-peer=maybe", "neither true nor false");
	check_refused("nbds://127.0.0.1/?tls-psk-file=a&tls-certificates=b", "say one of them");
}
