"""Storage that fails under the daemon: the request gets an error, the connection and the daemon go on."""

import os

import wire
from harness import FILE, LOOP512, MIB, ZRAM
from harness import Failure, Skip, check, equal, random_bytes, same_bytes, test, two_cores, wait_until, write_text
from test_reload import Server
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


CUT_CASES = tuple((cache, by) for cache in ("none", "host") for by in ("read", "status", "reload"))


@test(over=CUT_CASES, quick=CUT_CASES[:1])
def holes_that_were_cut_off_are_no_zeros_once_that_was_noticed(env, cache, by):
    """Those that the server had remembered, too, which it sends without asking anybody."""
    content = random_bytes(MIB)
    path = env.file(5 * MIB, content)
    with open(path, "r+b") as file:
        file.seek(3 * MIB)
        file.write(content)
    server = Server(env, {"disk": f"path = {path}\ncache = {cache}"})
    client, simple = (env.keep(Wire(server.daemon.address)) for _ in range(2))
    client.go("disk", style=wire.STRUCTURED, contexts=("base:allocation",))
    simple.go("disk")
    for offset in range(0, 4 * MIB, MIB):  # the last is not asked for
        client.status(offset, MIB)
    os.truncate(path, 2 * MIB)
    if by == "read":
        error, _ = client.call(wire.CMD_READ, 3 * MIB, 4096)
        equal(error, EIO, "error of reading data that is gone")
    elif by == "status":
        equal(client.ask_for(wire.CMD_BLOCK_STATUS, 4 * MIB, MIB).error, EIO, "error of asking what is not known")
    else:
        server.reload()
    for offset, length in (2 * MIB, 4096), (2 * MIB + 5, 64 << 10), (3 * MIB - 7, 5):
        for who in client, simple:
            equal(who.call(wire.CMD_READ, offset, length)[0], EIO, f"error of reading {length} bytes at {offset}")
    equal(client.ask_for(wire.CMD_BLOCK_STATUS, 2 * MIB, MIB).error, EIO, "error of asking where the hole is")
    same_bytes(client.read(0, 2 * MIB), content + bytes(MIB), "what is left")


@test()
def one_line_is_logged_for_a_request_that_fails(env):
    """Also for a large read, for which the server asks where the holes are first."""
    image = env.image(FILE, 4 * MIB, random_bytes(4 * MIB))
    daemon = env.serve_image(image)
    client = env.keep(Wire(daemon.address))
    client.go("disk", style=wire.STRUCTURED)
    os.truncate(image.path, MIB)
    for command, payload in (wire.CMD_READ, b""), (wire.CMD_WRITE, b"later"):
        error, _ = client.call(command, 2 * MIB + 5, len(payload) or MIB, payload)
        equal(error, EIO, f"error of command {command}")
    line = f"{image.path}: write of 5 bytes"
    wait_until(lambda: line in daemon.log(), 5, line)
    errors = [line for line in daemon.log_lines() if line.startswith("error")]
    equal(len(errors), 2, f"lines {errors}")
    check("read of 1048576 bytes at offset 2097157 failed: Input/output error" in errors[0], errors[0])


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


def serve_on(env, kind, cache):
    """A daemon in a mount namespace of its own, with an image of 300 MiB on a file system that has less room."""
    if os.geteuid() != 0 or not os.path.exists("/dev/loop-control"):
        raise Skip("mounting a file system needs root and loop devices")
    disk, folder = env.file((128 if kind == "btrfs" else 32) * MIB, name="disk"), env.path("mounted")
    os.mkdir(folder)
    image = f"{folder}/image"
    steps = [f"PATH=$PATH:/sbin:/usr/sbin mkfs.{kind} -q {disk}", f"mount -o loop {disk} {folder}"]
    if kind == "btrfs":
        steps += [f"btrfs quota enable {folder}", f"btrfs subvolume create {folder}/sub", f"btrfs qgroup limit 20M {folder}/sub"]
        image = f"{folder}/sub/image"
    steps += [f"truncate -s 300M {image}", 'exec "$@"']
    config = env.config(
        f"[server]\nlisten = 127.0.0.1:0\n[export disk]\npath = {image}\ncache = {cache}\n[export ram]\ntype = memory\nsize = 1M\n"
    )
    script = " >&2 && ".join(steps)
    daemon = env.serve("--config", config, "--cores", two_cores(), prefix=("unshare", "--mount", "sh", "-c", script, "sh"))
    return daemon, image


NO_ROOM = (("ext4", "No space left on device"), ("btrfs", "Disk quota exceeded"))
NO_ROOM_CASES = tuple((kind, cache, words) for kind, words in NO_ROOM for cache in ("none", "host"))


