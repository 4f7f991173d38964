"""The clients people have (nbdinfo, nbdcopy, qemu-img, qemu-io, fio, libnbd) on every kind of storage and socket."""

import json
import os

import nbd

from harness import FILE, LOOP512, LOOP4096, MIB, TCP, TCP6, UNIX, ZRAM
from harness import Failure, check, equal, random_bytes, same_bytes, test, two_cores

PLACES = [(FILE, TCP), (FILE, UNIX), (FILE, TCP6), (LOOP512, TCP), (LOOP4096, TCP)]
DISKS = [(FILE, TCP), (LOOP512, TCP), (LOOP4096, TCP)]
ODD_BYTES = 10_000_003


def is_power_of_two(value):
    return value > 0 and value & (value - 1) == 0


def describe_export(env, uri):
    """What nbdinfo says about one export."""
    return json.loads(env.run(["nbdinfo", "--json", uri]).out)["exports"][0]


def check_block_sizes(export):
    minimum, preferred = export["block_size_minimum"], export["block_size_preferred"]
    maximum = export["block_size_maximum"]
    check(is_power_of_two(minimum) and minimum <= 65536, f"minimum block size {minimum}")
    check(is_power_of_two(preferred), f"preferred block size {preferred}")
    check(preferred >= max(minimum, 512), f"preferred block size {preferred} with minimum {minimum}")
    check(maximum >= max(preferred, MIB), f"maximum payload {maximum}")
    equal(export["export-size"] % minimum, 0, "bytes after the last minimum block")


@test(over=PLACES, quick=[(FILE, TCP), (FILE, UNIX), (LOOP4096, TCP)])
def nbdinfo_shows_size_flags_and_block_sizes(env, medium, transport):
    image = env.image(medium, 8 * MIB)
    daemon = env.serve_image(image, transport)
    export = describe_export(env, daemon.uri())
    equal(export["export-size"], image.bytes, "size")
    for flag in ("can_multi_conn", "can_flush", "can_fua"):
        equal(export[flag], True, flag)
    equal(export["is_read_only"], False, "is_read_only")
    check_block_sizes(export)


@test(quick=True)
def nbdinfo_lists_every_export_with_its_description(env):
    small, large = env.file(MIB), env.file(3 * MIB + 1)
    daemon = env.serve(
        "--config",
        env.config(
            f"[server]\nlisten = 127.0.0.1:0\n"
            f"[export small]\npath = {small}\ndescription = the small one\n"
            f"[export großes Bild]\npath = {large}\nread-only = yes\n"
        ),
    )
    exports = json.loads(env.run(["nbdinfo", "--json", "--list", daemon.uri("")]).out)["exports"]
    by_name = {export["export-name"]: export for export in exports}
    equal(sorted(by_name), ["großes Bild", "small"], "names")
    equal(by_name["small"].get("description"), "the small one", "description of small")
    equal(by_name["small"]["export-size"], MIB, "size of small")
    equal(by_name["großes Bild"]["export-size"], 3 * MIB + 1, "size of the other")
    equal(by_name["großes Bild"]["is_read_only"], True, "is_read_only of the other")


@test(quick=True)
def default_export_is_the_one_without_a_name(env):
    daemon = env.serve("--export", f"={env.file(2 * MIB)}", "--listen", "127.0.0.1:0")
    equal(env.run(["nbdinfo", "--size", daemon.uri("")]).out.strip(), str(2 * MIB), "size")


@test(quick=True)
def one_daemon_serves_several_listeners(env):
    content = random_bytes(MIB)
    path = env.file(MIB, content)
    daemon = env.serve(
        *("--export", f"disk={path}", "--listen", env.listen_text(TCP)),
        *("--listen", env.listen_text(UNIX), "--listen", env.listen_text(TCP)),
    )
    equal(len(daemon.addresses), 3, "listeners in the log")
    for index in range(3):
        copy = env.path("copy")
        env.run(["nbdcopy", daemon.uri(index=index), copy])
        same_bytes(read_file(copy), content, f"copy from listener {index}")


def read_file(path):
    with open(path, "rb") as file:
        return file.read()


