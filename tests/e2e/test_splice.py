"""cache = host: large reads go from the page cache to the socket by way of pipes, without being copied."""

import os
import pwd
import random
import threading

import wire
from authority import Authority, start_tls
from harness import LOOP512, MIB, TCP, UNIX, Skip
from harness import check, equal, random_bytes, same_bytes, test, two_cores, wait_until
from test_cache import make_cold
from wire import CMD_FLAG_DF, SIMPLE, STYLES, Closed, Wire

SIZE = 8 * MIB + 12345
LARGE = 256 << 10
PIPES_PER_CORE = 32


def serve(env, path, transport=TCP, cores=None, more=""):
    config = env.config(f"[server]\nlisten = {env.listen_text(transport)}\n{more}\n[export disk]\npath = {path}\ncache = host\n")
    return env.serve("--config", config, "--cores", cores or two_cores().split(",", maxsplit=1)[0])


def connect(env, daemon, style=SIMPLE, seconds=30):
    client = env.keep(Wire(daemon.address, seconds))
    client.go("disk", style=style)
    return client


@test(over=[(style, TCP) for style in STYLES] + [(SIMPLE, UNIX)], quick=[(style, TCP) for style in STYLES])
def large_reads_are_right_hot_and_cold(env, style, transport):
    data = random_bytes(SIZE)
    image = env.file(SIZE, data)
    daemon = serve(env, image, transport)
    client = connect(env, daemon, style)
    before = daemon.pipe_count()
    rng = random.Random(3)
    spans = [(0, LARGE), (1, LARGE), (0, 512 << 10), (1, 512 << 10), (4095, (512 << 10) - 4095), (SIZE - LARGE, LARGE),
             (2 * MIB - 4097, LARGE), (MIB - 1, 131072), (77, 3 * MIB)]
    spans += [(rng.randrange(SIZE - MIB), rng.randrange(131072, 512 << 10)) for _ in range(env.size(40, 10))]
    for serial, (offset, length) in enumerate(spans):
        if serial % 3 == 0:
            make_cold(image)
        same_bytes(client.read(offset, length), data[offset : offset + length], f"{length} bytes at {offset}")
    check(daemon.pipe_count() > before, "no pipe was used")


