"""The machine's memory, there as long as something is measured.

A virtual machine's memory comes from its host when it is touched for the first time, which takes up to 14 us a page, and what nobody uses
may go back at once, in blocks of 2 MiB and more (free page reporting).  A server that fills the page cache would pay for that, not one
that has the same pages again and again.  So the kernel is told to report no free blocks, and a process touches what is available, and ends.

Where that can't be told, the process gives back all but one page of every MiB, and stays: no block of what is free then is whole, so that
it is not reported.  That is second best, since the kernel takes whole blocks from elsewhere for large folios.
"""

import mmap
import os
import sys
import time

from processes import Child

REPORTING_ORDER = "/sys/module/page_reporting/parameters/page_reporting_order"
TOUCHED_PARTS = 3 / 4  # of what is available
HELD_PARTS = 1 / 2
HELD_BYTES_MAX = 8 << 30  # more than a turn uses, page cache included
STEP_BYTES = 1 << 20
SECONDS_MAX = 90
READY = "ready\n"


def available_bytes():
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return 0


def block_orders():
    """How many sizes of blocks of free memory the kernel has, of 1, 2, 4... pages."""
    with open("/proc/buddyinfo", encoding="ascii") as file:
        return len(file.readline().split()) - len("Node 0, zone NAME".split())


class NoReporting:
    """While in the context no block of free memory is reported to the host, if this machine's reporting can be changed."""

    def __init__(self, path=REPORTING_ORDER):
        self.path = path
        self.before = None

    def __enter__(self):
        try:
            with open(self.path, "r+", encoding="ascii") as file:
                before = file.read()
                file.seek(0)
                file.write(str(block_orders()))  # that of the smallest which are reported: there are none so large
            self.before = before
        except OSError:
            pass  # there is no such thing here, or it is not ours to change
        return self

    def __exit__(self, *exc):
        if self.before is not None:
            with open(self.path, "w", encoding="ascii") as file:
                file.write(self.before)


class Held:
    """Have the memory there while in the context.  Directory: for a log; bytes_max: of memory that is touched."""

    def __init__(self, directory, bytes_max=None, no_reporting=None):
        self.log = os.path.join(directory, "memory.log")
        self.bytes_max = bytes_max
        self.no_reporting = no_reporting or NoReporting()
        self.child = None

    def __enter__(self):
        self.no_reporting.__enter__()
        try:
            self.touch(holds=self.no_reporting.before is None)
        except BaseException:
            self.__exit__()
            raise
        return self

    def touch(self, holds):
        wanted = int(available_bytes() * (HELD_PARTS if holds else TOUCHED_PARTS))
        wanted = min(wanted, self.bytes_max or wanted, HELD_BYTES_MAX if holds else wanted)
        self.child = Child([sys.executable, os.path.abspath(__file__), str(wanted), "hold" if holds else "end"], self.log)
        while not self.child.wait(0.1):
            with open(self.log, encoding="ascii") as log:
                if holds and log.read() == READY:
                    return
        if holds or self.child.status != 0:
            self.child.fail("ended")

    def __exit__(self, *exc):
        if self.child:
            self.child.stop()
        self.no_reporting.__exit__()


def main():
    size = int(sys.argv[1]) // STEP_BYTES * STEP_BYTES
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    until = time.monotonic() + SECONDS_MAX
    ones = bytes(b"1" * STEP_BYTES)
    for offset in range(0, size, STEP_BYTES):
        memory[offset:offset + STEP_BYTES] = ones
        if time.monotonic() > until:
            break
    if sys.argv[2] == "end":
        return
    for offset in range(0, size, STEP_BYTES):
        memory.madvise(mmap.MADV_DONTNEED, offset + mmap.PAGESIZE, STEP_BYTES - mmap.PAGESIZE)
    parent = os.getppid()
    print(READY, end="", flush=True)
    while os.getppid() == parent:  # which may end without a word
        time.sleep(1)


if __name__ == "__main__":
    main()
