/* Exports by name. */
#include <criterion/criterion.h>

#include "net/export.h"

static struct export exports[] = {
	{ .name = "disk" },
	{ .name = "" },
	{ .name = "disk2", .read_only = true },
};
static const struct export_table table = { .exports = exports, .count = ARRAY_COUNT(exports) };

Test(export, name_must_match_whole)
{
	cr_assert_eq(export_find(&table, "disk", 4), &exports[0]);
	cr_assert_eq(export_find(&table, "disk2", 5), &exports[2]);
	cr_assert_null(export_find(&table, "dis", 3));
	cr_assert_null(export_find(&table, "disk3", 5));
	cr_assert_null(export_find(&table, "disk\0", 5));
}

Test(export, empty_name_is_the_default_export)
{
	struct export_table without = { .exports = exports, .count = 1 };

	cr_assert_eq(export_find(&table, "", 0), &exports[1]);
	cr_assert_null(export_find(&without, "", 0));
}

static struct access_range
range_of(const char *text)
{
	struct access_range range;
	const char *why;

	cr_assert_eq(access_range_parse(text, &range, &why), 0, "%s", text);
	return range;
}

/* The peer at an address of 10.0.0.0/8. */
static struct access_peer
peer_10(uint8_t last)
{
	return (struct access_peer){ .family = AF_INET, .bytes = { 10, 0, 0, last } };
}

Test(export, peer_that_is_not_allowed_sees_none)
{
	struct access_range one = range_of("10.0.0.1");
	struct access_rules rules = { .allow = { .ranges = &one, .count = 1 } };
	struct export export = { .name = "disk", .access = &rules };
	struct access_peer allowed = peer_10(1), denied = peer_10(2);

	cr_assert_eq(export_view(&export, &allowed), &export);
	cr_assert_null(export_view(&export, &denied));
	export.access = NULL;
	cr_assert_eq(export_view(&export, &denied), &export);
}

Test(export, peer_that_may_only_read_gets_that_view)
{
	struct access_range one = range_of("10.0.0.1");
	struct access_list readers = { .ranges = &one, .count = 1 };
	struct export view = { .name = "disk", .read_only = true };
	struct export export = { .name = "disk",
				 .read_only_for = &readers,
				 .read_only_view = &view };
	struct access_peer reader = peer_10(1), writer = peer_10(2);

	cr_assert_eq(export_view(&export, &reader), &view);
	cr_assert_eq(export_view(&export, &writer), &export);
}

Test(export, names_are_asked_for_inside_tls_only)
{
	struct tls_names alice = { 0 }, nobody = { 0 };
	struct export open = { .name = "a", .allow_names = &nobody };
	struct export tls_only = { .name = "b", .tls_only = true };
	struct export named = { .name = "c", .allow_names = &alice };

	cr_assert_eq(tls_names_add(&alice, "alice", 5), 0);
	cr_assert_not(export_needs_tls(&open));
	cr_assert(export_needs_tls(&tls_only));
	cr_assert(export_needs_tls(&named));
	cr_assert(export_allows_names(&open, &nobody));
	cr_assert(export_allows_names(&tls_only, &nobody));
	cr_assert_not(export_allows_names(&named, &nobody));
	cr_assert(export_allows_names(&named, &alice));
	tls_names_clear(&alice);
}
