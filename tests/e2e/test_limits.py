"""Limits of exports, measured through the port, and what one export's flood does to another."""

import json
import os
import signal
import statistics
import time

import wire
from harness import MIB, Skip
from harness import check, equal, test, two_cores
from harness import start_process
from wire import Wire

ROUNDS = 3


def serve(env, *exports, cores=None):
    """A daemon with EXPORTS, (name, its settings)."""
    text = "[server]\nlisten = 127.0.0.1:0\n"
    for name, settings in exports:
        text += f"[export {name}]\ntype = memory\nsize = 64M\n" + "".join(f"{line}\n" for line in settings)
    return env.serve("--config", env.config(text), "--cores", cores or two_cores())


def bench_command(env, uri, *arguments):
    program = os.path.join(os.path.dirname(env.binary), "millrace-bench")
    return [program, "run", uri, "--quiet", *map(str, arguments)]


def figures(env, uri, *arguments, prefix=()):
    """Put a load on the export, of which nothing may fail; returns what was measured.  PREFIX: a command that runs the client."""
    path = env.path("result.json")
    env.run([*prefix, *bench_command(env, uri, "--json", path, *arguments)])
    with open(path, encoding="utf-8") as file:
        result = json.load(file)
    equal(result["errors"], 0, "requests that failed")
    return result["all"]


MIXES = (("read=100", 4), ("read=50,write=40,flush=10", 1))


@test(over=MIXES, quick=MIXES[:1], speed=True)
def requests_per_second_are_limited(env, mix, connections):
    """All connections on all cores together; the export without limits is not."""
    daemon = serve(env, ("slow", ["limit-iops = 3000", "burst-ms = 20"]), ("fast", []))
    arguments = ("--mix", mix, "--depth", 8, "--connections", connections, "--time", 1.5)
    iops = figures(env, daemon.uri("slow"), *arguments)["iops"]
    check(2500 < iops < 3200, f"{iops} requests per second instead of 3000")
    iops = figures(env, daemon.uri("fast"), *arguments)["iops"]
    check(iops > 6000, f"{iops} requests per second without a limit")


@test(over=(("read",), ("write",)), quick=(("read",),), speed=True)
def bytes_per_second_are_limited(env, kind):
    daemon = serve(env, ("slow", ["limit-bytes = 50M", "burst-ms = 20"]))
    rate = figures(env, daemon.uri("slow"), "--rw", kind, "--bs", "64k", "--connections", 3, "--time", 1.5)
    rate = rate["bytes_per_second"]
    check(42 * MIB < rate < 54 * MIB, f"{rate / MIB:.1f} MiB per second instead of 50")


def seconds(env, uri, requests):
    """How long so many take."""
    return requests / figures(env, uri, "--requests", requests, "--time", 20)["iops"]


@test(speed=True)
def burst_goes_at_once_after_a_rest(env):
    daemon = serve(env, ("slow", ["limit-iops = 200", "burst-ms = 2000"]))
    took = seconds(env, daemon.uri("slow"), 380)
    check(took < 0.5, f"380 requests took {took} s, though 400 were saved up")
    took = seconds(env, daemon.uri("slow"), 200)
    check(took > 0.4, f"200 more took only {took} s")


@test(quick=True)
def crowd_that_waits_for_its_limit_holds_up_nobody_else(env):
    """Though each of it has a request, and the disk is to have few."""
    text = f"[reactor]\ncores = {DAEMON_CORE}\nqueue-depth = 16\n[server]\nlisten = 127.0.0.1:0\n"
    text += "[export slow]\ntype = memory\nsize = 1M\nlimit-iops = 1\nburst-ms = 1\n[export fast]\ntype = memory\nsize = 1M\n"
    daemon = env.serve("--config", env.config(text))
    other = env.keep(Wire(daemon.address))
    other.go("fast")
    for _ in range(200):
        client = env.keep(Wire(daemon.address))
        client.go("slow")
        client.request(wire.CMD_READ, 0, 4096)
    other.sock.settimeout(10)
    began = time.monotonic()
    for _ in range(20):
        other.read(0, 4096)
    check(time.monotonic() - began < 10, f"{time.monotonic() - began:.1f} s for twenty reads")


# The ping's client shares a CPU with the flood's, and has it whenever it wants: as if it were on another machine.
AT_ONCE = ("chrt", "--fifo", "50")
DAEMON_CORE = two_cores().split(",")[0]
CLIENTS_CORE = two_cores().split(",")[-1]


def ping_p99(env, uri):
    """In microseconds."""
    arguments = ("--cores", CLIENTS_CORE, "--depth", 1, "--rate", 500, "--time", 0.8, "--warmup", 0.1)
    return figures(env, uri, *arguments, prefix=AT_ONCE)["latency_us"]["p99"]


def ping_p99_beside(env, uri, flooded):
    flood = start_process(bench_command(env, flooded, "--cores", CLIENTS_CORE, "--connections", 8, "--time", 60))
    env.processes.append(flood)
    found = ping_p99(env, uri)
    equal(flood.poll(), None, "the flood's end")
    flood.send_signal(signal.SIGKILL)
    flood.wait()
    return found


FLOODS = {
    "normal": [],
    "background": ["priority = background"],
    "normal with limit-bytes": ["limit-bytes = 20M", "burst-ms = 20"],
}


@test(over=tuple((name,) for name in FLOODS), alone=True, speed=True)
def flood_leaves_another_export_its_latency(env, name):
    """What the daemon adds to the 99th percentile of a ping, which has the latency class."""
    if DAEMON_CORE == CLIENTS_CORE:
        raise Skip("needs two cores")
    if env.run([*AT_ONCE, "true"], expect=None).code != 0:
        raise Skip("may not have SCHED_FIFO")
    daemon = serve(env, ("flooded", FLOODS[name]), ("quiet", ["priority = latency"]), cores=DAEMON_CORE)
    alone, beside = [], []
    for _ in range(ROUNDS):
        alone.append(ping_p99(env, daemon.uri("quiet")))
        beside.append(ping_p99_beside(env, daemon.uri("quiet"), daemon.uri("flooded")))
    print(f"     p99 beside a flood, {name}: {statistics.median(beside):.0f} us, alone {statistics.median(alone):.0f} us")
    check(statistics.median(beside) <= 2 * statistics.median(alone), f"p99 in microseconds: alone {alone}, beside a flood {beside}")
