/* Per sector: the durable content and a short list of those since, oldest first.  When the list is full, the disk has by chance made
 * its oldest durable. */
#include "tests/sim/power_model.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "reactor/check.h"
#include "tests/sim/kernel_sim.h"

#define VERSIONS_MAX 12
#define TAKEN_MAX    256

struct version {
	uint64_t answered; /* when: a count of events */
	uint8_t bytes[POWER_SECTOR_BYTES];
};

struct sector {
	uint8_t durable[POWER_SECTOR_BYTES];
	struct version versions[VERSIONS_MAX];
	unsigned count;
};

struct taken {
	bool used;
	short opcode;
	bool is_durable;
	const uint8_t *bytes;
	uint8_t *copy; /* of a write of several parts: BYTES is in it; or NULL */
	uint64_t offset;
	size_t count;
	uint64_t when;
};

static struct {
	const uint8_t *contents;
	struct sector *sectors;
	size_t sector_count;
	enum power_lie lie;
	uint64_t events;
	struct taken taken[TAKEN_MAX];
} disk;

void
power_begin(const uint8_t *contents, size_t sector_count, enum power_lie lie)
{
	memset(&disk, 0, sizeof(disk));
	disk.contents = contents;
	disk.sector_count = sector_count;
	disk.lie = lie;
	disk.sectors = calloc(sector_count, sizeof(disk.sectors[0]));
	SIM_CHECK(disk.sectors != NULL);
	for (size_t i = 0; i < sector_count; i++)
		memcpy(disk.sectors[i].durable, contents + i * POWER_SECTOR_BYTES,
		       POWER_SECTOR_BYTES);
}

void
power_end(void)
{
	for (unsigned i = 0; i < TAKEN_MAX; i++)
		free(disk.taken[i].copy);
	free(disk.sectors);
	disk.sectors = NULL;
}

/* The first COUNT versions of SECTOR are gone; with DURABLE, the last of them was made durable. */
static void
drop_versions(struct sector *sector, unsigned count, bool durable)
{
	if (count > 0 && durable)
		memcpy(sector->durable, sector->versions[count - 1].bytes, POWER_SECTOR_BYTES);
	sector->count -= count;
	memmove(sector->versions, sector->versions + count,
		sector->count * sizeof(sector->versions[0]));
}

static void
add_version(struct sector *sector, size_t index)
{
	struct version *version;

	if (sector->count == VERSIONS_MAX)
		drop_versions(sector, 1, true);
	version = &sector->versions[sector->count++];
	version->answered = disk.events;
	memcpy(version->bytes, disk.contents + index * POWER_SECTOR_BYTES, POWER_SECTOR_BYTES);
}

/* What was answered before WHEN is durable now; or lost, by chance. */
static void
sync_sector(struct sector *sector, uint64_t when, bool success)
{
	unsigned count = 0;

	while (count < sector->count && sector->versions[count].answered < when)
		count++;
	if (success || kernel_sim_below(2) == 0)
		drop_versions(sector, count, success);
}

/* What IOCB has in several parts becomes one in TAKEN, as if it had been so. */
static void
join_parts(struct taken *taken, const struct iocb *iocb)
{
	const struct iovec *parts = iocb->u.c.buf;

	if (iocb->aio_lio_opcode != IO_CMD_PREADV && iocb->aio_lio_opcode != IO_CMD_PWRITEV)
		return;
	taken->opcode = iocb->aio_lio_opcode == IO_CMD_PREADV ? IO_CMD_PREAD : IO_CMD_PWRITE;
	taken->count = 0;
	for (unsigned long i = 0; i < iocb->u.c.nbytes; i++)
		taken->count += parts[i].iov_len;
	taken->copy = malloc(taken->count);
	SIM_CHECK(taken->copy != NULL);
	taken->bytes = taken->copy;
	taken->count = 0;
	for (unsigned long i = 0; i < iocb->u.c.nbytes; i++) {
		memcpy(taken->copy + taken->count, parts[i].iov_base, parts[i].iov_len);
		taken->count += parts[i].iov_len;
	}
}

