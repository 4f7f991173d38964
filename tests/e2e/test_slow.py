"""The log of slow requests: who, what, and where the time went."""

import json
import signal
import time

import nbd

import wire
from harness import MIB, Address
from harness import check, equal, test, two_cores, wait_until, write_text

SLOW_MS = 60


class Server:
    """A daemon that logs JSON, with exports of these settings."""

    def __init__(self, env, server, **exports):
        self.path = env.config("")
        self.write(server, exports)
        self.daemon = env.launch(["--config", self.path])
        said = wait_until(lambda: self.first("listening on "), 30, "it listens")
        self.address = Address(said["message"].split("listening on ")[1].split()[0])
        self.daemon.addresses = [self.address]
        wait_until(lambda: self.first("ready"), 30, "it is ready")

    def write(self, server, exports):
        text = f"[reactor]\ncores = {two_cores()}\n[server]\nlisten = 127.0.0.1:0\nlog-format = json\n{server}\n"
        for name, settings in exports.items():
            text += f"[export {name}]\n" + "\n".join(settings) + "\n"
        write_text(self.path, text)

    def reload(self, server, **exports):
        before = len(self.all("reloaded: "))
        self.write(server, exports)
        self.daemon.send_signal(signal.SIGHUP)
        wait_until(lambda: len(self.all("reloaded: ")) > before, 10, "it has reloaded")

    def all(self, words):
        return [line for line in map(json.loads, self.daemon.log_lines()) if words in line["message"]]

    def first(self, words):
        return next(iter(self.all(words)), None)

    def slow(self):
        return [line for line in self.all("took longer than slow-ms") if "client" in line]

    def wait_slow(self):
        return wait_until(self.slow, 10, "a slow request is logged")[0]

    def connect(self, export):
        handle = nbd.NBD()
        handle.connect_uri(self.address.uri(export))
        return handle


MEMORY = ("type = memory", "size = 64M")


def judge(line, stage, export, operation, offset, length):
    """LINE is about this, and STAGE took most of it."""
    equal((line["export"], line["operation"], line["offset"], line["length"]), (export, operation, offset, length), "what")
    check(line["client"].startswith("127.0.0.1:"), f"the client: {line['client']}")
    check(line["level"] == "warning" and "core" in line, f"{line}")
    total = sum(line[f"{name}_us"] for name in ("queue", "disk", "socket"))
    check(total >= SLOW_MS * 1000, f"it was not slow: {line}")
    check(line[f"{stage}_us"] > 0.8 * total, f"{stage} is not where the time went: {line}")
    check(f"{line['offset']}" in line["message"] and f"{stage} " in line["message"], line["message"])


@test(quick=True)
def the_disks_time(env):
    settings = ("type = fault", "size = 1M", "fault = seed=3 delay-ms=300")
    server = Server(env, f"slow-ms = {SLOW_MS}", disk=settings)
    handle = server.connect("disk")
    for number in range(10):
        handle.pwrite(b"x" * 4096, 4096 * number)
    handle.shutdown()
    judge(server.wait_slow(), "disk", "disk", "WRITE", server.slow()[0]["offset"], 4096)


@test()
def the_sockets_time_for_a_reply(env):
    server = Server(env, f"slow-ms = {SLOW_MS}", disk=MEMORY)
    client = env.keep(wire.Wire(server.address))
    client.go("disk")
    client.write(0, b"x" * 32 * MIB)
    client.request(wire.CMD_READ, 0, 32 * MIB)
    time.sleep(0.4)
    client.reply()
    line = wait_until(lambda: [line for line in server.slow() if line["operation"] == "READ"], 10, "it is logged")[0]
    judge(line, "socket", "disk", "READ", 0, 32 * MIB)


@test()
def the_sockets_time_for_a_payload(env):
    server = Server(env, f"slow-ms = {SLOW_MS}", disk=MEMORY)
    client = env.keep(wire.Wire(server.address))
    client.go("disk")
    client.request(wire.CMD_WRITE, 512, 4096, b"x" * 100)
    time.sleep(0.3)
    client.send(b"x" * 3996)
    client.reply()
    judge(server.wait_slow(), "socket", "disk", "WRITE", 512, 4096)


@test()
def the_queues_time(env):
    server = Server(env, f"slow-ms = {SLOW_MS}", disk=(*MEMORY, "limit-iops = 5", "burst-ms = 1"))
    handle = server.connect("disk")
    for number in range(4):
        handle.pread(4096, 4096 * number)
    handle.shutdown()
    judge(server.wait_slow(), "queue", "disk", "READ", server.slow()[0]["offset"], 4096)


def throttled_reads(handle, count=3):
    for _ in range(count):
        handle.pread(4096, 0)


@test()
def it_is_off_unless_asked_for_and_an_export_has_its_own(env):
    slow = (*MEMORY, "limit-iops = 8", "burst-ms = 1")
    server = Server(env, "", one=slow, two=(*slow, f"slow-ms = {SLOW_MS}"))
    for name in ("one", "two"):
        handle = server.connect(name)
        throttled_reads(handle)
        handle.shutdown()
    server.wait_slow()
    equal({line["export"] for line in server.slow()}, {"two"}, "whose requests are logged")
    server = Server(env, f"slow-ms = {SLOW_MS}", one=slow, two=(*slow, "slow-ms = 0"))
    for name in ("two", "one"):
        handle = server.connect(name)
        throttled_reads(handle)
        handle.shutdown()
    server.wait_slow()
    equal({line["export"] for line in server.slow()}, {"one"}, "whose requests are logged")


@test()
def a_reload_changes_it_for_clients_that_are_there(env):
    slow = (*MEMORY, "limit-iops = 8", "burst-ms = 1")
    server = Server(env, "", disk=slow)
    handle = server.connect("disk")
    throttled_reads(handle)
    equal(server.slow(), [], "what is logged while it is off")
    server.reload(f"slow-ms = {SLOW_MS}", disk=slow)
    throttled_reads(handle)
    server.wait_slow()
    server.reload("slow-ms = 0", disk=slow)
    before = len(server.slow())
    throttled_reads(handle)
    handle.shutdown()
    equal(len(server.slow()), before, "lines after it was turned off")


@test()
def lines_are_limited(env):
    server = Server(env, "slow-ms = 1", disk=(*MEMORY, "limit-iops = 100", "burst-ms = 1"))
    handle = server.connect("disk")
    throttled_reads(handle, 40)
    handle.shutdown()
    server.wait_slow()
    server.daemon.stop()
    equal(len(server.slow()), 10, "lines in a minute")
    check(server.first("more times in 60 s: took longer than slow-ms"), "how many were left out is not said")
