"""Connections that move from core to core, as what is asked of them changes."""

import os
import subprocess
import time

import wire
from authority import Authority, start_tls
from harness import MIB, Skip, check, equal, random_bytes, start_process, test, two_cores, wait_until
from wire import Wire

KIB = 1 << 10
SIZE = 64 * MIB
DEPTH = 8
DEEP = 21  # so many at a time are gathered; not a part of a look, which would see the same moment of each round
LARGE = 256 * KIB
SMALL = 4 * KIB
# The daemon decides after so many requests; the first time behind a move does not count either.
LOOK = 256
LOOKS = 6  # until large ones are tried elsewhere: the first time it has nothing to compare with, and five are compared
ENOUGH = (LOOKS + 2) * LOOK  # for that, and too few to be compared behind it


def serve(env, settings="", delay_ms=10):
    """Requests take their time, so that there are several at once, however fast the client is."""
    text = f"[reactor]\ncores = {two_cores()}\n[server]\nlisten = 127.0.0.1:0\nlog-level = debug\n{settings}\n"
    text += f"[export disk]\ntype = fault\nsize = {SIZE}\nfault = delay-ms={delay_ms}\n"
    return env.serve("--config", env.config(text))


def pipeline(client, requests, depth=DEPTH):
    """Make REQUESTS, (command, offset, length, payload), DEPTH of them at a time; yields each with its answer's data."""
    waiting = {}
    for request in requests:
        if len(waiting) == depth:
            yield take_one(client, waiting)
        command, offset, length, payload = request
        waiting[client.request(command, offset, length, payload)] = request
    while waiting:
        yield take_one(client, waiting)


def take_one(client, waiting):
    answer = client.next_answer()
    equal(answer.error, 0, "the error")
    return waiting.pop(answer.cookie), answer.data()


def write_all(client, blocks, length):
    requests = ((wire.CMD_WRITE, index * length, length, block) for index, block in enumerate(blocks))
    for _ in pipeline(client, requests):
        pass


def moves(daemon, client):
    """The cores that CLIENT's connection was moved to, in order."""
    port = client.sock.getsockname()[1]
    lines = [line for line in daemon.log_lines() if f":{port}: " in line and "moved to core" in line]
    return [int(line.rsplit(" ", 1)[1]) for line in lines]


def all_moves(daemon):
    """As moves, of all connections."""
    return [int(line.rsplit(" ", 1)[1]) for line in daemon.log_lines() if "moved to core" in line]


def pinned(env):
    """The two cores of a daemon, which must run already; this thread stays on the first one's CPU until the test ends."""
    cores = [int(core) for core in two_cores().split(",")]
    if len(cores) < 2:
        raise Skip("needs two cores")
    env.stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})
    return cores


PLAIN = "plain"
TLS = "tls"


