/* Reads and writes through the page cache: what the core does itself, what helper threads do, and what is durable. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "reactor/pipe_pool.h"
#include "tests/unit/kernel_faults.h"
#include "tests/unit/medium.h"
#include "tests/unit/volume_fixture.h"

#define MIB ((uint64_t)1 << 20)

struct image {
	struct volume_fixture fixture;
	char path[64];
	int fd; /* beside the volume's */
};

static void
image_start(struct image *image, uint64_t size_bytes)
{
	cr_assert_null(medium_create(MEDIUM_HERE, size_bytes, image->path));
	image->fd = open(image->path, O_RDWR);
	cr_assert_geq(image->fd, 0);
	volume_fixture_start(
		&image->fixture,
		&(struct volume_options){ .path = image->path, .cache = VOLUME_CACHE_HOST });
}

static void
image_stop(struct image *image)
{
	volume_fixture_stop(&image->fixture);
	(void)close(image->fd);
	medium_remove(MEDIUM_HERE, image->path);
}

/* Take all of IMAGE out of the page cache. */
static void
make_cold(const struct image *image)
{
	cr_assert_eq(fdatasync(image->fd), 0);
	cr_assert_eq(posix_fadvise(image->fd, 0, 0, POSIX_FADV_DONTNEED), 0);
}

static uint64_t
calls_made(const struct image *image)
{
	struct call_counters counters;

	call_pool_counters(image->fixture.calls, &counters);
	return counters.submitted;
}

/* Whether LENGTH bytes at OFFSET can be read on CORE without a helper, which they are not always: a machine that is short of memory drops
 * pages, or moves them. */
static bool
can_read_alone(struct image *image, unsigned core, uint64_t offset, uint64_t length, uint8_t *got)
{
	for (unsigned i = 0; i < 50; i++) {
		uint64_t before = calls_made(image);

		cr_assert_eq(volume_run_on(&image->fixture, core, VOLUME_COMMAND_READ, offset,
					   length, got),
			     0);
		if (calls_made(image) == before)
			return true;
	}
	return false;
}

Test(file_cached, what_the_cache_has_needs_no_helper)
{
	static uint8_t data[2 * MIB], got[2 * MIB];
	struct image image;

	image_start(&image, 4 * MIB);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 31 >> 7);
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_WRITE, 5, sizeof(data), data), 0);
	for (unsigned core = 0; core < VOLUME_FIXTURE_CORES; core++) {
		cr_assert(can_read_alone(&image, core, 5, sizeof(data), got));
		cr_assert(memcmp(data, got, sizeof(data)) == 0);
	}
	image_stop(&image);
}

Test(file_cached, what_it_has_not_is_read_by_a_helper_and_is_there_then)
{
	static uint8_t data[MIB], got[MIB];
	struct image image;
	uint64_t before;

	image_start(&image, 2 * MIB);
	memset(data, 0x5a, sizeof(data));
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_WRITE, 4096, MIB, data), 0);
	make_cold(&image);
	/* The first half: then the core does a part of it, and a helper the rest. */
	cr_assert_eq(pread(image.fd, got, MIB / 2, 0), (ssize_t)(MIB / 2));
	before = calls_made(&image);
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_READ, 4096, MIB, got), 0);
	cr_assert(memcmp(data, got, MIB) == 0);
	cr_assert_leq(calls_made(&image), before + 1);
	make_cold(&image);
	before = calls_made(&image);
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_READ, 4096, MIB, got), 0);
	cr_assert(memcmp(data, got, MIB) == 0);
	cr_assert_eq(calls_made(&image), before + 1);
	cr_assert(can_read_alone(&image, 0, 4096, MIB, got));
	image_stop(&image);
}

Test(file_cached, what_was_prefetched_needs_no_helper)
{
	static uint8_t data[6 * MIB], got[6 * MIB];
	struct image image;
	uint64_t before;
	unsigned tries = 0;

	image_start(&image, 6 * MIB + 5);
	cr_assert(image.fixture.volume->prefetches);
	memset(data, 0x5a, sizeof(data));
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_WRITE, 5, sizeof(data), data), 0);
	/* Again, if the machine has dropped some of it: reading it here would prefetch it, too. */
	do {
		make_cold(&image);
		cr_assert_eq(
			volume_run(&image.fixture, VOLUME_COMMAND_CACHE, 5, sizeof(data), NULL), 0);
		before = calls_made(&image);
		cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_READ, 5, sizeof(data), got),
			     0);
		cr_assert(memcmp(data, got, sizeof(data)) == 0);
	} while (calls_made(&image) != before && ++tries < 20);
	cr_assert_lt(tries, 20);
	image_stop(&image);
}

