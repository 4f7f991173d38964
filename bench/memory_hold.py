"""The machine's memory, there as long as something is measured.

A virtual machine's memory comes from its host when it is touched for the first time, which takes up to 14 us a page, and what nobody uses
may go back at once, in blocks of 2 MiB and more.  A server that fills the page cache would pay for that, not one that has the same
pages again and again.  So a process takes memory, touches it, and gives back all but one page of every MiB: no block of what is free then is
whole, so that it stays.
"""

import mmap
import os
import sys
import time

from processes import Child

BYTES_MAX = 8 << 30  # more than a turn uses, page cache included
STEP_BYTES = 1 << 20
SECONDS_MAX = 60
HELD = "held\n"


def available_bytes():
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return 0


class Held:
    """Have BYTES, or half of what is available, while in the context.  Directory: for a log."""

    def __init__(self, directory, bytes_max=BYTES_MAX):
        self.log = os.path.join(directory, "memory.log")
        wanted = min(bytes_max, available_bytes() // 2)
        self.child = Child([sys.executable, os.path.abspath(__file__), str(wanted)], self.log)

    def __enter__(self):
        with open(self.log, encoding="ascii") as log:
            while not log.read():
                if self.child.wait(0.1):
                    self.child.fail("ended")
        return self

    def __exit__(self, *exc):
        self.child.stop()


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
    for offset in range(0, size, STEP_BYTES):
        memory.madvise(mmap.MADV_DONTNEED, offset + mmap.PAGESIZE, STEP_BYTES - mmap.PAGESIZE)
    parent = os.getppid()
    print(HELD, end="", flush=True)
    while os.getppid() == parent:  # which may end without a word
        time.sleep(1)


if __name__ == "__main__":
    main()
