"""Once the daemon has served for a while, it serves on without calling malloc or free.

A library that is preloaded counts the calls (count_malloc.c).  All that the daemon does is counted, on all its threads.
"""

import mmap
import os
import re
import struct
import time

import wire
from harness import FILE, MIB, ZRAM, Failure, Skip
from harness import check, equal, is_sanitized, random_bytes, test, two_cores
from wire import Wire

CONNECTIONS = 4
DEPTH = 12  # requests in flight on each of them; with 16 they could be moved to another core, and joining an export there allocates
BLOCK_BYTES = 4096
BLOCKS_MAX = 8  # of one small request
LARGE_BYTES = 9 * MIB // 4  # more than the largest buffer, of 2 MiB: served in pieces
LARGE_CONNECTIONS = 80  # 2 MiB each is more than all cores have
LARGE_DEPTH = 1
IMAGE_BYTES = 64 * MIB

# struct counts of count_malloc.c.
CALLS = ("malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "memalign", "free")
COUNTS_BYTES = 4096
COUNTS = struct.Struct(f"={len(CALLS)}Q")
ARMED = struct.Struct("=Q")

HELPERS_LEAVE_SECONDS = 0.5  # less than makes a connection idle

PAYLOAD = random_bytes(LARGE_BYTES)


class MallocCounts:
    """The file that the counts are in, mapped."""

    def __init__(self, path):
        self.path = path
        with open(path, "w+b") as file:
            file.truncate(COUNTS_BYTES)
            self.map = mmap.mmap(file.fileno(), COUNTS_BYTES)

    def close(self):
        self.map.close()

    def now(self):
        return dict(zip(CALLS, COUNTS.unpack_from(self.map)))

    def arm(self, armed):
        """Whether the next call is to say where it came from, in the daemon's log."""
        ARMED.pack_into(self.map, COUNTS.size, armed)


def serve_counted(env, image, settings=""):
    """A daemon whose calls are counted: (daemon, counts)."""
    if is_sanitized(env.binary):
        raise Skip("the address sanitizer's malloc must be the first: nothing can be preloaded")
    library = os.path.join(os.path.dirname(env.binary), "release/tests/e2e/count_malloc.so")
    check(os.path.exists(library), f"no {library}; build it first")
    drop_cache(image.path)
    counts = env.keep(MallocCounts(env.path("counts")))
    config = env.config(
        f"[reactor]\ncores = {two_cores()}\n{settings}\n"
        f"[server]\nlisten = {env.listen_text()}\n[export disk]\npath = {image.path}\n"
    )
    prefix = ["env", f"LD_PRELOAD={library}", f"COUNT_MALLOC={counts.path}"]
    daemon = env.launch(["--config", config], prefix)
    daemon.wait_ready()
    check(counts.now()["malloc"] > 0 and counts.now()["free"] > 0, f"nothing was counted: {counts.now()}")
    return daemon, counts


def drop_cache(path):
    """Direct I/O on what is in the page cache would block, and so needs a helper thread."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def connect(env, daemon):
    client = env.keep(Wire(daemon.address))
    client.go("disk")
    return client


class Load:
    """Requests on several connections, some in flight on each; the same for the same seed.
    DRAW makes the next one: (command, offset, length, flags)."""

    def __init__(self, clients, depth, draw):
        self.clients = clients
        self.depth = depth
        self.draw = draw
        self.serial = 0
        self.answered = 0

    def run(self, count):
        """Have at least COUNT more answered, all of them well."""
        until = self.answered + count
        while self.answered < until:
            for client in self.clients:
                self.ask(client)
            for client in self.clients:
                self.collect(client)

    def ask(self, client):
        """One send, so that they are in flight together."""
        stream = []
        for _ in range(self.depth):
            command, offset, length, flags = self.draw(self.serial)
            self.serial += 1
            client.cookie += 1
            if command == wire.CMD_READ:
                client.read_lengths[client.cookie] = length
            stream.append(wire.pack_request(command, offset, length, flags, client.cookie))
            if command == wire.CMD_WRITE:
                stream.append(PAYLOAD[:length])
        client.send(b"".join(stream))

    def collect(self, client):
        for _ in range(self.depth):
            cookie, error, _ = client.reply()
            equal(error, 0, f"error of request {cookie}")
            self.answered += 1


def draw_small(serial):
    """Whole blocks: half reads, half writes, of which some are durable, and a flush now and then."""
    if serial % 64 == 63:
        return wire.CMD_FLUSH, 0, 0, 0
    length = (1 + serial // 2 % BLOCKS_MAX) * BLOCK_BYTES
    offset = serial * 7919 % (IMAGE_BYTES // BLOCK_BYTES - BLOCKS_MAX) * BLOCK_BYTES
    if serial % 2 == 0:
        return wire.CMD_READ, offset, length, 0
    return wire.CMD_WRITE, offset, length, wire.CMD_FLAG_FUA if serial % 64 == 31 else 0


def draw_unaligned(serial):
    """Writes of parts of blocks are read-modify-writes under a lock of all cores; many meet in a few blocks."""
    length = 1 + serial * 31 % (3 * BLOCK_BYTES)
    offset = serial * 7919 % (64 * BLOCK_BYTES)
    return (wire.CMD_READ, wire.CMD_WRITE)[serial % 2], offset, length, 0


def draw_large(serial):
    """So many bytes that most requests wait for a buffer, and each is served in pieces.
    Reads and writes take turns: a client that sends payloads while it reads no replies would be stopped."""
    command = (wire.CMD_READ, wire.CMD_WRITE)[serial // (LARGE_CONNECTIONS * LARGE_DEPTH) % 2]
    offset = serial * 7919 % ((IMAGE_BYTES - LARGE_BYTES) // BLOCK_BYTES) * BLOCK_BYTES
    return command, offset, LARGE_BYTES, 0


# A connection that goes to another core has a share of that one made, and its old one freed.
CALLS_OF_MOVES_MAX = 20


def check_nothing_is_allocated(env, daemon, counts, load, warm_up, count, allowed=0):
    """Starting a helper thread allocates: that is for requests which would block a core, as those of the first moments may.  So the
    helpers leave before the counting begins."""
    load.run(warm_up)
    time.sleep(HELPERS_LEAVE_SECONDS)
    load.run(warm_up)
    # A backtrace within malloc of a thread that is ending breaks jemalloc: not where helpers may come and go.
    counts.arm(0 if allowed > 0 else 1)
    before = counts.now()
    load.run(count)
    after = counts.now()
    counts.arm(0)
    calls = {name: after[name] - before[name] for name in CALLS if after[name] != before[name]}
    if sum(calls.values()) > max(allowed, CALLS_OF_MOVES_MAX):
        raise Failure(f"calls during {count} requests: {calls}; the first of them: {first_call(env, daemon)}")


def first_call(env, daemon):
    """The functions of the daemon's in the backtrace in the log, from the one that called on outwards."""
    frames = re.findall(r"^\S*/millraced\((\w*)\+0x([0-9a-f]+)\)", daemon.log(), re.MULTILINE)
    return " < ".join(name or static_function(env, int(offset, 16)) for name, offset in frames)


def static_function(env, return_offset):
    """The name of a function that the program's symbols don't have; it calls just before RETURN_OFFSET."""
    result = env.run(["addr2line", "-f", "-e", env.binary, hex(return_offset - 1)], 20)
    return result.out.split("\n")[0]


@test(over=[(FILE,), (ZRAM,)], quick=[(FILE,), (ZRAM,)], seconds=120, alone=True)
def requests_allocate_nothing(env, medium):
    daemon, counts = serve_counted(env, env.image(medium, IMAGE_BYTES))
    clients = [connect(env, daemon) for _ in range(CONNECTIONS)]
    load = Load(clients, DEPTH, draw_small)
    # A disk may make one of thousands wait, so that helpers start and leave: a call for each 200 requests is none of theirs.
    allowed = env.size(200, 50) if medium == FILE else 0
    count = env.size(40_000, 10_000)
    check_nothing_is_allocated(env, daemon, counts, load, 4_000, count, allowed)


@test(quick=True, seconds=120, alone=True)
def unaligned_requests_allocate_nothing(env):
    daemon, counts = serve_counted(env, env.image(FILE, IMAGE_BYTES))
    clients = [connect(env, daemon) for _ in range(CONNECTIONS)]
    load = Load(clients, DEPTH, draw_unaligned)
    check_nothing_is_allocated(env, daemon, counts, load, 4_000, env.size(20_000, 4_000))


@test(quick=True, seconds=120, alone=True)
def requests_in_pieces_that_wait_for_memory_allocate_nothing(env):
    """On a device where no request waits for a helper; one may take some of the large ones, and starting and ending it allocates."""
    daemon, counts = serve_counted(env, env.image(ZRAM, IMAGE_BYTES), "buffer-memory = 64M")
    clients = [connect(env, daemon) for _ in range(LARGE_CONNECTIONS)]
    load = Load(clients, LARGE_DEPTH, draw_large)
    turn = 2 * LARGE_CONNECTIONS * LARGE_DEPTH
    count = env.size(4, 1) * turn
    check_nothing_is_allocated(env, daemon, counts, load, turn, count, count // 4)