Test(file_cached, prefetching_terabytes_ends_and_so_does_that_of_what_is_gone, .timeout = 60)
{
	struct image image;

	image_start(&image, (uint64_t)8 << 40);
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_CACHE, 0, (uint64_t)8 << 40, NULL),
		     0);
	cr_assert_eq(truncate(image.path, 4096), 0);
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_CACHE, MIB, 4 * MIB, NULL), 0);
	image_stop(&image);
}

/* ---- into pipes ---- */

/* READ on core 0 into a pipe, and what is in that then into GOT, of LENGTH and a byte more.  Returns how many bytes, or an error. */
static ssize_t
read_by_pipe(struct image *image, uint64_t offset, uint64_t length, uint8_t *got)
{
	struct pipe_pool *pool = &image->fixture.cores.cores[0].pipes;
	struct pipe *pipe = pipe_pool_get(pool);
	struct trial trial = {
		.request = { .command = VOLUME_COMMAND_READ,
			     .offset = offset,
			     .length = length,
			     .pipe = pipe },
	};
	ssize_t result;

	cr_assert_not_null(pipe);
	cr_assert(pipe_fits(offset, length));
	trial_begin(&image->fixture, &trial, 0, NULL);
	result = trial_wait(&trial);
	trial_end(&trial);
	if (result == 0)
		result = read(pipe->read_fd, got, length + 1);
	pipe_pool_put(pool, pipe);
	return result;
}

Test(file_cached, pipe_gets_what_the_cache_has_and_what_it_has_not)
{
	static uint8_t data[MIB], got[MIB];
	static const struct {
		uint64_t offset, length;
	} ranges[] = {
		{ 0, 1 }, { 0, 262144 }, { 4095, 262144 }, { 77, 524287 - 77 }, { MIB - 4097, 4097 }
	};
	struct image image;
	uint64_t before;

	image_start(&image, MIB);
	cr_assert(image.fixture.volume->splices);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 31 >> 7);
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_WRITE, 0, MIB, data), 0);
	for (unsigned i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
		uint64_t offset = ranges[i].offset, length = ranges[i].length;

		make_cold(&image);
		before = calls_made(&image);
		cr_assert_eq(read_by_pipe(&image, offset, length, got), (ssize_t)length);
		cr_assert(memcmp(data + offset, got, length) == 0);
		cr_assert_eq(calls_made(&image), before + 1);
		/* Unless the machine drops it again. */
		for (unsigned tries = 0; calls_made(&image) != before && tries < 50; tries++) {
			before = calls_made(&image);
			cr_assert_eq(read_by_pipe(&image, offset, length, got), (ssize_t)length);
			cr_assert(memcmp(data + offset, got, length) == 0);
		}
		cr_assert_eq(calls_made(&image), before);
	}
	image_stop(&image);
}

Test(file_cached, pipe_of_what_is_gone_is_an_error)
{
	static uint8_t got[MIB];
	struct image image;

	image_start(&image, MIB);
	cr_assert_eq(truncate(image.path, MIB / 2 + 5), 0);
	cr_assert_eq(read_by_pipe(&image, MIB / 2, 4096, got), -EIO);
	cr_assert_eq(read_by_pipe(&image, MIB - 4096, 4096, got), -EIO);
	cr_assert_eq(read_by_pipe(&image, MIB / 2, 5, got), 5);
	image_stop(&image);
}

Test(file_cached, pipe_gets_what_came_with_growing)
{
	static uint8_t data[MIB], got[MIB];
	struct image image;
	uint64_t found, before;

	image_start(&image, MIB);
	cr_assert_eq(truncate(image.path, 2 * MIB), 0);
	cr_assert_eq(volume_refresh(image.fixture.volume, &found), 0);
	cr_assert_eq(found, 2 * MIB);
	memset(data, 0x5a, sizeof(data));
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_WRITE, MIB, MIB, data), 0);
	for (unsigned tries = 0; tries < 50; tries++) {
		before = calls_made(&image);
		cr_assert_eq(read_by_pipe(&image, MIB, MIB / 2, got), (ssize_t)(MIB / 2));
		cr_assert(memcmp(data, got, MIB / 2) == 0);
		if (calls_made(&image) == before)
			break;
	}
	cr_assert_eq(calls_made(&image), before);
	image_stop(&image);
}

