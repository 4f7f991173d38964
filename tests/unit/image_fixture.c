/* Volumes in images on media; they are described in the header. */
#include "tests/unit/image_fixture.h"

#include <criterion/criterion.h>
#include <sys/stat.h>

void
image_start_with(struct image *image, enum medium_kind kind, uint64_t size_bytes,
		 struct volume_options options)
{
	const char *missing = medium_create(kind, size_bytes, image->path);

	if (missing != NULL)
		cr_skip_test("%s: %s", medium_names[kind], missing);
	image->kind = kind;
	options.path = image->path;
	volume_fixture_start(&image->fixture, &options);
}

void
image_start_cached(struct image *image, enum medium_kind kind, enum volume_cache cache,
		   uint64_t size_bytes)
{
	image_start_with(image, kind, size_bytes, (struct volume_options){ .cache = cache });
}

void
image_start(struct image *image, enum medium_kind kind, uint64_t size_bytes)
{
	image_start_cached(image, kind, VOLUME_CACHE_NONE, size_bytes);
}

void
image_stop(struct image *image)
{
	volume_fixture_stop(&image->fixture);
	medium_remove(image->kind, image->path);
}

int
image_run(struct image *image, struct volume_request request)
{
	struct trial trial = { .request = request };
	int error;

	trial_begin(&image->fixture, &trial, 0, NULL);
	error = trial_wait(&trial);
	trial_end(&trial);
	return error;
}

uint64_t
image_file_bytes(const struct image *image)
{
	struct stat status;

	cr_assert_eq(stat(image->path, &status), 0);
	return (uint64_t)status.st_size;
}
