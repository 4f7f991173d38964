"""What is asked of the servers: each row is a load on a kind of storage."""

KIB = 1 << 10
MIB = 1 << 20


class Load:
    def __init__(self, name, rw="randread", block_bytes=4 * KIB, depth=1, connections=1, flush_every=0, tls=False,
                 read_percent=None):
        self.name = name
        self.rw = rw  # fio's word; millrace-bench has the same
        self.block_bytes = block_bytes
        self.depth = depth
        self.connections = connections
        self.flush_every = flush_every  # writes
        self.tls = tls
        self.read_percent = read_percent

    @property
    def writes(self):
        return "write" in self.rw or "rw" in self.rw

    @property
    def cache_matters(self):
        """Whether it shows what the page cache promises, or gives, beside the device."""
        return self.writes or (self.rw == "read" and not self.tls)


LOADS = [
    Load("read-1"),
    Load("read-32", depth=32),
    Load("read-32x4", depth=32, connections=4),
    Load("read-64x16", depth=64, connections=16),
    Load("write-1", "randwrite"),
    Load("write-32", "randwrite", depth=32),
    Load("write-32x4", "randwrite", depth=32, connections=4),
    Load("write-64x16", "randwrite", depth=64, connections=16),
    Load("seqread", "read", 256 * KIB, depth=8),
    Load("seqwrite", "write", 256 * KIB, depth=8),
    Load("mixed", "randrw", depth=32, connections=4, read_percent=70),
    Load("flush", "randwrite", depth=8, connections=4, flush_every=8),
    Load("tls-read-32", depth=32, tls=True),
    Load("tls-seqread", "read", 256 * KIB, depth=8, tls=True),
    Load("read-1x1000", connections=1000),
]

DISK = ["read-1", "read-32", "read-32x4", "write-1", "write-32", "write-32x4", "seqread", "seqwrite", "flush"]
NAMES = {
    "file": [load.name for load in LOADS],
    "xfs": DISK,
    "cached": ["read-1", "read-32x4", "write-32x4", "seqread", "seqwrite"],
    "zram": DISK + ["read-64x16", "write-64x16", "read-1x1000"],
    "memory": ["read-1", "read-32", "read-32x4", "read-64x16", "write-1", "write-32x4", "seqread", "seqwrite", "tls-read-32",
               "tls-seqread", "read-1x1000"],
    "null": ["read-1", "read-32", "read-32x4", "read-64x16", "write-32x4", "seqread", "read-1x1000"],
}


class Row:
    def __init__(self, storage, load):
        self.storage = storage
        self.load = load
        self.name = f"{storage}-{load.name}"


# What is asked first of a run that may be cut short.
FIRST = ["read-32x4", "seqread", "write-32x4", "seqwrite", "read-1"]


def importance(row):
    return FIRST.index(row.load.name) if row.load.name in FIRST else len(FIRST)


BY_STORAGE = [Row(storage, load) for storage, names in NAMES.items() for load in LOADS if load.name in names]
ROWS = sorted(BY_STORAGE, key=importance)

# The few that say most, for a short run.
SHORT = ["file-read-1", "file-read-32", "file-read-32x4", "zram-read-1", "zram-read-32", "zram-read-32x4",
         "null-read-32x4"]

# Of two clients the second runs these only: it is there to show that the first tells the truth.  None of memory and null: fio takes
# structured replies where there are some, and is told of holes, while from nbdkit it gets the zeros.
SECOND_CLIENT = ["file-read-1", "file-read-32x4", "file-write-32x4", "file-seqread", "file-seqwrite", "zram-read-32x4"]
