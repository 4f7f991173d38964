/* Requests that follow each other go to the kernel as one, and each gets its own answer. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/kernel_faults.h"
#include "tests/unit/medium.h"
#include "tests/unit/volume_fixture.h"

#define BLOCK_BYTES 4096u
#define TOGETHER    24

struct image {
	struct volume_fixture fixture;
	char path[64];
	struct trial trials[TOGETHER];
};

/* What the kernel was given, and what is to become of several that are one. */
static struct {
	atomic_uint alone, merged, parts, durable;
	enum fate {
		AS_IT_IS,
		SHORTENED,
		REFUSED
	} fate;
} seen;

static long
look(io_context_t context, long count, struct iocb **iocbs)
{
	/* A helper's may be done, and its iocb be another's, before the call is back: what is changed is a copy. */
	struct iocb shorter[64], *given[64];

	if (count > 64)
		count = 64;
	for (long i = 0; i < count; i++) {
		struct iocb *iocb = iocbs[i];
		bool joined = iocb->aio_lio_opcode == IO_CMD_PREADV ||
			      iocb->aio_lio_opcode == IO_CMD_PWRITEV;

		given[i] = iocb;
		if (iocb->aio_lio_opcode == IO_CMD_PREAD || iocb->aio_lio_opcode == IO_CMD_PWRITE) {
			seen.alone++;
			seen.durable += (iocb->aio_rw_flags & RWF_DSYNC) != 0;
		}
		if (!joined)
			continue;
		if (seen.fate == REFUSED && i == 0)
			return -EINVAL;
		if (seen.fate == REFUSED)
			count = i;
		seen.merged++;
		seen.parts += (unsigned)iocb->u.c.nbytes;
		cr_assert_eq(iocb->aio_rw_flags & RWF_DSYNC, 0);
		if (seen.fate != SHORTENED)
			continue;
		shorter[i] = *iocb;
		shorter[i].u.c.nbytes = 2;
		given[i] = &shorter[i];
	}
	return kernel_submit_unchanged(context, count, given);
}

static void
image_start(struct image *image, enum fate fate)
{
	cr_assert_null(medium_create(MEDIUM_HERE, TOGETHER * BLOCK_BYTES, image->path));
	volume_fixture_start(&image->fixture, &(struct volume_options){ .path = image->path });
	memset(&seen, 0, sizeof(seen));
	seen.fate = fate;
	submit_fault = look;
}

static void
image_stop(struct image *image)
{
	submit_fault = NULL;
	volume_fixture_stop(&image->fixture);
	medium_remove(MEDIUM_HERE, image->path);
}

/* One request for each block, in their order. */
static void
begin_all(struct image *image, enum volume_command command, uint8_t fill)
{
	for (unsigned i = 0; i < TOGETHER; i++)
		image->trials[i] = (struct trial){ .request = { .command = command,
								.offset = i * BLOCK_BYTES,
								.length = BLOCK_BYTES } };
	trials_begin(&image->fixture, image->trials, TOGETHER, 0, fill);
}

static void
end_all(struct image *image)
{
	for (unsigned i = 0; i < TOGETHER; i++) {
		cr_assert_eq(trial_wait(&image->trials[i]), 0, "request %u", i);
		trial_end(&image->trials[i]);
	}
}

/* Each block holds what its request wrote, as others read it. */
static void
check_file(const struct image *image, uint8_t fill)
{
	uint8_t block[BLOCK_BYTES];
	int fd = open(image->path, O_RDONLY | O_CLOEXEC);

	cr_assert_geq(fd, 0);
	for (unsigned i = 0; i < TOGETHER; i++) {
		cr_assert_eq(read(fd, block, sizeof(block)), (ssize_t)sizeof(block));
		for (unsigned at = 0; at < sizeof(block); at++)
			cr_assert_eq(block[at], (uint8_t)(fill + i), "block %u", i);
	}
	(void)close(fd);
}

