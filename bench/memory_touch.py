"""The machine's memory, there before anything is measured.

A virtual machine's memory comes from its host when it is touched for the first time, which may take longer than what is measured; and
who happens to be first pays for it.  What nobody uses may go back to the host, so there is some of it before each turn, too.
"""

import mmap
import os
import subprocess
import sys

BYTES_MAX = 8 << 30  # more than a turn uses, page cache included
STEP_BYTES = 1 << 28
SECONDS_MAX = 60
MADV_POPULATE_WRITE = 23  # Linux 5.14


def available_bytes():
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return 0


def touch(bytes_max=BYTES_MAX):
    """Have so much, or half of what is available, by a process that gives it back at its end."""
    wanted = min(bytes_max, available_bytes() // 2)
    try:
        subprocess.run([sys.executable, os.path.abspath(__file__), str(wanted)], timeout=SECONDS_MAX, check=False)
    except subprocess.TimeoutExpired:
        pass  # what was touched until then is there


def main():
    held = []
    for _ in range(int(sys.argv[1]) // STEP_BYTES):
        memory = mmap.mmap(-1, STEP_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        held.append(memory)
        try:
            memory.madvise(MADV_POPULATE_WRITE)
        except OSError:  # an older kernel
            for offset in range(0, STEP_BYTES, mmap.PAGESIZE):
                memory[offset] = 1


if __name__ == "__main__":
    main()
