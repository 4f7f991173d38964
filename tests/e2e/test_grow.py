"""Images that become larger while they are served: from a reload on new clients see the new size, those that are there keep theirs."""

import os
import subprocess

import wire
from harness import FILE, LOOP512, LOOP4096, MIB
from harness import check, equal, random_bytes, same_bytes, test, wait_until
from test_reload import Server
from wire import Wire

KIB = 1 << 10


def grow(image, size_bytes):
    """As an administrator does it."""
    os.truncate(image.backing, size_bytes)
    if image.path != image.backing:
        subprocess.run(["losetup", "--set-capacity", image.path], check=True)


def raw_client(env, server):
    client = env.keep(Wire(server.daemon.address))
    client.go("disk")
    return client


def size_told(env, server):
    return int(env.run(["nbdinfo", "--size", f"nbd://127.0.0.1:{server.port}/disk"]).out)


SIZES = (
    (FILE, MIB, 3 * MIB),
    (FILE, MIB + 1234, 3 * MIB),
    (FILE, MIB + 512, 3 * MIB + 4321),
    (FILE, MIB + 1, MIB + 2),
    (LOOP512, MIB, 3 * MIB),
    (LOOP4096, MIB, 2 * MIB + 4 * KIB),
)


@test(over=SIZES, quick=SIZES[:3])
def new_clients_see_the_new_size_and_old_ones_go_on(env, medium, before, after):
    content = random_bytes(before)
    image = env.image(medium, before, content)
    server = Server(env, {"disk": f"path = {image.path}"})
    old = raw_client(env, server)
    grow(image, after)
    equal(size_told(env, server), before, "size before the reload")
    server.reload()
    equal(size_told(env, server), after, "size after it")
    said = f'info: export "disk" grew from {before} to {after} bytes'
    check(said in server.daemon.log_lines(), f"no line {said!r}")
    new = raw_client(env, server)
    data = random_bytes(after - before + 1, 2)
    new.write(before - 1, data)
    # The old one still ends where it was told, and gives as good an answer as before.
    equal(old.call(wire.CMD_WRITE, before - 1, 2, b"no")[0], wire.ENOSPC, "error of a write behind the old size")
    equal(old.call(wire.CMD_READ, before, 1)[0], wire.EINVAL, "error of a read behind the old size")
    same_bytes(old.read(0, before), content[:-1] + data[:1], "what the old client sees")
    old.write(before - 700, b"o" * 600)
    expected = content[: before - 700] + b"o" * 600 + content[before - 100 : before - 1] + data
    same_bytes(new.read(0, after), expected, "what the new client sees")
    new.call(wire.CMD_FLUSH)
    server.daemon.stop()
    same_bytes(image.content()[:before], expected[:before], "the image")
    equal(os.path.getsize(image.backing), after, "size of the image")


@test(quick=True)
def where_the_new_data_is_is_known(env):
    """BLOCK_STATUS and sparse reads over the old end, where a hole was known up to the middle of a cell."""
    image = env.image(FILE, MIB + 20000)
    server = Server(env, {"disk": f"path = {image.path}"})
    old = server.connect("disk")
    same_bytes(old.pread(MIB, 20000), bytes(MIB), "a hole")
    data = random_bytes(MIB)
    with open(image.path, "r+b") as file:
        file.seek(MIB + 20000)
        file.write(data)
        file.truncate(4 * MIB)
    server.reload()
    new = server.connect("disk")
    for _ in range(3):
        same_bytes(new.pread(4 * MIB, 0), bytes(MIB + 20000) + data + bytes(2 * MIB - 20000), "what is read")
    same_bytes(old.pread(MIB, 20000), bytes(MIB), "the hole for the old client")


@test(quick=True)
def an_image_that_became_smaller_keeps_its_size_with_a_warning(env):
    image = env.image(FILE, 4 * MIB, random_bytes(4 * MIB))
    server = Server(env, {"disk": f"path = {image.path}"})
    old = raw_client(env, server)
    os.truncate(image.path, MIB)
    server.reload()
    lines = [line for line in server.daemon.log_lines() if line.startswith('warning: export "disk": ')]
    equal(len(lines), 1, f"warnings: {lines}")
    check(f"only {MIB} bytes now" in lines[0] and f"than the {4 * MIB} that" in lines[0], lines[0])
    equal(size_told(env, server), 4 * MIB, "size")
    equal(old.call(wire.CMD_READ, 2 * MIB, 4096)[0], wire.EIO, "error of a read of what is gone")
    same_bytes(old.read(0, MIB), random_bytes(4 * MIB)[:MIB], "what is left")
    # Grown again, it is as it was.
    os.truncate(image.path, 5 * MIB)
    server.reload()
    equal(size_told(env, server), 5 * MIB, "size after it grew again")
    same_bytes(old.read(2 * MIB, MIB), bytes(MIB), "what was gone")