unsigned
power_taken(const struct iocb *iocb)
{
	unsigned cookie = 0;

	while (cookie < TAKEN_MAX && disk.taken[cookie].used)
		cookie++;
	SIM_CHECK(cookie < TAKEN_MAX);
	disk.taken[cookie] = (struct taken){
		.used = true,
		.opcode = iocb->aio_lio_opcode,
		.is_durable = (iocb->aio_rw_flags & RWF_DSYNC) != 0,
		.bytes = iocb->u.c.buf,
		.offset = (uint64_t)iocb->u.c.offset,
		.count = iocb->u.c.nbytes,
		.when = ++disk.events,
	};
	join_parts(&disk.taken[cookie], iocb);
	return cookie;
}

static void
write_answered(const struct taken *taken, long result)
{
	size_t moved = result > 0 ? (size_t)result : 0;
	size_t first = taken->offset / POWER_SECTOR_BYTES;
	size_t end = (taken->offset + moved + POWER_SECTOR_BYTES - 1) / POWER_SECTOR_BYTES;

	disk.events++;
	for (size_t i = first; moved > 0 && i < end; i++)
		add_version(&disk.sectors[i], i);
	if (!taken->is_durable || disk.lie == POWER_LIE_DURABLE)
		return;
	/* Room is asked for before anything is written: then nothing was synced, and nothing lost. */
	if (result < 0 && result != -EIO)
		return;
	if (result < 0)
		end = (taken->offset + taken->count + POWER_SECTOR_BYTES - 1) / POWER_SECTOR_BYTES;
	disk.events++;
	for (size_t i = first; i < end && i < disk.sector_count; i++)
		sync_sector(&disk.sectors[i], disk.events, result >= 0);
}

void
power_answered(unsigned cookie, long result)
{
	struct taken *taken = &disk.taken[cookie];

	SIM_CHECK(cookie < TAKEN_MAX && taken->used);
	taken->used = false;
	free(taken->copy);
	taken->copy = NULL;
	if (taken->opcode == IO_CMD_PWRITE) {
		write_answered(taken, result);
	} else if (taken->opcode == IO_CMD_FDSYNC && disk.lie != POWER_LIE_SYNC) {
		bool success =
			result == 0 && (disk.lie != POWER_LIE_ERROR || kernel_sim_below(8) != 0);
		/* A sync that fails may lose what was answered until now. */
		uint64_t when = success ? taken->when : ++disk.events;

		for (size_t i = 0; i < disk.sector_count; i++)
			sync_sector(&disk.sectors[i], when, success);
	}
}

void
power_written(uint64_t offset, size_t bytes)
{
	size_t first = offset / POWER_SECTOR_BYTES;
	size_t end = (offset + bytes + POWER_SECTOR_BYTES - 1) / POWER_SECTOR_BYTES;

	disk.events++;
	for (size_t i = first; i < end; i++)
		add_version(&disk.sectors[i], i);
}

void
power_lost(void)
{
	disk.events++;
	for (size_t i = 0; i < disk.sector_count; i++)
		sync_sector(&disk.sectors[i], disk.events, false);
}

void
power_written_durably(uint64_t offset, size_t bytes)
{
	size_t first = offset / POWER_SECTOR_BYTES;
	size_t end = (offset + bytes + POWER_SECTOR_BYTES - 1) / POWER_SECTOR_BYTES;

	disk.events++;
	for (size_t i = first; i < end; i++) {
		add_version(&disk.sectors[i], i);
		if (disk.lie != POWER_LIE_DURABLE)
			drop_versions(&disk.sectors[i], disk.sectors[i].count, true);
	}
}

void
power_candidates(size_t index, void (*look)(size_t sector, const uint8_t *bytes))
{
	const struct sector *sector = &disk.sectors[index];
	uint64_t start = index * POWER_SECTOR_BYTES;

	look(index, sector->durable);
	for (unsigned i = 0; i < sector->count; i++)
		look(index, sector->versions[i].bytes);
	for (unsigned i = 0; i < TAKEN_MAX; i++) {
		const struct taken *taken = &disk.taken[i];

		if (taken->used && taken->opcode == IO_CMD_PWRITE && taken->offset <= start &&
		    start + POWER_SECTOR_BYTES <= taken->offset + taken->count)
			look(index, taken->bytes + (start - taken->offset));
	}
}
