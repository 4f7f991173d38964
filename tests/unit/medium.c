/* Loop devices are told to go with their last user (LO_FLAGS_AUTOCLEAR): the mount, or the descriptor that is left open here. */
#include "tests/unit/medium.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

/* As little as XFS takes. */
#define DISK_BYTES ((off_t)320 << 20)

const char *const medium_names[MEDIUM_COUNT] = { "here",  "ext4",    "xfs",
						 "btrfs", "loop512", "loop4096" };

static int
backing_create(char path[64], off_t size_bytes)
{
	int fd;

	(void)snprintf(path, 64, "build/unit-image-XXXXXX");
	fd = mkstemp(path);
	cr_assert_geq(fd, 0);
	cr_assert_eq(ftruncate(fd, size_bytes), 0);
	return fd;
}

/* Another test may take the free device first. */
static int
loop_open(int backing, unsigned block_bytes, char path[64])
{
	struct loop_config config = {
		.fd = (unsigned)backing,
		.block_size = block_bytes,
		.info.lo_flags = LO_FLAGS_AUTOCLEAR,
	};

	for (unsigned tries = 0; tries < 100; tries++) {
		int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), number, fd;

		if (control < 0)
			return -1;
		number = ioctl(control, LOOP_CTL_GET_FREE);
		(void)close(control);
		(void)snprintf(path, 64, "/dev/loop%d", number);
		fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd >= 0 && ioctl(fd, LOOP_CONFIGURE, &config) == 0)
			return fd;
		if (fd >= 0)
			(void)close(fd);
		usleep(20000);
	}
	return -1;
}

static const char *
mount_new(const char *type, const char *device, const char *folder)
{
	char command[128];

	(void)snprintf(command, sizeof(command),
		       "PATH=$PATH:/sbin:/usr/sbin mkfs.%s -q %s %s >/dev/null 2>&1", type,
		       type[0] == 'e' ? "-F" : "-f", device);
	if (system(command) != 0)
		return "no mkfs for this file system";
	cr_assert_eq(mkdir(folder, 0700), 0);
	if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount(device, folder, type, 0, NULL) != 0) {
		(void)rmdir(folder);
		return "this kernel does not mount it";
	}
	return NULL;
}

const char *
medium_create(enum medium_kind kind, uint64_t size_bytes, char path[64])
{
	char device[64], folder[64];
	bool is_device = kind == MEDIUM_LOOP512 || kind == MEDIUM_LOOP4096;
	int backing, loop, fd;
	const char *missing;

	backing = backing_create(path,
				 kind == MEDIUM_HERE || is_device ? (off_t)size_bytes : DISK_BYTES);
	if (kind == MEDIUM_HERE) {
		(void)close(backing);
		return NULL;
	}
	(void)snprintf(folder, sizeof(folder), "%.50s.d", path);
	(void)unlink(path);
	if (geteuid() != 0)
		return "loop devices need root";
	loop = loop_open(backing, kind == MEDIUM_LOOP4096 ? 4096 : 512, device);
	(void)close(backing);
	if (loop < 0)
		return "no loop device to be had";
	if (is_device) {
		(void)snprintf(path, 64, "%s", device);
		return NULL;
	}
	missing = mount_new(medium_names[kind], device, folder);
	(void)close(loop);
	if (missing != NULL)
		return missing;
	(void)snprintf(path, 64, "%.50s/image", folder);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	cr_assert_geq(fd, 0);
	cr_assert_eq(ftruncate(fd, (off_t)size_bytes), 0);
	(void)close(fd);
	return NULL;
}

void
medium_remove(enum medium_kind kind, const char *path)
{
	char folder[64];

	if (kind == MEDIUM_LOOP512 || kind == MEDIUM_LOOP4096)
		return;
	(void)unlink(path);
	if (kind == MEDIUM_HERE)
		return;
	(void)snprintf(folder, sizeof(folder), "%.*s", (int)(strlen(path) - strlen("/image")),
		       path);
	(void)umount2(folder, MNT_DETACH);
	(void)rmdir(folder);
}
