"""cache = host: images read and written through the page cache."""

import contextlib
import os
import random
import subprocess
import threading
import time

import nbd

import wire
from harness import LOOP512, MIB, Skip
from harness import check, equal, is_sanitized, random_bytes, same_bytes, test, two_cores
from wire import Wire

LISTEN = "[server]\nlisten = 127.0.0.1:0\n"


def serve(env, path, more=""):
    config = env.config(f"{LISTEN}[export disk]\npath = {path}\ncache = host\n{more}")
    return env.serve("--config", config, "--cores", two_cores())


def connect(env, daemon, export="disk"):
    client = env.keep(Wire(daemon.address))
    client.go(export)
    return client


def make_cold(path):
    """Take PATH out of the page cache."""
    fd = os.open(path, os.O_RDWR)
    os.fdatasync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def threads_of(daemon):
    """The names of its threads."""
    tasks = f"/proc/{daemon.pid}/task"
    names = []
    for task in os.listdir(tasks):
        with contextlib.suppress(FileNotFoundError), open(f"{tasks}/{task}/comm", encoding="ascii") as file:
            names.append(file.read().strip())
    return names


@test(quick=True)
def what_is_written_a_little_at_a_time_needs_no_other_cpu(env):
    data = random_bytes(MIB)
    image = env.file(MIB)
    daemon = serve(env, image)
    client = connect(env, daemon)
    for offset in range(0, MIB, 4096):
        client.write(offset, data[offset:offset + 4096])
    check("call near" in threads_of(daemon), f"{threads_of(daemon)} have no near helper")
    same_bytes(client.read(0, MIB), data, "what is read")


@test(quick=True)
def clients_read_and_write_it_to_the_last_byte(env):
    """An odd size, which no direct I/O can write; nbdcopy both ways, qemu-io, and a cold cache between."""
    size = 8 * MIB + 12345
    data = random_bytes(size)
    source, image, back = env.file(size, data), env.file(size), env.path("back")
    daemon = serve(env, image)
    env.run(["nbdcopy", source, daemon.uri()])
    make_cold(image)
    env.run(["nbdcopy", daemon.uri(), back])
    with open(back, "rb") as file:
        same_bytes(file.read(), data, "what came back")
    env.run(["qemu-io", "-f", "raw", daemon.uri(), "-c", "write -P 7 1000 3000", "-c", "discard 1M 1M", "-c",
             "write -z 3M 64k", "-c", "read -P 7 1000 3000", "-c", "read -P 0 3M 64k", "-c", "flush"])
    daemon.stop()
    equal(os.path.getsize(image), size, "the image's size")
    with open(image, "rb") as file:
        got = file.read()
    same_bytes(got[4000:MIB], data[4000:MIB], "what lies behind the write")
    same_bytes(got[1000:4000], b"\7" * 3000, "what was written")
    same_bytes(got[-12345:], data[-12345:], "the end")


def mix(client, rng, start, end, rounds):
    """Random requests of any alignment between START and END, against a model."""
    model = bytearray(client.read(start, end - start))
    for _ in range(rounds):
        offset = rng.randrange(start, end)
        length = min(rng.choice((1, 511, 512, 4096, 5000, 65536)), end - offset)
        at = slice(offset - start, offset - start + length)
        what = rng.randrange(5)
        if what == 0:
            same_bytes(client.read(offset, length), model[at], f"{length} bytes at {offset}")
        elif what == 1:
            equal(client.call(wire.CMD_WRITE_ZEROES, offset, length)[0], 0, "error of zeros")
            model[at] = bytes(length)
        elif what == 2:
            equal(client.call(wire.CMD_TRIM, offset, length)[0], 0, "error of a trim")
            model[at] = client.read(offset, length)
        else:
            model[at] = rng.randbytes(length)
            client.write(offset, bytes(model[at]))
    same_bytes(client.read(start, end - start), bytes(model), "all of it")


@test(over=(("file",), (LOOP512,)), quick=(("file",),))
def mixed_requests_leave_what_the_model_says(env, medium):
    """Four connections on both cores, each with bytes of its own, in pages that it shares with its neighbours; and somebody who
    empties the cache."""
    size = MIB + (512 if medium == LOOP512 else 777)
    image = env.image(medium, size, random_bytes(size))
    daemon = serve(env, image.path)
    share = size // 4
    failures = []

    def work(index):
        try:
            end = size if index == 3 else (index + 1) * share
            mix(connect(env, daemon), random.Random(index), index * share, end, env.size(400, 150))
        except Exception as error:  # told by the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        make_cold(image.path)
        time.sleep(0.005)
    for failure in failures:
        raise failure
    client = connect(env, daemon)
    equal(client.call(wire.CMD_FLUSH)[0], 0, "error of a flush")
    whole = client.read(0, size)
    daemon.stop()
    same_bytes(image.content(), whole, "the image behind the daemon")


@test(quick=True)
def what_was_acknowledged_survives_a_killed_daemon(env):
    """Without a flush: the page cache is the kernel's."""
    image = env.file(4 * MIB)
    data = random_bytes(MIB)
    daemon = serve(env, image)
    connect(env, daemon).write(4097, data)
    daemon.kill()
    same_bytes(connect(env, serve(env, image)).read(4097, MIB), data, "what was written before")


