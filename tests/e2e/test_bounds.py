"""Limits: what the daemon takes of CPU, memory and descriptors, and that a greedy client only harms itself."""

import contextlib
import os
import re
import resource
import signal
import socket
import threading
import time

import wire
from harness import FILE, MIB, TCP, UNIX, Address, Skip
from harness import check, equal, random_bytes, same_bytes, test, two_cores, wait_until, write_text
from wire import Wire

BUFFER_MEMORY_MIB = 64  # per core
GREETING_SECONDS = 5


def serve_limited(env, image, settings="", transport=TCP):
    """A daemon with the least buffer memory, and SETTINGS for its [server] section."""
    cores = two_cores()
    return env.serve(
        "--config",
        env.config(
            f"[reactor]\ncores = {cores}\nbuffer-memory = {BUFFER_MEMORY_MIB}M\n"
            f"[server]\nlisten = {env.listen_text(transport)}\n{settings}\n"
            f"[export disk]\npath = {image.path}\n"
        ),
    )


def raise_file_limit(count):
    """COUNT descriptors for this process, and for the daemon that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count:
        raise Skip(f"only {hard} open files are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))


def connect(env, daemon):
    client = env.keep(Wire(daemon.address))
    client.go("disk")
    return client


@test(quick=True)
def idle_clients_cost_no_cpu(env):
    daemon = serve_limited(env, env.image(FILE, MIB))
    clients = [connect(env, daemon) for _ in range(10)]
    for client in clients:
        client.read(0, 4096)
    time.sleep(0.3)
    daemon.check_idle(seconds=2, ticks=2)
    for client in clients:
        client.read(0, 4096)


@test(quick=True, seconds=120)
def thousands_of_idle_clients_cost_next_to_nothing(env):
    """They are parked: no CPU, at most 4 KiB each; and each is served when it wakes."""
    count = env.size(10_000, 500)
    content = random_bytes(MIB)
    raise_file_limit(count + 500)
    daemon = serve_limited(env, env.image(FILE, MIB, content), f"max-connections = {count + 100}")
    connect(env, daemon).read(0, 4096)
    time.sleep(3)
    before_bytes = daemon.rss_bytes()
    clients = [connect(env, daemon) for _ in range(count)]
    grown = [0]

    def small():
        grown[0] = (daemon.rss_bytes() - before_bytes) // count
        return grown[0] <= 4096

    if not env.quick:  # jemalloc's, and few enough clients for a mean
        wait_until(small, 30, f"at most 4096 bytes for each client, not {grown[0]}")
    time.sleep(3)
    daemon.check_idle(seconds=2, ticks=2)
    for index, client in enumerate(clients):
        offset = index % 250 * 4096
        same_bytes(client.read(offset, 4096), content[offset:][:4096], f"data of client {index}")


@test(quick=True)
def lists_that_nobody_reads_hold_no_memory(env):
    """A thousand exports are a list of a MiB; each client that asks for it may wait with it, but not the daemon."""
    names = [f"export-{index:05}" for index in range(1000)]
    exports = "".join(f"[export {name}]\ntype = null\nsize = 1M\ndescription = {'d' * 1000}\n" for name in names)
    config = env.config(f"[server]\nlisten = {env.listen_text(UNIX)}\n{exports}")
    daemon = env.serve("--config", config, "--cores", two_cores())
    clients = [env.keep(Wire(daemon.address)) for _ in range(30)]
    for client in clients:
        client.greet()
    before_bytes = daemon.rss_bytes()
    for client in clients:
        client.send(wire.pack_option(wire.OPT_LIST) + wire.pack_option(wire.OPT_LIST))
    clients[0].sock.recv(1, socket.MSG_PEEK)
    time.sleep(0.3)
    grown = (daemon.rss_bytes() - before_bytes) // len(clients)
    check(grown < 200_000, f"{grown} bytes for each client")
    for _ in range(2):
        replies = clients[0].option_replies(wire.OPT_LIST)
        equal([data[4:16].decode() for _, data in replies[:-1]], names, "the list")
    clients[0].ask_info(wire.OPT_GO, names[-1])


@test(quick=True)
def idle_daemon_costs_no_cpu(env):
    daemon = serve_limited(env, env.image(FILE, MIB))
    time.sleep(0.3)
    daemon.check_idle()


@test(quick=True)
def thousand_large_reads_outstanding_are_all_answered(env):
    """Far more bytes asked for than there is buffer memory: requests wait, none fails."""
    content = random_bytes(16 * MIB)
    daemon = serve_limited(env, env.image(FILE, len(content), content))
    client = connect(env, daemon)
    count = env.size(1000, 300)
    offsets = {}
    for index in range(count):
        offset = index * 12_289 % (15 * MIB)
        offsets[client.request(wire.CMD_READ, offset, MIB)] = offset
    for _ in range(count):
        cookie, error, data = client.reply()
        equal(error, 0, f"error of request {cookie}")
        offset = offsets.pop(cookie)
        check(data == content[offset : offset + MIB], f"data at {offset}")
    if not env.quick:
        limit = len(os.sched_getaffinity(0)) * BUFFER_MEMORY_MIB + 96
        check(daemon.rss_bytes() < limit * MIB, f"{daemon.rss_bytes() // MIB} MiB resident, limit {limit}")


@test(quick=True)
def large_writes_from_many_connections_share_the_memory(env):
    """Twelve connections write 8 MiB each with the least memory; all are answered and right."""
    part_bytes = 8 * MIB
    count = env.size(12, 6)
    daemon = serve_limited(env, env.image(FILE, count * part_bytes))
    clients = [connect(env, daemon) for _ in range(count)]
    parts = [random_bytes(part_bytes, index) for index in range(count)]
    heads = [wire.pack_request(wire.CMD_WRITE, i * part_bytes, part_bytes, cookie=i) for i in range(count)]
    send_together(clients, [head + part for head, part in zip(heads, parts)])
    for index, client in enumerate(clients):
        equal(client.reply(), (index, 0, b""), f"reply to client {index}")
    for index, part in enumerate(parts):
        same_bytes(clients[-1].read(index * part_bytes, part_bytes), part, f"part {index}")


def send_together(clients, streams, step=50_000):
    """Send all streams a step at a time, in turns."""
    for position in range(0, max(len(stream) for stream in streams), step):
        for client, stream in zip(clients, streams):
            client.send(stream[position : position + step])


@test(quick=True)
def requests_over_the_limit_wait_and_are_answered(env):
    """With one at a time a short read can not overtake the long one before it."""
    content = random_bytes(4 * MIB)
    daemon = serve_limited(env, env.image(FILE, len(content), content), "requests-per-connection = 1")
    client = connect(env, daemon)
    asked = []
    for turn in range(50):
        for offset, length in ((turn * 1000, 2 * MIB), (turn * 3000, 10)):
            asked.append((client.request(wire.CMD_READ, offset, length), content[offset : offset + length]))
    for cookie, data in asked:
        answered, error, got = client.reply()
        equal((answered, error), (cookie, 0), "cookie and error of a reply")
        same_bytes(got, data, f"data of request {cookie}")


@test(over=[(1, TCP), (1, UNIX), (4, TCP)], quick=[(1, TCP)])
def clients_that_never_read_stall_only_themselves(env, stalled_count, transport):
    content = random_bytes(4 * MIB)
    daemon = serve_limited(env, env.image(FILE, len(content), content), transport=transport)
    others = [connect(env, daemon) for _ in range(4)]
    stalled = [connect(env, daemon) for _ in range(stalled_count)]
    for client in stalled:
        ask_without_reading(client)
    time.sleep(0.3)
    for turn in range(env.size(300, 100)):
        offset = turn * 7919
        began = time.monotonic()
        for other in others:
            same_bytes(other.read(offset, 4096), content[offset : offset + 4096], "a read of another client")
        check(time.monotonic() - began < 5, f"{time.monotonic() - began:.1f} s for four reads")
    if not env.quick:
        limit = len(os.sched_getaffinity(0)) * BUFFER_MEMORY_MIB + 96
        check(daemon.rss_bytes() < limit * MIB, f"{daemon.rss_bytes() // MIB} MiB resident, limit {limit}")
    # It reads after all: everything is there, in step.
    for client in stalled:
        for _ in range(20):
            _, error, data = client.reply()
            equal(error, 0, "error of a late reply")
            check(data == content[:MIB], "data of a late reply")
        client.close()


@test(quick=True)
def clients_that_never_read_stall_no_other_background_client(env):
    """They may have a part of the core's slots only, and have it all."""
    daemon = env.serve("--config", env.config(
        f"[reactor]\ncores = {two_cores().split(',')[0]}\n[server]\nmax-connections = 8\nlisten = {env.listen_text(UNIX)}\n"
        f"[export disk]\ntype = memory\nsize = 64M\npriority = background\n"
    ))
    other = connect(env, daemon)
    for _ in range(7):
        client = connect(env, daemon)
        for _ in range(4):
            client.request(wire.CMD_READ, 0, MIB)
    time.sleep(0.3)
    other.sock.settimeout(10)
    equal(other.read(0, 4 * MIB), bytes(4 * MIB), "another client's read")
    daemon.kill()  # it would wait for those that do not read


