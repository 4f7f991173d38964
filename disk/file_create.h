/* Making an image that does not exist yet. */
#ifndef DISK_FILE_CREATE_H
#define DISK_FILE_CREATE_H

#include "disk/volume_options.h"
#include "reactor/check.h"

/* Make the file at options->path as options->create says, of options->size_bytes zeros, unless there is something of that name
 * already: that is never touched.  It gets its name when all of it, and its size, is on stable storage: a daemon that is killed
 * meanwhile leaves nothing behind.  Blocks, for as long as it takes to write the file if that is asked for: not on a core;
 * options->progress is called now and then.
 * Returns 0, also if there is nothing to do, or a negative errno, logged.
 * Errors: -ENOSPC and -EDQUOT no room, -EFBIG too large for the file system, -EOPNOTSUPP it can't do that; those of open(2),
 * fallocate(2) and linkat(2). */
int file_create(const struct volume_options *options) MUST_USE;

/* Whether file_create would make the file now, and likely could; it is not made.  1 if so, 0 if there is nothing to do, or a negative
 * errno, logged. */
int file_create_check(const struct volume_options *options) MUST_USE;

#endif
