/* Where a test's image is: on file systems and block devices of the test's own, made for it on a loop device.  They are in a mount
 * namespace of the test's process and go with it. */
#ifndef TESTS_UNIT_MEDIUM_H
#define TESTS_UNIT_MEDIUM_H

#include <stdint.h>

enum medium_kind {
	MEDIUM_HERE, /* a file in the build folder */
	MEDIUM_EXT4,
	MEDIUM_XFS,
	MEDIUM_BTRFS,
	MEDIUM_LOOP512, /* a loop device, and its block */
	MEDIUM_LOOP4096,
	MEDIUM_COUNT,
};

extern const char *const medium_names[MEDIUM_COUNT];

/* Make an image of SIZE_BYTES zeros on KIND, and write its path to PATH.  Returns NULL, or why this machine has no such medium;
 * other failures end the test. */
const char *medium_create(enum medium_kind kind, uint64_t size_bytes, char path[64]);

/* Remove the image at PATH; a device is left to the end of the process. */
void medium_remove(enum medium_kind kind, const char *path);

#endif
