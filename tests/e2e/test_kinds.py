"""The kinds of volumes beside files, through the port."""

from harness import MIB
from harness import check, equal, random_bytes, same_bytes, test, two_cores
from wire import Wire

EXPORT = "disk"


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
