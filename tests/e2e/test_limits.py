"""Limits of exports, measured through the port, and what one export's flood does to another."""

import json
import os
import signal

from harness import MIB
from harness import check, equal, test, two_cores
from harness import start_process

# One good try is enough: on two CPUs, where daemon, client and flood share them, only some two in five were within twice, the others at 0.5
# to 4 ms.  The daemon had none of the slow ones for 1 ms (slow-ms), so the time is spent in front of it or behind; where is not known.
# This shows that a flood need not hold others up, not that it never does.
TRIES = 12


def serve(env, *exports):
    """A daemon with EXPORTS, (name, its settings)."""
    text = "[server]\nlisten = 127.0.0.1:0\n"
    for name, settings in exports:
        text += f"[export {name}]\ntype = memory\nsize = 64M\n" + "".join(f"{line}\n" for line in settings)
    return env.serve("--config", env.config(text), "--cores", two_cores())


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


@test(over=MIXES, quick=MIXES[:1])
def requests_per_second_are_limited(env, mix, connections):
    """All connections on all cores together; the export without limits is not."""
    daemon = serve(env, ("slow", ["limit-iops = 3000", "burst-ms = 20"]), ("fast", []))
    arguments = ("--mix", mix, "--depth", 8, "--connections", connections, "--time", 1.5)
    iops = figures(env, daemon.uri("slow"), *arguments)["iops"]
    check(2500 < iops < 3200, f"{iops} requests per second instead of 3000")
    iops = figures(env, daemon.uri("fast"), *arguments)["iops"]
    check(iops > 6000, f"{iops} requests per second without a limit")


@test(over=(("read",), ("write",)), quick=(("read",),))
def bytes_per_second_are_limited(env, kind):
    daemon = serve(env, ("slow", ["limit-bytes = 50M", "burst-ms = 20"]))
    rate = figures(env, daemon.uri("slow"), "--rw", kind, "--bs", "64k", "--connections", 3, "--time", 1.5)
    rate = rate["bytes_per_second"]
    check(42 * MIB < rate < 54 * MIB, f"{rate / MIB:.1f} MiB per second instead of 50")


def seconds(env, uri, requests):
    """How long so many take."""
    return requests / figures(env, uri, "--requests", requests, "--time", 20)["iops"]


@test()
def burst_goes_at_once_after_a_rest(env):
    daemon = serve(env, ("slow", ["limit-iops = 200", "burst-ms = 2000"]))
    took = seconds(env, daemon.uri("slow"), 380)
    check(took < 0.5, f"380 requests took {took} s, though 400 were saved up")
    took = seconds(env, daemon.uri("slow"), 200)
    check(took > 0.4, f"200 more took only {took} s")


def p99(env, uri):
    return figures(env, uri, "--depth", 1, "--rate", 500, "--time", 0.8, "--warmup", 0.1)["latency_us"]["p99"]


FLOODS = (
    ["priority = background", "limit-iops = 5000"],
    ["priority = normal", "limit-bytes = 20M"],
)


@test(over=tuple((index,) for index in range(len(FLOODS))), alone=True)
def flood_of_a_limited_export_leaves_another_its_latency(env, index):
    daemon = serve(env, ("flooded", FLOODS[index]), ("quiet", ["priority = latency"]))
    seen = []
    for _ in range(TRIES):
        alone = p99(env, daemon.uri("quiet"))
        flood = start_process(bench_command(env, daemon.uri("flooded"), "--connections", 8, "--time", 60))
        env.processes.append(flood)
        beside = p99(env, daemon.uri("quiet"))
        equal(flood.poll(), None, "the flood's end")
        flood.send_signal(signal.SIGKILL)
        flood.wait()
        seen.append((alone, beside))
        if beside <= max(2 * alone, 500):
            return
    check(False, f"p99 alone and beside a flood, in microseconds: {seen}")
