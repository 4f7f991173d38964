/* Reading and finding pre-shared keys. */
#include "net/tls_psk.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is wrong with a line; NULL: nothing. */
static const char *parse_line(const char *line, size_t bytes, struct tls_psk *psk);
static bool parse_key(const char *hex, size_t digits, uint8_t *key);
static int add(struct tls_psk_table *table, const struct tls_psk *psk);

int
tls_psk_parse(struct tls_psk_table *table, const char *text, size_t bytes, char *why)
{
	const char *end = text + bytes;
	unsigned number = 0;
	int error = 0;

	*table = (struct tls_psk_table){ .count = 0 };
	while (text < end && error == 0) {
		const char *newline = memchr(text, '\n', (size_t)(end - text));
		size_t line_bytes = (size_t)((newline == NULL ? end : newline) - text);
		struct tls_psk psk = { .identity = NULL };
		const char *mistake;

		number++;
		if (line_bytes > 0 && text[line_bytes - 1] == '\r')
			line_bytes--;
		if (line_bytes > 0 && (line_bytes < 2 || memcmp(text, "# ", 2) != 0)) {
			mistake = parse_line(text, line_bytes, &psk);
			if (mistake == NULL && tls_psk_find(table, text, strlen(psk.identity)))
				mistake = "this identity has a key already";
			if (mistake != NULL) {
				snprintf(why, TLS_PSK_LINE_TEXT, "line %u: %s", number, mistake);
				error = -EINVAL;
			} else {
				error = add(table, &psk);
			}
			explicit_bzero(psk.key, sizeof(psk.key));
			if (error < 0)
				free(psk.identity);
		}
		text = newline == NULL ? end : newline + 1;
	}
	if (error == -ENOMEM)
		snprintf(why, TLS_PSK_LINE_TEXT, "no memory"); /* UNTESTED: no fault for malloc */
	if (error == 0 && table->count == 0) {
		snprintf(why, TLS_PSK_LINE_TEXT, "there is no key in it; psktool makes one");
		error = -EINVAL;
	}
	if (error < 0)
		tls_psk_clear(table);
	return error;
}

const struct tls_psk *
tls_psk_find(const struct tls_psk_table *table, const void *name, size_t bytes)
{
	for (size_t i = 0; i < table->count; i++) {
		const struct tls_psk *psk = &table->keys[i];

		if (strlen(psk->identity) == bytes && memcmp(psk->identity, name, bytes) == 0)
			return psk;
	}
	return NULL;
}

void
tls_psk_clear(struct tls_psk_table *table)
{
	for (size_t i = 0; i < table->count; i++)
		free(table->keys[i].identity);
	if (table->keys != NULL)
		explicit_bzero(table->keys, table->count * sizeof(table->keys[0]));
	free(table->keys);
	*table = (struct tls_psk_table){ .count = 0 };
}

static const char *
parse_line(const char *line, size_t bytes, struct tls_psk *psk)
{
	const char *colon = memchr(line, ':', bytes);
	size_t name_bytes, digits;

	if (colon == NULL || colon == line)
		return "expected IDENTITY:KEY";
	name_bytes = (size_t)(colon - line);
	digits = bytes - name_bytes - 1;
	if (line[0] == '#')
		return "an identity in hexadecimal (#...) is not supported";
	if (memchr(line, '\0', name_bytes) != NULL)
		return "a zero byte in the identity";
	if (digits < 2 * TLS_PSK_KEY_BYTES_MIN || digits > 2 * TLS_PSK_KEY_BYTES_MAX)
		return "the key must have 32 to 128 hexadecimal digits";
	if (digits % 2 != 0 || !parse_key(colon + 1, digits, psk->key))
		return "the key is not hexadecimal, or has an odd number of digits";
	psk->key_bytes = digits / 2;
	psk->identity = strndup(line, name_bytes);
	return psk->identity == NULL ? "no memory" : NULL; /* UNTESTED: no fault for malloc */
}

static int
hex_value(char digit)
{
	if (digit >= '0' && digit <= '9')
		return digit - '0';
	if (digit >= 'a' && digit <= 'f')
		return digit - 'a' + 10;
	if (digit >= 'A' && digit <= 'F')
		return digit - 'A' + 10;
	return -1;
}

static bool
parse_key(const char *hex, size_t digits, uint8_t *key)
{
	for (size_t i = 0; i < digits; i += 2) {
		int high = hex_value(hex[i]), low = hex_value(hex[i + 1]);

		if (high < 0 || low < 0)
			return false;
		key[i / 2] = (uint8_t)(high << 4 | low);
	}
	return true;
}

/* Not realloc, which would leave keys behind in memory that it frees. */
static int
add(struct tls_psk_table *table, const struct tls_psk *psk)
{
	struct tls_psk *keys = table->keys;

	/* Room doubles at each power of two. */
	if ((table->count & (table->count - 1)) == 0) {
		size_t room = table->count == 0 ? 1 : 2 * table->count;

		keys = calloc(room, sizeof(*keys));
		if (keys == NULL)
			return -ENOMEM; /* UNTESTED: no fault for malloc */
		if (table->keys != NULL) {
			memcpy(keys, table->keys, table->count * sizeof(*keys));
			explicit_bzero(table->keys, table->count * sizeof(*keys));
			free(table->keys);
		}
		table->keys = keys;
	}
	keys[table->count++] = *psk;
	return 0;
}