@test(over=PLACES, quick=[(FILE, TCP), (LOOP512, TCP)])
def nbdcopy_up_and_down_is_identical(env, medium, transport):
    size_bytes = env.size(64, 12) * MIB
    content = random_bytes(size_bytes)
    image = env.image(medium, size_bytes)
    daemon = env.serve_image(image, transport)
    source, copy = env.file(size_bytes, content), env.path("copy")
    env.run(["nbdcopy", "--connections=4", "--requests=64", "--flush", source, daemon.uri()])
    same_bytes(image.content(), content, "the image after the copy up")
    env.run(["nbdcopy", "--connections=4", "--requests=64", daemon.uri(), copy])
    same_bytes(read_file(copy), content, "the copy down")


@test(quick=True)
def nbdcopy_of_an_odd_size_is_identical(env):
    content = random_bytes(ODD_BYTES)
    image = env.image(FILE, ODD_BYTES)
    daemon = env.serve_image(image)
    source, copy = env.file(ODD_BYTES, content), env.path("copy")
    env.run(["nbdcopy", "--connections=4", source, daemon.uri()])
    env.run(["nbdcopy", "--connections=4", daemon.uri(), copy])
    same_bytes(read_file(copy), content, "the copy down")
    same_bytes(read_file(image.backing), content, "the image")


@test(over=[(size,) for size in (ODD_BYTES, 1, 511, 513, 4095, 4097, 2 * MIB + 512)], quick=[(ODD_BYTES,), (511,)])
def last_bytes_can_be_written_and_the_image_does_not_grow(env, size_bytes):
    content = bytearray(random_bytes(size_bytes))
    image = env.image(FILE, size_bytes, content)
    daemon = env.serve_image(image)
    handle = connect(daemon.uri())
    equal(handle.get_size(), size_bytes, "size")
    for count, flags in ((1, 0), (min(3, size_bytes), nbd.CMD_FLAG_FUA), (min(5000, size_bytes), 0)):
        start = size_bytes - count
        content[start:] = random_bytes(count, seed=count)
        handle.pwrite(bytes(content[start:]), start, flags)
        same_bytes(handle.pread(count, start), content[start:], f"the last {count} bytes read back")
    handle.flush()
    handle.shutdown()
    equal(os.stat(image.path).st_size, size_bytes, "size of the image file")
    same_bytes(read_file(image.path), bytes(content), "the image")


def connect(uri):
    handle = nbd.NBD()
    handle.connect_uri(uri)
    return handle


