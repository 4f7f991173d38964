/* Values as people write them: addresses, ranges of clients, lists of CPUs, numbers, faults.
 * What can be parsed can be written and parsed again, and is the same.  The input's first byte chooses the parser. */
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "daemon/config_value.h"
#include "disk/fault_settings.h"
#include "net/access.h"
#include "net/address.h"
#include "reactor/cpu_list.h"
#include "tests/fuzz/fuzz.h"

#define TEXT_BYTES_MAX 4096

static void
try_address(const char *text)
{
	struct address address, again;
	char written[ADDRESS_TEXT_BYTES], twice[ADDRESS_TEXT_BYTES];
	const char *why = NULL;

	if (address_parse(text, &address, &why) != 0) {
		FUZZ_CHECK(why != NULL);
		return;
	}
	address_format(&address, written, sizeof(written));
	FUZZ_CHECK(address_parse(written, &again, &why) == 0);
	address_format(&again, twice, sizeof(twice));
	FUZZ_CHECK(strcmp(written, twice) == 0);
	address_format_uri(&address, written, sizeof(written));
}

static void
try_range(const char *text)
{
	struct access_range range, again;
	struct access_peer peer = { .family = AF_INET, .bytes = { 10, 1, 2, 3 } };
	char written[ACCESS_RANGE_TEXT_BYTES];
	const char *why = NULL;

	if (access_range_parse(text, &range, &why) != 0) {
		FUZZ_CHECK(why != NULL);
		return;
	}
	access_range_format(&range, written);
	FUZZ_CHECK(access_range_parse(written, &again, &why) == 0);
	FUZZ_CHECK(range.family == again.family && range.bits == again.bits);
	FUZZ_CHECK(memcmp(range.bytes, again.bytes, sizeof(range.bytes)) == 0);
	FUZZ_CHECK(access_range_contains(&range, &peer) == access_range_contains(&again, &peer));
}

static void
try_cpus(const char *text)
{
	static struct cpu_list list, again;
	static char written[8 * CPU_LIST_MAX];

	if (cpu_list_parse(text, &list) != 0)
		return;
	cpu_list_format(&list, written, sizeof(written));
	FUZZ_CHECK(cpu_list_parse(written, &again) == 0);
	FUZZ_CHECK(list.count == again.count &&
		   memcmp(list.cpus, again.cpus, list.count * sizeof(list.cpus[0])) == 0);
}

static void
try_value(const char *text)
{
	static const char *const words[] = { "file", "memory", "null", NULL };
	unsigned number = 0;
	uint64_t bytes = 0;
	bool value;

	if (config_value_number(text, 3, 70000, &number))
		FUZZ_CHECK(number >= 3 && number <= 70000);
	if (config_value_bytes(text, 7, (uint64_t)1 << 50, &bytes))
		FUZZ_CHECK(bytes >= 7 && bytes <= (uint64_t)1 << 50);
	if (config_value_word(text, words, &number))
		FUZZ_CHECK(number < 3 && strcmp(text, words[number]) == 0);
	(void)!config_value_bool(text, &value);
	(void)!config_value_utf8(text);
}

static void
try_faults(const char *text)
{
	struct fault_settings settings;
	char mistake[256] = "";

	if (fault_settings_parse(text, &settings, mistake, sizeof(mistake)) != 0)
		FUZZ_CHECK(mistake[0] != '\0');
	else
		FUZZ_CHECK(settings.range_start < settings.range_end && settings.error < 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	static void (*const parsers[])(const char *) = { try_address, try_range, try_cpus,
							 try_value, try_faults };
	char *text;

	if (count == 0 || count > TEXT_BYTES_MAX)
		return 0;
	/* On the heap and no longer than it is, so that a byte read behind its end shows. */
	text = strndup((const char *)bytes + 1, count - 1);
	FUZZ_CHECK(text != NULL);
	parsers[bytes[0] % (sizeof(parsers) / sizeof(parsers[0]))](text);
	free(text);
	return 0;
}
