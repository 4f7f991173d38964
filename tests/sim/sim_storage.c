/* Power cuts: the real volume of a file (disk/file.c, disk/volume.c, disk/range_lock.c) on the real reactor, over the simulated kernel
 * and a disk with a volatile cache (power_model.h), with requests of all alignments that are cut off at every moment.  Two seeds of
 * four have direct I/O, the other two a page cache (storage_calls.h).  There is one core, and neither TRIM nor WRITE_ZEROES, which are
 * calls of a helper.
 *
 * A cut is a look at what the disk may hold if the power were lost now; the run goes on as if nothing had been.  The image is divided
 * into slots, each rewritten by one request at a time with a byte that counts its writes.  Whatever a sector may hold, each slot's part
 * of it must be of the slot's last write that is promised (acknowledged with FUA, or before a flush that succeeded) or of a later one.
 * Every second seed has errors too: then a flush that succeeds though an earlier one has failed is found the same way.
 *
 * At last the disk lies, so that promises are broken: a test that does not find that is no test. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "disk/volume.h"
#include "reactor/log.h"
#include "tests/sim/kernel_sim.h"
#include "tests/sim/power_model.h"
#include "tests/sim/storage_calls.h"

#define MS	       1000000
#define SLOTS_MAX      64
#define REQUESTS       16
#define MARKS	       251 /* of a slot's writes, counted round */
#define UNPROMISED_MAX 120
#define CUTS_DEFAULT   2000
#define SEEDS_DEFAULT  50
#define REAL_TIME_S    100
#define BUFFER_BYTES   (256u << 10)

/* A part of the image. */
struct slot {
	uint64_t offset, length;
	uint64_t sent, acknowledged, promised; /* numbers of writes */
	bool busy;
};

struct request {
	struct volume_request io;
	struct slot *slot; /* of a write or read */
	uint64_t number;
	uint64_t covered[SLOTS_MAX]; /* by a flush: what was acknowledged when it was submitted */
	bool busy;
	uint8_t *buffer;
};

static struct {
	uint64_t seed, cuts, writes, flushes, failures;
	struct core core;
	struct cores cores;
	struct volume *volume;
	uint64_t image_bytes;
	uint8_t *contents;
	struct slot slots[SLOTS_MAX];
	unsigned slot_count, last_slot;
	struct request requests[REQUESTS];
	bool ended, checking;
} run;

/* ---- what is promised ---- */

static uint8_t
mark_of(uint64_t number)
{
	return (uint8_t)(1 + number % MARKS);
}

static void
check_part(const struct slot *slot, size_t sector, const uint8_t *bytes)
{
	uint64_t sector_start = sector * POWER_SECTOR_BYTES;
	uint64_t start = slot->offset > sector_start ? slot->offset - sector_start : 0;
	uint64_t end = slot->offset + slot->length - sector_start;
	uint64_t newer;

	if (end > POWER_SECTOR_BYTES)
		end = POWER_SECTOR_BYTES;
	for (uint64_t i = start; i < end; i++)
		if (bytes[i] != bytes[start])
			kernel_sim_fail("sector %zu is torn within", sector);
	newer = (uint64_t)(bytes[start] + MARKS - mark_of(slot->promised)) % MARKS;
	if (newer > slot->sent - slot->promised)
		kernel_sim_fail("after a power cut sector %zu may hold mark %u of slot %td, whose "
				"write %" PRIu64 " (mark %u) is promised and %" PRIu64
				" was the last",
				sector, bytes[start], slot - run.slots, slot->promised,
				mark_of(slot->promised), slot->sent);
}

static void
check_candidate(size_t sector, const uint8_t *bytes)
{
	uint64_t start = sector * POWER_SECTOR_BYTES;

	for (unsigned i = 0; i < run.slot_count; i++) {
		const struct slot *slot = &run.slots[i];

		if (slot->offset < start + POWER_SECTOR_BYTES &&
		    slot->offset + slot->length > start)
			check_part(slot, sector, bytes);
	}
}

static void
cut(void)
{
	if (run.checking)
		return;
	run.checking = true;
	for (size_t i = 0; i < run.image_bytes / POWER_SECTOR_BYTES; i++)
		power_candidates(i, check_candidate);
	run.checking = false;
	run.cuts++;
}

/* ---- requests ---- */

static void
write_done(struct request *request, int error)
{
	struct slot *slot = request->slot;

	slot->busy = false;
	if (error != 0)
		return;
	run.writes++;
	slot->acknowledged = request->number;
	if (request->io.durable && slot->promised < request->number)
		slot->promised = request->number;
}

