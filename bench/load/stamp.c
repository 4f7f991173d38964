/* The checksum is XXH3, over the rest of the sector. */
#include "bench/load/stamp.h"

#include <stdbool.h>
#include <string.h>
#include <xxhash.h>

#define MAGIC 0x706d6174536c6c4dull

struct sector {
	uint64_t checksum; /* of what follows */
	uint64_t magic;
	uint64_t run;
	uint64_t offset;
	uint64_t generation;
	uint64_t filling[(STAMP_SECTOR_BYTES - 40) / 8];
};

_Static_assert(sizeof(struct sector) == STAMP_SECTOR_BYTES, "a stamp is a sector");

const char *
stamp_finding_name(enum stamp_finding finding)
{
	static const char *const names[] = {
		[STAMP_RIGHT] = "right",	 [STAMP_LOST] = "lost",
		[STAMP_STALE] = "stale",	 [STAMP_TORN] = "torn",
		[STAMP_MISPLACED] = "misplaced", [STAMP_CORRUPT] = "corrupt",
		[STAMP_FOREIGN] = "foreign",
	};

	return names[finding];
}

static uint64_t
checksum_of(const struct sector *sector)
{
	return XXH3_64bits(&sector->magic, sizeof(*sector) - sizeof(sector->checksum));
}

void
stamp_fill(uint8_t *block, uint32_t bytes, uint64_t run, uint64_t offset, uint64_t generation)
{
	for (uint32_t at = 0; at < bytes; at += STAMP_SECTOR_BYTES) {
		struct sector sector = {
			.magic = MAGIC, .run = run, .offset = offset + at, .generation = generation
		};

		/* Different in each sector and write, so that no two look alike. */
		for (size_t i = 0; i < sizeof(sector.filling) / sizeof(sector.filling[0]); i++)
			sector.filling[i] = (offset + at + i) * 0x9e3779b97f4a7c15u ^ generation;
		sector.checksum = checksum_of(&sector);
		memcpy(block + at, &sector, sizeof(sector));
	}
}

/* A sector alone: *generation 0 if nothing was ever written by RUN here. */
static enum stamp_finding
check_sector(const struct sector *sector, uint64_t run, uint64_t offset, uint64_t *generation)
{
	*generation = 0;
	/* Also what another run has left: then this one has lost its write. */
	if (sector->magic != MAGIC || sector->run != run)
		return STAMP_RIGHT;
	if (sector->checksum != checksum_of(sector))
		return STAMP_CORRUPT;
	if (sector->offset != offset)
		return STAMP_MISPLACED;
	*generation = sector->generation;
	return STAMP_RIGHT;
}

enum stamp_finding
stamp_check(const uint8_t *block, uint32_t bytes, uint64_t run, uint64_t offset,
	    uint64_t generation_min, uint64_t generation_max, uint64_t *generation)
{
	uint64_t first = UINT64_MAX, last = 0;

	for (uint32_t at = 0; at < bytes; at += STAMP_SECTOR_BYTES) {
		struct sector sector;
		enum stamp_finding finding;

		memcpy(&sector, block + at, sizeof(sector));
		finding = check_sector(&sector, run, offset + at, generation);
		if (finding != STAMP_RIGHT)
			return finding;
		first = *generation < first ? *generation : first;
		last = *generation > last ? *generation : last;
	}
	*generation = first;
	if (first != last && (first < generation_min || last > generation_max))
		return STAMP_TORN;
	if (*generation == 0 && generation_min > 0)
		return STAMP_LOST;
	if (*generation < generation_min)
		return STAMP_STALE;
	return *generation > generation_max ? STAMP_FOREIGN : STAMP_RIGHT;
}