@test(over=[(style,) for style in STYLES], quick=[(SIMPLE,)])
def many_at_once_are_each_answered_with_their_own(env, style):
    """More than there are pipes, large and small ones; what finds no pipe is copied."""
    data = random_bytes(SIZE)
    daemon = serve(env, env.file(SIZE, data))
    clients = [connect(env, daemon, style) for _ in range(3)]
    rng = random.Random(4)
    for _ in range(env.size(6, 2)):
        asked = []
        for client in clients:
            for _ in range(48):
                length = rng.choice((1, 4096, 70000, 131072, LARGE, 500000))
                offset = rng.randrange(SIZE - length)
                flags = 0 if style == SIMPLE else rng.choice((0, CMD_FLAG_DF))
                asked.append((client, client.request(wire.CMD_READ, offset, length, flags=flags), offset, length))
        by_cookie = {(client, cookie): (offset, length) for client, cookie, offset, length in asked}
        for client in clients:
            for _ in range(48):
                cookie, error, got = client.reply()
                offset, length = by_cookie.pop((client, cookie))
                equal(error, 0, "error of a read")
                same_bytes(got, data[offset : offset + length], f"{length} bytes at {offset}")
        check(not by_cookie, f"{len(by_cookie)} were not answered")
    check(PIPES_PER_CORE // 2 <= daemon.pipe_count() <= PIPES_PER_CORE, f"{daemon.pipe_count()} pipes")


@test(quick=True)
def clients_that_leave_in_the_middle_leave_nothing_behind(env):
    """What was in their pipes is sent to nobody else."""
    data = random_bytes(SIZE)
    daemon = serve(env, env.file(SIZE, data))
    other = connect(env, daemon)
    same_bytes(other.read(5, LARGE), data[5 : 5 + LARGE], "what was read before")
    files = daemon.fd_count()
    for round_number in range(env.size(30, 10)):
        client = connect(env, daemon)
        for index in range(20):
            client.request(wire.CMD_READ, index * LARGE, LARGE)
        client.receive(1000 * round_number + 1)
        client.close()
        offset = 4096 * round_number + round_number
        same_bytes(other.read(offset, LARGE), data[offset : offset + LARGE], f"what another reads, {round_number}")
    wait_until(lambda: daemon.fd_count() <= files, 10, "no more files but pipes")
    check(daemon.pipe_count() <= PIPES_PER_CORE, f"{daemon.pipe_count()} pipes")


@test(quick=True)
def who_reads_no_answers_keeps_pipes_from_nobody(env):
    data = random_bytes(SIZE)
    daemon = serve(env, env.file(SIZE, data))
    stuck = [connect(env, daemon) for _ in range(6)]
    for client in stuck:
        for index in range(40):
            client.request(wire.CMD_READ, index % 32 * LARGE, LARGE)
    good = connect(env, daemon, seconds=10)
    for index in range(40):
        same_bytes(good.read(index, LARGE), data[index : index + LARGE], f"a read beside them, {index}")
    for client in stuck:
        client.close()


@test(over=[(style,) for style in STYLES], quick=[(SIMPLE,)])
def reads_that_fail_say_so_and_others_go_on(env, style):
    data = random_bytes(SIZE)
    image = env.file(SIZE, data)
    daemon = serve(env, image)
    client = connect(env, daemon, style)
    os.truncate(image, 4 * MIB + 1000)
    for offset in (4 * MIB, 4 * MIB + 999, 5 * MIB, SIZE - LARGE):
        equal(client.call(wire.CMD_READ, offset, LARGE)[0], 5, f"error of a read at {offset}")
        same_bytes(client.read(3 * MIB, LARGE), data[3 * MIB :][:LARGE], "what is left")
    daemon.logged("read", f"{LARGE} bytes", "disk")


@test(quick=True)
def inside_tls_they_are_copied(env):
    authority = Authority(env)
    data = random_bytes(SIZE)
    daemon = serve(env, env.file(SIZE, data), more=authority.settings("required"))
    before = daemon.pipe_count()
    client = env.keep(Wire(daemon.address))
    client.greet()
    start_tls(client, authority.context())
    client.ask_info(wire.OPT_GO, "disk")
    same_bytes(client.read(77, LARGE), data[77 : 77 + LARGE], "what was read")
    equal(daemon.pipe_count(), before, "pipes")


@test(over=[(True,), (False,)], quick=[(True,), (False,)])
def user_who_may_not_know_what_is_cached_has_it_copied(env, knows):
    """Root opens the image, and becomes somebody to whom the kernel says, unless the image is theirs, that all of it is cached."""
    if os.geteuid() != 0:
        raise Skip("needs root to give up")
    data = random_bytes(SIZE)
    image = env.file(SIZE, data)
    user = pwd.getpwnam("nobody")
    os.chmod(image, 0o600)
    if knows:
        os.chown(image, user.pw_uid, user.pw_gid)
    config = env.config(f"[server]\nlisten = 127.0.0.1:0\nuser = nobody\n[export disk]\npath = {image}\ncache = host\n")
    daemon = env.serve("--config", config, "--cores", two_cores().split(",", maxsplit=1)[0])
    client = connect(env, daemon)
    same_bytes(client.read(0, LARGE), data[:LARGE], "the first read")
    for _ in range(4):
        make_cold(image)
        cookies = {client.request(wire.CMD_READ, index * LARGE, LARGE): index for index in range(8)}
        for _ in range(8):
            cookie, error, got = client.reply()
            equal(error, 0, "error of a read")
            same_bytes(got, data[cookies[cookie] * LARGE :][:LARGE], f"read {cookies[cookie]}")
    # The first one found out.
    check((daemon.pipe_count() > 1) == knows, f"{daemon.pipe_count()} pipes")


@test(over=[("file",), (LOOP512,)], quick=[("file",)])
def reads_beside_writes_see_nothing_older_or_newer(env, medium):
    """The same range is written again and again, each time with another byte in all of it."""
    size = 4 * MIB
    image = env.image(medium, size, bytes(size))
    daemon = serve(env, image.path, cores=two_cores())
    writer, reader = connect(env, daemon), connect(env, daemon)
    stop = threading.Event()
    written = [0]
    failures = []

    def write():
        try:
            while not stop.is_set():
                writer.write(MIB, bytes([(written[0] + 1) % 256]) * LARGE)
                written[0] += 1
        except (Closed, OSError) as error:
            failures.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    for _ in range(env.size(200, 50)):
        earliest = written[0]
        seen = set(reader.read(MIB, LARGE)[::512])
        allowed = {count % 256 for count in range(earliest, written[0] + 2)}
        check(seen <= allowed, f"read {sorted(seen)} while {sorted(allowed)} were written")
    stop.set()
    thread.join()
    for failure in failures:
        raise failure