static void
check_fate(enum fate fate)
{
	struct image *image = calloc(1, sizeof(*image));

	image_start(image, fate);
	begin_all(image, VOLUME_COMMAND_WRITE, 100);
	end_all(image);
	check_file(image, 100);
	/* The room is taken now: no helper comes between. */
	begin_all(image, VOLUME_COMMAND_WRITE, 10);
	end_all(image);
	check_file(image, 10);
	begin_all(image, VOLUME_COMMAND_READ, 0);
	for (unsigned i = 0; i < TOGETHER; i++) {
		cr_assert_eq(trial_wait(&image->trials[i]), 0, "request %u", i);
		for (unsigned at = 0; at < BLOCK_BYTES; at++)
			cr_assert_eq(trial_payload(&image->trials[i])[at], 10 + i, "block %u", i);
		trial_end(&image->trials[i]);
	}
	if (fate == AS_IT_IS) {
		cr_assert_geq(seen.merged, 2);
		cr_assert_geq(seen.parts, 2 * TOGETHER);
		cr_assert_leq(seen.alone, TOGETHER);
	}
	image_stop(image);
	free(image);
}

Test(file_merge, neighbours_go_as_one)
{
	check_fate(AS_IT_IS);
}

Test(file_merge, what_is_done_in_part_is_done_again_by_each)
{
	check_fate(SHORTENED);
}

Test(file_merge, what_fails_is_done_again_by_each)
{
	check_fate(REFUSED);
}

/* Half of them are behind the end of a file that was cut. */
Test(file_merge, each_has_an_error_of_its_own)
{
	struct image *image = calloc(1, sizeof(*image));

	image_start(image, AS_IT_IS);
	begin_all(image, VOLUME_COMMAND_WRITE, 1);
	end_all(image);
	cr_assert_eq(truncate(image->path, TOGETHER / 2 * BLOCK_BYTES), 0);
	begin_all(image, VOLUME_COMMAND_READ, 0);
	for (unsigned i = 0; i < TOGETHER; i++) {
		cr_assert_eq(trial_wait(&image->trials[i]), i < TOGETHER / 2 ? 0 : -EIO);
		if (i < TOGETHER / 2)
			cr_assert_eq(trial_payload(&image->trials[i])[0], 1 + i);
		trial_end(&image->trials[i]);
	}
	image_stop(image);
	free(image);
}

/* A durable one goes alone, and so do those that are elsewhere, or of another class. */
Test(file_merge, only_what_is_alike_is_merged)
{
	struct image *image = calloc(1, sizeof(*image));

	image_start(image, AS_IT_IS);
	for (unsigned i = 0; i < TOGETHER; i++) {
		image->trials[i] = (struct trial){ .request = { .command = VOLUME_COMMAND_WRITE,
								.offset = i * BLOCK_BYTES,
								.length = BLOCK_BYTES,
								.durable = i % 4 == 1 } };
	}
	trials_begin(&image->fixture, image->trials, TOGETHER, 1, 50);
	end_all(image);
	check_file(image, 50);
	cr_assert_geq(seen.durable, TOGETHER / 4);
	image_stop(image);
	free(image);
}

/* Its memory is its owner's, who may have begun something else with it. */
Test(file_merge, nobody_joins_what_is_done)
{
	struct image *image = calloc(1, sizeof(*image));

	image_start(image, AS_IT_IS);
	for (unsigned i = 0; i < 2; i++) {
		image->trials[i].request = (struct volume_request){ .command = VOLUME_COMMAND_READ,
								    .offset = i * BLOCK_BYTES,
								    .length = BLOCK_BYTES };
		trial_begin(&image->fixture, &image->trials[i], 0, NULL);
		cr_assert_eq(trial_wait(&image->trials[i]), 0);
		image->trials[i].request.op.state = OP_STATE_QUEUED;
		trial_end(&image->trials[i]);
	}
	cr_assert_eq(seen.merged, 0);
	image_stop(image);
	free(image);
}
