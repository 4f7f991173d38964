"""The kinds of volumes beside files, through the port, and who may have one image."""

import os

import wire
from harness import FILE, LOOP512, MIB
from harness import check, equal, random_bytes, same_bytes, test, two_cores, wait_until
from wire import Wire

EXPORT = "disk"
LARGE = 256 << 10
EIO = 5


def serve(env, volume, *options):
    """A daemon on both cores with VOLUME (memory:SIZE, null:SIZE) as its export."""
    return env.serve("--export", f"{EXPORT}={volume}", "--listen", "127.0.0.1:0", "--cores", two_cores(), *options)


def connect(env, daemon):
    client = env.keep(Wire(daemon.address))
    client.go(EXPORT)
    return client


@test(quick=True)
def memory_keeps_what_any_connection_wrote(env):
    """Both cores, unaligned, up to the last byte of an odd size."""
    size = 8 * MIB + 12345
    daemon = serve(env, f"memory:{size}")
    writer, reader = connect(env, daemon), connect(env, daemon)
    data = random_bytes(3 * MIB + 7)
    writer.write(1001, data)
    writer.write(size - 5, b"tail!")
    same_bytes(reader.read(0, 1001), bytes(1001), "what nobody wrote")
    same_bytes(reader.read(1001, len(data)), data, "what was written")
    same_bytes(reader.read(size - 5, 5), b"tail!", "the last bytes")
    equal(env.run(["nbdinfo", "--size", daemon.uri()]).out.strip(), str(size), "size")


@test()
def memory_takes_as_much_as_is_written(env):
    """A volume much larger than the machine's memory can be served; reading takes nothing."""
    daemon = serve(env, "memory:10T")
    client = connect(env, daemon)
    before = daemon.rss_bytes()
    for index in range(32):
        client.write(index << 38, random_bytes(MIB, index))
        client.read((index << 38) + 64 * MIB, MIB)
    growth = daemon.rss_bytes() - before
    # The map, a page at each place, and buffers that were touched for the first time come on top.
    check(growth < 48 * MIB, f"32 MiB written took {growth} bytes")


@test(quick=True)
def null_reads_zeros(env):
    daemon = serve(env, "null:1T")
    client = connect(env, daemon)
    client.write(1 << 39, random_bytes(MIB))
    same_bytes(client.read((1 << 39) - 5, MIB), bytes(MIB), "what null reads")


def write_eight(client, depth, seed):
    """Eight large writes, DEPTH of them at a time; returns what they wrote."""
    data = random_bytes(8 * LARGE, seed)
    for first in range(0, 8, depth):
        for index in range(first, first + depth):
            client.request(wire.CMD_WRITE, index * LARGE, LARGE, data[index * LARGE : (index + 1) * LARGE])
        for _ in range(depth):
            equal(client.next_answer().error, 0, "the error")
    return data


@test(alone=True)
def helper_compresses_for_a_core_that_has_more_to_do(env):
    """zram does that when it is given a request."""
    daemon = env.serve_image(env.zram(16 * MIB), cores=two_cores())
    client = connect(env, daemon)

    def threads():
        return len(os.listdir(f"/proc/{daemon.pid}/task"))

    before = threads()
    for seed in range(8):
        write_eight(client, 1, seed)
        equal(threads(), before, "threads after one at a time")
    counts = set()
    for seed in range(8):
        data = write_eight(client, 8, seed)
        counts.add(threads())
        same_bytes(client.read(0, len(data)), data, "what was written")
    check(max(counts) > before, f"threads: {before}, then {counts}")


# Volumes that go wrong: what clients and the log are told.


def serve_fault(env, fault, size=4 * MIB, image=None):
    where = f"path = {image}" if image else f"size = {size}"
    text = f"[export {EXPORT}]\ntype = fault\n{where}\nfault = {fault}\n[export well]\ntype = memory\nsize = {size}\n"
    listen = "[server]\nlisten = 127.0.0.1:0\n"
    return env.serve("--config", env.config(listen + text), "--cores", two_cores())


def error_lines(daemon):
    return [line for line in daemon.log_lines() if line.startswith("error: ")]


ERRORS = (("EIO", EIO), ("ENOSPC", wire.ENOSPC), ("EDQUOT", wire.ENOSPC), ("EPERM", wire.EPERM))


@test(over=ERRORS)
def injected_error_is_told_as_its_nbd_error(env, name, number):
    """The request that meets it fails, with a line in the log; all others go on."""
    daemon = serve_fault(env, f"error={name} write-error=1 range=1M-2M")
    client = connect(env, daemon)
    data = random_bytes(4096)
    client.write(0, data)
    error, _ = client.call(wire.CMD_WRITE, MIB + 512, 4096, data)
    equal(error, number, f"what a client is told of {name}")
    client.write(2 * MIB, data)
    same_bytes(client.read(0, 4096), data, "what was written before")
    same_bytes(client.read(MIB, MIB), bytes(MIB), "where the write failed")
    equal(client.call(wire.CMD_FLUSH)[0], 0, "error of a flush")
    lines = error_lines(daemon)
    equal(len(lines), 1, f"lines of one failure: {lines}")
    said = f'error: export "{EXPORT}": fault in memory: write of 4096 bytes at offset {MIB + 512} failed: '
    check(lines[0].startswith(said), lines[0])


