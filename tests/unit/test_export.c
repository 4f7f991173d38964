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
