/* A configuration file of any content: every mistake is told, none is fatal, and what was read can be described. */
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/config.h"
#include "tests/fuzz/fuzz.h"

#define INPUT_BYTES_MAX 65536u

/* The file that is read, again and again, and where messages go. */
static int memory_file = -1;
static char path[64];
static FILE *messages;

static void
begin(void)
{
	memory_file = memfd_create("millrace.conf", MFD_CLOEXEC);
	FUZZ_CHECK(memory_file >= 0);
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", memory_file);
	messages = fopen("/dev/null", "w");
	FUZZ_CHECK(messages != NULL);
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	struct config config;
	int read_result, finish_result;

	if (memory_file < 0)
		begin();
	if (count > INPUT_BYTES_MAX)
		return 0;
	FUZZ_CHECK(ftruncate(memory_file, 0) == 0);
	FUZZ_CHECK(pwrite(memory_file, bytes, count, 0) == (ssize_t)count);
	config_init(&config);
	read_result = config_read_file(&config, path, messages);
	FUZZ_CHECK(read_result == 0 || read_result == -EINVAL);
	finish_result = config_finish(&config, messages);
	FUZZ_CHECK(finish_result == 0 || finish_result == -EINVAL);
	if (read_result == 0 && finish_result == 0)
		config_describe(&config, messages);
	config_fini(&config);
	return 0;
}
