/* Saving and loading what was written: what is durable comes back, and a damaged file does not. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/load/ledger.h"

static char path[] = "/tmp/test-ledger-XXXXXX";
static struct ledger ledger, loaded;
static char *errors;
static size_t error_bytes;
static FILE *errors_file;

static void
set_up(void)
{
	int fd = mkstemp(path);

	cr_assert_geq(fd, 0);
	close(fd);
	errors_file = open_memstream(&errors, &error_bytes);
	cr_assert_eq(ledger_init(&ledger, 9, 4096, 3, 512), 0);
	ledger.blocks[1] = (struct ledger_block){ 7, 6, 5 };
}

static void
tear_down(void)
{
	ledger_fini(&ledger);
	fclose(errors_file);
	free(errors);
	unlink(path);
}

TestSuite(ledger, .init = set_up, .fini = tear_down);

Test(ledger, what_is_durable_comes_back)
{
	cr_assert_eq(ledger_save(&ledger, path, errors_file), 0);
	cr_assert_eq(ledger_load(&loaded, path, errors_file), 0);
	cr_assert_eq(loaded.run, 9);
	cr_assert_eq(loaded.region_start, 4096);
	cr_assert_eq(loaded.block_count, 3);
	cr_assert_eq(loaded.block_bytes, 512);
	cr_assert_eq(loaded.blocks[1].issued, 7);
	cr_assert_eq(loaded.blocks[1].acknowledged, 5);
	ledger_fini(&loaded);
}

Test(ledger, a_flush_makes_durable_what_was_acknowledged)
{
	ledger_flushed(&ledger);
	cr_assert_eq(ledger.blocks[1].durable, 6);
	cr_assert_eq(ledger.blocks[0].durable, 0);
}

static void
check_damaged(void)
{
	cr_assert_eq(ledger_load(&loaded, path, errors_file), -EINVAL);
	fflush(errors_file);
	cr_assert(strncmp(errors, path, strlen(path)) == 0, "%s", errors);
}

Test(ledger, a_file_that_is_cut_off_is_refused)
{
	cr_assert_eq(ledger_save(&ledger, path, errors_file), 0);
	cr_assert_eq(truncate(path, 60), 0);
	check_damaged();
}

Test(ledger, a_flipped_bit_is_refused)
{
	FILE *file;

	cr_assert_eq(ledger_save(&ledger, path, errors_file), 0);
	file = fopen(path, "r+");
	fseek(file, 50, SEEK_SET);
	fputc(1, file);
	fclose(file);
	check_damaged();
}

Test(ledger, something_else_is_refused)
{
	FILE *file = fopen(path, "w");

	fputs("not a ledger", file);
	fclose(file);
	check_damaged();
}

Test(ledger, a_directory_that_is_not_there_is_named)
{
	cr_assert_eq(ledger_save(&ledger, "/nonexistent/state", errors_file), -ENOENT);
	fflush(errors_file);
	cr_assert_not_null(strstr(errors, "/nonexistent/state: cannot be written"));
}