@test()
def broken_volume_does_not_fill_the_log_nor_stop_another(env):
    daemon = serve_fault(env, "read-error=1")
    client, other = connect(env, daemon), env.keep(Wire(daemon.address))
    other.go("well")
    for _ in range(2000):
        equal(client.call(wire.CMD_READ, 0, 512)[0], EIO, "error of a read")
    other.write(5, b"well")
    same_bytes(other.read(5, 4), b"well", "the other export")
    lines = error_lines(daemon)
    check(10 <= len(lines) < 200, f"{len(lines)} lines of 2000 failures")


@test(over=((False,), (True,)), quick=((True,),))
def failed_flush_stays_failed_until_the_volume_is_opened_again(env, on_file):
    """For every client and core, also in a daemon that has not failed a flush since."""
    image = env.file(4 * MIB) if on_file else None
    daemon = serve_fault(env, "seed=2 flush-error=0.3", image=image)
    clients = [connect(env, daemon) for _ in range(4)]
    data = random_bytes(65536)
    for round_number in range(200):
        clients[0].write(65536, data)
        error, _ = clients[round_number % 4].call(wire.CMD_FLUSH)
        if error:
            break
    equal(error, EIO, "the flush that fails")
    for index in range(20):
        equal(clients[index % 4].call(wire.CMD_FLUSH)[0], EIO, "a later flush")
    late = connect(env, daemon)
    equal(late.call(wire.CMD_FLUSH)[0], EIO, "a flush of a new connection")
    same_bytes(late.read(65536, 65536), data, "what was written")
    said = [line for line in error_lines(daemon) if "every flush fails until the volume is opened again" in line]
    equal([line.startswith(f'error: export "{EXPORT}": fault in ') for line in said], [True], f"lines that say so: {said}")
    daemon.stop(code=1)
    check("closed behind a flush that failed" in daemon.log(), "nothing is said of it at the end")
    again = connect(env, env.serve("--export", f"{EXPORT}={image}", "--listen", "127.0.0.1:0") if on_file else
                    serve_fault(env, "read-error=0"))
    equal(again.call(wire.CMD_FLUSH)[0], 0, "a flush after it was opened again")


@test(quick=True)
def delayed_requests_do_not_hold_up_others(env):
    """One slow request, and others of the same connection that pass it."""
    daemon = serve_fault(env, "delay-ms=1000 range=1M-2M")
    client = connect(env, daemon)
    slow = [client.request(wire.CMD_READ, MIB, 512) for _ in range(8)]
    fast = client.request(wire.CMD_READ, 0, 512)
    order = [client.reply()[0] for _ in range(9)]
    check(set(order) == {*slow, fast}, "each request is answered once")
    # Of eight delays between 0 and 1000 ms, one is long.
    check(order.index(fast) < 8, f"the fast one came last: {order}")


@test(over=(("none",), ("host",)), quick=(("none",),))
def device_that_ends_within_a_block_is_served_up_to_there(env, cache):
    """The kernel refuses all that touches the rest, the whole block before it included if both are asked for at once."""
    content = random_bytes(40_960 + 1024)
    device = env.loop(env.file(len(content), content), 40_960, 4096)
    config = env.config(f"[server]\nlisten = 127.0.0.1:0\n[export disk]\npath = {device.path}\ncache = {cache}\n")
    daemon = env.serve("--config", config)
    client = env.keep(Wire(daemon.address))
    equal(client.go("disk")[0], 40_960, "size")
    same_bytes(client.read(0, 40_960), content[:40_960], "the device")
    client.write(40_955, b"12345")
    same_bytes(client.read(40_950, 10), content[40_950:40_955] + b"12345", "the last bytes")
    wait_until(lambda: f"{device.path}: its last 1024 bytes are not served" in daemon.log(), 5, "the warning")


@test(over=((FILE,), (LOOP512,)), quick=((FILE,),))
def two_daemons_cannot_write_one_image_but_both_read_it(env, medium):
    image = env.image(medium, MIB, random_bytes(MIB))
    reading = env.config(f"[server]\nlisten = 127.0.0.1:0\n[export disk]\npath = {image.path}\nread-only = yes\n")
    writer = env.serve_image(image)
    why = "served by another process" if medium == LOOP512 else "is in use by another process or export"
    arguments = ("--export", f"disk={image.path}", "--listen", "127.0.0.1:0")
    refused = env.run([env.binary, *arguments], 20, expect=1)
    check(why in refused.err and image.path in refused.err, f"no reason is given: {refused.err}")
    refused = env.run([env.binary, "--config", reading], 20, expect=1)
    check("is in use by another process or export" in refused.err, f"no reason is given: {refused.err}")
    writer.stop()
    daemons = [env.serve("--config", reading) for _ in range(2)]
    contents = [connect(env, daemon).read(0, MIB) for daemon in daemons]
    same_bytes(contents[0], contents[1], "what both read")
    equal(env.run([env.binary, *arguments], 20, expect=None).code, 1, "exit status of a writer beside readers")