@test(quick=True)
def image_without_direct_io_is_served(env):
    """tmpfs may have no direct I/O; there RWF_NOWAIT is refused, too."""
    image = f"/dev/shm/millrace-e2e-{os.getpid()}"
    with open(image, "wb") as file:
        env.stack.callback(os.unlink, image)
        file.truncate(MIB)
    client = connect(env, serve(env, image))
    data = random_bytes(5000)
    client.write(77, data)
    same_bytes(client.read(77, 5000), data, "what was written")
    equal(client.call(wire.CMD_TRIM, 0, MIB)[0], 0, "error of a trim")
    equal(client.call(wire.CMD_FLUSH)[0], 0, "error of a flush")


def cached_pages(path):
    """As fincore of util-linux counts them."""
    return int(subprocess.run(["fincore", "--noheadings", "--output", "PAGES", path], capture_output=True, check=True).stdout)


@test(quick=True)
def prefetching_is_offered_and_fills_the_cache(env):
    image = env.file(8 * MIB, random_bytes(8 * MIB))
    daemon = serve(env, image, f"[export direct]\npath = {env.file(MIB)}\n")
    make_cold(image)
    handle = nbd.NBD()
    handle.connect_uri(daemon.uri())
    check(handle.can_cache(), "it is not offered with cache = host")
    equal(cached_pages(image), 0, "pages in the cache")
    handle.cache(3 * MIB, MIB)
    check(cached_pages(image) >= 3 * MIB // 4096, f"{cached_pages(image)} pages are in the cache")
    handle.shutdown()
    handle = nbd.NBD()
    handle.connect_uri(daemon.uri("direct"))
    check(not handle.can_cache(), "it is offered with cache = none")
    handle.shutdown()
    equal(connect(env, daemon, "direct").call(wire.CMD_CACHE, 0, MIB), (0, b""), "CACHE that was not offered")


@test(quick=True)
def reads_that_fail_say_so_and_others_go_on(env):
    image = env.file(MIB, random_bytes(MIB))
    daemon = serve(env, image)
    client = connect(env, daemon)
    os.truncate(image, MIB // 2)
    error, _ = client.call(wire.CMD_READ, MIB - 4096, 4096)
    equal(error, 5, "error of a read behind the end")
    same_bytes(client.read(0, MIB // 2), random_bytes(MIB)[: MIB // 2], "what is left")


@test(quick=True)
def cache_of_memory_is_refused(env):
    config = env.config(f"{LISTEN}[export ram]\ntype = memory\nsize = 1M\ncache = host\n")
    result = env.run([env.binary, "--config", config, "--check"], expect=None)
    check(result.code != 0 and "remove cache" in result.err, f"{result.code}: {result.err}")


@test(alone=True, speed=True)
def neighbours_are_not_stalled_by_cold_reads(env):
    """A client that reads what the cache does not have, many at a time; another, of a volume in memory, on the same core."""
    image = env.file(64 * MIB, name="cold")
    with open(image, "r+b") as file:
        for _ in range(64):
            file.write(os.urandom(MIB))
    config = env.config(f"{LISTEN}[export disk]\npath = {image}\ncache = host\n[export ram]\ntype = memory\nsize = 1M\n")
    daemon = env.serve("--config", config, "--cores", two_cores().split(",")[0])
    cold, ram = connect(env, daemon), connect(env, daemon, "ram")
    ram.write(0, bytes(4096))
    rng = random.Random(1)
    stop = threading.Event()

    def flood():
        with contextlib.suppress(OSError):
            while not stop.is_set():
                make_cold(image)
                for _ in range(64):
                    cold.request(wire.CMD_READ, rng.randrange(0, 64 * MIB - 65536, 512), 65536)
                for _ in range(64):
                    cold.reply()

    thread = threading.Thread(target=flood)
    thread.start()
    waits = []
    deadline = time.monotonic() + env.size(2, 1)
    while time.monotonic() < deadline:
        start = time.monotonic()
        ram.read(0, 4096)
        waits.append(time.monotonic() - start)
    stop.set()
    thread.join()
    waits.sort()
    # One that waits for the disk each time waits for milliseconds.
    check(waits[len(waits) // 2] < 0.003, f"half of a neighbour's reads took {waits[len(waits) // 2] * 1e3:.1f} ms and more")
    check(waits[len(waits) * 99 // 100] < 0.05, f"1 % of them took {waits[len(waits) * 99 // 100] * 1e3:.1f} ms and more")


HUNG_MS = 800
HUNG_READS = 12


@test(speed=True)
def disks_that_hang_leave_threads_for_others(env):
    """Two volumes have all the reads under way that they may; what is on another disk is read meanwhile."""
    if is_sanitized(env.binary):
        raise Skip("the address sanitizer must be the first: nothing can be preloaded")
    library = os.path.join(os.path.dirname(env.binary), "release/tests/e2e/slow_sync.so")
    check(os.path.exists(library), f"no {library}; build it first")
    names = ("hung-1", "hung-2", "other")
    exports = "".join(f"[export {name}]\npath = {env.file(MIB, name=name)}\ncache = host\n" for name in names)
    daemon = env.launch(
        ["--config", env.config(LISTEN + exports), "--cores", two_cores()],
        variables={"LD_PRELOAD": library, "SLOW_READ_MS": str(HUNG_MS)},
    )
    daemon.wait_ready()
    clients = {name: connect(env, daemon, name) for name in names}
    for name in names[:2]:
        for index in range(HUNG_READS):
            clients[name].request(wire.CMD_READ, index * 65536, 4096)
    time.sleep(0.1)
    begin = time.monotonic()
    clients["other"].read(65536, 4096)
    took_ms = (time.monotonic() - begin) * 1000
    check(took_ms < HUNG_MS / 2, f"a read beside disks that hang took {took_ms:.0f} ms")