/* ---- turns ---- */

#define LARGE 16

/* Requests that one core gets in one message; the order in which they are done. */
struct crowd {
	struct message message;
	struct volume *volume;
	struct volume_request requests[LARGE + 1];
	unsigned done_count;
	unsigned small_place;
	atomic_bool finished;
};

static struct crowd crowd;

static void
crowd_done(struct volume_request *request, int error)
{
	CHECK(error == 0);
	if (request == &crowd.requests[LARGE])
		crowd.small_place = crowd.done_count;
	if (++crowd.done_count == LARGE + 1)
		atomic_store(&crowd.finished, true);
}

static void
crowd_submit(struct message *message)
{
	(void)message;
	for (unsigned i = 0; i <= LARGE; i++)
		volume_submit(crowd.volume, &crowd.requests[i]);
	CHECK(crowd.done_count == 0);
}

Test(file_cached, a_small_hit_does_not_wait_for_the_large_ones_before_it, .timeout = 60)
{
	static uint8_t data[2 * MIB], small[512];
	struct image image;

	image_start(&image, 2 * MIB);
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_WRITE, 0, 2 * MIB, data), 0);
	crowd.volume = image.fixture.volume;
	for (unsigned i = 0; i <= LARGE; i++)
		crowd.requests[i] = (struct volume_request){
			.command = VOLUME_COMMAND_READ,
			.priority = PRIORITY_NORMAL,
			.length = i < LARGE ? sizeof(data) : sizeof(small),
			.buffer = i < LARGE ? data : small,
			.core = &image.fixture.cores.cores[0],
			.done = crowd_done,
		};
	crowd.message.deliver = crowd_submit;
	reactor_send(crowd.requests[0].core->reactor, &crowd.message);
	while (!atomic_load(&crowd.finished))
		usleep(100);
	cr_assert_eq(crowd.small_place, 0);
	image_stop(&image);
}

Test(file_cached, read_behind_a_cut_file_fails_and_others_go_on)
{
	struct image image;
	uint8_t bytes[4096];

	image_start(&image, MIB);
	cr_assert_eq(truncate(image.path, 8192 + 100), 0);
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_READ, 65536, 4096, bytes), -EIO);
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_READ, 8192, 4096, bytes), -EIO);
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_READ, 4096, 4096, bytes), 0);
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_READ, 8192, 100, bytes), 0);
	image_stop(&image);
}

#define WRITES_MAX 40 /* more than a batch has */

/* A helper that does nothing until it is let go. */
struct stopper {
	struct message message;
	struct call call;
	struct image *image;
	atomic_bool go, gone;
};

static void
stopper_run(struct call *call)
{
	while (!atomic_load(&container_of(call, struct stopper, call)->go))
		usleep(100);
}

static void
stopper_done(struct call *call)
{
	atomic_store(&container_of(call, struct stopper, call)->gone, true);
}

static void
stopper_submit(struct message *message)
{
	struct stopper *stopper = container_of(message, struct stopper, message);

	stopper->call.run = stopper_run;
	stopper->call.done = stopper_done;
	call_submit(stopper->image->fixture.calls, stopper->image->fixture.cores.cores[0].reactor,
		    &stopper->call);
}

