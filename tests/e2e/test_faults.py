"""Storage that fails under the daemon: the request gets an error, the connection and the daemon go on."""

import os

import wire
from harness import FILE, MIB, ZRAM
from harness import Failure, check, equal, random_bytes, same_bytes, test, two_cores, write_text
from wire import Wire

EIO = 5


@test(quick=True)
def image_that_shrinks_gives_errors_where_it_is_gone(env):
    content = random_bytes(MIB)
    image = env.image(FILE, MIB, content)
    daemon = env.serve_image(image)
    client = env.keep(Wire(daemon.address))
    client.go("disk")
    os.truncate(image.path, MIB // 2)
    for offset, length in ((MIB // 2, 4096), (MIB - 4096, 4096), (MIB // 2 - 2048, 4096), (MIB - 7, 5)):
        error, _ = client.call(wire.CMD_READ, offset, length)
        equal(error, EIO, f"error of reading {length} bytes at {offset}")
    same_bytes(client.read(0, MIB // 2), content[: MIB // 2], "what is left")
    errors = [line for line in daemon.log_lines() if line.startswith("error") and image.path in line]
    check(errors, "no log line names the image")


def serve_small_zram(env):
    """A zram device of 32 MiB that has room for 4 MiB of what doesn't compress."""
    image = env.image(ZRAM, 32 * MIB)
    write_text(f"/sys/block/{os.path.basename(image.path)}/mem_limit", "4M")
    return env.serve_image(image, cores=two_cores())


def fill_until_error(client):
    """Write until a write fails; returns how many went well."""
    for index in range(32):
        error, _ = client.call(wire.CMD_WRITE, index * MIB, MIB, random_bytes(MIB, index))
        if error:
            check(error in (EIO, wire.ENOSPC), f"error {error} of a write that does not fit")
            return index
    raise Failure("the device took more than it has room for")


@test()
def device_that_refuses_writes_gives_errors_and_keeps_the_rest(env):
    daemon = serve_small_zram(env)
    client, other = (env.keep(Wire(daemon.address)) for _ in range(2))
    client.go("disk")
    other.go("disk")
    written = fill_until_error(client)
    check(written > 0, "not even the first write succeeded")
    for index in range(written):
        same_bytes(other.read(index * MIB, MIB), random_bytes(MIB, index), f"MiB {index}")


@test()
def unaligned_write_that_fails_leaves_no_lock_behind(env):
    """A read-modify-write that fails in the middle must let the next one in."""
    daemon = serve_small_zram(env)
    client = env.keep(Wire(daemon.address))
    client.go("disk")
    written = fill_until_error(client)
    beyond = (written + 1) * MIB
    failures = 0
    for _ in range(3):
        error, _ = client.call(wire.CMD_WRITE, beyond + 5, MIB, random_bytes(MIB, 99))
        failures += error != 0
    check(failures > 0, "the device took more than it has room for")
    for offset in (beyond, beyond + 4096, beyond + 5):
        client.call(wire.CMD_WRITE, offset, 4096, bytes(4096))
