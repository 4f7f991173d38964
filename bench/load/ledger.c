/* The file: a header, the blocks, a checksum of both; in the byte order of the machine, which the magic number shows. */
#include "bench/load/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define MAGIC 0x3172656764654c4dull

/* 12 GiB of memory are not a ledger, but a broken file. */
#define BLOCK_COUNT_MAX ((uint64_t)1 << 30)

struct header {
	uint64_t magic;
	uint64_t run;
	uint64_t region_start;
	uint64_t block_count;
	uint64_t block_bytes;
};

int
ledger_init(struct ledger *ledger, uint64_t run, uint64_t region_start, uint64_t block_count,
	    uint32_t block_bytes)
{
	if (block_count > BLOCK_COUNT_MAX)
		return -ENOMEM;
	*ledger = (struct ledger){
		.run = run,
		.region_start = region_start,
		.block_count = block_count,
		.block_bytes = block_bytes,
		.blocks = calloc(block_count, sizeof(ledger->blocks[0])),
	};
	return ledger->blocks == NULL ? -ENOMEM : 0;
}

void
ledger_fini(struct ledger *ledger)
{
	free(ledger->blocks);
}

void
ledger_flushed(struct ledger *ledger)
{
	for (uint64_t i = 0; i < ledger->block_count; i++)
		ledger->blocks[i].durable = ledger->blocks[i].acknowledged;
}

static uint64_t
checksum_of(const struct header *header, const struct ledger *ledger)
{
	return XXH3_64bits_withSeed(ledger->blocks, ledger->block_count * sizeof(ledger->blocks[0]),
				    XXH3_64bits(header, sizeof(*header)));
}

static int
write_file(const struct ledger *ledger, FILE *file)
{
	struct header header = {
		.magic = MAGIC,
		.run = ledger->run,
		.region_start = ledger->region_start,
		.block_count = ledger->block_count,
		.block_bytes = ledger->block_bytes,
	};
	uint64_t checksum = checksum_of(&header, ledger);

	if (fwrite(&header, sizeof(header), 1, file) != 1 ||
	    fwrite(ledger->blocks, sizeof(ledger->blocks[0]), ledger->block_count, file) !=
		    ledger->block_count ||
	    fwrite(&checksum, sizeof(checksum), 1, file) != 1 || fflush(file) != 0 ||
	    fsync(fileno(file)) != 0)
		return errno != 0 ? -errno : -EIO;
	return 0;
}

int
ledger_check_path(const char *path, FILE *errors)
{
	char *temporary;
	struct stat status;
	int file, error = 0;

	if (asprintf(&temporary, "%s.new", path) < 0)
		return -ENOMEM;
	file = open(temporary, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	if (file < 0) {
		error = -errno;
	} else {
		(void)close(file);
		(void)unlink(temporary);
		if (stat(path, &status) == 0 && S_ISDIR(status.st_mode))
			error = -EISDIR;
	}
	free(temporary);
	if (error < 0)
		fprintf(errors, "%s: cannot be written: %s\n", path, strerror(-error));
	return error;
}

int
ledger_save(const struct ledger *ledger, const char *path, FILE *errors)
{
	char *temporary = NULL;
	FILE *file = NULL;
	int error = -ENOMEM;

	if (asprintf(&temporary, "%s.new", path) < 0)
		temporary = NULL;
	if (temporary != NULL) {
		file = fopen(temporary, "we");
		error = file == NULL ? -errno : write_file(ledger, file);
	}
	if (file != NULL && fclose(file) != 0 && error == 0)
		error = -errno;
	if (error == 0 && rename(temporary, path) != 0)
		error = -errno;
	free(temporary);
	if (error < 0)
		fprintf(errors, "%s: cannot be written: %s\n", path, strerror(-error));
	return error;
}

/* Returns what is wrong, or NULL. */
static const char *
read_file(struct ledger *ledger, FILE *file)
{
	struct header header;
	uint64_t checksum;

	if (fread(&header, sizeof(header), 1, file) != 1 || header.magic != MAGIC ||
	    header.block_count == 0 || header.block_count > BLOCK_COUNT_MAX ||
	    header.block_bytes == 0 || header.block_bytes > UINT32_MAX)
		return "is not what millrace-bench verify --state wrote";
	if (ledger_init(ledger, header.run, header.region_start, header.block_count,
			(uint32_t)header.block_bytes) < 0)
		return "no memory for it";
	if (fread(ledger->blocks, sizeof(ledger->blocks[0]), ledger->block_count, file) ==
		    ledger->block_count &&
	    fread(&checksum, sizeof(checksum), 1, file) == 1 &&
	    checksum == checksum_of(&header, ledger))
		return NULL;
	ledger_fini(ledger);
	return "is cut off or damaged";
}

int
ledger_load(struct ledger *ledger, const char *path, FILE *errors)
{
	FILE *file = fopen(path, "re");
	const char *wrong;

	if (file == NULL) {
		int error = -errno;

		fprintf(errors, "%s: cannot be opened: %s\n", path, strerror(-error));
		return error;
	}
	wrong = read_file(ledger, file);
	(void)fclose(file);
	if (wrong != NULL) {
		fprintf(errors, "%s: %s\n", path, wrong);
		return -EINVAL;
	}
	for (uint64_t i = 0; i < ledger->block_count; i++)
		ledger->blocks[i].acknowledged = ledger->blocks[i].durable;
	return 0;
}
