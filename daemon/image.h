/* What the path of an export leads to: one image may have several names. */
#ifndef DAEMON_IMAGE_H
#define DAEMON_IMAGE_H

#include <stdbool.h>
#include <sys/types.h>

struct image {
	/* Private. */
	bool found, is_device;
	dev_t device; /* itself, or that of its file system */
	ino_t inode;  /* 0: it is a device */
};

/* Find what is at PATH (NULL: none); what is not there is no other's. */
void image_find(const char *path, struct image *image);

/* Whether both are there, and the same; a link, or another node of a device, makes no other one. */
bool image_is_same(const struct image *left, const struct image *right);

#endif
