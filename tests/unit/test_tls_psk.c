/* Files of pre-shared keys. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/tls_psk.h"

#define KEY "000102030405060708090a0b0c0d0e0f"

static int
parse(const char *text, struct tls_psk_table *table, char *why)
{
	why[0] = '\0';
	return tls_psk_parse(table, text, strlen(text), why);
}

Test(tls_psk, lines_of_psktool_are_read)
{
	struct tls_psk_table table;
	char why[TLS_PSK_LINE_TEXT];
	const struct tls_psk *psk;

	cr_assert_eq(parse("# made by hand\n\nalice:" KEY "\r\nbob smith:" KEY "FF", &table, why),
		     0, "%s", why);
	cr_assert_eq(table.count, 2);
	psk = tls_psk_find(&table, "alice", 5);
	cr_assert_not_null(psk);
	cr_assert_eq(psk->key_bytes, 16);
	for (unsigned i = 0; i < 16; i++)
		cr_assert_eq(psk->key[i], i);
	psk = tls_psk_find(&table, "bob smith", 9);
	cr_assert_eq(psk->key_bytes, 17);
	cr_assert_eq(psk->key[16], 0xff);
	cr_assert_null(tls_psk_find(&table, "alic", 4));
	cr_assert_null(tls_psk_find(&table, "alicex", 6));
	cr_assert_null(tls_psk_find(&table, "", 0));
	tls_psk_clear(&table);
	cr_assert_eq(table.count, 0);
}

Test(tls_psk, many_keys_are_kept)
{
	char *text = malloc(100 * 64), *at = text;
	struct tls_psk_table table;
	char why[TLS_PSK_LINE_TEXT], name[16];

	for (int i = 0; i < 100; i++)
		at += sprintf(at, "user%d:" KEY "%02x\n", i, (unsigned)i);
	cr_assert_eq(parse(text, &table, why), 0, "%s", why);
	for (int i = 0; i < 100; i++) {
		int bytes = snprintf(name, sizeof(name), "user%d", i);
		const struct tls_psk *psk = tls_psk_find(&table, name, (size_t)bytes);

		cr_assert_not_null(psk);
		cr_assert_eq(psk->key[16], i);
	}
	tls_psk_clear(&table);
	free(text);
}

Test(tls_psk, mistakes_are_told_with_their_line_and_without_the_key)
{
	static const struct {
		const char *text, *why;
	} mistakes[] = {
		{ "", "there is no key in it; psktool makes one" },
		{ "# nothing\n\n", "there is no key in it; psktool makes one" },
		{ "alice:" KEY "\nbob\n", "line 2: expected IDENTITY:KEY" },
		{ ":" KEY "\n", "line 1: expected IDENTITY:KEY" },
		{ "#616c:" KEY "\n", "line 1: an identity in hexadecimal (#...) is not supported" },
		{ "a:00\n", "line 1: the key must have 32 to 128 hexadecimal digits" },
		{ "a:" KEY KEY KEY KEY "00\n",
		  "line 1: the key must have 32 to 128 hexadecimal digits" },
		{ "a:" KEY "0\n",
		  "line 1: the key is not hexadecimal, or has an odd number of digits" },
		{ "a:" KEY "0g\n",
		  "line 1: the key is not hexadecimal, or has an odd number of digits" },
		{ "a:" KEY "\na:" KEY "\n", "line 2: this identity has a key already" },
	};

	for (size_t i = 0; i < ARRAY_COUNT(mistakes); i++) {
		struct tls_psk_table table;
		char why[TLS_PSK_LINE_TEXT];

		cr_assert_eq(parse(mistakes[i].text, &table, why), -EINVAL);
		cr_assert_str_eq(why, mistakes[i].why);
		cr_assert_eq(table.count, 0);
	}
}

Test(tls_psk, a_zero_byte_is_no_part_of_an_identity)
{
	static const char text[] = "al\0ice:" KEY "\n";
	struct tls_psk_table table;
	char why[TLS_PSK_LINE_TEXT];

	cr_assert_eq(tls_psk_parse(&table, text, sizeof(text) - 1, why), -EINVAL);
}
