"""SIGUSR1: what is served to whom, in the log."""

import re
import signal

import wire
from harness import MIB, check, equal, test, two_cores, wait_until
from wire import Wire

REPORTED_MAX = 160
CROWD = 200
END = "report: that is all"
KIB = 1 << 10


def connect(env, daemon):
    client = env.keep(Wire(daemon.address))
    client.go("disk")
    return client


def serve(env):
    config = env.config(
        f"[reactor]\ncores = {two_cores()}\n[server]\nlisten = 127.0.0.1:0\n"
        f"[export disk]\npath = {env.file(4 * MIB)}\n"
    )
    return env.serve("--config", config)


def ask(daemon):
    """Have DAEMON report.  Returns the report's lines."""
    before = sum(END in line for line in daemon.log_lines())
    daemon.send_signal(signal.SIGUSR1)
    daemon.logged(END, count=before + 1)
    lines = daemon.log_lines()
    begins = [index for index, line in enumerate(lines) if "report: serving 1 exports" in line]
    return lines[begins[-1]:]


def client_lines(report):
    """What is said of each client, by its address."""
    found = (re.match(r"info: client (127\.0\.0\.1:\d+): (.*)", line) for line in report)
    return {match[1]: match[2] for match in found if match}


def total(report, words):
    """The sum over the cores of the number in front of WORDS, of the lines that have them."""
    found = [re.search(rf"(\d+) {words}", line) for line in report if line.startswith("info: core ")]
    return sum(int(match[1]) for match in found if match)


def name_of(client):
    return "127.0.0.1:{}".format(client.sock.getsockname()[1])


@test(quick=True)
def report_says_who_does_what_and_how_much_was_done(env):
    daemon = serve(env)
    client, late = connect(env, daemon), env.keep(Wire(daemon.address))
    late.receive_greeting()
    for index in range(3):
        client.read(4 * KIB * index, 4 * KIB)
    client.write(0, bytes(MIB))
    client.write(MIB, bytes(MIB))
    client.must(wire.CMD_FLUSH)
    report = ask(daemon)
    mine = "disk: 0 under way, 3 reads of 12.0 KiB, 2 writes of 2.0 MiB, 1 others"
    equal(client_lines(report), {name_of(client): mine, name_of(late): "in the handshake"}, "the clients")
    equal(total(report, "clients, "), 2, "clients of all cores")
    equal((total(report, "reads of"), total(report, "writes of"), total(report, "others")), (3, 2, 1), "what all cores did")
    for core in two_cores().split(","):
        check(any(line.startswith(f"info: core {core}: ") and " turns, " in line for line in report), f"the reactor of core {core}")
    client.close()
    late.close()
    wait_until(lambda: not client_lines(ask(daemon)), 10, "they are gone")
    equal(total(ask(daemon), "reads of"), 3, "what was read by who is gone")


@test()
def report_of_a_crowd_is_bounded(env):
    daemon = serve(env)
    clients = [connect(env, daemon) for _ in range(CROWD)]
    report = ask(daemon)
    equal(len(client_lines(report)), REPORTED_MAX, "clients with a line")
    equal(total(report, "clients more"), CROWD - REPORTED_MAX, "those that are only counted")
    wait_until(lambda: total(ask(daemon), "of them idle") == CROWD, 20, "all are idle")
    check(all(text.startswith("disk: idle, 0 under way, ") for text in client_lines(ask(daemon)).values()), "each line says so")
    for client in clients:
        client.close()


@test(quick=True)
def report_while_requests_are_under_way_disturbs_none(env):
    daemon = serve(env)
    client = connect(env, daemon)
    for _ in range(30):
        cookies = {client.request(wire.CMD_READ, 4 * KIB * index, 64 * KIB) for index in range(32)}
        daemon.send_signal(signal.SIGUSR1)
        while cookies:
            cookie, error, _ = client.reply()
            equal(error, 0, "error")
            cookies.remove(cookie)
    wait_until(lambda: total(ask(daemon), "reads of") == 30 * 32, 10, "all reads are in a report")
