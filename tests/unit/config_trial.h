/* Trials of the configuration, for the tests of daemon/config*.c: a config, a file that it is read from, and what is said of
 * mistakes.  Each test runs in a process of its own, on one thread. */
#ifndef TESTS_UNIT_CONFIG_TRIAL_H
#define TESTS_UNIT_CONFIG_TRIAL_H

#include "daemon/config.h"
#include <stdio.h>

#define EXPORT_LINES "[export]\npath=/a\n"

struct trial {
	struct config config;
	FILE *errors;
	char *said;
	size_t said_bytes;
	char path[64]; /* of the file last read */
	int result;
};

void trial_init(struct trial *trial);
void trial_fini(struct trial *trial);

/* Read a file of COUNT BYTES on top of what the config holds; the result and what was said are in TRIAL. */
void trial_read(struct trial *trial, const char *bytes, size_t count);

/* Begin TRIAL with TEXT, which must be read without a mistake; the caller looks at *trial and ends it. */
void trial_read_good(struct trial *trial, const char *text);

/* TEXT, or COUNT bytes at TEXT, must give exactly the lines SAID, where each @ stands for the file's path. */
void trial_assert_mistakes(const char *text, const char *said);
void trial_assert_mistakes_in(const char *text, size_t count, const char *said);

/* Each of VALUES, up to NULL, after "[SECTION]\nKEY = " must be refused for a reason with PART in it. */
void trial_assert_refused(const char *section, const char *key, const char *part,
			  const char *const *values);

/* Put MORE behind the *BYTES at *TEXT, which grows; a NUL follows. */
void trial_append(char **text, size_t *bytes, const char *more, size_t more_bytes);

/* "BEFORE", COUNT times FILLER, "AFTER"; the caller frees it. */
char *trial_padded(const char *before, size_t count, char filler, const char *after);

#endif
