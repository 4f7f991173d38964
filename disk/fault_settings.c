/* A table of keys, and for each type of value a parser that takes all of it or nothing. */
#include "disk/fault_settings.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DELAY_MS_MAX   60000u
#define WORD_BYTES_MAX 64

struct key {
	const char *name;
	bool (*parse)(const char *text, void *field);
	size_t offset;
	const char *expected;
};

static bool
parse_number(const char *text, uint64_t max, uint64_t *number)
{
	uint64_t value = 0;

	if (*text == '\0')
		return false;
	for (; *text >= '0' && *text <= '9'; text++) {
		uint64_t digit = (uint64_t)(*text - '0');

		if (value > (max - digit) / 10)
			return false;
		value = value * 10 + digit;
	}
	*number = value;
	return *text == '\0';
}

static bool
parse_seed(const char *text, void *field)
{
	return parse_number(text, UINT64_MAX, field);
}

static bool
parse_delay_ms(const char *text, void *field)
{
	uint64_t value;

	if (!parse_number(text, DELAY_MS_MAX, &value))
		return false;
	*(unsigned *)field = (unsigned)value;
	return true;
}

/* Digits, perhaps with a point among them: no sign, exponent or name of a number, all of which strtod takes. */
static bool
parse_probability(const char *text, void *field)
{
	char *end;
	double value;

	if (*text == '\0' || text[strspn(text, "0123456789.")] != '\0')
		return false;
	value = strtod(text, &end);
	if (*end != '\0' || end == text || value > 1.0)
		return false;
	*(uint64_t *)field = (uint64_t)(value * 4294967296.0);
	return true;
}

static bool
parse_bytes(const char *text, uint64_t *bytes)
{
	static const char units[] = "KMGT";
	size_t count = strlen(text);
	const char *unit = count > 0 ? strchr(units, text[count - 1]) : NULL;
	char digits[WORD_BYTES_MAX];
	uint64_t value;
	unsigned shift = unit != NULL ? 10 * (unsigned)(unit - units + 1) : 0;

	snprintf(digits, sizeof(digits), "%.*s", (int)(count - (unit != NULL ? 1 : 0)), text);
	if (!parse_number(digits, ((uint64_t)1 << 62) >> shift, &value))
		return false;
	*bytes = value << shift;
	return true;
}

static bool
parse_range(const char *text, void *field)
{
	struct fault_settings *settings = field;
	char start[WORD_BYTES_MAX];
	const char *dash = strchr(text, '-');

	if (dash == NULL)
		return false;
	snprintf(start, sizeof(start), "%.*s", (int)(dash - text), text);
	return parse_bytes(start, &settings->range_start) &&
	       parse_bytes(dash + 1, &settings->range_end) &&
	       settings->range_start < settings->range_end;
}

static bool
parse_error(const char *text, void *field)
{
	static const struct {
		const char *name;
		int number;
	} errors[] = {
		{ "EIO", EIO },	    { "ENOSPC", ENOSPC }, { "EDQUOT", EDQUOT },
		{ "EPERM", EPERM }, { "ENOMEM", ENOMEM }, { "ETIMEDOUT", ETIMEDOUT },
	};

	for (size_t i = 0; i < ARRAY_COUNT(errors); i++) {
		if (strcmp(text, errors[i].name) == 0) {
			*(int *)field = -errors[i].number;
			return true;
		}
	}
	return false;
}

#define FIELD(member) offsetof(struct fault_settings, member)
#define PROBABILITY(name, member)                                               \
	{                                                                       \
		name, parse_probability, FIELD(member), "a probability, 0 to 1" \
	}

static const struct key keys[] = {
	{ "seed", parse_seed, FIELD(seed), "a number" },
	{ "range", parse_range, 0, "START-END in bytes, such as 1M-2M" },
	{ "error", parse_error, FIELD(error), "EIO, ENOSPC, EDQUOT, EPERM, ENOMEM or ETIMEDOUT" },
	PROBABILITY("read-error", fails[VOLUME_COMMAND_READ]),
	PROBABILITY("write-error", fails[VOLUME_COMMAND_WRITE]),
	PROBABILITY("flush-error", fails[VOLUME_COMMAND_FLUSH]),
	PROBABILITY("trim-error", fails[VOLUME_COMMAND_TRIM]),
	PROBABILITY("zeroes-error", fails[VOLUME_COMMAND_WRITE_ZEROES]),
	PROBABILITY("query-error", fails[VOLUME_COMMAND_EXTENTS]),
	PROBABILITY("torn-write", torn),
	PROBABILITY("short-io", split),
	PROBABILITY("delay", delays),
	{ "delay-ms", parse_delay_ms, FIELD(delay_ms), "milliseconds, 0 to 60000" },
};

static const struct key *
find_key(const char *name)
{
	for (size_t i = 0; i < ARRAY_COUNT(keys); i++) {
		if (strcmp(keys[i].name, name) == 0)
			return &keys[i];
	}
	return NULL;
}

/* Put one WORD, KEY=VALUE, into SETTINGS.  SEEN: a bit for each key that was.  Returns 0, or -EINVAL after saying why. */
static int
take_word(char *word, struct fault_settings *settings, unsigned *seen, char *mistake,
	  size_t mistake_bytes)
{
	char *equals = strchr(word, '=');
	const struct key *key;

	if (equals == NULL) {
		snprintf(mistake, mistake_bytes, "fault: \"%s\" is not KEY=VALUE", word);
		return -EINVAL;
	}
	*equals = '\0';
	key = find_key(word);
	if (key == NULL) {
		snprintf(mistake, mistake_bytes,
			 "fault: unknown key \"%s\"; there are seed, range, error, read-error, "
			 "write-error, flush-error, trim-error, zeroes-error, query-error, "
			 "torn-write, short-io, delay and delay-ms",
			 word);
		return -EINVAL;
	}
	if ((*seen & 1u << (key - keys)) != 0) {
		snprintf(mistake, mistake_bytes, "fault: %s is there twice", key->name);
		return -EINVAL;
	}
	*seen |= 1u << (key - keys);
	if (strlen(equals + 1) >= WORD_BYTES_MAX ||
	    !key->parse(equals + 1, (char *)settings + key->offset)) {
		snprintf(mistake, mistake_bytes, "fault: %s=%s: expected %s", key->name, equals + 1,
			 key->expected);
		return -EINVAL;
	}
	return 0;
}

int
fault_settings_parse(const char *text, struct fault_settings *settings, char *mistake,
		     size_t mistake_bytes)
{
	struct fault_settings parsed = {
		.seed = 1,
		.range_end = UINT64_MAX,
		.error = -EIO,
		.delays = (uint64_t)1 << 32,
	};
	char *copy = strdup(text), *rest = NULL;
	unsigned seen = 0;
	int error = 0;

	if (copy == NULL) {
		snprintf(mistake, mistake_bytes, "no memory"); /* UNTESTED: no fault for malloc */
		return -EINVAL;
	}
	for (char *word = strtok_r(copy, " \t", &rest); word != NULL && error == 0;
	     word = strtok_r(NULL, " \t", &rest))
		error = take_word(word, &parsed, &seen, mistake, mistake_bytes);
	if (error == 0 && seen == 0) {
		snprintf(mistake, mistake_bytes, "fault: says nothing; such as read-error=0.01");
		error = -EINVAL;
	}
	free(copy);
	if (error == 0)
		*settings = parsed;
	return error;
}
