"""Limits of exports, measured through the port, and what one export's flood does to another."""

import json
import os
import signal
import statistics

from harness import MIB
from harness import check, equal, test, two_cores
from harness import start_process

# A virtual machine's CPU is taken away for milliseconds, the more often the more it works (doc/decisions/16-what-a-flood-costs.md), which
# reaches a hundredth of the requests.  So the 99th percentile is compared with what it is beside the same flood of another daemon, too.
ROUNDS_MIN = 5
ROUNDS_MAX = 15


def serve(env, *exports, cores=None):
    """A daemon with EXPORTS, (name, its settings)."""
    text = "[server]\nlisten = 127.0.0.1:0\n"
    for name, settings in exports:
        text += f"[export {name}]\ntype = memory\nsize = 64M\n" + "".join(f"{line}\n" for line in settings)
    return env.serve("--config", env.config(text), "--cores", cores or two_cores())


def bench_command(env, uri, *arguments):
    program = os.path.join(os.path.dirname(env.binary), "millrace-bench")
    return [program, "run", uri, "--quiet", *map(str, arguments)]


def figures(env, uri, *arguments):
    """Put a load on the export, of which nothing may fail; returns what was measured."""
    path = env.path("result.json")
    env.run(bench_command(env, uri, "--json", path, *arguments))
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


# The ping shares the daemon's CPU, and the flood comes from the other: so it is not chance which of them compete for one.
DAEMON_CORE = two_cores().split(",")[0]
FLOOD_CORE = two_cores().split(",")[-1]


def latencies(env, uri):
    """The 95th and 99th percentile of a ping, in microseconds."""
    latency = figures(env, uri, "--cores", DAEMON_CORE, "--depth", 1, "--rate", 500, "--time", 0.8, "--warmup", 0.1)["latency_us"]
    return latency["p95"], latency["p99"]


def latencies_beside(env, uri, flooded):
    flood = start_process(bench_command(env, flooded, "--cores", FLOOD_CORE, "--connections", 8, "--time", 60))
    env.processes.append(flood)
    found = latencies(env, uri)
    equal(flood.poll(), None, "the flood's end")
    flood.send_signal(signal.SIGKILL)
    flood.wait()
    return found


FLOODS = (
    ["priority = background", "limit-iops = 5000", "burst-ms = 20"],
    ["priority = normal", "limit-bytes = 20M", "burst-ms = 20"],
)


@test(over=tuple((index,) for index in range(len(FLOODS))), alone=True, speed=True)
def flood_of_a_limited_export_leaves_another_its_latency(env, index):
    exports = ("flooded", FLOODS[index]), ("quiet", ["priority = latency"])
    daemon, other = serve(env, *exports, cores=DAEMON_CORE), serve(env, *exports, cores=DAEMON_CORE)
    alone, beside, beside_other = [], [], []
    for _ in range(ROUNDS_MAX):
        alone.append(latencies(env, daemon.uri("quiet")))
        beside.append(latencies_beside(env, daemon.uri("quiet"), daemon.uri("flooded")))
        beside_other.append(latencies_beside(env, daemon.uri("quiet"), other.uri("flooded")))
        if len(alone) >= ROUNDS_MIN and is_left(alone, beside, beside_other):
            return
    check(False, f"p95 and p99 in microseconds: alone {alone}, beside a flood {beside}, of another daemon {beside_other}")


def is_left(alone, beside, beside_other):
    """Are the percentiles beside a flood within twice what they are alone?  Of the 99th, or what it is beside another daemon's."""
    p95, p99 = map(statistics.median, zip(*beside))
    alone95, alone99 = map(statistics.median, zip(*alone))
    return p95 <= 2 * alone95 and p99 <= 2 * max(alone99, statistics.median(p99 for _, p99 in beside_other))
