/* daemon/config_value.h */
#include "daemon/config_value.h"

#include <criterion/criterion.h>

Test(config_value, utf8_sequences_are_measured)
{
	cr_assert_eq(config_value_utf8_bytes("ab"), 1);
	cr_assert_eq(config_value_utf8_bytes("\xc3\xbc"
					     "b"),
		     2);
	cr_assert_eq(config_value_utf8_bytes("\xf0\x90\x80\x80"), 4);
	cr_assert_eq(config_value_utf8_bytes("\xc3"
					     "b"),
		     0);
	cr_assert_eq(config_value_utf8_bytes("\xc3"), 0);
}

Test(config_value, utf8_is_checked_strictly)
{
	static const char *const good[] = { "",
					    "a",
					    "\xc2\x80",
					    "\xe0\xa0\x80",
					    "\xed\x9f\xbf",
					    "\xee\x80\x80",
					    "\xf0\x90\x80\x80",
					    "\xf4\x8f\xbf\xbf" };
	static const char *const bad[] = { "\x80",
					   "\xc2",
					   "\xc1\xbf",
					   "\xe0\x9f\xbf",
					   "\xed\xa0\x80",
					   "\xf0\x8f\xbf\xbf",
					   "\xf4\x90\x80\x80",
					   "\xf8\x88\x80\x80\x80",
					   "\xe2\x82",
					   "\xe2\x28\xa1",
					   "a\xff" };

	for (size_t i = 0; i < ARRAY_COUNT(good); i++)
		cr_assert(config_value_utf8(good[i]), "good %zu", i);
	for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
		cr_assert_not(config_value_utf8(bad[i]), "bad %zu", i);
}