@test(alone=True, over=[(PLAIN, wire.SIMPLE), (TLS, wire.STRUCTURED)], quick=[(TLS, wire.STRUCTURED)])
def large_writes_leave_their_clients_cpu_and_small_reads_come_back(env, transport, style):
    authority = Authority(env) if transport == TLS else None
    daemon = serve(env, authority.settings("required") if authority else "")
    cores = pinned(env)
    client = env.keep(Wire(daemon.address))
    client.greet()
    if authority:
        start_tls(client, authority.context())
    client.negotiate(style)
    client.ask_info(wire.OPT_GO, "disk")
    blocks = [random_bytes(LARGE, seed=index) for index in range(SIZE // LARGE)]
    for _ in range(ENOUGH // len(blocks) + 1):
        write_all(client, blocks, LARGE)
    equal(moves(daemon, client)[:1], [cores[1]], "where it was moved to, by writes")
    reads = ((wire.CMD_READ, index % (SIZE // SMALL) * SMALL, SMALL, b"") for index in range(ENOUGH))
    image = b"".join(blocks)
    for (_, offset, length, _), data in pipeline(client, reads):
        check(data == image[offset : offset + length], f"wrong data at {offset}")
    equal(moves(daemon, client)[-1:], [cores[0]], "where it was moved to, by reads")
    equal(len(moves(daemon, client)), 2, "how often it was moved")
    for index, block in enumerate(blocks):
        check(client.read(index * LARGE, LARGE) == block, f"wrong data in block {index}")


@test(alone=True)
def large_reads_leave_their_clients_cpu(env):
    daemon = serve(env)
    cores = pinned(env)
    client = env.keep(Wire(daemon.address))
    client.go("disk")
    for _ in pipeline(client, ((wire.CMD_READ, index % (SIZE // LARGE) * LARGE, LARGE, b"") for index in range(ENOUGH))):
        pass
    equal(moves(daemon, client)[:1], [cores[1]], "where it was moved to")


@test(alone=True)
def who_is_slower_elsewhere_comes_back_and_is_tried_again(env):
    daemon = serve(env, delay_ms=2)
    cores = pinned(env)
    client = env.keep(Wire(daemon.address))
    client.go("disk")
    block = random_bytes(LARGE)
    expected = [cores[1], cores[0], cores[1]]
    deadline = time.monotonic() + 60
    while len(moves(daemon, client)) < len(expected) and time.monotonic() < deadline:
        pause_s = 0.005 if moves(daemon, client)[-1:] == [cores[1]] else 0
        for _ in pipeline(client, ((wire.CMD_WRITE, index * LARGE, LARGE, block) for index in range(LOOK // 4))):
            time.sleep(pause_s)
    equal(moves(daemon, client), expected, "where it was moved to")


@test(alone=True, quick=True)
def client_that_reads_no_replies_is_not_held_up_by_a_move(env):
    """Its requests are taken all the same, though it can't go while a reply waits."""
    daemon = serve(env)
    pinned(env)
    client, other = env.keep(Wire(daemon.address)), env.keep(Wire(daemon.address))
    client.go("disk", style=wire.STRUCTURED)
    other.go("disk")
    for _ in range(LOOKS):
        write_all(client, [random_bytes(LARGE)] * (LOOK - 2), LARGE)
    cookies = {client.request(wire.CMD_READ, 0, 32 * MIB)}
    block = random_bytes(LARGE, seed=2)
    for index in range(2 * DEPTH):
        cookies.add(client.request(wire.CMD_WRITE, SIZE - (index + 1) * LARGE, LARGE, block))
    wait_until(lambda: other.read(SIZE - 2 * DEPTH * LARGE, LARGE) == block, 10, "the last one is written")
    equal(moves(daemon, client), [], "where it was moved to, with replies that wait")
    while cookies:
        cookies.discard(client.next_answer().cookie)


def serve_memory(env):
    """A daemon of two cores, those, and millrace-bench's path."""
    cores = [int(core) for core in two_cores().split(",")]
    if len(cores) < 2:
        raise Skip("needs two cores")
    settings = f"[reactor]\ncores = {two_cores()}\n[server]\nlisten = 127.0.0.1:0\nlog-level = debug\n"
    daemon = env.serve("--config", env.config(settings + f"[export disk]\ntype = memory\nsize = {SIZE}\n"))
    return daemon, cores, os.path.join(os.path.dirname(env.binary), "millrace-bench")


def crowd(env, connections):
    """What millrace-bench, on the second core's CPU, writes and reads over so many connections is right.  Returns the daemon and its
    cores."""
    daemon, cores, program = serve_memory(env)
    command = [program, "verify", daemon.uri("disk"), "--connections", str(connections), "--depth", "1", "--time", "1.5",
               "--rounds", "1", "--size", "8M", "--cores", str(cores[1]), "--quiet"]
    result = env.run(command)
    equal(result.code, 0, f"how it ended: {result.out}{result.err}")
    return daemon, cores


@test(alone=True, quick=True, speed=True)
def crowd_leaves_a_core_without_time_for_an_idle_one(env):
    """The client takes the CPU of one core; the other has time."""
    daemon, cores = crowd(env, 300)
    to = all_moves(daemon)
    check(to.count(cores[0]) >= 20, f"{to.count(cores[0])} connections were moved to the idle core")
    check(to.count(cores[1]) < to.count(cores[0]), f"{to.count(cores[1])} of {len(to)} moves were back")


@test(alone=True, speed=True)
def few_connections_leave_a_cpu_that_their_client_wants(env):
    """Half of them begin there; the other core is at work, and has time for all."""
    daemon, cores = crowd(env, 8)
    equal(set(all_moves(daemon)), {cores[0]}, "where they were moved to")


@test(alone=True, speed=True)
def they_come_back_when_their_client_goes_there(env):
    """The client comes to the CPU that they went to, and leaves its own one idle."""
    daemon, cores, program = serve_memory(env)
    client = start_process([program, "run", daemon.uri("disk"), "--rw", "randwrite", "--connections", "8", "--depth", "1", "--time", "20",
                            "--cores", str(cores[1]), "--quiet"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    env.processes.append(client)
    wait_until(lambda: len(all_moves(daemon)) >= 4, 8, "half of them to leave")
    equal(set(all_moves(daemon)), {cores[0]}, "where they were moved to")
    for task in os.listdir(f"/proc/{client.pid}/task"):
        os.sched_setaffinity(int(task), {cores[0]})
    wait_until(lambda: all_moves(daemon).count(cores[1]) >= 4, 8, "them to come back")


@test(alone=True)
def one_connection_stays_beside_its_client(env):
    """The other core is not at work: to wake it for each request would cost more."""
    daemon, _ = crowd(env, 1)
    equal(all_moves(daemon), [], "moves")


def keep_busy(env, cpu):
    """Something runs on CPU until the test ends."""
    env.processes.append(start_process(["taskset", "-c", str(cpu), "sh", "-c", "while :; do :; done"]))


def read_until(client, image, condition, seconds):
    """Small reads, DEEP at a time, each checked, until CONDITION() is true; returns whether it was within SECONDS."""
    deadline = time.monotonic() + seconds

    def requests():
        index = 0
        while time.monotonic() < deadline and (index % 256 or not condition()):
            yield wire.CMD_READ, index % (len(image) // SMALL) * SMALL, SMALL, b""
            index += 1

    for (_, offset, length, _), data in pipeline(client, requests(), DEEP):
        check(data == image[offset : offset + length], f"wrong data at {offset}")
    return condition()


def pair(env):
    """A daemon of two cores, those, a client on the CPU of the first one whose connection is on the second one, and what it reads."""
    daemon = serve(env, delay_ms=16)  # so that the client has time, but the connection can leave
    cores = pinned(env)
    first, second = env.keep(Wire(daemon.address)), env.keep(Wire(daemon.address))
    first.go("disk")
    second.go("disk")
    image = random_bytes(4 * MIB)
    first.write(0, image)
    return daemon, cores, second, image


@test(alone=True, speed=True)
def deep_reads_gather_on_their_clients_cpu_while_it_has_time(env):
    daemon, cores, client, image = pair(env)
    check(read_until(client, image, lambda: moves(daemon, client) == [cores[0]], 20), f"moves: {moves(daemon, client)}")
    keep_busy(env, cores[0])
    check(read_until(client, image, lambda: moves(daemon, client) == cores, 20), f"beside others, moves: {moves(daemon, client)}")


@test(alone=True, speed=True)
def deep_reads_stay_where_they_are_if_their_clients_cpu_has_no_time(env):
    daemon, cores, client, image = pair(env)
    keep_busy(env, cores[0])
    read_until(client, image, lambda: False, 3)
    equal(moves(daemon, client), [], "moves")


@test(alone=True)
def few_reads_at_a_time_are_not_gathered(env):
    """Deep ones would be after half as many."""
    daemon, _, client, image = pair(env)
    reads = ((wire.CMD_READ, index % 1024 * SMALL, SMALL, b"") for index in range(ENOUGH))
    for (_, offset, length, _), data in pipeline(client, reads):
        check(data == image[offset : offset + length], f"wrong data at {offset}")
    equal(moves(daemon, client), [], "moves")
