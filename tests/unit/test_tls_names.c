/* Names that TLS has proved. */
#include <criterion/criterion.h>

#include "net/tls_names.h"

Test(tls_names, lists_meet_where_a_name_is_in_both)
{
	struct tls_names some = { 0 }, others = { 0 };

	cr_assert_not(tls_names_meet(&some, &others));
	cr_assert_eq(tls_names_add(&some, "alice", 5), 0);
	cr_assert_eq(tls_names_add(&some, "bobby", 3), 0);
	cr_assert_not(tls_names_meet(&some, &others));
	cr_assert_eq(tls_names_add(&others, "Alice", 5), 0);
	cr_assert_eq(tls_names_add(&others, "ali", 3), 0);
	cr_assert_not(tls_names_meet(&some, &others));
	cr_assert_eq(tls_names_add(&others, "bob", 3), 0);
	cr_assert(tls_names_meet(&some, &others));
	cr_assert(tls_names_meet(&others, &some));
	tls_names_clear(&some);
	tls_names_clear(&others);
	cr_assert_eq(some.count, 0);
}

Test(tls_names, one_that_would_compare_as_a_shorter_one_is_left_out)
{
	struct tls_names names = { 0 };

	cr_assert_eq(tls_names_add(&names, "alice\0.example", 14), 0);
	cr_assert_eq(tls_names_add(&names, "", 0), 0);
	cr_assert_eq(names.count, 0);
	tls_names_clear(&names);
}
