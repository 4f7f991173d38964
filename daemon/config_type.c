/* Setting and describing values, one pair of functions for each type. */
#include "daemon/config_type.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/config.h"
#include "daemon/config_apply.h"
#include "daemon/config_value.h"
#include "net/access.h"

#define WORDS_TEXT_BYTES 256
#define CORES_TEXT_BYTES (CPU_LIST_MAX * 6 + 1) /* the longest list: each core takes "65535," */

static void format_bytes(uint64_t bytes, char *text, size_t text_bytes);

static void *
field(const struct config_key *key, const struct config_target *target)
{
	return (char *)target->object + key->offset;
}

static const void *
const_field(const struct config_key *key, const void *object)
{
	return (const char *)object + key->offset;
}

/* End the line that VALUE was written to. */
static void
write_note(const struct config_key *key, bool is_zero, FILE *out)
{
	const char *note = is_zero && key->note_of_zero ? key->note_of_zero : key->note;

	fprintf(out, "%s%s\n", note ? " " : "", note ? note : "");
}

/* ---- numbers */

static int
set_number(const struct config_key *key, const struct config_target *target, const char *text)
{
	if (config_value_number(text, (unsigned)key->min, (unsigned)key->max, field(key, target)))
		return 0;
	return config_mistake(target->errors, target->where,
			      "expected a number from %" PRIu64 " to %" PRIu64, key->min, key->max);
}

static void
describe_number(const struct config_key *key, const void *object, const char *label, FILE *out)
{
	const unsigned *number = const_field(key, object);

	fprintf(out, "%s%u", label, *number);
	write_note(key, *number == 0, out);
}

const struct config_type config_type_number = { false, set_number, describe_number };

static void
describe_own_number(const struct config_key *key, const void *object, const char *label, FILE *out)
{
	const unsigned *number = const_field(key, object);

	if (*number != UINT_MAX)
		describe_number(key, object, label, out);
}

const struct config_type config_type_own_number = { false, set_number, describe_own_number };

/* ---- bytes */

static int
set_bytes(const struct config_key *key, const struct config_target *target, const char *text)
{
	char min[32], max[32];

	if (config_value_bytes(text, key->min, key->max, field(key, target)))
		return 0;
	format_bytes(key->min, min, sizeof(min));
	format_bytes(key->max, max, sizeof(max));
	return config_mistake(target->errors, target->where,
			      "expected bytes from %s to %s; K, M, G and T are powers of 1024", min,
			      max);
}

static void
describe_bytes(const struct config_key *key, const void *object, const char *label, FILE *out)
{
	const uint64_t *bytes = const_field(key, object);
	char text[32];

	if (*bytes == 0 && key->min > 0)
		return;
	format_bytes(*bytes, text, sizeof(text));
	fprintf(out, "%s%s", label, text);
	write_note(key, *bytes == 0, out);
}

/* As the configuration takes it: in the largest unit that leaves a whole number. */
static void
format_bytes(uint64_t bytes, char *text, size_t text_bytes)
{
	static const char units[] = { 'K', 'M', 'G', 'T' };
	size_t unit = 0;

	if (bytes == 0 || bytes % 1024) {
		snprintf(text, text_bytes, "%" PRIu64, bytes);
		return;
	}
	for (bytes /= 1024; bytes % 1024 == 0 && unit + 1 < sizeof(units); unit++)
		bytes /= 1024;
	snprintf(text, text_bytes, "%" PRIu64 "%c", bytes, units[unit]);
}

const struct config_type config_type_bytes = { false, set_bytes, describe_bytes };

/* ---- yes or no */

static int
set_bool(const struct config_key *key, const struct config_target *target, const char *text)
{
	if (config_value_bool(text, field(key, target)))
		return 0;
	return config_mistake(target->errors, target->where,
			      "expected yes or no (or true, false, on, off, 1, 0)");
}

static void
describe_bool(const struct config_key *key, const void *object, const char *label, FILE *out)
{
	const bool *value = const_field(key, object);

	fprintf(out, "%s%s\n", label, *value ? "yes" : "no");
}

const struct config_type config_type_bool = { false, set_bool, describe_bool };

/* ---- one of some words */

static int
set_word(const struct config_key *key, const struct config_target *target, const char *text)
{
	char allowed[WORDS_TEXT_BYTES] = "";

	if (config_value_word(text, key->words, field(key, target)))
		return 0;
	for (unsigned i = 0; key->words[i]; i++)
		config_value_join(allowed, sizeof(allowed),
				  i == 0	      ? ""
				  : key->words[i + 1] ? ", "
						      : " or ",
				  key->words[i], "");
	return config_mistake(target->errors, target->where, "expected %s", allowed);
}

static void
describe_word(const struct config_key *key, const void *object, const char *label, FILE *out)
{
	const unsigned *word = const_field(key, object);

	fprintf(out, "%s%s\n", label, key->words[*word]);
}

const struct config_type config_type_word = { false, set_word, describe_word };

/* ---- text */