static void
flush_done(struct request *request, int error)
{
	if (error != 0)
		return;
	run.flushes++;
	for (unsigned i = 0; i < run.slot_count; i++) {
		if (run.slots[i].promised < request->covered[i])
			run.slots[i].promised = request->covered[i];
	}
}

static void
read_done(struct request *request, int error)
{
	const uint8_t *bytes = volume_payload(run.volume, request->io.buffer, request->io.offset);
	struct slot *slot = request->slot;

	slot->busy = false;
	if (error != 0)
		return;
	for (uint64_t i = 0; i < request->io.length; i++)
		SIM_CHECK((uint64_t)(bytes[i] + MARKS - mark_of(slot->acknowledged)) % MARKS <=
			  slot->sent - slot->acknowledged);
}

static void
on_done(struct volume_request *io, int error)
{
	struct request *request = container_of(io, struct request, io);

	request->busy = false;
	run.failures += error != 0;
	if (io->command == VOLUME_COMMAND_WRITE)
		write_done(request, error);
	else if (io->command == VOLUME_COMMAND_FLUSH)
		flush_done(request, error);
	else
		read_done(request, error);
	if (kernel_sim_below(4) == 0)
		cut();
}

static struct slot *
idle_slot(void)
{
	struct slot *slot;

	/* Often the one behind the last: those that follow each other may go as one. */
	if (kernel_sim_below(2) == 0)
		run.last_slot = (unsigned)kernel_sim_below(run.slot_count);
	else
		run.last_slot = (run.last_slot + 1) % run.slot_count;
	slot = &run.slots[run.last_slot];

	return slot->busy ? NULL : slot;
}

static void
choose(struct request *request)
{
	struct volume_request *io = &request->io;
	struct slot *slot = idle_slot();

	io->durable = false;
	io->length = io->offset = 0;
	io->command = VOLUME_COMMAND_FLUSH;
	request->slot = NULL;
	for (unsigned i = 0; i < run.slot_count; i++)
		request->covered[i] = run.slots[i].acknowledged;
	if (slot == NULL || kernel_sim_below(10) == 0)
		return;
	io->command = kernel_sim_below(8) == 0 ? VOLUME_COMMAND_READ : VOLUME_COMMAND_WRITE;
	/* Marks must tell all writes apart that are not promised. */
	if (io->command == VOLUME_COMMAND_WRITE && slot->sent - slot->promised > UNPROMISED_MAX) {
		io->command = VOLUME_COMMAND_FLUSH;
		return;
	}
	slot->busy = true;
	request->slot = slot;
	io->offset = slot->offset;
	io->length = slot->length;
	io->buffer = request->buffer;
	if (io->command == VOLUME_COMMAND_READ)
		return;
	io->durable = kernel_sim_below(4) == 0;
	request->number = ++slot->sent;
	memset(volume_payload(run.volume, io->buffer, io->offset), mark_of(request->number),
	       io->length);
}

static void
start_some(void)
{
	for (unsigned i = 0; i < REQUESTS && !run.ended; i++) {
		struct request *request = &run.requests[i];

		if (request->busy || kernel_sim_below(3) != 0)
			continue;
		request->busy = true;
		choose(request);
		request->io.core = &run.core;
		request->io.priority = PRIORITY_NORMAL;
		request->io.done = on_done;
		volume_submit(run.volume, &request->io);
	}
}

/* ---- a run ---- */

static uint64_t
on_taken(struct iocb *iocb)
{
	/* Above the lowest bits: kernel_sim counts by these. */
	return iocb->aio_lio_opcode == IO_CMD_POLL
		       ? 0
		       : (uint64_t)(power_taken(iocb) + 1) * KERNEL_SIM_CLASSES;
}

static void
on_refused(struct iocb *iocb, int error)
{
	(void)iocb;
	(void)error;
}

static void
on_completed(uint64_t cookie, long result)
{
	if (cookie != 0)
		power_answered((unsigned)(cookie / KERNEL_SIM_CLASSES) - 1, result);
}

static void
on_transfer(int fd, void *first_byte, bool send, long result)
{
	(void)fd;
	(void)first_byte;
	(void)send;
	(void)result;
}

static void
on_event(void)
{
	if (run.contents != NULL && run.volume != NULL && kernel_sim_below(16) == 0)
		cut();
}