def warnings_of(server, path):
    return [line for line in server.daemon.log_lines() if line.startswith(f"warning: {path}: ")]


@test(quick=True)
def an_image_that_was_replaced_or_removed_is_served_on_with_a_warning(env):
    image, other = env.image(FILE, MIB, b"1" * MIB), env.image(FILE, 2 * MIB, b"2" * (2 * MIB))
    server = Server(env, {"disk": f"path = {image.path}"})
    server.reload()
    equal(warnings_of(server, image.path), [], "warnings of an image that stays")
    os.rename(other.path, image.path)
    server.reload()
    equal(size_told(env, server), MIB, "size")
    equal(server.connect("disk").pread(1, 0), b"1", "what is served")
    said = warnings_of(server, image.path)
    check(len(said) == 1 and "is another file now" in said[0] and "restart the daemon" in said[0], f"{said}")
    os.remove(image.path)
    server.reload()
    said = warnings_of(server, image.path)[1:]
    check(len(said) == 1 and "was removed" in said[0], f"{said}")


@test(quick=True)
def a_reload_that_fails_lets_nothing_grow(env):
    image = env.image(FILE, MIB)
    server = Server(env, {"disk": f"path = {image.path}"})
    grow(image, 2 * MIB)
    server.change({"disk": f"path = {image.path}", "other": "path = /nonexistent"}, works=False)
    equal(size_told(env, server), MIB, "size")
    server.change({"disk": f"path = {image.path}\nread-only = yes"})
    equal(size_told(env, server), 2 * MIB, "size for readers")


@test(quick=True)
def memory_of_another_size_is_another_memory_and_that_is_said(env):
    server = Server(env, {"disk": "type = memory\nsize = 1M"})
    old = server.connect("disk")
    old.pwrite(b"kept" * 128, 0)
    server.change({"disk": "type = memory\nsize = 2M"})
    new = server.connect("disk")
    equal(new.get_size(), 2 * MIB, "size")
    equal(new.pread(4, 0), bytes(4), "what is in the new memory")
    equal(old.pread(4, 0), b"kept", "what is in the old one")
    said = 'warning: export "disk" has another size'
    check(any(line.startswith(said) for line in server.daemon.log_lines()), f"no line {said!r}")
    server.change({"disk": "type = null\nsize = 1M"})
    server.change({"disk": "type = null\nsize = 2M"})
    equal(server.connect("disk").get_size(), 2 * MIB, "size of null")


@test(quick=True)
def grows_again_and_again_under_a_load(env):
    """What a load writes that began before is verified while the image grows by odd amounts; and each new end is written."""
    image = env.image(FILE, 8 * MIB)
    server = Server(env, {"disk": f"path = {image.path}"})
    program = os.path.join(os.path.dirname(env.binary), "millrace-bench")
    uri = f"nbd://127.0.0.1:{server.port}/disk"
    command = [program, "verify", uri, "--quiet", "--connections", "4", "--bs", "1536", "--size", str(8 * MIB)]
    load = subprocess.Popen([*command, "--rounds", "2", "--time", "1"], stdout=subprocess.PIPE, text=True)
    size = 8 * MIB
    ends = {}
    while load.poll() is None and len(ends) < 60:
        size += (1, 511, 4096, 65536, 100001)[len(ends) % 5]
        grow(image, size)
        server.reload()
        handle = server.connect("disk")
        equal(handle.get_size(), size, "size")
        handle.pwrite(bytes([len(ends)]), size - 1)
        ends[size - 1] = bytes([len(ends)])
    text = load.communicate()[0]
    equal(load.returncode, 0, f"exit status of the load: {text}")
    last = server.connect("disk")
    for offset, byte in ends.items():
        equal(last.pread(1, offset), byte, f"the byte at {offset}, once the last one")
    wait_until(lambda: server.daemon.log().count("grew from") == len(ends), 5, "a line for each time")
