/* Trials of the configuration. */
#include "tests/unit/config_trial.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void
trial_init(struct trial *trial)
{
	memset(trial, 0, sizeof(*trial));
	config_init(&trial->config);
	trial->errors = open_memstream(&trial->said, &trial->said_bytes);
	cr_assert_not_null(trial->errors);
}

void
trial_fini(struct trial *trial)
{
	config_fini(&trial->config);
	fclose(trial->errors);
	free(trial->said);
}

void
trial_read(struct trial *trial, const char *bytes, size_t count)
{
	int fd;

	strcpy(trial->path, "/tmp/millrace-test-XXXXXX");
	fd = mkstemp(trial->path);
	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, bytes, count), (ssize_t)count);
	close(fd);
	trial->result = config_read_file(&trial->config, trial->path, trial->errors);
	unlink(trial->path);
	fflush(trial->errors);
}

void
trial_read_good(struct trial *trial, const char *text)
{
	trial_init(trial);
	trial_read(trial, text, strlen(text));
	cr_assert_eq(trial->result, 0, "%s", trial->said);
	cr_assert_str_empty(trial->said);
}

void
trial_assert_mistakes_in(const char *text, size_t count, const char *said)
{
	struct trial trial;
	char *expected;
	size_t expected_bytes;
	FILE *out = open_memstream(&expected, &expected_bytes);

	trial_init(&trial);
	trial_read(&trial, text, count);
	for (; *said; said++) {
		if (*said == '@')
			fputs(trial.path, out);
		else
			fputc(*said, out);
	}
	fclose(out);
	cr_assert_str_eq(trial.said, expected);
	cr_assert_eq(trial.result, -EINVAL);
	free(expected);
	trial_fini(&trial);
}

void
trial_assert_mistakes(const char *text, const char *said)
{
	trial_assert_mistakes_in(text, strlen(text), said);
}

void
trial_assert_refused(const char *section, const char *key, const char *part,
		     const char *const *values)
{
	for (; *values; values++) {
		struct trial trial;
		char text[512], where[512];

		snprintf(text, sizeof(text), "[%s]\n%s = %s\n", section, key, *values);
		trial_init(&trial);
		trial_read(&trial, text, strlen(text));
		snprintf(where, sizeof(where), "%s:2: [%s] %s = %s: ", trial.path, section, key,
			 *values);
		cr_assert_eq(trial.result, -EINVAL, "%s", text);
		cr_assert_eq(strncmp(trial.said, where, strlen(where)), 0, "%s", trial.said);
		cr_assert_not_null(strstr(trial.said, part), "%s", trial.said);
		trial_fini(&trial);
	}
}

void
trial_append(char **text, size_t *bytes, const char *more, size_t more_bytes)
{
	*text = realloc(*text, *bytes + more_bytes + 1);
	cr_assert_not_null(*text);
	memcpy(*text + *bytes, more, more_bytes);
	*bytes += more_bytes;
	(*text)[*bytes] = '\0';
}

char *
trial_padded(const char *before, size_t count, char filler, const char *after)
{
	char *text = NULL;
	size_t bytes = 0;

	trial_append(&text, &bytes, before, strlen(before));
	for (size_t i = 0; i < count; i++)
		trial_append(&text, &bytes, &filler, 1);
	trial_append(&text, &bytes, after, strlen(after));
	return text;
}