/* Slots from 1 byte to 20,000, one behind the other, and most of them with both ends anywhere. */
static void
divide(void)
{
	uint64_t offset = 0;

	run.image_bytes = (96 + kernel_sim_below(64)) * POWER_SECTOR_BYTES;
	while (offset < run.image_bytes) {
		struct slot *slot = &run.slots[run.slot_count++];
		uint64_t end =
			offset + 1 + kernel_sim_below(kernel_sim_below(4) == 0 ? 20000 : 2000);

		if (kernel_sim_below(2) == 0)
			end = (end + 4095) / 4096 * 4096;
		if (end > run.image_bytes || run.slot_count == SLOTS_MAX)
			end = run.image_bytes;
		slot->offset = offset;
		slot->length = end - offset;
		offset = end;
	}
}

static bool
seed_has_errors(uint64_t seed)
{
	return seed % 2 == 0;
}

static bool
seed_is_cached(uint64_t seed)
{
	return seed % 4 >= 2;
}

static void
open_volume(void)
{
	char path[] = "build/sim-image-XXXXXX";
	struct volume_options options = {
		.kind = VOLUME_KIND_FILE,
		.path = path,
		.cache = seed_is_cached(run.seed) ? VOLUME_CACHE_HOST : VOLUME_CACHE_NONE,
	};
	int fd = mkstemp(path);

	SIM_CHECK(fd >= 0 && ftruncate(fd, (off_t)run.image_bytes) == 0);
	SIM_CHECK(volume_open(&options, &run.volume) == 0);
	(void)close(fd);
	(void)unlink(path);
	run.core.index = 0;
	run.cores.count = 1;
	run.cores.cores = &run.core;
	SIM_CHECK(volume_start(run.volume, &run.cores, 0, NULL) == 0);
}

static void
prepare(enum power_lie lie)
{
	struct reactor_config config = { .disk_slots = 1 + (unsigned)kernel_sim_below(REQUESTS),
					 .poll_slots = 4 };
	struct storage_calls_config calls = { .errors = seed_has_errors(run.seed),
					      .on_step = on_event };

	divide();
	run.contents = malloc(run.image_bytes);
	SIM_CHECK(run.contents != NULL);
	memset(run.contents, mark_of(0), run.image_bytes);
	power_begin(run.contents, run.image_bytes / POWER_SECTOR_BYTES, lie);
	calls.fd = kernel_sim_file(run.contents, run.image_bytes);
	calls.contents = run.contents;
	calls.never_nowait = kernel_sim_below(4) == 0;
	storage_calls_begin(&calls);
	while (reactor_create(&config, &run.core.reactor) != 0)
		;
	for (unsigned i = 0; i < REQUESTS; i++)
		SIM_CHECK(posix_memalign((void **)&run.requests[i].buffer, 4096, BUFFER_BYTES) ==
			  0);
	open_volume();
}

static bool
all_done(void)
{
	for (unsigned i = 0; i < REQUESTS; i++)
		if (run.requests[i].busy)
			return false;
	return true;
}

static void
finish(void)
{
	bool lost;

	run.ended = true;
	while (!all_done() || kernel_sim_below(64) != 0) {
		if (!reactor_turn(run.core.reactor))
			kernel_sim_idle(kernel_sim_below(200000));
	}
	lost = run.volume->sync_failed;
	SIM_CHECK(volume_close(run.volume) == (lost ? -EIO : 0));
	run.volume = NULL;
	reactor_destroy(run.core.reactor);
	for (unsigned i = 0; i < REQUESTS; i++)
		free(run.requests[i].buffer);
	power_end();
	free(run.contents);
	run.contents = NULL;
}

static void
on_alarm(int number)
{
	(void)number;
	kernel_sim_fail("not done after %d s of real time", REAL_TIME_S);
}

static void
run_seed(uint64_t seed, uint64_t cuts, enum power_lie lie)
{
	static const struct kernel_sim_observer observer = {
		.on_taken = on_taken,
		.on_refused = on_refused,
		.on_completed = on_completed,
		.on_transfer = on_transfer,
		.on_sleep = on_event,
		.on_time = on_event,
	};
	struct kernel_sim_config config = {
		.seed = seed,
		.ring_spare = 8,
		.manner = {
			.short_submit = 2000,
			.no_slot = 500,
			.at_once = 8000,
			.preempted = 200,
			.error_result = seed_has_errors(seed) ? 300 : 0,
			.disk_ns_min = 20000,
			.disk_ns_max = 400000,
			.poll_ns_max = 100000,
		},
	};

	signal(SIGALRM, on_alarm);
	alarm(REAL_TIME_S);
	run.seed = seed;
	kernel_sim_begin(&config, &observer);
	prepare(lie);
	while (run.cuts < cuts) {
		start_some();
		if (!reactor_turn(run.core.reactor))
			kernel_sim_idle(kernel_sim_below(200000));
		if (kernel_sim_below(8) == 0)
			cut();
	}
	finish();
	kernel_sim_end();
	alarm(0);
}

