/* Values of settings from text.  strtoull(3) is not used: it takes signs, spaces and what wraps
 * around. */
#include "daemon/config_value.h"

#include <stdio.h>
#include <string.h>

static bool take_digits(const char **text, uint64_t *number);
static unsigned utf8_length(unsigned char first, uint32_t *bits);

bool
config_value_number(const char *text, unsigned min, unsigned max, unsigned *number)
{
	uint64_t parsed;

	if (!take_digits(&text, &parsed) || *text != '\0' || parsed < min || parsed > max)
		return false;
	*number = (unsigned)parsed;
	return true;
}

bool
config_value_bytes(const char *text, uint64_t min, uint64_t max, uint64_t *bytes)
{
	static const char units[] = "KMGT";
	uint64_t parsed;
	const char *unit;

	if (!take_digits(&text, &parsed))
		return false;
	unit = *text ? strchr(units, *text) : NULL;
	if (unit) {
		unsigned shift = 10 * (unsigned)(unit - units + 1);

		if (parsed > max >> shift)
			return false;
		parsed <<= shift;
		text++;
	}
	if (*text != '\0' || parsed < min || parsed > max)
		return false;
	*bytes = parsed;
	return true;
}

bool
config_value_bool(const char *text, bool *value)
{
	static const char *const words[] = { "no", "yes", "false", "true", "off", "on", "0", "1" };

	for (size_t i = 0; i < ARRAY_COUNT(words); i++) {
		if (strcmp(text, words[i]) == 0) {
			*value = i % 2 == 1;
			return true;
		}
	}
	return false;
}

bool
config_value_word(const char *text, const char *const *words, unsigned *index)
{
	for (unsigned i = 0; words[i]; i++) {
		if (strcmp(text, words[i]) == 0) {
			*index = i;
			return true;
		}
	}
	return false;
}

void
config_value_join(char *text, size_t text_bytes, const char *before, const char *item,
		  const char *after)
{
	size_t used = strlen(text);

	snprintf(text + used, text_bytes - used, "%s%s%s", before, item, after);
}

unsigned
config_value_utf8_bytes(const char *text)
{
	static const uint32_t smallest[] = { 0, 0, 0x80, 0x800, 0x10000 };
	uint32_t point;
	unsigned length = utf8_length((unsigned char)*text, &point);

	for (unsigned i = 1; i < length; i++) {
		if (((unsigned char)text[i] & 0xc0) != 0x80)
			return 0;
		point = point << 6 | ((unsigned char)text[i] & 0x3f);
	}
	if (point < smallest[length] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
		return 0;
	return length;
}

bool
config_value_utf8(const char *text)
{
	while (*text) {
		unsigned length = config_value_utf8_bytes(text);

		if (length == 0)
			return false;
		text += length;
	}
	return true;
}

/* Read the decimal number below 2^60 at *text, and move *text past it.  Returns false if there is
 * none. */
static bool
take_digits(const char **text, uint64_t *number)
{
	const char *digit = *text;
	uint64_t parsed = 0;

	for (; *digit >= '0' && *digit <= '9'; digit++) {
		if (parsed >= (uint64_t)1 << 56)
			return false;
		parsed = parsed * 10 + (uint64_t)(*digit - '0');
	}
	if (digit == *text)
		return false;
	*text = digit;
	*number = parsed;
	return true;
}

/* Bytes of the sequence that FIRST begins, 0 if none does; *bits: its part of the code point. */
static unsigned
utf8_length(unsigned char first, uint32_t *bits)
{
	if (first < 0x80) {
		*bits = first;
		return 1;
	}
	if ((first & 0xe0) == 0xc0) {
		*bits = first & 0x1f;
		return 2;
	}
	if ((first & 0xf0) == 0xe0) {
		*bits = first & 0x0f;
		return 3;
	}
	*bits = first & 0x07;
	return (first & 0xf8) == 0xf0 ? 4 : 0;
}
