"""What the daemon has acknowledged is on the disk, however it is stopped; and it stops when it is told to.

Blocks describe themselves: each holds its own index and the number of the write that filled it, all over, so that a
lost, misplaced or torn write shows.
"""

import os
import random
import signal
import struct
import time

import nbd

import wire
from harness import FILE, LOOP512, LOOP4096, MIB
from harness import check, equal, random_bytes, same_bytes, test, two_cores
from pump import Pump

BLOCK_BYTES = 4096
STAMP = struct.Struct(">QQ")
CONNECTIONS = 4
DEPTH = 32


def stamped_block(index, number):
    return STAMP.pack(index, number) * (BLOCK_BYTES // STAMP.size)


class Ledger:
    """Which writes were sent and which acknowledged, per block.  One write per block is in flight at most."""

    def __init__(self, block_count):
        self.sent = [0] * block_count
        self.acknowledged = [0] * block_count
        self.errors = []

    def total(self):
        return sum(self.acknowledged)

    def start(self, connection, index, flags, done):
        self.sent[index] += 1
        number = self.sent[index]

        def answered(error):
            if error == 0:
                self.acknowledged[index] = number
            else:
                self.errors.append(error)
            done(index)

        connection.write(stamped_block(index, number), index * BLOCK_BYTES, answered, flags)

    def verify(self, image, oldest):
        """Each block holds a whole write: the one with number OLDEST[index] or a later one that was sent."""
        content = image.content()
        for index, number_min in enumerate(oldest):
            block = content[index * BLOCK_BYTES : (index + 1) * BLOCK_BYTES]
            self.verify_block(block, index, number_min)

    def verify_block(self, block, index, number_min):
        found, number = STAMP.unpack_from(block)
        if number_min == 0 and block == bytes(BLOCK_BYTES):
            return
        equal(found, index, f"index in block {index}")
        check(block == stamped_block(index, number), f"block {index} is torn")
        check(
            number_min <= number <= self.sent[index],
            f"block {index} holds write {number}; {number_min} was acknowledged, {self.sent[index]} sent",
        )


class Writers:
    """Connections that rewrite their own blocks for as long as they live."""

    def __init__(self, uri, block_count, fua_share=0.1):
        self.ledger = Ledger(block_count)
        self.pump = Pump(uri, CONNECTIONS)
        self.rng = random.Random(7)
        self.fua_share = fua_share
        self.idle = [[] for _ in range(CONNECTIONS)]
        for index in range(block_count):
            self.idle[index % CONNECTIONS].append(index)

    def turn(self):
        for connection in self.pump.alive():
            idle = self.idle[connection.index]
            while idle and connection.in_flight < DEPTH and connection.is_alive():
                index = idle.pop(self.rng.randrange(len(idle)))
                flags = nbd.CMD_FLAG_FUA if self.rng.random() < self.fua_share else 0
                self.ledger.start(connection, index, flags, idle.append)
        self.pump.turn()

    def run_for(self, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.turn()

    def run_until_dead(self, seconds):
        deadline = time.monotonic() + seconds
        while self.pump.alive():
            check(time.monotonic() < deadline, f"connections still alive {seconds} s after the signal")
            self.turn()


@test(
    over=[(FILE, "SIGTERM"), (LOOP512, "SIGTERM"), (LOOP4096, "SIGTERM"), (FILE, "SIGINT")],
    quick=[(FILE, "SIGTERM"), (LOOP4096, "SIGTERM")],
)
def stop_under_load_loses_no_acknowledged_write(env, medium, name):
    block_count = 512
    image = env.image(medium, block_count * BLOCK_BYTES)
    daemon = env.serve_image(image, cores=two_cores())
    writers = Writers(daemon.uri(), block_count)
    writers.run_for(0.7)
    check(writers.ledger.total() > 50, f"only {writers.ledger.total()} writes were acknowledged")
    daemon.send_signal(getattr(signal, name))
    writers.run_until_dead(15)
    equal(daemon.wait_exit(), 0, "exit code")
    daemon.judged = True
    daemon.check_log()
    ledger = writers.ledger
    ledger.verify(image, ledger.acknowledged)


@test(over=[(FILE,), (LOOP4096,)], quick=[(FILE,)])
def killed_after_a_flush_keeps_what_the_flush_covered(env, medium):
    """A flush on one connection covers what was acknowledged on all before it was sent."""
    block_count = 256
    image = env.image(medium, block_count * BLOCK_BYTES)
    daemon = env.serve_image(image, cores=two_cores())
    writers = Writers(daemon.uri(), block_count, fua_share=0)
    writers.run_for(0.4)
    covered = list(writers.ledger.acknowledged)
    flushed = []
    connection = writers.pump.connections[2]
    connection.in_flight += 1
    connection.handle.aio_flush(completion=lambda error: flushed.append(error.value) or 1)
    while not flushed:
        writers.turn()
    equal(flushed, [0], "the flush")
    daemon.kill()
    check(sum(covered) > 0, "no write was acknowledged before the flush")
    writers.ledger.verify(image, covered)


@test(over=[(FILE,), (LOOP4096,)], quick=[(FILE,)])
def killed_after_fua_writes_keeps_them(env, medium):
    block_count = 64
    image = env.image(medium, block_count * BLOCK_BYTES)
    daemon = env.serve_image(image)
    writers = Writers(daemon.uri(), block_count, fua_share=1)
    writers.run_for(0.4)
    daemon.kill()
    check(writers.ledger.total() > 0, "no write was acknowledged")
    writers.ledger.verify(image, writers.ledger.acknowledged)


@test(quick=True)
def restarted_daemon_serves_what_was_written(env):
    path = env.file(MIB)
    content = random_bytes(5000)
    for turn in range(2):
        daemon = env.serve("--export", f"disk={path}", "--listen", "127.0.0.1:0")
        handle = nbd.NBD()
        handle.connect_uri(daemon.uri())
        if turn == 0:
            handle.pwrite(content, 1234)
        else:
            same_bytes(handle.pread(5000, 1234), content, "after the restart")
        handle.shutdown()
        daemon.stop()


@test(quick=True, alone=True)
def restart_on_the_same_port_works_at_once(env):
    """Connections of the last daemon may still be in TIME_WAIT."""
    path = env.file(MIB)
    listen = "127.0.0.1:0"
    for _ in range(3):
        daemon = env.serve("--export", f"disk={path}", "--listen", listen)
        listen = daemon.address.text
        client = wire.Wire(daemon.address)
        client.go("disk")
        daemon.stop()
        client.close()


@test(quick=True)
def stop_answers_what_is_in_flight_in_whole_replies(env):
    """More replies are due than sockets hold, and more are asked for than is begun at one time; none may be cut off by the close."""
    content = random_bytes(4 * MIB)
    daemon = env.serve_image(env.image(FILE, len(content), content))
    client = env.keep(wire.Wire(daemon.address))
    client.go("disk")
    # All in the same bytes: what is still in the socket when it is told to stop was not read, and is not answered.
    for index in range(40):
        client.expect(index + 1, wire.CMD_READ, index * 1000, MIB, 0)
    client.send(b"".join(wire.pack_request(wire.CMD_READ, index * 1000, MIB, cookie=index + 1) for index in range(40)))
    time.sleep(0.3)
    daemon.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    count = 0
    while client.has_more():
        answer = client.next_answer()
        check(answer.error in (0, wire.ESHUTDOWN), f"error {answer.error}")
        if answer.error == 0:
            same_bytes(answer.data(), content[(answer.cookie - 1) * 1000 :][:MIB], f"data of request {answer.cookie}")
        count += 1
    equal(count, 40, "replies")
    equal(daemon.wait_exit(), 0, "exit code")
    daemon.judged = True
    daemon.check_log()


def serve_slow(env, *settings):
    """One core with the least memory, and the export "disk" of 64 MiB with SETTINGS."""
    exports = "[export disk]\n" + "\n".join(settings)
    return env.serve("--config", env.config(
        f"[reactor]\ncores = {two_cores().split(',')[0]}\nbuffer-memory = 64M\n[server]\nlisten = {env.listen_text()}\n{exports}\n"
    ))


def end(daemon, seconds):
    """SIGTERM was sent: it has to end by itself within SECONDS."""
    equal(daemon.wait_exit(seconds), 0, "exit code")
    daemon.judged = True
    daemon.check_log()


@test(quick=True)
def stop_answers_what_waits_for_a_limit(env):
    """The payload of what waits is still to come, and other requests are behind it."""
    daemon = serve_slow(env, "type = memory", "size = 64M", "limit-iops = 1", "burst-ms = 1")
    client = env.keep(wire.Wire(daemon.address))
    client.go("disk")
    client.request(wire.CMD_READ, 0, 512)
    equal(client.next_answer().error, 0, "error of the one that has its turn")
    asked = [client.request(wire.CMD_WRITE, 0, MIB, bytes(MIB))]
    asked += [client.request(wire.CMD_READ, 0, 512) for _ in range(3)]
    time.sleep(0.2)
    daemon.send_signal(signal.SIGTERM)
    answered = client.next_answer()
    equal((answered.cookie, answered.error), (asked[0], wire.ESHUTDOWN), "cookie and error of what waits")
    check(not client.has_more() or client.next_answer().error == wire.ESHUTDOWN, "one behind it was served")
    end(daemon, 5)


@test(quick=True)
def stop_answers_what_was_read_behind_it(env):
    """Requests that came in the same bytes as the one that waits."""
    daemon = serve_slow(env, "type = memory", "size = 64M", "limit-iops = 1", "burst-ms = 1")
    client = env.keep(wire.Wire(daemon.address))
    client.go("disk")
    for cookie in range(10):
        client.expect(cookie, wire.CMD_READ, 0, 512, 0)
    client.send(b"".join(wire.pack_request(wire.CMD_READ, 0, 512, cookie=cookie) for cookie in range(10)))
    equal(client.next_answer().error, 0, "error of the one that has its turn")
    time.sleep(0.1)
    daemon.send_signal(signal.SIGTERM)
    errors = [client.next_answer().error for _ in range(9)]
    equal(errors, [wire.ESHUTDOWN] * 9, "errors of the others")
    check(not client.has_more(), "more answers than requests")
    end(daemon, 5)


@test(quick=True)
def stop_answers_what_waits_for_memory(env):
    daemon = serve_slow(env, "type = fault", "size = 64M", "fault = delay-ms=3000")
    clients = [env.keep(wire.Wire(daemon.address)) for _ in range(40)]
    for client in clients:
        client.go("disk")
        client.request(wire.CMD_READ, 0, 2 * MIB)
    daemon.send_signal(signal.SIGTERM)
    errors = [client.next_answer().error for client in clients]
    equal(set(errors), {0, wire.ESHUTDOWN}, "errors")
    end(daemon, 5)


@test(quick=True)
def stop_waits_for_a_payload_that_is_under_way(env):
    image = env.image(FILE, 4 * MIB)
    daemon = env.serve_image(image)
    client = env.keep(wire.Wire(daemon.address))
    client.go("disk")
    data = random_bytes(MIB)
    client.send(wire.pack_request(wire.CMD_WRITE, 0, MIB, cookie=7) + data[:5000])
    time.sleep(0.2)
    daemon.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    client.send(data[5000:])
    equal(client.reply(), (7, 0, b""), "the answer")
    end(daemon, 5)
    with open(image.path, "rb") as file:
        same_bytes(file.read(MIB), data, "what was written")


# Clients that would hold up a stop, if it waited for them.  Each gets a fresh connection after its handshake.


def stays_idle(_client):
    pass


def never_reads_its_replies(client):
    for _ in range(256):
        client.request(wire.CMD_READ, 0, MIB)


def sends_half_a_request(client):
    client.send(wire.pack_request(wire.CMD_READ, 0, 4096)[:13])


def sends_half_a_payload(client):
    client.send(wire.pack_request(wire.CMD_WRITE, 0, MIB) + bytes(5000))


STOP_CLIENTS = (stays_idle, never_reads_its_replies, sends_half_a_request, sends_half_a_payload)


@test(over=[(client.__name__,) for client in STOP_CLIENTS], quick=True)
def stop_does_not_wait_for_a_client_that(env, behaviour):
    image = env.image(FILE, 4 * MIB)
    daemon = env.serve_image(image)
    client = env.keep(wire.Wire(daemon.address))
    client.go("disk")
    globals()[behaviour](client)
    time.sleep(0.3)
    daemon.stop()


@test(quick=True)
def stop_does_not_wait_for_a_half_handshake(env):
    daemon = env.serve_image(env.image(FILE, MIB))
    silent, partial = (env.keep(wire.Wire(daemon.address)) for _ in range(2))
    silent.receive_greeting()
    partial.greet()
    partial.send(wire.pack_option(wire.OPT_GO, bytes(40))[:20])
    time.sleep(0.1)
    daemon.stop()
    silent.expect_closed()


@test(quick=True)
def stop_removes_the_unix_socket(env):
    path = env.listen_text("unix")
    daemon = env.serve("--export", f"disk={env.file(MIB)}", "--listen", path)
    daemon.stop()
    check(not os.path.exists(path.removeprefix("unix:")), f"{path} is still there")


@test(quick=True)
def stale_socket_of_a_killed_daemon_is_replaced(env):
    path = env.listen_text("unix")
    arguments = ("--export", f"disk={env.file(MIB)}", "--listen", path)
    env.serve(*arguments).kill()
    daemon = env.serve(*arguments)
    equal(env.run(["nbdinfo", "--size", daemon.uri()]).out.strip(), str(MIB), "size")


@test(quick=True)
def second_signal_does_not_break_a_stop(env):
    daemon = env.serve_image(env.image(FILE, MIB))
    client = env.keep(wire.Wire(daemon.address))
    client.go("disk")
    daemon.send_signal(signal.SIGTERM)
    daemon.send_signal(signal.SIGTERM)
    equal(daemon.wait_exit(), 0, "exit code")
    daemon.judged = True
    daemon.check_log()