@test(over=PLACES, quick=[(FILE, TCP), (LOOP4096, TCP)])
def qemu_img_convert_up_and_down_compares_equal(env, medium, transport):
    size_bytes = env.size(48, 8) * MIB
    image = env.image(medium, size_bytes)
    daemon = env.serve_image(image, transport)
    content = half_random(size_bytes)
    source, copy = env.file(size_bytes, content), env.path("copy")
    up = ["qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "-W", source, daemon.uri()]
    env.run(up)
    same_bytes(image.content(), content, "the image after the copy up")
    env.run(["qemu-img", "convert", "-f", "raw", "-O", "raw", "-W", daemon.uri(), copy])
    env.run(["qemu-img", "compare", "-f", "raw", "-F", "raw", copy, source])
    env.run(["qemu-img", "compare", "-f", "raw", "-F", "raw", daemon.uri(), source])


def half_random(size_bytes):
    """Content with holes in it: every other MiB is zero."""
    return b"".join(random_bytes(MIB, index) if index % 2 else bytes(MIB) for index in range(size_bytes // MIB))


@test(over=DISKS)
def qcow2_image_works_inside_an_export(env, medium, transport):
    """The export holds QEMU's own format, with its small metadata writes."""
    image = env.image(medium, 24 * MIB)
    daemon = env.serve_image(image, transport)
    source = env.file(8 * MIB, random_bytes(8 * MIB))
    env.run(["qemu-img", "create", "-f", "qcow2", daemon.uri(), "8M"])
    env.run(["qemu-img", "convert", "-n", "-f", "raw", "-O", "qcow2", source, daemon.uri()])
    env.run(["qemu-img", "check", "-f", "qcow2", daemon.uri()])
    env.run(["qemu-img", "compare", "-f", "qcow2", "-F", "raw", daemon.uri(), source])


QEMU_IO_WRITES = (
    # pattern, offset, length, options
    (0xAB, 1000, 3000, ""),
    (0x01, 0, 1, ""),
    (0x02, 4095, 2, ""),
    (0x03, 8192, 4096, ""),
    (0x04, 12288 + 512, 1024, "-f"),
    (0x05, 100_001, 65_537, "-f"),
    (0x06, 262_144, 262_144, ""),
)


@test(
    over=[(medium, cache) for medium in (FILE, LOOP512, LOOP4096) for cache in ("none", "writethrough", "writeback")],
    quick=[(FILE, "none"), (LOOP4096, "writethrough")],
)
def qemu_io_patterns_read_back(env, medium, cache):
    image = env.image(medium, MIB)
    daemon = env.serve_image(image)
    command = ["qemu-io", "-f", "raw", "-t", cache]
    wanted = bytearray(MIB)
    for pattern, offset, length, options in QEMU_IO_WRITES:
        command += ["-c", f"write {options} -P {pattern:#x} {offset} {length}"]
        command += ["-c", f"read -P {pattern:#x} {offset} {length}"]
        wanted[offset : offset + length] = bytes([pattern]) * length
    result = env.run([*command, "-c", "flush", daemon.uri()])
    check("fail" not in result.out.lower(), f"qemu-io: {result.out}")
    same_bytes(image.content(), bytes(wanted), "the image")


@test(over=[(FILE,), (LOOP4096,)])
def qemu_io_keeps_many_requests_in_flight(env, medium):
    image = env.image(medium, 4 * MIB)
    daemon = env.serve_image(image)
    command = ["qemu-io", "-f", "raw", "-t", "none"]
    wanted = bytearray(4 * MIB)
    for index in range(100):
        offset, length = index * 40_000, 39_999
        command += ["-c", f"aio_write -q -P {index + 1} {offset} {length}"]
        wanted[offset : offset + length] = bytes([index + 1]) * length
    env.run([*command, "-c", "aio_flush", daemon.uri()])
    same_bytes(image.content(), bytes(wanted), "the image")


def fio(env, daemon, name, *settings):
    """Run fio with four connections, a part of the volume each, and verify all that was written."""
    command = [
        *("fio", f"--name={name}", "--ioengine=nbd", f"--uri={daemon.uri()}", "--thread"),
        *("--numjobs=4", "--iodepth=16", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1"),
        *("--group_reporting", "--randrepeat=1", "--verify_state_save=0", "--output-format=json", *settings),
    ]
    result = env.run(command, 90)
    # Warnings may precede the JSON.
    jobs = json.loads(result.out[result.out.index("{") :])["jobs"]
    for job in jobs:
        equal(job["error"], 0, "fio's error")
        check(job["write"]["total_ios"] > 0 and job["read"]["total_ios"] > 0, "fio wrote or read nothing")
    return jobs


@test(over=DISKS, quick=[(FILE, TCP), (LOOP512, TCP)], seconds=100)
def fio_verifies_random_writes_over_four_connections(env, medium, transport):
    part_mib = env.size(12, 2)
    image = env.image(medium, 4 * part_mib * MIB)
    daemon = env.serve_image(image, transport, two_cores())
    place = [f"--size={part_mib}m", f"--offset_increment={part_mib}m"]
    fio(env, daemon, "blocks", "--rw=randwrite", "--bs=4k", *place)


@test(over=DISKS, quick=[(LOOP4096, TCP)], seconds=100)
def fio_verifies_mixed_sizes_over_four_connections(env, medium, transport):
    """Sizes from 512 bytes: on blocks of 4096 most are a read-modify-write."""
    part_mib = env.size(8, 1)
    image = env.image(medium, 4 * part_mib * MIB)
    daemon = env.serve_image(image, transport, two_cores())
    place = [f"--size={part_mib}m", f"--offset_increment={part_mib}m"]
    fio(env, daemon, "mixed", "--rw=randwrite", "--bsrange=512-64k", "--blockalign=512", *place)


@test(over=DISKS, seconds=100)
def fio_verifies_reads_and_writes_mixed_with_syncs(env, medium, transport):
    part_mib = env.size(8, 1)
    image = env.image(medium, 4 * part_mib * MIB)
    daemon = env.serve_image(image, transport, two_cores())
    place = [f"--size={part_mib}m", f"--offset_increment={part_mib}m"]
    fio(env, daemon, "synced", "--rw=randrw", "--bs=16k", "--fsync=32", *place)


@test(seconds=100)
def zram_device_is_served(env):
    size_bytes = 32 * MIB
    image = env.image(ZRAM, size_bytes)
    daemon = env.serve_image(image)
    content = random_bytes(size_bytes)
    source, copy = env.file(size_bytes, content), env.path("copy")
    env.run(["nbdcopy", "--connections=4", source, daemon.uri()])
    env.run(["nbdcopy", "--connections=4", daemon.uri(), copy])
    same_bytes(read_file(copy), content, "the copy down")
    fio(env, daemon, "zram", "--rw=randwrite", "--bs=4k", "--size=4m", "--offset_increment=4m")


@test(over=[(FILE,), (LOOP512,), (LOOP4096,)], quick=[(FILE,)])
def largest_request_a_client_may_send_works(env, medium):
    """A client that asked for no sizes may send 32 MiB."""
    size_bytes = 40 * MIB
    content = random_bytes(32 * MIB)
    image = env.image(medium, size_bytes)
    daemon = env.serve_image(image)
    handle = connect(daemon.uri())
    for offset in (0, 1001):
        handle.pwrite(content, offset)
        same_bytes(handle.pread(32 * MIB, offset), content, f"32 MiB at {offset}")
    handle.flush()
    handle.shutdown()
    same_bytes(image.pread(32 * MIB, 1001), content, "the image")


@test(quick=True)
def read_only_export_refuses_writes_and_serves_reads(env):
    content = random_bytes(MIB)
    path = env.file(MIB, content)
    daemon = env.serve(
        "--config",
        env.config(f"[server]\nlisten = 127.0.0.1:0\n[export disk]\npath = {path}\nread-only = yes\n"),
    )
    equal(describe_export(env, daemon.uri())["is_read_only"], True, "is_read_only")
    handle = nbd.NBD()
    handle.set_strict_mode(0)  # or libnbd would refuse by itself
    handle.connect_uri(daemon.uri())
    try:
        handle.pwrite(b"x" * 512, 0)
    except nbd.Error as error:
        equal(error.errno, "EPERM", "errno of the write")
    else:
        raise Failure("a write to a read-only export succeeded")
    same_bytes(handle.pread(MIB, 0), content, "the image read")
    handle.shutdown()
    same_bytes(read_file(path), content, "the image file")


@test(quick=True)
def read_only_file_can_be_exported_read_only(env):
    """The daemon must not need write permission for it."""
    path = env.file(MIB, random_bytes(MIB))
    os.chmod(path, 0o444)
    config = env.config(f"[server]\nlisten = 127.0.0.1:0\n[export disk]\npath = {path}\nread-only = true\n")
    daemon = env.serve("--config", config)
    equal(env.run(["nbdinfo", "--size", daemon.uri()]).out.strip(), str(MIB), "size")


@test(over=[(FILE,), (LOOP4096,)], quick=[(FILE,)])
def write_on_one_connection_is_read_on_another(env, medium):
    """CAN_MULTI_CONN: four connections, two cores, one volume."""
    image = env.image(medium, MIB)
    daemon = env.serve_image(image, TCP, two_cores())
    handles = [connect(daemon.uri()) for _ in range(4)]
    for turn in range(40):
        writer, reader = handles[turn % 4], handles[(turn + 1 + turn // 4 % 3) % 4]
        offset, data = turn * 5000 + 17, random_bytes(4000, turn)
        writer.pwrite(data, offset)
        same_bytes(reader.pread(4000, offset), data, f"turn {turn}")
        reader.flush()
    for handle in handles:
        handle.shutdown()


@test(over=[("latency",), ("normal",), ("background",)], quick=[("background",)])
def copies_do_not_hang_whatever_the_priority(env, priority):
    """Requests that are told of while others are still being received; five times, because it takes a moment's coincidence."""
    image, source = env.file(64 * MIB), env.file(64 * MIB, random_bytes(3 * MIB) + bytes(61 * MIB))
    daemon = env.serve(
        "--config",
        env.config(f"[server]\nlisten = 127.0.0.1:0\n[export disk]\npath = {image}\npriority = {priority}\n"),
    )
    for _ in range(5):
        env.run(["nbdcopy", "--connections=4", "--flush", source, daemon.uri()], seconds=10)
    same_bytes(read_file(image), read_file(source), "the copy")
