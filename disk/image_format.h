/* Formats of images that are not disks as they are: qcow2 and the like. */
#ifndef DISK_IMAGE_FORMAT_H
#define DISK_IMAGE_FORMAT_H

#include <stdint.h>

/* Log a warning if the regular file FD, opened at PATH, begins as an image of another format than
 * raw does.  It may be meant: a raw disk may hold anything.  UNIT_BYTES: its unit of direct I/O, a
 * power of two, at least 512.  Blocks: not on a core. */
void image_format_warn(const char *path, int fd, uint32_t unit_bytes);

#endif