@test(quick=True)
def clients_of_a_disk_that_hangs_stall_no_other_export(env):
    """They have all of the core's requests that they may have."""
    daemon = env.serve("--config", env.config(
        f"[reactor]\ncores = {two_cores().split(',')[0]}\nqueue-depth = 16\n[server]\nlisten = {env.listen_text()}\n"
        f"[export hung]\ntype = fault\nsize = 1M\nfault = delay-ms=60000\n[export disk]\ntype = memory\nsize = 1M\n"
    ))
    other = connect(env, daemon)
    requests = b"".join(wire.pack_request(wire.CMD_READ, 0, 512, cookie=cookie) for cookie in range(128))
    for _ in range(40):
        client = env.keep(Wire(daemon.address))
        client.go("hung")
        client.send(requests)
    time.sleep(0.3)
    other.sock.settimeout(10)
    seconds = read_beside(other, bytes(MIB), 4096, 20)
    check(seconds < 10, f"{seconds:.1f} s for twenty reads")
    daemon.kill()  # it would wait for the disk


@test(quick=True)
def large_requests_that_wait_for_ever_let_small_ones_pass(env):
    """What is kept for these is of no use to the large ones, before which they have their turns."""
    daemon = env.serve("--config", env.config(
        f"[reactor]\ncores = {two_cores().split(',')[0]}\nbuffer-memory = {BUFFER_MEMORY_MIB}M\n[server]\nlisten = {env.listen_text()}\n"
        "[export hung]\ntype = fault\nsize = 4M\nfault = range=1M-4M delay-ms=60000\n"
        "[export disk]\ntype = fault\nsize = 4M\nfault = delay-ms=100\n"
    ))
    others = [connect(env, daemon) for _ in range(150)]
    for _ in range(BUFFER_MEMORY_MIB):
        client = env.keep(Wire(daemon.address))
        client.go("hung")
        for _ in range(2):
            client.request(wire.CMD_READ, 2 * MIB, 2 * MIB)
    time.sleep(0.3)
    for other in others:
        other.sock.settimeout(10)
        other.request(wire.CMD_READ, 0, 65536)
    for other in others:
        equal(other.next_answer().error, 0, "the error")
    daemon.kill()  # it would wait for the disk