static int
set_string(const struct config_key *key, const struct config_target *target, const char *text)
{
	char **string = field(key, target);
	char *copy;

	if (text[0] == '\0' && key->min > 0)
		return config_mistake(target->errors, target->where,
				      "expected something; take the line out for none");
	copy = strdup(text);
	if (!copy)
		return config_mistake(target->errors, target->where,
				      "no memory"); /* UNTESTED: no fault for malloc */
	free(*string);
	*string = copy;
	return 0;
}

static void
describe_string(const struct config_key *key, const void *object, const char *label, FILE *out)
{
	char *const *string = const_field(key, object);

	if (*string)
		fprintf(out, "%s%s\n", label, *string);
}

const struct config_type config_type_string = { false, set_string, describe_string };

/* ---- cores */

static int
set_cores(const struct config_key *key, const struct config_target *target, const char *text)
{
	(void)key;
	return config_apply_cores(target->config, text, target->where, target->errors);
}

static void
describe_cores(const struct config_key *key, const void *object, const char *label, FILE *out)
{
	const struct config *config = object;
	char text[CORES_TEXT_BYTES];

	(void)key;
	cpu_list_format(&config->cores, text, sizeof(text));
	fprintf(out, "%s%s%s\n", label, text, config->cores_auto ? " (auto)" : "");
}

const struct config_type config_type_cores = { false, set_cores, describe_cores };

/* ---- listeners */

static int
add_listen(const struct config_key *key, const struct config_target *target, const char *text)
{
	(void)key;
	if (target->config->listen_replaced)
		return 0;
	return config_apply_listen(target->config, text, target->where, target->errors);
}

static void
describe_listen(const struct config_key *key, const void *object, const char *label, FILE *out)
{
	const struct config *config = object;

	(void)key;
	for (size_t i = 0; i < config->listen_count; i++) {
		char text[ADDRESS_TEXT_BYTES];

		address_format(&config->listen[i], text, sizeof(text));
		fprintf(out, "%s%s\n", label, text);
	}
}

const struct config_type config_type_listen = { true, add_listen, describe_listen };

/* ---- address ranges */

/* Add the ranges of TEXT, separated by commas or spaces, to LIST.  As set of a config_type, but on failure LIST may have got
 * those before the mistake. */
static int
parse_ranges(const char *text, const struct config_target *target, struct access_list *list)
{
	static const char separators[] = ", \t";
	size_t bytes;

	for (text += strspn(text, separators); *text != '\0';
	     text += bytes + strspn(text + bytes, separators)) {
		char one[ACCESS_RANGE_TEXT_BYTES];
		struct access_range range;
		const char *why;

		bytes = strcspn(text, separators);
		snprintf(one, sizeof(one), "%.*s", (int)bytes, text);
		if (access_range_parse(one, &range, &why))
			return config_mistake(target->errors, target->where, "%s: %s", one, why);
		if (access_list_add(list, &range, 1))
			return config_mistake(target->errors, target->where,
					      "no memory"); /* UNTESTED: no fault for malloc */
	}
	if (list->count > 0)
		return 0;
	return config_mistake(
		target->errors, target->where,
		"no address range; expected one or more, such as 10.0.0.0/8, ::1, unix, or all");
}

static int
add_ranges(const struct config_key *key, const struct config_target *target, const char *text)
{
	struct access_list added = { 0 };
	int error = parse_ranges(text, target, &added);

	if (!error && access_list_add(field(key, target), added.ranges, added.count))
		error = config_mistake(target->errors, target->where,
				       "no memory"); /* UNTESTED: no fault for malloc */
	access_list_clear(&added);
	return error;
}

static void
describe_ranges(const struct config_key *key, const void *object, const char *label, FILE *out)
{
	const struct access_list *list = const_field(key, object);

	for (size_t i = 0; i < list->count; i++) {
		char text[ACCESS_RANGE_TEXT_BYTES];

		access_range_format(&list->ranges[i], text);
		fprintf(out, "%s%s", i == 0 ? label : ", ", text);
	}
	if (list->count > 0)
		fputc('\n', out);
}

const struct config_type config_type_ranges = { true, add_ranges, describe_ranges };

/* ---- names */

static int
add_names(const struct config_key *key, const struct config_target *target, const char *text)
{
	static const char separators[] = ", \t";
	struct tls_names *names = field(key, target);
	size_t before = names->count, bytes;

	for (text += strspn(text, separators); *text != '\0';
	     text += bytes + strspn(text + bytes, separators)) {
		bytes = strcspn(text, separators);
		if (tls_names_add(names, text, bytes))
			return config_mistake(target->errors, target->where,
					      "no memory"); /* UNTESTED: no fault for malloc */
	}
	if (names->count > before)
		return 0;
	return config_mistake(target->errors, target->where,
			      "no name; expected one or more, separated by commas or spaces");
}

static void
describe_names(const struct config_key *key, const void *object, const char *label, FILE *out)
{
	const struct tls_names *names = const_field(key, object);

	for (size_t i = 0; i < names->count; i++)
		fprintf(out, "%s%s", i == 0 ? label : ", ", names->names[i]);
	if (names->count > 0)
		fputc('\n', out);
}

const struct config_type config_type_names = { true, add_names, describe_names };
