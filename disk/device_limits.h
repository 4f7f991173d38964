/* What a block device can do beside reading and writing, as the kernel says. */
#ifndef DISK_DEVICE_LIMITS_H
#define DISK_DEVICE_LIMITS_H

#include <stdint.h>
#include <sys/types.h>

struct device_limits {
	uint64_t discard_bytes_max;	 /* 0: it can't discard */
	uint64_t discard_grain_bytes;	 /* what it gives back is multiples of this; 0: not said */
	uint64_t write_zeroes_bytes_max; /* 0: zeros are written like other data */
};

/* Find *LIMITS of DEVICE (stat's st_rdev), a disk or a part of one; what the kernel does not say is 0.
 * Source: the kernel's Documentation/ABI/stable/sysfs-block. */
void device_limits_find(dev_t device, struct device_limits *limits);

#endif