def serve_hung(env, content):
    """One core; the export "hung" answers nothing, and what is in "disk" has to be read."""
    return env.serve("--config", env.config(
        f"[reactor]\ncores = {two_cores().split(',')[0]}\nbuffer-memory = {BUFFER_MEMORY_MIB}M\n[server]\nlisten = {env.listen_text()}\n"
        "[export hung]\ntype = fault\nsize = 4M\nfault = delay-ms=60000\n"
        f"[export disk]\npath = {env.image(FILE, len(content), content).path}\n"
    ))


def buffers_in_use(daemon):
    """Returns how much is, of how much, in MiB."""
    daemon.send_signal(signal.SIGUSR1)
    line = daemon.logged("MiB of buffers in use")[-1]
    return tuple(map(int, re.search(r"(\d+) of (\d+) MiB of buffers in use", line).groups()))


def ask_hung(env, daemon):
    """For more than there is memory for."""
    for _ in range(BUFFER_MEMORY_MIB):
        client = env.keep(Wire(daemon.address))
        client.go("hung")
        client.request(wire.CMD_READ, 2 * MIB, 2 * MIB)


@test(quick=True)
def large_requests_of_a_disk_that_hangs_leave_others_their_share(env):
    """Those who are at work beside it: what it gets is what it leaves for them."""
    content = random_bytes(4 * MIB)
    daemon = serve_hung(env, content)
    others = [connect(env, daemon) for _ in range(4)]
    for other in others:
        other.sock.settimeout(10)
        same_bytes(other.read(0, 4096), content[:4096], "a first read")
    ask_hung(env, daemon)
    began = time.monotonic()
    for _ in range(20):
        cookies = [other.request(wire.CMD_READ, MIB, 2 * MIB) for other in others]
        for other, cookie in zip(others, cookies):
            equal(other.reply(), (cookie, 0, content[MIB : 3 * MIB]), "a read beside it")
    check(time.monotonic() - began < 5, f"{time.monotonic() - began:.1f} s for twenty rounds")
    used_mib, all_mib = buffers_in_use(daemon)
    check(used_mib <= all_mib // 2, f"the disk that hangs has {used_mib} of {all_mib} MiB")
    daemon.kill()  # it would wait for the disk


@test(quick=True)
def large_request_beside_a_disk_that_has_hung_before_is_served(env):
    """That had all to itself, and gives nothing back."""
    content = random_bytes(4 * MIB)
    daemon = serve_hung(env, content)
    ask_hung(env, daemon)
    time.sleep(0.3)
    used_mib, all_mib = buffers_in_use(daemon)
    check(used_mib >= all_mib * 15 // 16, f"alone it has only {used_mib} of {all_mib} MiB")
    others = [connect(env, daemon) for _ in range(4)]
    for other in others:
        other.sock.settimeout(10)
    for _ in range(5):
        cookies = [other.request(wire.CMD_READ, MIB, 2 * MIB) for other in others]
        for other, cookie in zip(others, cookies):
            equal(other.reply(), (cookie, 0, content[MIB : 3 * MIB]), "a read beside it")
    daemon.kill()  # it would wait for the disk


@test()
def who_reads_nothing_is_left_alone_where_only_a_disk_that_hangs_wants_more(env):
    """It has little, and those who wait for more would not get it from what it holds."""
    content = random_bytes(4 * MIB)
    daemon = serve_hung(env, content)
    slow = connect(env, daemon)
    cookies = [slow.request(wire.CMD_READ, 0, 4 * MIB) for _ in range(3)]
    ask_hung(env, daemon)
    time.sleep(5)
    check("while others waited" not in daemon.log(), "it was dropped")
    equal(sorted(slow.reply() for _ in cookies), [(cookie, 0, content) for cookie in cookies], "late replies")
    daemon.kill()  # it would wait for the disk


def hold_buffers(env, daemon, count):
    """COUNT clients for each core that ask for all they can get and read nothing."""
    clients = []
    for _ in range(count * len(os.sched_getaffinity(0))):
        client = connect(env, daemon)
        client.sock.settimeout(0.02)
        with contextlib.suppress(TimeoutError):
            for _ in range(200):
                client.request(wire.CMD_READ, 0, MIB)
        clients.append(client)
    return clients


def read_beside(other, content, count, turns):
    """Returns how long TURNS reads of COUNT bytes take."""
    began = time.monotonic()
    for turn in range(turns):
        same_bytes(other.read(turn * 4096, count), content[turn * 4096 :][:count], "another client's read")
    return time.monotonic() - began


@test(alone=True)
def clients_that_hold_buffers_without_reading_leave_some_for_others(env):
    content = random_bytes(4 * MIB)
    daemon = serve_limited(env, env.image(FILE, len(content), content))
    other = connect(env, daemon)
    # One for each is more than a core has, on every core; but those who hold none and need little have their part.
    clients = hold_buffers(env, daemon, 80)
    seconds = read_beside(other, content, 4096, 20)
    check(seconds < 1, f"{seconds:.1f} s for twenty reads")
    check("while others waited" not in daemon.log(), "somebody had to wait")
    for client in clients:  # or the daemon would wait for them when it stops
        client.close()


@test()
def clients_that_hold_all_buffers_without_reading_are_dropped(env):
    content = random_bytes(4 * MIB)
    daemon = serve_limited(env, env.image(FILE, len(content), content))
    other = connect(env, daemon)
    hold_buffers(env, daemon, 80)
    # Each time that something is free those who waited before get it first, and lose it again.
    seconds = read_beside(other, content, MIB, 3)
    check(seconds < 15, f"{seconds:.1f} s for three reads")
    check("while others waited" in daemon.log(), "no log line about who was dropped")


def drip(clients, stop):
    """A byte of each one's payload now and then, which the server takes."""
    while not stop.wait(0.1):
        for client in clients:
            with contextlib.suppress(OSError):
                client.sock.send(b"x")


@test()
def clients_that_hold_all_buffers_and_drip_are_dropped(env):
    """To send next to nothing is no use of what others wait for."""
    content = random_bytes(MIB)
    image = env.image(FILE, 4 * MIB, content)
    daemon = env.serve("--config", env.config(
        f"[reactor]\ncores = {two_cores().split(',')[0].split('-')[0]}\nbuffer-memory = {BUFFER_MEMORY_MIB}M\n"
        f"[server]\nlisten = {env.listen_text()}\n[export disk]\npath = {image.path}\n"
    ))
    other = connect(env, daemon)
    clients = [connect(env, daemon) for _ in range(BUFFER_MEMORY_MIB)]
    for client in clients:
        client.send(wire.pack_request(wire.CMD_WRITE, 2 * MIB, 2 * MIB, cookie=1))
    stop = threading.Event()
    dripper = threading.Thread(target=drip, args=[clients, stop])
    dripper.start()
    try:
        time.sleep(0.2)
        other.sock.settimeout(10)
        same_bytes(other.read(0, MIB), content, "another client's read")
    finally:
        stop.set()
        dripper.join()


@test()
def clients_that_hold_all_buffers_beside_a_slow_request_are_dropped(env):
    """That something is with the disk is no use of what others wait for."""
    daemon = env.serve("--config", env.config(
        f"[reactor]\ncores = {two_cores().split(',')[0]}\nbuffer-memory = {BUFFER_MEMORY_MIB}M\n"
        f"[server]\nlisten = {env.listen_text(UNIX)}\n"
        f"[export disk]\ntype = fault\nsize = 64M\nfault = range=32M-64M delay-ms=60000\n"
    ))
    other = connect(env, daemon)
    for _ in range(BUFFER_MEMORY_MIB):
        client = connect(env, daemon)
        client.request(wire.CMD_READ, 0, 2 * MIB)
        for _ in range(3):
            client.request(wire.CMD_WRITE_ZEROES, 32 * MIB, 4096)
    time.sleep(0.2)
    other.sock.settimeout(10)
    equal(other.read(0, MIB), bytes(MIB), "another client's read")
    daemon.kill()  # it would wait for the slow ones


@test()
def client_whose_reply_waits_for_the_disk_is_not_dropped(env):
    """It has read all that there was: the first piece of a reply.  What is finished behind it has to wait for the next."""
    daemon = env.serve("--config", env.config(
        f"[reactor]\ncores = {two_cores().split(',')[0]}\nbuffer-memory = {BUFFER_MEMORY_MIB}M\n"
        f"[server]\nlisten = {env.listen_text(TCP)}\n"
        f"[export disk]\ntype = fault\nsize = 64M\nfault = range=2M-64M delay-ms=60000\n"
    ))
    client = connect(env, daemon)
    client.request(wire.CMD_READ, 0, 6 * MIB)
    client.receive(16 + 2 * MIB)  # the header of a simple reply, and a piece
    client.request(wire.CMD_READ, 0, 4096)
    for _ in range(BUFFER_MEMORY_MIB):
        connect(env, daemon).request(wire.CMD_READ, 32 * MIB, 2 * MIB)
    time.sleep(5)
    port = client.sock.getsockname()[1]
    equal([line for line in daemon.log_lines() if f":{port}: " in line], [], "log lines about it")
    daemon.kill()  # it would wait for the slow ones


@test(over=[(TCP,), (UNIX,)], quick=[(TCP,)])
def client_that_leaves_while_it_waits_for_its_turn_frees_its_place(env, transport):
    daemon = env.serve("--config", env.config(
        f"[server]\nlisten = {env.listen_text(transport)}\nmax-connections = 1\n"
        "[export disk]\ntype = memory\nsize = 64M\nlimit-bytes = 1M\nburst-ms = 1\n"
    ))
    client = connect(env, daemon)
    client.read(0, 16 * MIB)
    client.request(wire.CMD_READ, 0, 16 * MIB)
    time.sleep(0.5)
    client.close()

    def next_gets_in():
        with contextlib.suppress(wire.Closed, ConnectionError):
            connect(env, daemon)
            return True
        return False

    wait_until(next_gets_in, 5, "its place is free")
    daemon.kill()


@test(over=[(TCP,), (UNIX,)], quick=[(TCP,)])
def client_that_says_goodbye_while_it_waits_for_its_turn_is_answered(env, transport):
    """It has ended its side, as libnbd does, and reads on."""
    daemon = env.serve("--config", env.config(
        f"[server]\nlisten = {env.listen_text(transport)}\n"
        "[export disk]\ntype = memory\nsize = 64M\nlimit-bytes = 2M\nburst-ms = 1\n"
    ))
    client = connect(env, daemon)
    requests = [wire.pack_request(wire.CMD_READ, 0, 2 * MIB, cookie=cookie) for cookie in range(4)]
    client.send(b"".join(requests) + wire.pack_request(wire.CMD_DISC, 0, 0))
    client.sock.shutdown(socket.SHUT_WR)
    for _ in requests:
        client.receive(16 + 2 * MIB)
    client.expect_closed()
    equal([line for line in daemon.log_lines() if line.startswith("warning")], [], "warnings")


@test(over=[(UNIX, True), (UNIX, False), (TCP, True)])
def client_that_is_to_go_must_read(env, transport, says_goodbye):
    """Until then it has its export: what it was removed for would never come."""
    listener = env.listen_text(transport)
    text = f"[server]\nlisten = {listener}\nremoved-exports = drop\n[export other]\ntype = null\nsize = 1M\n"
    path = env.config(text + "[export disk]\ntype = memory\nsize = 64M\n")
    daemon = env.serve("--config", path)
    client, slow = connect(env, daemon), connect(env, daemon)
    requests = b"".join(wire.pack_request(wire.CMD_READ, 0, MIB, cookie=cookie) for cookie in range(16))
    for one in (client, slow):
        one.send(requests)
        if says_goodbye:
            one.disconnect()
    left = 16 * 16
    if not says_goodbye:
        slow.receive(65536)  # all requests are with the daemon, before it hears that their clients must go
        left -= 1
        write_text(path, text)
        daemon.send_signal(signal.SIGHUP)
        daemon.logged("reloaded: ")
    # One that reads may take its time.
    began = time.monotonic()
    for _ in range(12):
        time.sleep(1)
        slow.receive(65536)
        left -= 1
    wait_until(lambda: "did not read its last replies" in daemon.log(), 15, "it is dropped")
    check(time.monotonic() - began > 9, "it was dropped too soon")
    for _ in range(left):
        slow.receive(65536)
    equal(daemon.log().count("did not read its last replies"), 1, "how many were dropped")


def ask_without_reading(client):
    """As many reads of 1 MiB as the server takes, up to 2000."""
    client.sock.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        for _ in range(2000):
            client.request(wire.CMD_READ, 0, MIB)
    client.sock.settimeout(30)


@test(seconds=120)
def clients_that_never_read_keep_no_listener_from_hearing(env):
    """Each of them waits for room in its socket; there are more than a core has slots for polls."""
    raise_file_limit(4096)
    more = env.socket_path()
    text = f"[reactor]\ncores = {two_cores().split(',')[0]}\nqueue-depth = 1024\n"
    text += f"[server]\nmax-connections = 3000\nlisten = {env.listen_text(UNIX)}\n"
    text += "[export disk]\ntype = null\nsize = 64M\n"
    path = env.config(text)
    daemon = env.serve("--config", path)
    clients = [connect(env, daemon) for _ in range(1100)]
    requests = b"".join(wire.pack_request(wire.CMD_READ, 0, 16384, cookie=cookie) for cookie in range(16))
    for client in clients:
        client.send(requests)
    time.sleep(1)
    write_text(path, text.replace("[export", f"listen = unix:{more}\n[export"))
    daemon.send_signal(signal.SIGHUP)
    daemon.logged("reloaded: ")
    client = env.keep(Wire(Address(f"unix:{more}"), GREETING_SECONDS))
    client.go("disk")
    daemon.kill()


@test()
def stalled_client_uses_no_cpu(env):
    daemon = serve_limited(env, env.image(FILE, 4 * MIB))
    client = connect(env, daemon)
    ask_without_reading(client)
    time.sleep(0.5)
    daemon.check_idle(ticks=2)
    client.close()


@test(quick=True)
def one_connection_too_many_is_refused_and_logged(env):
    content = random_bytes(MIB)
    daemon = serve_limited(env, env.image(FILE, MIB, content), "max-connections = 4")
    clients = [connect(env, daemon) for _ in range(4)]
    for _ in range(3):
        extra = env.keep(Wire(daemon.address))
        extra.expect_closed()
    lines = [line for line in daemon.log_lines() if "max-connections" in line]
    check(lines, "no log line names max-connections")
    for client in clients:
        same_bytes(client.read(10, 5000), content[10:5010], "a read of a client that was there")
    clients.pop().close()
    newcomer = wait_until(lambda: try_connect(env, daemon), GREETING_SECONDS, "a new client gets in")
    same_bytes(newcomer.read(10, 5000), content[10:5010], "a read of the new client")


def try_connect(env, daemon):
    """A connection in transmission, or None while it is refused."""
    client = Wire(daemon.address)
    try:
        client.go("disk")
    except (wire.Closed, ConnectionError):
        client.close()
        return None
    return env.keep(client)


@test(over=[(TCP,), (UNIX,)], quick=[(TCP,)])
def connections_come_and_go_without_a_leak(env, transport):
    daemon = serve_limited(env, env.image(FILE, MIB), transport=transport)
    come_and_go(daemon, 20)
    fds = settle(daemon)
    rss_bytes = daemon.rss_bytes()
    come_and_go(daemon, env.size(300, 80))
    wait_until(lambda: daemon.fd_count() <= fds, 5, f"{fds} descriptors again, not {daemon.fd_count()}")
    if not env.quick:
        grown = daemon.rss_bytes() - rss_bytes
        check(grown < 4 * MIB, f"memory grew by {grown} bytes")


def settle(daemon):
    """The number of descriptors once the last clients' are closed."""
    counts = [daemon.fd_count()]
    while len(counts) < 20 or len(set(counts[-20:])) > 1:
        time.sleep(0.01)
        counts.append(daemon.fd_count())
    return counts[-1]


def come_and_go(daemon, count):
    """Clients that leave in every way: politely, by surprise, within the handshake."""
    for turn in range(count):
        client = Wire(daemon.address)
        if turn % 4 == 3:
            client.greet()
        else:
            client.go("disk")
            client.read(0, 4096)
        if turn % 4 == 0:
            client.disconnect()
            client.expect_closed()
        client.close()


@test(quick=True)
def hundred_connections_at_once_are_served(env):
    content = random_bytes(MIB)
    daemon = serve_limited(env, env.image(FILE, MIB, content))
    clients = [connect(env, daemon) for _ in range(env.size(100, 40))]
    for index, client in enumerate(clients):
        client.request(wire.CMD_READ, index * 5000, 3000)
    for index, client in enumerate(clients):
        _, error, data = client.reply()
        equal(error, 0, f"error of client {index}")
        same_bytes(data, content[index * 5000 :][:3000], f"data of client {index}")


@test()
def connections_are_spread_over_the_cores(env):
    """Eight busy connections: two threads use CPU."""
    if len(two_cores().split(",")) < 2:
        raise Skip("needs two cores")
    daemon = serve_limited(env, env.image(FILE, MIB))
    clients = [connect(env, daemon) for _ in range(8)]

    def two_threads_are_busy():
        for client in clients:
            client.request(wire.CMD_READ, 0, 65536)
        for client in clients:
            client.reply()
        return sum(ticks > 0 for ticks in thread_ticks(daemon.pid)) >= 2

    wait_until(two_threads_are_busy, 20, "two threads have used CPU")


@test(quick=True)
def connection_is_served_where_its_packets_come(env):
    """By the core of the CPU that the client runs on, of cores that have as many others."""
    cores = [int(core) for core in two_cores().split(",")]
    if len(cores) < 2:
        raise Skip("needs two cores")
    daemon = serve_limited(env, env.image(FILE, MIB), "log-level = debug")
    fds = daemon.fd_count()
    allowed = os.sched_getaffinity(0)
    try:
        for cpu in (cores[1], cores[0], cores[1]):
            os.sched_setaffinity(0, {cpu})
            client = connect(env, daemon)
            daemon.logged(f":{client.sock.getsockname()[1]}: ", f"connected on core {cpu}")
            client.close()
            wait_until(lambda: daemon.fd_count() == fds, 10, "it has left")
    finally:
        os.sched_setaffinity(0, allowed)


def thread_ticks(pid):
    ticks = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        ticks.append(int(fields[11]) + int(fields[12]))
    return ticks
