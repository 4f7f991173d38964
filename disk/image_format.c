/* A client of such an image finds its header in place of the disk's first blocks, takes the disk
 * for an empty one, and may write over it.
 * Sources: QEMU's docs/interop/qcow2.txt; VMware's Virtual Disk Format, "Hosted Sparse Extents";
 * [MS-VHDX], "File Type Identifier". */
#include "disk/image_format.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "reactor/check.h"
#include "reactor/log.h"

static const struct {
	const char *name, *magic;
} formats[] = {
	{ .name = "qcow2", .magic = "QFI\xfb" },
	{ .name = "VMDK", .magic = "KDMV" },
	{ .name = "VHDX", .magic = "vhdxfile" },
};

/* The format of what begins with these BYTES, or NULL: none of those. */
static const char *
find_name(const void *bytes, size_t count)
{
	for (size_t i = 0; i < ARRAY_COUNT(formats); i++) {
		size_t magic_bytes = strlen(formats[i].magic);

		if (count >= magic_bytes && memcmp(bytes, formats[i].magic, magic_bytes) == 0)
			return formats[i].name;
	}
	return NULL;
}

void
image_format_warn(const char *path, int fd, uint32_t unit_bytes)
{
	const char *name = NULL;
	ssize_t result;
	void *head;

	/* Direct I/O reads whole blocks to where a block may begin. */
	if (posix_memalign(&head, unit_bytes, unit_bytes) != 0)
		return; /* UNTESTED: no fault for malloc */
	result = pread(fd, head, unit_bytes, 0);
	if (result > 0)
		name = find_name(head, (size_t)result);
	free(head);
	if (name != NULL)
		log_warning("%s: looks like a %s image: its bytes are served as they are; qemu-img "
			    "convert -O raw %s NEW makes one that clients can use",
			    path, name, path);
}