/* ---- many seeds ---- */

/* In a process of its own, which says nothing if QUIET.  Returns whether it passed. */
static bool
seed_passes(uint64_t seed, uint64_t cuts, enum power_lie lie, bool quiet)
{
	pid_t child;
	int status;

	fflush(NULL);
	child = fork();
	if (child == 0) {
		if (quiet && freopen("/dev/null", "w", stderr) == NULL)
			exit(2);
		log_set_level(LOG_LEVEL_ERROR);
		run_seed(seed, cuts, lie);
		exit(0);
	}
	if (child < 0 || waitpid(child, &status, 0) != child) {
		perror("sim-storage");
		return false;
	}
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* Whether a disk that lies is found out within a few seeds without errors, with a page cache or without. */
static bool
finds(enum power_lie lie, uint64_t base, bool cached)
{
	uint64_t first = (base & ~(uint64_t)3) + 1 + 2 * cached;

	/* Nothing is written durably through the page cache, but synced. */
	if (cached && lie == POWER_LIE_DURABLE)
		return true;
	for (unsigned i = 0; i < 5; i++) {
		if (!seed_passes(first + 4 * i, CUTS_DEFAULT, lie, true))
			return true;
	}
	printf("a disk that lies (%d) was not found out, from SEED=%" PRIu64 " on\n", (int)lie,
	       first);
	return false;
}

static uint64_t
seed_from_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return ((uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / MS) % 1000000000000;
}

static bool
write_counts(const char *path, unsigned passed, unsigned failed)
{
	FILE *file = fopen(path, "w");
	bool good = file != NULL && fprintf(file, "%u passed, %u failed\n", passed, failed) > 0;

	if (file != NULL && fclose(file) != 0)
		good = false;
	if (!good)
		perror(path);
	return good;
}

/* What a seed did. */
static void
report(void)
{
	const struct storage_calls_counters *counters = storage_calls_counters();

	printf("%s, %" PRIu64 " cuts, %" PRIu64 " writes and %" PRIu64
	       " flushes acknowledged, %" PRIu64 " requests failed\n",
	       seed_is_cached(run.seed) ? "page cache" : "direct I/O", run.cuts, run.writes,
	       run.flushes, run.failures);
	printf("%" PRIu64 " times several went as one; %" PRIu64
	       " writes to the page cache, which lost some %" PRIu64 " times, %" PRIu64
	       " reads from it, %" PRIu64 " of what it had not\n",
	       counters->merged, counters->written, counters->lost, counters->hits,
	       counters->misses);
}

static int
usage(void)
{
	fputs("usage: [SEED=n] sim-storage [--seeds N] [--cuts N] [--counts FILE]\n", stderr);
	return 2;
}

int
main(int argc, char **argv)
{
	unsigned seeds = SEEDS_DEFAULT, passed = 0, failed = 0;
	uint64_t cuts = CUTS_DEFAULT, base = seed_from_clock();
	const char *counts = NULL, *seed_text = getenv("SEED");

	for (int i = 1; i < argc; i++) {
		if (i + 1 < argc && strcmp(argv[i], "--seeds") == 0)
			seeds = (unsigned)strtoul(argv[++i], NULL, 10);
		else if (i + 1 < argc && strcmp(argv[i], "--cuts") == 0)
			cuts = strtoull(argv[++i], NULL, 10);
		else if (i + 1 < argc && strcmp(argv[i], "--counts") == 0)
			counts = argv[++i];
		else
			return usage();
	}
	if (seed_text != NULL) {
		run_seed(strtoull(seed_text, NULL, 10), cuts, POWER_LIE_NONE);
		report();
		return 0;
	}
	printf("sim-storage: SEED=%" PRIu64 " to SEED=%" PRIu64 ", %" PRIu64 " power cuts each\n",
	       base, base + seeds - 1, cuts);
	for (unsigned i = 0; i < seeds; i++) {
		if (seed_passes(base + i, cuts, POWER_LIE_NONE, false)) {
			passed++;
			continue;
		}
		failed++;
		printf("SEED=%" PRIu64 " failed; again: SEED=%" PRIu64 " PROGRAM --cuts %" PRIu64
		       "\n",
		       base + i, base + i, cuts);
	}
	for (enum power_lie lie = POWER_LIE_NONE + 1; lie < POWER_LIE_COUNT; lie++) {
		bool found = finds(lie, base, false) && finds(lie, base, true);

		passed += found;
		failed += !found;
	}
	printf("%u passed, %u failed\n", passed, failed);
	if (counts != NULL && !write_counts(counts, passed, failed))
		return 1;
	return failed == 0 && passed > 0 ? 0 : 1;
}
