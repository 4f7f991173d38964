/* Loading credentials, and what is refused; what is logged about it the end-to-end tests check. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net/tls_credentials.h"
#include "tests/unit/tls_fixture.h"

#define DAY ((time_t)86400)

static struct tls_fixture fixture;

static void
set_up(void)
{
	tls_fixture_init(&fixture);
}

static void
tear_down(void)
{
	tls_fixture_fini(&fixture);
}

TestSuite(tls_credentials, .init = set_up, .fini = tear_down);

static void
assert_load(int wanted)
{
	struct tls_files files = tls_fixture_files(&fixture);
	struct tls_credentials *credentials = NULL;

	cr_assert_eq(tls_credentials_load(&files, &credentials), wanted);
	cr_assert_eq(credentials != NULL, wanted == 0);
	tls_credentials_put(credentials);
}

Test(tls_credentials, good_files_are_loaded)
{
	struct tls_files files = tls_fixture_files(&fixture);
	struct tls_credentials *credentials;

	cr_assert_eq(tls_credentials_load(&files, &credentials), 0);
	cr_assert_not_null(credentials->x509);
	cr_assert_not_null(credentials->psk);
	cr_assert_eq(credentials->keys.count, 1);
	cr_assert(credentials->verify_client);
	tls_credentials_put(credentials);

	files.certificate = NULL;
	cr_assert_eq(tls_credentials_load(&files, &credentials), 0);
	cr_assert_null(credentials->x509);
	tls_credentials_put(credentials);
}

Test(tls_credentials, a_file_that_is_missing_is_refused)
{
	unlink(fixture.server_key);
	assert_load(-ENOENT);
}

Test(tls_credentials, keys_that_others_can_read_or_change_are_refused)
{
	static const struct {
		unsigned mode;
		int wanted;
	} modes[] = { { 0400, 0 },	{ 0600, 0 },	  { 0640, 0 },	    { 0604, -EPERM },
		      { 0602, -EPERM }, { 0601, -EPERM }, { 0620, -EPERM }, { 0644, -EPERM } };

	for (size_t i = 0; i < ARRAY_COUNT(modes); i++) {
		cr_assert_eq(chmod(fixture.server_key, modes[i].mode), 0);
		assert_load(modes[i].wanted);
		cr_assert_eq(chmod(fixture.server_key, 0600), 0);
		cr_assert_eq(chmod(fixture.psk, modes[i].mode), 0);
		assert_load(modes[i].wanted);
		cr_assert_eq(chmod(fixture.psk, 0600), 0);
	}
}

Test(tls_credentials, a_certificate_that_is_not_valid_now_is_refused)
{
	time_t now = time(NULL);

	tls_fixture_issue_server(&fixture, now - 2 * DAY, now - DAY);
	assert_load(-EINVAL);
	tls_fixture_issue_server(&fixture, now + DAY, now + 2 * DAY);
	assert_load(-EINVAL);
	tls_fixture_issue_server(&fixture, now - DAY, now + DAY);
	assert_load(0);
}

Test(tls_credentials, only_the_servers_own_certificate_must_be_valid_now)
{
	time_t now = time(NULL);

	tls_fixture_append_authority(&fixture, now - 2 * DAY, now - DAY);
	assert_load(0);
	tls_fixture_append_authority(&fixture, now + DAY, now + 2 * DAY);
	assert_load(0);
	tls_fixture_issue_server(&fixture, now - 2 * DAY, now - DAY);
	tls_fixture_append_authority(&fixture, now - DAY, now + DAY);
	assert_load(-EINVAL);
}

Test(tls_credentials, a_key_of_another_certificate_is_refused)
{
	struct tls_files files = tls_fixture_files(&fixture);
	struct tls_credentials *credentials = NULL;

	files.key = fixture.client_key;
	cr_assert_eq(tls_credentials_load(&files, &credentials), -EINVAL);
	cr_assert_null(credentials);
}

Test(tls_credentials, content_that_is_something_else_is_refused)
{
	const char *paths[] = { fixture.ca, fixture.server, fixture.server_key, fixture.psk };

	for (size_t i = 0; i < ARRAY_COUNT(paths); i++) {
		char whole[8192];
		FILE *file = fopen(paths[i], "r");
		size_t bytes = fread(whole, 1, sizeof(whole) - 1, file);

		whole[bytes] = '\0';
		fclose(file);
		tls_fixture_write(paths[i], "something else\n", 0600);
		assert_load(-EINVAL);
		tls_fixture_write(paths[i], "", 0600);
		assert_load(-EINVAL);
		tls_fixture_write(paths[i], whole, 0600);
		assert_load(0);
	}
}

Test(tls_credentials, what_is_no_file_is_refused_at_once)
{
	struct tls_files files = tls_fixture_files(&fixture);
	struct tls_credentials *credentials = NULL;

	files.certificate = fixture.directory;
	cr_assert_eq(tls_credentials_load(&files, &credentials), -EINVAL);
	unlink(fixture.psk);
	cr_assert_eq(mkfifo(fixture.psk, 0600), 0);
	assert_load(-EINVAL); /* nobody writes to it */
}

/* The third is what nbd-server does without its tlsprio. */
Test(tls_credentials, priorities_below_tls_1_2_are_refused)
{
	static const struct {
		const char *text;
		int wanted;
	} texts[] = { { "NORMAL:-VERS-ALL:+VERS-TLS1.3", 0 },
		      { "NORMAL:-VERS-ALL:+VERS-TLS1.2:+VERS-TLS1.1", -EINVAL },
		      { "NORMAL:-VERS-TLS-ALL:+VERS-TLS1.2:%SERVER_PRECEDENCE", 0 },
		      { "NORMAL:-VERS-TLS-ALL", -EINVAL },
		      { "NORMAL:+NOTHING", -EINVAL },
		      { "", -EINVAL } };

	for (size_t i = 0; i < ARRAY_COUNT(texts); i++) {
		struct tls_files files = tls_fixture_files(&fixture);
		struct tls_credentials *credentials = NULL;

		files.priority = (char *)texts[i].text;
		cr_assert_eq(tls_credentials_load(&files, &credentials), texts[i].wanted, "%s",
			     texts[i].text);
		tls_credentials_put(credentials);
	}
}

Test(tls_credentials, incomplete_files_are_refused)
{
	struct tls_files files = tls_fixture_files(&fixture);
	struct tls_credentials *credentials = NULL;

	files.ca = NULL;
	cr_assert_eq(tls_credentials_load(&files, &credentials), -EINVAL);
	files.verify_client = false;
	cr_assert_eq(tls_credentials_load(&files, &credentials), 0);
	tls_credentials_put(credentials);
	files.key = NULL;
	cr_assert_eq(tls_credentials_load(&files, &credentials), -EINVAL);
}
