/* A file is known by its inode, a block device by its number. */
#include "daemon/image.h"

#include <stddef.h>
#include <sys/stat.h>

void
image_find(const char *path, struct image *image)
{
	struct stat status;

	*image = (struct image){ .found = false };
	if (path == NULL || stat(path, &status) != 0)
		return;
	image->found = true;
	image->is_device = S_ISBLK(status.st_mode);
	image->device = image->is_device ? status.st_rdev : status.st_dev;
	image->inode = image->is_device ? 0 : status.st_ino;
}

bool
image_is_same(const struct image *left, const struct image *right)
{
	return left->found && right->found && left->is_device == right->is_device &&
	       left->device == right->device && left->inode == right->inode;
}
