/* An image on a medium (medium.h), and a volume in it on the cores of volume_fixture.h.
 *
 * A struct image is the test's own memory and stays where it is from its start to image_stop; meanwhile the file or device, the volume
 * and the cores belong to it.  The test may use what is at `path` beside the volume, and `fixture` with all that volume_fixture.h has.
 * Everything is called on the thread of the test; what fails ends the test, but for the requests' errors. */
#ifndef TESTS_UNIT_IMAGE_FIXTURE_H
#define TESTS_UNIT_IMAGE_FIXTURE_H

#include "tests/unit/medium.h"
#include "tests/unit/volume_fixture.h"

struct image {
	struct volume_fixture fixture;
	enum medium_kind kind;
	char path[64];
};

/* Make an image of SIZE_BYTES zeros on KIND, and open and start a volume in it: past the page cache, with CACHE, or with OPTIONS, whose
 * path is set here.  Skips the test where this machine has no such medium. */
void image_start(struct image *image, enum medium_kind kind, uint64_t size_bytes);
void image_start_cached(struct image *image, enum medium_kind kind, enum volume_cache cache,
			uint64_t size_bytes);
void image_start_with(struct image *image, enum medium_kind kind, uint64_t size_bytes,
		      struct volume_options options);

/* volume_fixture_stop, and remove the image. */
void image_stop(struct image *image);

/* Submit REQUEST, which has its command, range and options set and is no READ or WRITE, on core 0, and wait for it.  Returns its
 * error. */
int image_run(struct image *image, struct volume_request request);

/* The size of its file. */
uint64_t image_file_bytes(const struct image *image);

#endif
