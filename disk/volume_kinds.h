/* The kinds of volumes that there are, for disk/volume.c's table; each is defined in the file of its name. */
#ifndef DISK_VOLUME_KINDS_H
#define DISK_VOLUME_KINDS_H

#include "disk/volume.h"

extern const struct volume_ops fault_volume_ops;
extern const struct volume_ops file_volume_ops;
extern const struct volume_ops memory_volume_ops;
extern const struct volume_ops null_volume_ops;

#endif