@test(over=NO_ROOM_CASES, quick=NO_ROOM_CASES[:1])
def full_file_system_fails_that_request_and_the_rest_goes_on(env, kind, cache, words):
    """Also where a quota is used up.  One line names export, image, offset, length and reason; with room again, writing goes on."""
    daemon, image = serve_on(env, kind, cache)
    client, other = (env.keep(Wire(daemon.address)) for _ in range(2))
    client.go("disk")
    other.go("ram")
    chunks = {}
    for index in range(200):
        data = random_bytes(MIB, index)
        error, _ = client.call(wire.CMD_WRITE, index * MIB, MIB, data)
        if error:
            break
        chunks[index] = data
    equal(error, wire.ENOSPC, f"the error after {len(chunks)} MiB")
    line = f'error: export "disk": {image}: write of {MIB} bytes at offset {index * MIB} failed: {words}'
    wait_until(lambda: line in daemon.log(), 5, line)
    other.write(0, b"well")
    same_bytes(client.read(0, MIB), chunks[0], "what was written first")
    if kind == "btrfs":  # takes a little more to free something
        limit = ["btrfs", "qgroup", "limit", "none", os.path.dirname(image)]
        env.run(["nsenter", "--mount", "--target", daemon.pid, *limit])
    equal(client.call(wire.CMD_TRIM, 0, len(chunks) * MIB)[0], 0, "error of a trim")
    equal(client.call(wire.CMD_FLUSH)[0], 0, "error of a flush")

    def has_room():
        return client.call(wire.CMD_WRITE, 0, MIB, chunks[0])[0] == 0

    wait_until(has_room, 20, "room again")
    same_bytes(client.read(0, MIB), chunks[0], "what was written again")


@test(over=(("none",), ("host",)), quick=(("none",),))
def device_that_goes_away_gives_io_errors(env, cache):
    """A loop device that becomes one of no bytes, as a disk that is pulled out does; the kernel calls that no space."""
    image = env.image(LOOP512, 4 * MIB)
    config = f"[server]\nlisten = 127.0.0.1:0\n[export disk]\npath = {image.path}\ncache = {cache}\n"
    daemon = env.serve("--config", env.config(f"{config}[export ram]\ntype = memory\nsize = 1M\n"), "--cores", two_cores())
    client, other = (env.keep(Wire(daemon.address)) for _ in range(2))
    client.go("disk")
    other.go("ram")
    data = random_bytes(MIB)
    client.write(0, data)
    equal(client.call(wire.CMD_FLUSH)[0], 0, "error of a flush")
    os.truncate(image.backing, 0)
    env.run(["losetup", "--set-capacity", image.path])
    for name, command, payload in (("read", wire.CMD_READ, b""), ("write", wire.CMD_WRITE, data[:4096]),
                                   ("trim", wire.CMD_TRIM, b""), ("write of zeros", wire.CMD_WRITE_ZEROES, b"")):
        error, _ = client.call(command, 2 * MIB, 4096, payload)
        equal(error, EIO, f"error of a {name}")
        line = f'error: export "disk": {image.path}: {name} of 4096 bytes at offset {2 * MIB} failed: Input/output error'
        wait_until(lambda: line in daemon.log(), 5, line)
    error, _ = client.call(wire.CMD_WRITE, 2 * MIB + 5, 100, data[:100])
    equal(error, EIO, "error of an unaligned write")
    other.write(5, b"well")
    same_bytes(other.read(5, 4), b"well", "the other export")


@test(quick=True)
def file_size_limit_fails_requests_and_not_the_daemon(env):
    """What is written behind the limit (ulimit -f) also brings a signal, whose default is the end of the process."""
    limited = ("bash", "-c", 'ulimit -f 1024; exec "$@"', "limited")
    for settings in ("", "cache = host\n"):
        text = f"[server]\nlisten = 127.0.0.1:0\n[export disk]\npath = {env.file(2 * MIB)}\n{settings}"
        daemon = env.serve("--config", env.config(text), "--cores", two_cores(), prefix=limited)
        client = env.keep(Wire(daemon.address))
        client.go("disk")
        error, _ = client.call(wire.CMD_WRITE, MIB + 4096, 4096, b"x" * 4096)
        equal(error, wire.ENOSPC, "a write behind the limit")
        error, _ = client.call(wire.CMD_WRITE, MIB - 4096, 4096, b"x" * 4096)
        equal(error, 0, "a write before the limit")
        daemon.judged = True
        daemon.stop()