/* Batches that helpers are to write, none of which comes to it, of COUNT writes of LENGTH bytes that come in one turn. */
static uint64_t
batches_of(struct image *image, unsigned count, uint64_t length)
{
	struct stopper stoppers[VOLUME_FIXTURE_HELPERS];
	static struct trial trials[WRITES_MAX];
	uint64_t calls = calls_made(image) + VOLUME_FIXTURE_HELPERS;

	for (unsigned i = 0; i < VOLUME_FIXTURE_HELPERS; i++) {
		stoppers[i].image = image;
		atomic_init(&stoppers[i].go, false);
		atomic_init(&stoppers[i].gone, false);
		stoppers[i].message.deliver = stopper_submit;
		reactor_send(image->fixture.cores.cores[0].reactor, &stoppers[i].message);
	}
	for (unsigned i = 0; i < count; i++)
		trials[i].request = (struct volume_request){
			.command = VOLUME_COMMAND_WRITE,
			.offset = i * length,
			.length = length,
		};
	trials_begin(&image->fixture, trials, count, 0, 1);
	while (calls_made(image) <= calls)
		usleep(100);
	usleep(20000);
	calls = calls_made(image) - calls;
	for (unsigned i = 0; i < VOLUME_FIXTURE_HELPERS; i++)
		atomic_store(&stoppers[i].go, true);
	for (unsigned i = 0; i < count; i++) {
		cr_assert_eq(trial_wait(&trials[i]), 0);
		trial_end(&trials[i]);
	}
	for (unsigned i = 0; i < VOLUME_FIXTURE_HELPERS; i++) {
		while (!atomic_load(&stoppers[i].gone))
			usleep(100);
	}
	return calls;
}

Test(file_cached, a_second_batch_of_large_writes_stands_behind_the_first, .timeout = 60)
{
	static uint8_t data[2 * MIB];
	struct image image;

	image_start(&image, 2 * MIB);
	cr_assert_eq(batches_of(&image, 8, 256 << 10), 2);
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_READ, 0, 2 * MIB, data), 0);
	for (unsigned i = 0; i < 8; i++) {
		const uint8_t *part = data + i * (256 << 10);

		cr_assert_eq(part[0], i + 1);
		cr_assert_eq(memcmp(part, part + 1, (256 << 10) - 1), 0);
	}
	cr_assert_eq(batches_of(&image, WRITES_MAX, 4 << 10), 1);
	image_stop(&image);
}

static atomic_uint syncs;
static atomic_bool fail;

static long
watch_syncs(io_context_t context, long count, struct iocb **iocbs)
{
	if (iocbs[0]->aio_lio_opcode == IO_CMD_FDSYNC) {
		atomic_fetch_add(&syncs, 1);
		if (atomic_load(&fail))
			return -ENOSPC;
	}
	return kernel_submit_unchanged(context, count, iocbs);
}

static int
write_durably(struct image *image, unsigned core)
{
	struct trial trial = { .request = { .command = VOLUME_COMMAND_WRITE,
					    .offset = 1000 * core,
					    .length = 1000,
					    .durable = true } };
	static const uint8_t data[1000] = { 1, 2, 3 };
	int error;

	trial_begin(&image->fixture, &trial, core, data);
	error = trial_wait(&trial);
	trial_end(&trial);
	return error;
}

Test(file_cached, durable_write_waits_for_a_sync_and_others_do_not)
{
	uint8_t bytes[1000] = { 4 };
	struct image image;

	image_start(&image, MIB);
	submit_fault = watch_syncs;
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_WRITE, 0, 1000, bytes), 0);
	cr_assert_eq(atomic_load(&syncs), 0);
	cr_assert_eq(write_durably(&image, 1), 0);
	cr_assert_eq(atomic_load(&syncs), 1);
	image_stop(&image);
}

/* Whatever the error is: what the kernel could not write may have been acknowledged long before. */
Test(file_cached, failed_sync_of_a_durable_write_is_never_forgotten)
{
	uint8_t bytes[1000] = { 4 };
	struct image image;

	image_start(&image, MIB);
	submit_fault = watch_syncs;
	atomic_store(&fail, true);
	cr_assert_eq(write_durably(&image, 0), -ENOSPC);
	atomic_store(&fail, false);
	cr_assert_eq(write_durably(&image, 1), -EIO);
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_FLUSH, 0, 0, NULL), -EIO);
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_WRITE, 0, 1000, bytes), 0);
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_READ, 0, 1000, bytes), 0);
	image_stop(&image);
}

/* Nothing was written that its sync could make durable, so that the sync succeeds. */
Test(file_cached, durable_write_that_fails_is_not_saved_by_a_sync)
{
	struct rlimit none = { .rlim_cur = 0, .rlim_max = RLIM_INFINITY };
	struct image image;

	image_start(&image, MIB);
	submit_fault = watch_syncs;
	(void)signal(SIGXFSZ, SIG_IGN);
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &none), 0);
	cr_assert_eq(write_durably(&image, 0), -EFBIG);
	none.rlim_cur = RLIM_INFINITY;
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &none), 0);
	cr_assert_eq(write_durably(&image, 0), 0);
	image_stop(&image);
}
