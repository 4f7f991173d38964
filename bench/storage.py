"""What is served: a regular file, straight from its disk or (cached) out of the page cache, one on XFS in a loop device, and a zram
device, written in full and removed at the end; and what needs none.

Half of every 4 KiB page is random and half is zero: zram then has real work to do for each read,
and a disk below cannot skip the data.  What clients write does not compress, and zram keeps that as it is: it is filled again before
a row that reads.
"""

import os
import subprocess
import time

PAGE_BYTES = 4096
CHUNK_BYTES = 4 << 20
ZRAM_CONTROL = "/sys/class/zram-control"


class StorageError(Exception):
    """Storage that this machine cannot provide; the text says why and what to do."""


def fill(path, total_bytes):
    """Write every byte of PATH, so that no read meets a hole, and bring it to the device."""
    zeros = bytes(PAGE_BYTES // 2)
    with open(path, "r+b", buffering=0) as target:
        for start in range(0, total_bytes, CHUNK_BYTES):
            length = min(CHUNK_BYTES, total_bytes - start)
            noise = os.urandom(length // 2)
            half = PAGE_BYTES // 2
            target.write(b"".join(noise[i:i + half] + zeros for i in range(0, length // 2, half)))
        os.fsync(target.fileno())


# Nothing of these is in the page cache when a turn begins.
COLD = ("file", "xfs", "zram")


def prepare_cache(kind, path):
    """Before each turn: all of PATH is in the page cache if KIND is cached, else nothing, so that a buffered server starts cold.
    None: there is nothing."""
    if path is None:
        return
    with open(path, "rb", buffering=0) as file:
        # What an earlier turn has written must not be written back during this one; nor would it leave the page cache.
        os.fsync(file.fileno())
        if kind != "cached":
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return
        while file.read(CHUNK_BYTES):
            pass


def file_system(path):
    """The device and type of the file system that PATH is on."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo") as mounts:
        for line in mounts:
            fields = line.split()
            if fields[2] == wanted:
                kind, source = fields[fields.index("-") + 1:][:2]
                return f"{kind} on {source}"
    return "unknown file system"


class FileStorage:
    def __init__(self, directory, mib, name="image.raw"):
        self.path = os.path.join(directory, name)
        self.mib = mib

    def __enter__(self):
        total_bytes = self.mib << 20
        try:
            with open(self.path, "wb") as image:
                os.posix_fallocate(image.fileno(), 0, total_bytes)
            fill(self.path, total_bytes)
        except OSError as error:
            self.__exit__()
            raise StorageError(f"{self.path}: {error.strerror}; it needs {self.mib} MiB "
                               "(--file-mib sets less)")
        except BaseException:
            self.__exit__()
            raise
        self.description = f"regular file, {self.mib} MiB, {file_system(self.path)}"
        return self

    def __exit__(self, *exc):
        if os.path.exists(self.path):
            os.unlink(self.path)

    def refill(self):
        """To a disk it is all one what is written."""


class XfsStorage:
    """A file on XFS, in a loop device (direct I/O) over a file: fio, which looks at the file on XFS, has the same below it."""

    LOG_MIB = 300  # mkfs.xfs makes none that is smaller

    def __init__(self, directory, mib):
        self.directory = os.path.abspath(directory)
        self.below = os.path.join(self.directory, "xfs.raw")
        self.mount = os.path.join(self.directory, "xfs")
        self.mib = mib
        self.device = None
        self.mounted = False
        self.image = None

    def __enter__(self):
        try:
            with open(self.below, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, self.mib + self.LOG_MIB << 20)
            self.device = self.tell("losetup", "--direct-io=on", "--find", "--show", self.below).strip()
            self.tell("mkfs.xfs", "-q", self.device)
            os.makedirs(self.mount, exist_ok=True)
            self.tell("mount", "-t", "xfs", self.device, self.mount)
            self.mounted = True
            self.image = FileStorage(self.mount, self.mib).__enter__()
        except (OSError, StorageError, subprocess.CalledProcessError) as error:
            self.__exit__()
            said = (getattr(error, "stderr", "") or str(error)).strip()
            raise StorageError(f"xfs: {said}; it needs root, a free loop device, mkfs.xfs (apt-get install xfsprogs) and "
                               f"{self.mib + self.LOG_MIB} MiB (--file-mib sets less)")
        except BaseException:
            self.__exit__()
            raise
        self.path = self.image.path
        self.description = f"regular file, {self.mib} MiB, {file_system(self.path)} (direct I/O) over {file_system(self.below)}"
        return self

    def refill(self):
        """As of a file."""

    def tell(self, *argv):
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=120).stdout

    def __exit__(self, *exc):
        if self.image:
            self.image.__exit__()
        try:
            if self.mounted:
                self.tell("umount", self.mount)
            if self.device:
                self.tell("losetup", "--detach", self.device)
        except subprocess.CalledProcessError as error:
            print(f"bench: {error.stderr.strip()}; umount {self.mount}, losetup --detach {self.device} remove it")
            return
        if os.path.isdir(self.mount):
            os.rmdir(self.mount)
        if os.path.exists(self.below):
            os.unlink(self.below)


class ZramStorage:
    def __init__(self, directory, mib):
        self.mib = mib
        self.number = None

    def __enter__(self):
        try:
            with open(f"{ZRAM_CONTROL}/hot_add") as hot_add:
                self.number = int(hot_add.read())
            self.path = f"/dev/zram{self.number}"
            self.write_attribute("disksize", f"{self.mib}M")
            fill(self.path, self.mib << 20)
        except OSError as error:
            self.__exit__()
            raise StorageError(f"zram: {error.strerror}; it needs root and the kernel module "
                               f"(modprobe zram), and memory for {self.mib} MiB")
        except BaseException:
            self.__exit__()
            raise
        self.description = (f"zram device, {self.mib} MiB, {self.algorithm()}, what is read compresses to half, what is written "
                            "does not compress")
        return self

    def refill(self):
        fill(self.path, self.mib << 20)

    def __exit__(self, *exc):
        if self.number is None:
            return
        # Something that probes new block devices may hold it open for a moment.
        for _ in range(50):
            try:
                self.write_attribute("reset", "1")
                with open(f"{ZRAM_CONTROL}/hot_remove", "w") as hot_remove:
                    hot_remove.write(str(self.number))
                self.number = None
                return
            except OSError as error:
                problem = error
                time.sleep(0.1)
        print(f"bench: cannot remove {self.path}: {problem.strerror}; "
              f"echo {self.number} > {ZRAM_CONTROL}/hot_remove removes it")

    def write_attribute(self, name, value):
        with open(f"/sys/block/zram{self.number}/{name}", "w") as attribute:
            attribute.write(value)

    def algorithm(self):
        with open(f"/sys/block/zram{self.number}/comp_algorithm") as attribute:
            text = attribute.read()
        return text[text.index("[") + 1:text.index("]")] if "[" in text else text.strip()


class NoStorage:
    """The servers have it in themselves."""

    path = None

    def __init__(self, description):
        self.description = description

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass

    def refill(self):
        """It is another in each turn."""


KINDS = {
    "file": FileStorage,
    "xfs": XfsStorage,
    "cached": lambda directory, mib: FileStorage(directory, mib, "cached.raw"),
    "zram": ZramStorage,
    "memory": lambda directory, mib: NoStorage("memory: the servers' own, 1 GiB, empty"),
    "null": lambda directory, mib: NoStorage("null: zeros without storage, 1 GiB"),
}
