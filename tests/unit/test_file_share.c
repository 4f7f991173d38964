/* disk/file_share.c: a device that does not answer leaves slots for another, and nothing that was held is forgotten. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "disk/file_volume.h"
#include "tests/unit/kernel_faults.h"
#include "tests/unit/volume_fixture.h"

#define BLOCK_BYTES 4096u
#define PART_BYTES  100u /* no medium's blocks are that small */
#define REQUESTS    150u /* the fixture's core has 64 slots for disk requests */
#define CORE	    1u	 /* not the volumes' home: what locks a range goes to another core first */
#define FILE_BYTES  (2 * REQUESTS * BLOCK_BYTES)

/* What the kernel has of a device that does not answer, of one core. */
static struct {
	int fd;
	atomic_bool answers;
	pthread_mutex_t lock; /* for what follows: a helper may submit, too */
	struct iocb *iocbs[REQUESTS];
	unsigned count, count_max;
} hung = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* Give the kernel what it has been told that it has. */
static void
answer(io_context_t context)
{
	pthread_mutex_lock(&hung.lock);
	while (hung.count > 0) {
		cr_assert_eq(kernel_submit_unchanged(context, 1, &hung.iocbs[hung.count - 1]), 1);
		hung.count--;
	}
	pthread_mutex_unlock(&hung.lock);
}

static void
keep(struct iocb *iocb)
{
	pthread_mutex_lock(&hung.lock);
	hung.iocbs[hung.count++] = iocb;
	if (hung.count > hung.count_max)
		hung.count_max = hung.count;
	pthread_mutex_unlock(&hung.lock);
}

static long
hang(io_context_t context, long count, struct iocb **iocbs)
{
	long others = 0;

	if (atomic_load(&hung.answers)) {
		answer(context);
	} else if (iocbs[0]->aio_fildes == hung.fd) {
		keep(iocbs[0]);
		return 1;
	}
	while (others < count &&
	       (atomic_load(&hung.answers) || iocbs[others]->aio_fildes != hung.fd))
		others++;
	return kernel_submit_unchanged(context, others, iocbs);
}

/* The options of a volume in a new file, which has a name at PATH until it is open. */
static struct volume_options
make_file(char *path)
{
	int fd;

	strcpy(path, "build/share-XXXXXX");
	fd = mkstemp(path);
	cr_assert_geq(fd, 0);
	for (unsigned i = 0; i < FILE_BYTES / BLOCK_BYTES; i++) {
		uint8_t block[BLOCK_BYTES];

		memset(block, (int)i, sizeof(block));
		cr_assert_eq(write(fd, block, sizeof(block)), (ssize_t)sizeof(block));
	}
	cr_assert_eq(fsync(fd), 0);
	close(fd);
	return (struct volume_options){ .kind = VOLUME_KIND_FILE, .path = path };
}

static void
start(struct volume_fixture *one, struct volume_fixture *other)
{
	char path[32];
	struct volume_options options = make_file(path);

	volume_fixture_start(one, &options);
	unlink(path);
	options = make_file(path);
	*other = *one;
	cr_assert_eq(volume_open(&options, &other->volume), 0);
	unlink(path);
	cr_assert_eq(volume_start(other->volume, &other->cores, 0, other->calls), 0);
}

/* REQUESTS reads, or writes with one of part of a block in PART_EVERY, each of a block that is not behind another's. */
static void
begin(struct volume_fixture *fixture, struct trial *trials, enum volume_command command,
      unsigned part_every)
{
	for (unsigned i = 0; i < REQUESTS; i++) {
		bool part = part_every > 0 && i % part_every == 0;

		trials[i].request.command = command;
		trials[i].request.offset = 2 * (uint64_t)i * BLOCK_BYTES;
		trials[i].request.length = part ? PART_BYTES : BLOCK_BYTES;
	}
	trials_begin(fixture, trials, REQUESTS, CORE, 7);
}

/* Those with parts of blocks have to have their ranges first. */
static void
wait_until_hung(unsigned count)
{
	bool there = false;

	for (unsigned i = 0; i < 10000 && !there; i++) {
		usleep(1000);
		pthread_mutex_lock(&hung.lock);
		there = hung.count >= count;
		pthread_mutex_unlock(&hung.lock);
	}
	cr_assert(there);
}

/* What a class may have of the slots is COUNT_MIN at least with the device that hangs, and COUNT_MAX at most. */
static void
check_beside_hung(enum volume_command command, unsigned part_every, enum priority priority,
		  unsigned count_min, unsigned count_max)
{
	static struct trial trials[REQUESTS];
	struct volume_fixture fixture, other;
	uint8_t block[BLOCK_BYTES];

	start(&fixture, &other);
	fixture.priority = other.priority = priority;
	hung.fd = file_of(fixture.volume)->fd;
	submit_fault = hang;
	begin(&fixture, trials, command, part_every);
	wait_until_hung(count_min);
	/* More than one, so that each finds a slot. */
	for (unsigned i = 0; i < 3; i++) {
		cr_assert_eq(volume_run_on(&other, CORE, VOLUME_COMMAND_READ, i * BLOCK_BYTES,
					   BLOCK_BYTES, block),
			     0);
		cr_assert_eq(block[1], i);
	}
	for (unsigned i = 0; i < REQUESTS; i++)
		cr_assert_not(trial_finished(&trials[i]));
	cr_assert_leq(hung.count_max, count_max, "%u", hung.count_max);
	cr_assert_geq(hung.count_max, count_min, "%u", hung.count_max);
	atomic_store(&hung.answers, true);
	/* The core has to call the kernel for that. */
	cr_assert_eq(volume_run_on(&other, CORE, VOLUME_COMMAND_READ, 0, BLOCK_BYTES, block), 0);
	for (unsigned i = 0; i < REQUESTS; i++) {
		cr_assert_eq(trial_wait(&trials[i]), 0);
		if (command == VOLUME_COMMAND_READ)
			cr_assert_eq(trial_payload(&trials[i])[0], (uint8_t)(2 * i));
		trial_end(&trials[i]);
	}
	submit_fault = NULL;
	volume_fixture_stop(&fixture);
	cr_assert_eq(volume_close(other.volume), 0);
}

TestSuite(file_share, .timeout = 20);

Test(file_share, reads_that_hang_leave_slots)
{
	check_beside_hung(VOLUME_COMMAND_READ, 0, PRIORITY_NORMAL, 40, 48 + 1);
}

Test(file_share, writes_that_hang_leave_slots)
{
	check_beside_hung(VOLUME_COMMAND_WRITE, 8, PRIORITY_NORMAL, 40, 48 + 1);
}

/* The range lock lets only some of them go on at one time: the rest has no slots. */
Test(file_share, parts_of_blocks_that_hang_leave_slots)
{
	check_beside_hung(VOLUME_COMMAND_WRITE, 1, PRIORITY_NORMAL, 40, 48 + 1);
}

Test(file_share, background_reads_that_hang_leave_slots_of_that_class)
{
	check_beside_hung(VOLUME_COMMAND_READ, 0, PRIORITY_BACKGROUND, 10, 12 + 1);
}
