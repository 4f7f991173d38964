"""millrace-bench: what it measures, what it finds wrong, and what it says of a server that is no good."""

import contextlib
import json
import os
import re
import signal
import socket
import threading
import time
from xml.etree import ElementTree

from harness import FILE, MIB, TCP, UNIX
from harness import Skip, check, equal, start_process, test, wait_until

BLOCK = 4096


def bench(env, *arguments, fails=False):
    """Run it; returns its result.  FAILS: it must exit with 1."""
    program = os.path.join(os.path.dirname(env.binary), "millrace-bench")
    return env.run([program, *map(str, arguments)], expect=1 if fails else 0)


def run(env, uri, *arguments, **keywords):
    """A short load; returns its JSON."""
    path = env.path("result.json")
    bench(env, "run", uri, "--quiet", "--time", 0.3, "--json", path, *arguments, **keywords)
    with open(path, encoding="utf-8") as file:
        return json.load(file)


@test(over=[(FILE, TCP), (FILE, UNIX)], quick=[(FILE, TCP)])
def a_load_is_measured(env, medium, transport):
    daemon = env.serve_image(env.image(medium, 8 * MIB), transport)
    result = run(env, daemon.uri(), "--depth", 8, "--connections", 3)
    figures = result["all"]
    check(figures["requests"] > 100, f"only {figures['requests']} requests")
    equal(result["partial"], False, "partial")
    latency = figures["latency_us"]
    check(0 < latency["min"] <= latency["p50"] <= latency["p99"] <= latency["max"], f"{latency}")
    check(abs(figures["iops"] * 4096 / figures["bytes_per_second"] - 1) < 1e-6, f"{figures}")
    total = sum(requests for requests, _ in result["series"])
    equal(total, figures["requests"], "the series' sum")


@test()
def of_a_hosts_addresses_the_one_that_answers_is_taken(env):
    """The server is on the second one only."""
    if os.geteuid() != 0:
        raise Skip("needs root")
    daemon = env.serve_image(env.image(FILE, MIB), TCP)
    hosts = env.path("hosts")
    with open(hosts, "w", encoding="utf-8") as file:
        file.write("127.0.0.2 millrace.test\n127.0.0.1 millrace.test\n")
    program = os.path.join(os.path.dirname(env.binary), "millrace-bench")
    uri = daemon.uri().replace("127.0.0.1", "millrace.test")
    script = 'mount --bind "$0" /etc/hosts && exec "$@"'
    result = env.run(["unshare", "--mount", "sh", "-c", script, hosts, program, "run", uri, "--quiet", "--requests", "10", "--json", "-"])
    equal(json.loads(result.out)["all"]["requests"], 10, "requests")


@test(quick=True)
def json_on_standard_output_is_alone_there(env):
    daemon = env.serve_image(env.image(FILE, MIB), TCP)
    result = bench(env, "run", daemon.uri(), "--quiet", "--requests", 10, "--json", "-")
    equal(json.loads(result.out)["all"]["requests"], 10, "requests")
    check("requests/s" in result.err, f"no table: {result.err!r}")


@test()
def without_standard_error_nothing_of_it_goes_to_the_server(env):
    daemon = env.serve_image(env.image(FILE, MIB), TCP)
    path, program = env.path("result.json"), os.path.join(os.path.dirname(env.binary), "millrace-bench")
    closed = ["sh", "-c", 'exec "$@" 2>&-', "sh"]
    env.run([*closed, program, "run", daemon.uri(), "--time", "1.2", "--json", path])
    with open(path, encoding="utf-8") as file:
        equal(json.load(file)["partial"], False, "whether it was cut short")


@test(quick=True)
def a_mix_has_all_its_kinds(env):
    daemon = env.serve_image(env.image(FILE, 8 * MIB), TCP)
    result = run(env, daemon.uri(), "--mix", "read=50,write=45,flush=5", "--fua", 10)
    equal(result["load"]["mix"], "read=50,write=45,flush=5", "the mix in the result")
    kinds = result["kinds"]
    equal(sorted(kinds), ["flush", "read", "write"], "kinds")
    share = kinds["read"]["requests"] / sum(kind["requests"] for kind in kinds.values())
    check(0.4 < share < 0.6, f"{share} of the requests are reads")


@test(quick=True)
def a_number_of_requests_is_kept(env):
    daemon = env.serve_image(env.image(FILE, 8 * MIB), TCP)
    result = run(env, daemon.uri(), "--requests", 1001, "--connections", 4, "--time", 20)
    equal(result["all"]["requests"], 1001, "requests")


@test(quick=True)
def cores_that_no_request_is_left_for_do_not_wait(env):
    daemon = env.serve_image(env.image(FILE, MIB), TCP)
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise Skip("needs 2 cores")
    began = time.monotonic()
    run(env, daemon.uri(), "--requests", 1, "--connections", 2, "--cores", ",".join(map(str, cores)), "--time", 5)
    check(time.monotonic() - began < 3, f"it took {time.monotonic() - began:.1f} s")


@test(quick=True)
def what_comes_due_behind_the_last_request_is_not_missed(env):
    """At depth 1 the server can't keep up, so that there are always some."""
    daemon = env.serve_image(env.image(FILE, MIB), TCP)
    result = run(env, daemon.uri(), "--rate", 100000, "--requests", 300, "--depth", 1, "--time", 20)
    equal(result["all"]["requests"], 300, "requests")
    equal(result["rate_missed"], 0, "requests that were due and not made")


@test(alone=True, speed=True)
def a_rate_is_kept_beside_a_server_on_the_same_cpu(env):
    """Waiting for the next request's time leaves the CPU to the server: 3,400 a second before it did."""
    cpu = max(os.sched_getaffinity(0))
    daemon = env.serve("--export", "disk=memory:64M", "--listen", "127.0.0.1:0", "--cores", str(cpu))
    rate = run(env, daemon.uri(), "--depth", 1, "--rate", 8000, "--cores", cpu, "--time", 0.5)["all"]["iops"]
    check(rate > 7000, f"{rate} requests per second instead of 8,000")


@test(alone=True, speed=True)
def a_rate_is_kept_and_waiting_for_a_slow_server_counts(env):
    """A server that answers nothing for 0.5 s: at a rate, everything that was due then is late."""
    daemon = env.serve_image(env.image(FILE, 8 * MIB), TCP)
    result = run(env, daemon.uri(), "--rate", 1000, "--time", 1)
    check(950 <= result["all"]["requests"] <= 1050, f"{result['all']['requests']} requests in 1 s")
    stopped = threading.Timer(0.5, daemon.send_signal, [signal.SIGSTOP])
    going_on = threading.Timer(1.0, daemon.send_signal, [signal.SIGCONT])
    stopped.start()
    going_on.start()
    result = run(env, daemon.uri(), "--rate", 1000, "--time", 2)
    going_on.join()
    latency = result["all"]["latency_us"]
    # A quarter of the requests were due while it stood still; half of those were more than 250 ms late.
    check(latency["p90"] > 200_000, f"p90 {latency['p90']} us does not show the 0.5 s in which nothing was answered")
    check(result["all"]["requests"] > 1900, f"{result['all']['requests']} requests")


@test(over=[(1.2,), (2.8,)], alone=True, speed=True)
def waiting_for_a_server_that_stands_still_at_the_end_counts(env, still_seconds):
    """From 1.2 s of 2 on: 40 % of the requests are due then, most of them never made by the end."""
    daemon = env.serve_image(env.image(FILE, 8 * MIB), TCP)
    stopped = threading.Timer(1.2, daemon.send_signal, [signal.SIGSTOP])
    going_on = threading.Timer(1.2 + still_seconds, daemon.send_signal, [signal.SIGCONT])
    stopped.start()
    going_on.start()
    result = run(env, daemon.uri(), "--rate", 1000, "--time", 2)
    going_on.join()
    latency = result["all"]["latency_us"]
    check(1950 <= latency["count"] <= 2050, f"{latency['count']} latencies instead of 2,000")
    check(latency["p90"] > 700_000, f"p90 {latency['p90']} us does not show what stood still")
    missed = result["rate_missed"]
    check((still_seconds > 2) == (missed > 500), f"{missed} requests were due and never made")
    equal(len(result["series"]), 2 / result["interval_s"], "moments in the series, silent ones included")


@test(alone=True, speed=True)
def a_load_that_runs_out_of_time_before_its_requests_is_measured_to_the_end(env):
    """The server stands still from 0.6 s on, behind the last of 2 s, too: what it did in 0.6 s was done in 2."""
    daemon = env.serve_image(env.image(FILE, 8 * MIB), TCP)
    stopped = threading.Timer(0.6, daemon.send_signal, [signal.SIGSTOP])
    going_on = threading.Timer(2.5, daemon.send_signal, [signal.SIGCONT])
    stopped.start()
    going_on.start()
    result = run(env, daemon.uri(), "--requests", 10**9, "--time", 2)
    going_on.join()
    everything = result["all"]
    check(abs(everything["iops"] * 2 / everything["requests"] - 1) < 0.01, f"{everything['iops']} a second, {everything['requests']} in 2 s")


@test()
def time_in_which_nothing_was_asked_for_is_no_silence(env):
    """A request every 1.6 s, answered in 0.4 s, by a server that may take 1 s."""
    slow = "[export disk]\ntype = fault\nsize = 1M\nfault = delay-ms=400\n"
    daemon = env.serve("--config", env.config(f"[server]\nlisten = {env.listen_text(TCP)}\n{slow}"))
    result = run(env, daemon.uri(), "--rate", 0.6, "--timeout", 1, "--time", 4)
    equal(result["partial"], False, "whether it was cut short")


@test(quick=True)
def a_moment_ends(env):
    """Its end is over before its first request is made."""
    daemon = env.serve_image(env.image(FILE, MIB), TCP)
    bench(env, "run", daemon.uri(), "--quiet", "--time", 0.000001)


@test(quick=True)
def requests_of_the_warm_up_are_not_counted(env):
    daemon = env.serve_image(env.image(FILE, 8 * MIB), TCP)
    result = run(env, daemon.uri(), "--requests", 1001, "--warmup", 0.3, "--depth", 4, "--time", 20)
    # Those that began in the warm-up and ended behind it are told, too.
    check(1001 <= result["all"]["requests"] <= 1005, f"{result['all']['requests']} requests")
    equal(result["all"]["latency_us"]["count"], 1001, "latencies")


@test(quick=True)
def results_are_compared_and_drawn(env):
    daemon = env.serve_image(env.image(FILE, 8 * MIB), TCP)
    first, second, page = env.path("a.json"), env.path("b.json"), env.path("page.html")
    for path, options in ((first, ()), (second, ("--depth", 8, "--size", "1m", "--mix", "read=1"))):
        bench(env, "run", daemon.uri(), "--quiet", "--time", 0.3, *options, "--json", path, "--html", page)
    lines = bench(env, "--compare", first, second).out
    for name in ("depth", "size", "mix"):
        equal(lines.count(f"note: the loads differ in {name}\n"), 1, f"notes of {name}")
    check(re.search(r"^all +requests/s +[0-9.]+ +[0-9.]+ +[0-9.]+$", lines, re.M), lines)
    check("compare A.json B.json" in bench(env, "compare", "--help").out, "no help")
    check(bench(env, "compare", first, page, fails=True).err.startswith(page), "what is no result is named")


@test(quick=True)
def what_a_result_has_against_it_is_said_when_it_is_compared(env):
    daemon = env.serve_image(env.image(FILE, 8 * MIB), TCP)
    first, second = env.path("a.json"), env.path("b.json")
    result = run(env, daemon.uri())
    for path, changes in ((first, {}), (second, {"errors": 3, "rate_missed": 7, "partial": True, "replies": "simple"})):
        with open(path, "w", encoding="utf-8") as file:
            json.dump({**result, **changes}, file)
    lines = bench(env, "compare", first, second).out
    notes = re.findall(r"^note: (.*)$", lines, re.M)
    equal(
        notes,
        [
            "the loads differ in replies",
            "B is partial",
            "of B 3 requests failed, which no figure shows",
            "B has not kept its rate: 7 requests were never made",
        ],
        "notes",
    )
    check("note" not in bench(env, "compare", first, first).out, "a note of nothing")


def in_background(env, *arguments):
    """Start it without --quiet; returns the process and the path of what it says."""
    program, path = os.path.join(os.path.dirname(env.binary), "millrace-bench"), env.path("said")
    with open(path, "wb") as out:
        process = start_process([program, *arguments], stdout=out, stderr=out)
    env.processes.append(process)
    return process, path


def said(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


@test(over=((signal.SIGINT,), (signal.SIGTERM,)), quick=((signal.SIGINT,),))
def what_was_measured_until_it_is_interrupted_is_shown(env, number):
    daemon = env.serve_image(env.image(FILE, 8 * MIB), TCP)
    path = env.path("result.json")
    process, out = in_background(env, "run", daemon.uri(), "--time", 50, "--json", path)
    wait_until(lambda: "requests/s" in said(out), 30, "the first line")
    process.send_signal(number)
    equal(process.wait(10), 1, "exit status")
    with open(path, encoding="utf-8") as file:
        result = json.load(file)
    equal((result["partial"], result["why"]), (True, "interrupted"), "whether it is whole")
    check(result["all"]["requests"] > 0 and 0 < result["measured_s"] < 40, f"{result['all']} in {result['measured_s']} s")
    check("PARTIAL" in said(out), said(out))


@test()
def deep_queues_of_a_slow_server_are_waited_for(env):
    """1024 requests are under way when the time is over, and are answered at 150 a second."""
    config = env.config("[server]\nlisten = 127.0.0.1:0\n[export disk]\ntype = null\nsize = 1M\nlimit-iops = 150\nburst-ms = 1\n")
    daemon = env.serve("--config", config)
    result = run(env, daemon.uri(), "--depth", 256, "--connections", 4, "--time", 0.5)
    equal(result["partial"], False, "whether it was cut short")
    check(result["all"]["latency_us"]["max"] > 6_000_000, f"{result['all']['latency_us']}")


@test(quick=True)
def what_reads_holes_is_not_like_what_reads_data(env):
    daemon = env.serve_image(env.image(FILE, 8 * MIB), TCP)
    first, second = env.path("a.json"), env.path("b.json")
    result = run(env, daemon.uri(), "--warmup", 0.1)
    equal(result["load"]["export_bytes"], 8 * MIB, "the export's size")
    check(result["read_bytes"] > result["all"]["requests"] * 4096, f"{result['read_bytes']} bytes read, the warm-up's included")
    for path, hole_bytes in ((first, 50), (second, 900)):
        with open(path, "w", encoding="utf-8") as file:
            json.dump({**result, "read_bytes": 1000, "hole_bytes": hole_bytes}, file)
    check("note: of what A read, 5.0 % were holes, of B 90.0 %\n" in bench(env, "compare", first, second).out, "no note")
    check("note" not in bench(env, "compare", first, first).out, "a note of nothing")


@test()
def a_ramp_takes_no_latency_for_a_rate_that_is_missed(env):
    text = "type = fault\nsize = 1M\nfault = delay-ms=1000\n"
    daemon = env.serve("--config", env.config(f"[server]\nlisten = 127.0.0.1:0\n[export disk]\n{text}"))
    arguments = ("--quiet", "--time", 1, "--depth", 256, "--rate-start", 50, "--rate-factor", 10, "--p99-max", 1_500_000)
    lines = bench(env, "ramp", daemon.uri(), *arguments).out
    match = re.search(r"^(\d+) requests/s held a p99 of at most 1500000 us$", lines, re.M)
    check(match and int(match[1]) >= 50, lines)


@test(quick=True)
def a_report_is_a_page_of_one_file_for_all(env):
    """Well-formed pictures with names, colors for dark screens, and nothing to fetch."""
    daemon = env.serve_image(env.image(FILE, 8 * MIB), TCP)
    page = env.path("page.html")
    # Of the warm-up's requests some end in the measured time, and the last moment is cut short.
    run(env, daemon.uri(), "--html", page, "--mix", "read=5,write=4,flush=1", "--warmup", 0.1, "--time", 0.33)
    with open(page, encoding="utf-8") as file:
        text = file.read()
    pictures = [ElementTree.fromstring(picture) for picture in re.findall(r"<svg.*?</svg>", text, re.S)]
    equal(
        [(picture.get("role"), picture.get("aria-label")) for picture in pictures],
        [("img", name) for name in ("Latency by percentile", "Requests per second over time", "Latencies over time")],
        "the pictures and their names",
    )
    equal(len(pictures[0].findall("polyline")), 3, "curves")
    points = pictures[1].find("polyline").get("points").split()
    equal(len(points), 7, "moments of 50 ms in 0.33 s")
    heights = [float(rectangle.get("height")) for rectangle in pictures[2].findall("rect")]
    check(len(heights) > 7 and min(heights) >= 0, f"heights from {min(heights)}")
    for word in ("http", "href", "src", "url(", "@import", "<script"):
        check(word not in text, f"the page has {word}")
    check("prefers-color-scheme: dark" in text and "read=5,write=4,flush=1" in text, "colors or the mix are missing")


@test(alone=True, speed=True)
def a_ramp_finds_the_rate_that_holds(env):
    daemon = env.serve_image(env.image(FILE, 8 * MIB), TCP)
    arguments = ("--quiet", "--time", 0.3, "--rate-start", 500, "--rate-factor", 4, "--p99-max", 200_000)
    lines = bench(env, "ramp", daemon.uri(), *arguments).out
    match = re.search(r"^(\d+) requests/s held a p99 of at most 200000 us$", lines, re.M)
    check(match and int(match[1]) >= 500, lines)


# ---- verify


def verified(env, *arguments, **keywords):
    return bench(env, "verify", "--quiet", "--time", 0.3, "--depth", 4, "--connections", 3, *arguments, **keywords)


@test(over=[(FILE, TCP), (FILE, UNIX)], quick=[(FILE, TCP)])
def what_was_written_is_found_over_new_connections(env, medium, transport):
    daemon = env.serve_image(env.image(medium, 4 * MIB), transport)
    lines = verified(env, daemon.uri(), "--bs", "2k").out
    match = re.search(r"^(\d+) blocks written, (\d+) read: (\d+) right$", lines, re.M)
    check(match and int(match[1]) > 100 and match[2] == match[3], lines)


@test(quick=True)
def blocks_that_were_never_written_are_told(env):
    """They are right whatever is in them."""
    daemon = env.serve_image(env.image(FILE, 8 * MIB), TCP)
    lines = bench(env, "verify", daemon.uri(), "--quiet", "--rounds", 1, "--time", 0.05, "--depth", 1, "--bs", "512").out
    match = re.search(r"^only (\d+) of 16384 blocks were ever written", lines, re.M)
    check(match and 0 < int(match[1]) < 16384, lines)
    lines = verified(env, daemon.uri(), "--size", "64k").out
    check("only" not in lines, lines)


@test()
def many_connections_are_checked_whatever_the_shells_limit(env):
    config = f"[server]\nlisten = 127.0.0.1:0\nmax-connections = 300\n[export x]\npath = {env.file(8 * MIB)}\n"
    daemon = env.serve("--config", env.config(config))
    program = os.path.join(os.path.dirname(env.binary), "millrace-bench")
    few = ["sh", "-c", 'ulimit -S -n 64; exec "$@"', "sh", program]
    options = ["--quiet", "--connections", "200", "--depth", "1", "--time", "0.2"]
    for command in (["run"], ["verify", "--rounds", "1"]):
        env.run([*few, *command, daemon.uri("x"), *options])


def written_blocks(image):
    """Blocks with a stamp of at least the second write."""
    return [at for at in range(0, len(image), BLOCK) if int.from_bytes(image[at + 32 : at + 40], "little") >= 2]


def tamper(path, change):
    with open(path, "r+b") as file:
        image = bytearray(file.read())
        change(image)
        file.seek(0)
        file.write(image)


def lose(image, at, old):
    image[at : at + BLOCK] = bytes(BLOCK)


def misplace(image, at, old):
    other = (at + BLOCK) % len(image)
    image[at : at + BLOCK] = old[other : other + BLOCK] if any(old[other : other + 8]) else image[other : other + BLOCK]


def corrupt(image, at, old):
    image[at + 700] ^= 1


def tear(image, at, old):
    image[at + 512 : at + 1024] = old[at + 512 : at + 1024]


def make_stale(image, at, old):
    image[at : at + BLOCK] = old[at : at + BLOCK]


WRONGS = {"lost": lose, "misplaced": misplace, "corrupt": corrupt, "torn": tear, "stale": make_stale}


@test(over=[(word,) for word in WRONGS], quick=[("torn",)])
def a_wrong_block_is_found_and_named(env, word):
    """The image is changed behind the server's back, between a run and its check."""
    image, state = env.image(FILE, MIB), env.path("state")
    daemon = env.serve_image(image, TCP)
    verified(env, daemon.uri(), "--rounds", 1, "--state", state)
    bench(env, "verify", daemon.uri(), "--check", "--state", state, "--quiet")
    daemon.stop()
    with open(image.path, "rb") as file:
        current = file.read()
    at = written_blocks(current)[3]
    # The same block as the write before left it: its stamp and checksum are remade by a second ledger of the same run.
    older = remake(current[at : at + BLOCK])
    old = current[:at] + older + current[at + BLOCK :]
    tamper(image.path, lambda content: WRONGS[word](content, at, old))
    daemon = env.serve_image(image, TCP)
    lines = bench(env, "verify", daemon.uri(), "--check", "--state", state, "--quiet", fails=True).out
    check(f"{BLOCK} bytes at offset {at} are {word}" in lines, lines)
    check(f", 1 {word}" in lines, lines)


def remake(block):
    """BLOCK as the write before it would have looked, with right checksums."""
    sectors = []
    for start in range(0, BLOCK, 512):
        sector = bytearray(block[start : start + 512])
        generation = int.from_bytes(sector[32:40], "little") - 1
        sector[32:40] = generation.to_bytes(8, "little")
        sector[0:8] = xxh3(bytes(sector[8:])).to_bytes(8, "little")
        sectors.append(bytes(sector))
    return b"".join(sectors)


def xxh3(data):
    import ctypes

    library = ctypes.CDLL("libxxhash.so.0")
    library.XXH3_64bits.restype = ctypes.c_uint64
    return library.XXH3_64bits(data, ctypes.c_size_t(len(data)))


def promised(lines):
    """How many blocks were flushed, as --check says."""
    return int(re.search(r"^(\d+) of \d+ blocks were flushed when the state was written", lines, re.M)[1])


@test(over=((1000, 0.3), (1, 50)))
def what_was_flushed_is_there_after_the_server_was_killed(env, rounds, seconds):
    """Also in the first round, of which some writes were flushed."""
    image, state = env.image(FILE, 2 * MIB), env.path("state")
    daemon = env.serve_image(image, TCP)
    killer = threading.Timer(3.0, daemon.kill)
    killer.start()
    lines = verified(env, daemon.uri(), "--rounds", rounds, "--time", seconds, "--state", state, fails=True).out
    killer.join()
    check("PARTIAL: " in lines, lines)
    daemon = env.serve_image(image, TCP)
    lines = bench(env, "verify", daemon.uri(), "--check", "--state", state, "--quiet").out
    check(" right\n" in lines and promised(lines) > 0, lines)


@test()
def the_state_is_that_of_the_last_write_also_of_an_interrupted_run(env):
    daemon, state = env.serve_image(env.image(FILE, 2 * MIB), TCP), env.path("state")
    verified(env, daemon.uri(), "--rounds", 1, "--state", state)
    process, out = in_background(env, "verify", daemon.uri(), "--rounds", 1, "--time", 50, "--state", state)
    wait_until(lambda: "writing" in said(out), 30, "it begins")
    time.sleep(2.5)  # for a flush
    process.send_signal(signal.SIGINT)
    equal(process.wait(10), 1, "exit status")
    check("PARTIAL: interrupted" in said(out), said(out))
    lines = bench(env, "verify", daemon.uri(), "--check", "--state", state, "--quiet").out
    check(promised(lines) > 0, lines)
    check(not os.path.exists(state + ".old"), "the old state is still there")


@test(quick=True)
def a_run_that_cannot_begin_leaves_the_state(env):
    daemon, state = env.serve_image(env.image(FILE, 2 * MIB), TCP), env.path("state")
    verified(env, daemon.uri(), "--rounds", 1, "--state", state)
    with open(state, "rb") as file:
        before = file.read()
    lines = verified(env, daemon.uri(), "--size", "32k", "--depth", 16, "--state", state, fails=True)
    check("are too few" in lines.err, lines.err)
    with open(state, "rb") as file:
        equal(file.read() == before, True, "the state is the same")


@test(quick=True)
def a_check_of_what_was_never_flushed_says_so(env):
    state = env.path("state")
    with BadServer(Memory(store_all, flush_error=22)) as server:
        bench(env, "verify", server.uri, "--quiet", "--rounds", 1, "--time", 0.1, "--depth", 2, "--state", state, fails=True)
        lines = bench(env, "verify", server.uri, "--check", "--state", state, "--quiet", fails=True).out
    check("0 of 256 blocks were flushed when the state was written: there is nothing to check" in lines, lines)


# ---- servers that are no good


class BadServer:
    """Accepts and lets ANSWER speak, once for each connection."""

    def __init__(self, answer):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"nbd://127.0.0.1:{self.listener.getsockname()[1]}/x"
        self.answer = answer
        self.connections = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            try:
                self.answer(connection)
            except OSError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.listener.close()
        for connection in self.connections:
            connection.close()


GO = 7


def greet(connection, style=None, flags=0x0D, size_bytes=MIB, blocks=b""):
    """The whole handshake: an export with the transmission FLAGS, and the option STYLE, which stands for a style of replies.
    BLOCKS: the smallest, preferred and largest size, four bytes each."""
    connection.sendall(b"NBDMAGIC" + b"IHAVEOPT" + b"\0\3")
    connection.recv(4)
    while True:
        header = connection.recv(16)
        connection.recv(int.from_bytes(header[12:], "big"))
        option = int.from_bytes(header[8:12], "big")
        reply = (0x3E889045565A9).to_bytes(8, "big") + header[8:12]
        if option not in (GO, style):
            connection.sendall(reply + b"\x80\0\0\1" + bytes(4))  # ERR_UNSUP
            continue
        if option == GO:
            info = b"\0\0" + size_bytes.to_bytes(8, "big") + flags.to_bytes(2, "big")
            for info in [info] + [b"\0\3" + blocks] * bool(blocks):
                connection.sendall(reply + (3).to_bytes(4, "big") + len(info).to_bytes(4, "big") + info)
        connection.sendall(reply + (1).to_bytes(4, "big") + bytes(4))
        if option == GO:
            return


def not_nbd(connection):
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def closes_at_once(connection):
    connection.close()


def oldstyle(connection):
    connection.sendall(b"NBDMAGIC" + b"\0\0\x42\x02\x81\x86\x12\x53" + bytes(136))


def has_blocks_of_nothing(connection):
    greet(connection, blocks=bytes(4) + b"\0\0\x10\0" + b"\0\x10\0\0")


def answers_garbage(connection):
    greet(connection)
    connection.recv(28)
    connection.sendall(b"garbage." * 100)


def answers_what_was_not_asked(connection):
    greet(connection)
    connection.recv(28)
    connection.sendall(b"\x67\x44\x66\x98" + bytes(4) + (999).to_bytes(8, "big"))


def closes_in_the_middle(connection):
    greet(connection)
    request = connection.recv(28)
    connection.sendall(b"\x67\x44\x66\x98" + bytes(4) + request[8:12])
    # What is unread when it closes would make that a reset.
    connection.settimeout(0.2)
    with contextlib.suppress(TimeoutError):
        while connection.recv(65536):
            pass
    connection.close()


def stops_answering(connection):
    greet(connection)


BAD = {
    not_nbd: "what came back is not NBD",
    closes_at_once: "closed the connection during the handshake",
    oldstyle: "what came back is not NBD",
    has_blocks_of_nothing: "what came back is not NBD",
    answers_garbage: "something that is no simple reply",
    answers_what_was_not_asked: "answered a request that was not made",
    closes_in_the_middle: "the server closed the connection",
    stops_answering: "not answered for",
}
BAD_NAMES = {answer.__name__: answer for answer in BAD}


@test(over=[(name,) for name in BAD_NAMES], quick=[("answers_garbage",)])
def a_bad_server_ends_the_run_with_its_reason(env, name):
    answer = BAD_NAMES[name]
    with BadServer(answer) as server:
        for command in ("run", "verify"):
            result = bench(
                env, command, server.uri, "--quiet", "--timeout", 1, "--time", 5, "--depth", 1, fails=True
            )
            said = result.out + result.err
            check(BAD[answer] in said, f"{command}: {said!r}")
            check(server.uri in said, f"{command} does not name the server: {said!r}")
            handshake = answer in (not_nbd, closes_at_once, oldstyle, has_blocks_of_nothing)
            check(handshake != ("PARTIAL" in said), f"{command} does not mark its result rightly: {said!r}")


def answers_some(connection, count=100):
    """And then none; but it still reads."""
    greet(connection)
    requests = connection.makefile("rb")
    while header := requests.read(28):
        if count > 0:
            connection.sendall(b"\x67\x44\x66\x98" + bytes(4) + header[8:16] + bytes(4096))
        count -= 1


@test(over=[(0,), (100,)], quick=True)
def the_stall_that_ends_a_run_counts(env, answered):
    with BadServer(answers_some if answered > 0 else stops_answering) as server:
        result = run(env, server.uri, "--rate", 100, "--depth", 4096, "--timeout", 2, "--time", 20, fails=True)
    everything = result["all"]
    equal(result["partial"], True, "partial")
    equal(everything["requests"], answered, "requests that were answered")
    check(everything["latency_us"]["max"] >= 1.5e6, f"{everything['latency_us']}")
    check(result["measured_s"] >= 2, f"measured for {result['measured_s']} s")
    equal(result["unanswered"], everything["latency_us"]["count"] - answered, "latencies of what was not answered")
    check(result["unanswered"] >= 150, f"{result['unanswered']} requests were not answered")
    check(abs(everything["iops"] * result["measured_s"] - answered) < 0.01, f"{everything['iops']} a second")


@test(quick=True)
def the_stall_in_which_a_run_is_interrupted_counts(env):
    """Also if all of its requests were made, and of a closed loop."""
    path, second = env.path("result.json"), env.path("b.json")
    for number, options in enumerate(((), ("--requests", "104"))):
        with BadServer(answers_some) as server:
            process, out = in_background(env, "run", server.uri, "--depth", "4", "--time", "50", "--json", path, *options)
            wait_until(lambda: said(out).count("requests/s") >= 2, 30, "the second line")
            process.send_signal(signal.SIGINT)
            equal(process.wait(10), 1, "exit status")
        with open(path, encoding="utf-8") as file:
            result = json.load(file)
        equal((result["all"]["requests"], result["unanswered"]), (100, 4), "answered requests, and others")
        check(result["all"]["latency_us"]["max"] >= 1.5e6 and result["measured_s"] >= 1.5, f"{result['all']}")
        check("\n4 requests were not answered by the end" in said(out), said(out))
    with open(second, "w", encoding="utf-8") as file:
        json.dump({**result, "unanswered": 0}, file)
    check("note: of A 4 requests were not answered by the end\n" in bench(env, "compare", path, second).out, "no note")


@test(quick=True)
def a_path_that_cannot_be_written_is_found_before_anything_is_done(env):
    directory = os.path.dirname(env.path("log"))
    with BadServer(closes_at_once) as server:
        for option, command in (("--json", "run"), ("--html", "run"), ("--state", "verify")):
            for path, why in (("/nowhere/file", "No such file or directory"), (directory, "Is a directory")):
                text = bench(env, command, server.uri, "--quiet", option, path, fails=True).err
                equal(text, f"{path}: cannot be written: {why}\n", f"what {command} {option} says")
        equal(server.connections, [], "connections")
        # Nothing is left of the attempts, and what was there stays.
        kept, new = env.path("kept"), env.path("new")
        with open(kept, "w", encoding="utf-8") as file:
            file.write("kept")
        for option, command in (("--json", "run"), ("--html", "run"), ("--state", "verify")):
            for path in (kept, new):
                check("during the handshake" in bench(env, command, server.uri, option, path, fails=True).err, f"{command} {option}")
        equal(said(kept), "kept", "what was there")
        check(not any(map(os.path.exists, (new, new + ".new", kept + ".new"))), "a file is left")


class Slow:
    """Answers reads with zeros, each after SECONDS; before the first of the connection STALLS_AT it stands still for 0.3 s."""

    def __init__(self, seconds, stalls_at=None):
        self.seconds, self.stalls_at, self.count = seconds, stalls_at, 0

    def __call__(self, connection):
        self.count += 1
        greet(connection)
        requests = connection.makefile("rb")
        time.sleep(0.3 if self.count == self.stalls_at else 0)
        while header := requests.read(28):
            if header[7] == 2:
                return
            time.sleep(self.seconds)
            connection.sendall(b"\x67\x44\x66\x98" + bytes(4) + header[8:16] + bytes(4096))


@test(quick=True)
def latencies_of_one_size_are_labelled(env):
    page = env.path("page.html")
    with BadServer(Slow(0.001)) as server:
        run(env, server.uri, "--requests", 60, "--depth", 1, "--html", page, "--time", 20)
    pictures = re.findall(r"<svg.*?</svg>", said(page), re.S)
    for picture in (pictures[0], pictures[2]):
        labels = re.findall(r">([0-9.]+) us</text>", picture)
        check(len(labels) >= 2, f"the labels are {labels}")
        check(all(re.fullmatch("[125]0*|0.[125]", label) for label in labels), f"the labels are {labels}")


@test()
def a_stall_is_not_taken_for_the_rate_it_came_at(env):
    with BadServer(Slow(0.002, stalls_at=2)) as server:
        arguments = ("--quiet", "--time", 0.5, "--rate-start", 50, "--rate-factor", 4, "--p99-max", 200_000)
        lines = bench(env, "ramp", server.uri, *arguments).out
    equal([line.split()[0] for line in lines.splitlines()[1:5]], ["50", "200", "200", "800"], "the first rates")
    match = re.search(r"^(\d+) requests/s held a p99 of at most 200000 us$", lines, re.M)
    check(match and int(match[1]) >= 200, lines)


@test()
def a_server_that_never_ends_the_handshake_is_left(env):
    def goes_on(connection):
        connection.sendall(b"NBDMAGIC" + b"IHAVEOPT" + b"\0\3")
        connection.recv(4)
        while header := connection.recv(16):
            connection.recv(int.from_bytes(header[12:], "big"))
            reply = (0x3E889045565A9).to_bytes(8, "big") + header[8:12]
            while header[11] == GO:  # information of a kind that nobody knows, and some more before a wait for it is over
                connection.sendall(reply + (3).to_bytes(4, "big") + (2).to_bytes(4, "big") + b"\x77\x77")
                time.sleep(0.2)
            connection.sendall(reply + b"\x80\0\0\1" + bytes(4))

    with BadServer(goes_on) as server:
        began = time.monotonic()
        said = bench(env, "run", server.uri, "--quiet", fails=True).err
        check("no answer within 10 s" in said, said)
        check(time.monotonic() - began < 15, "it took too long")


@test(quick=True)
def a_server_that_answers_before_it_has_all_is_told_goodbye(env):
    """What is half sent when the last answer comes is sent whole, and DISC behind it."""
    came = []
    size_bytes = 32 * MIB  # more than the sockets hold

    def answers_early(connection):
        greet(connection, size_bytes=size_bytes)
        requests = connection.makefile("rb")
        header = requests.read(28)
        connection.sendall(b"\x67\x44\x66\x98" + bytes(4) + header[8:16])
        time.sleep(0.2)  # for the client to end
        came.append((header[7], len(requests.read(size_bytes)), requests.read(28)[6:8], requests.read()))

    with BadServer(answers_early) as server:
        options = ("--rw", "write", "--bs", "32m", "--depth", 1, "--requests", 1)
        equal(run(env, server.uri, *options)["all"]["requests"], 1, "requests")
        wait_until(lambda: came, 10, "the server saw the end")
    equal(came, [(1, size_bytes, b"\0\2", b"")], "the command, what came of its payload, the next command, and what was behind it")


class Memory:
    """A server that keeps MIB in memory.  STORE: what it does with a write, given the memory, the offset and the data."""

    def __init__(self, store, flags=5, flush_error=0):
        self.data, self.store, self.flags, self.flush_error = bytearray(MIB), store, flags, flush_error

    def __call__(self, connection):
        # Each connection by itself: many are there at a time.
        threading.Thread(target=self.serve, args=[connection], daemon=True).start()

    def serve(self, connection):
        with contextlib.suppress(OSError):
            greet(connection, flags=self.flags)
            requests = connection.makefile("rb")
            while header := requests.read(28):
                command, at, length = header[7], int.from_bytes(header[16:24], "big"), int.from_bytes(header[24:], "big")
                if command == 1:
                    self.store(self.data, at, requests.read(length))
                error = self.flush_error if command == 3 else 0
                data = self.data[at : at + length] if command == 0 else b""
                connection.sendall(b"\x67\x44\x66\x98" + error.to_bytes(4, "big") + header[8:16] + data)


def store_all(memory, at, data):
    memory[at : at + len(data)] = data


@test(quick=True)
def a_server_without_flushes_is_checked_without(env):
    with BadServer(Memory(store_all, flags=1, flush_error=22)) as server:
        lines = bench(env, "verify", server.uri, "--quiet", "--rounds", 1, "--time", 0.1, "--depth", 2).out
        check(" right\n" in lines, lines)


VICTIM = 16 * BLOCK


def written_before(memory, at):
    return any(memory[at : at + 8])


def loses(memory, at, data):
    if at != VICTIM:
        store_all(memory, at, data)


def keeps_the_first(memory, at, data):
    if at != VICTIM or not written_before(memory, at):
        store_all(memory, at, data)


def tears(memory, at, data):
    store_all(memory, at, data if at != VICTIM or not written_before(memory, at) else data[: BLOCK // 2])


def misplaces(memory, at, data):
    store_all(memory, at + (BLOCK if at == VICTIM else 0), data)


def flips_a_bit(memory, at, data):
    store_all(memory, at, data)
    if at == VICTIM:
        memory[at + 3000] ^= 4


STORES = {"right": store_all, "lost": loses, "stale": keeps_the_first, "torn": tears, "misplaced": misplaces, "corrupt": flips_a_bit}


@test(over=[(word,) for word in STORES], quick=[("right",), ("misplaced",)])
def a_server_that_stores_wrongly_is_found_out(env, word):
    """One block of 256 is wrong, and the others are right."""
    with BadServer(Memory(STORES[word])) as server:
        options = ("--quiet", "--rounds", 2, "--time", 0.5, "--depth", 4, "--connections", 3)
        lines = bench(env, "verify", server.uri, *options, fails=word != "right").out
    if word == "right":
        check(re.search(r"read: (\d+) right\n", lines) and " are " not in lines, lines)
        return
    at = VICTIM + (BLOCK if word == "misplaced" else 0)
    check(f"{BLOCK} bytes at offset {at} are {word}: " in lines, lines)
    offsets = set(map(int, re.findall(r"at offset (\d+) are", lines)))
    check(offsets <= {VICTIM, at}, f"offsets {offsets}")


@test()
def a_flush_that_was_acknowledged_and_not_done_is_found_after_a_restart(env):
    state = env.path("state")
    served = Memory(store_all)
    with BadServer(served) as server:
        bench(env, "verify", server.uri, "--quiet", "--rounds", 1, "--time", 0.3, "--depth", 4, "--state", state)
    with BadServer(served) as restarted:
        bench(env, "verify", restarted.uri, "--quiet", "--check", "--state", state)
        served.data[VICTIM : VICTIM + 8 * BLOCK] = bytes(8 * BLOCK)
        lines = bench(env, "verify", restarted.uri, "--quiet", "--check", "--state", state, fails=True).out
        check(f"offset {VICTIM} are lost" in lines and ", 8 lost\n" in lines, lines)


@test(quick=True)
def a_server_that_is_not_there_and_an_export_that_is_not(env):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        uri = f"nbd://127.0.0.1:{unused.getsockname()[1]}/x"
        check("cannot connect: Connection refused" in bench(env, "run", uri, fails=True).err, "refused")
    daemon = env.serve_image(env.image(FILE, MIB), TCP)
    said = bench(env, "run", daemon.uri("nothing"), fails=True).err
    check('the server refuses the export "nothing"' in said, said)
    said = bench(env, "run", daemon.uri(), "--size", "2m", fails=True).err
    check("has 1048576 bytes; the region must lie within" in said, said)


@test(quick=True)
def what_a_server_says_in_a_refusal_is_no_command_to_the_terminal(env):
    def refuses(connection):
        connection.sendall(b"NBDMAGIC" + b"IHAVEOPT" + b"\0\3")
        connection.recv(4)
        while header := connection.recv(16):
            connection.recv(int.from_bytes(header[12:], "big"))
            text = b"go \x1b[2Jaway\nnbd: all is well"
            reply = (0x3E889045565A9).to_bytes(8, "big") + header[8:12]
            connection.sendall(reply + b"\x80\0\0\2" + len(text).to_bytes(4, "big") + text)

    with BadServer(refuses) as server:
        for command in ("run", "verify"):
            said = bench(env, command, server.uri, "--quiet", fails=True).err
            check("go ?[2Jaway?nbd: all is well" in said, f"{command}: {said!r}")


@test(quick=True)
def blocks_that_a_server_does_not_take_are_not_asked_for(env):
    def has_large_blocks(connection):
        greet(connection, blocks=b"\0\0\x10\0" + b"\0\0\x10\0" + b"\0\1\0\0")  # 4k to 64k

    with BadServer(has_large_blocks) as server:
        for options in (("--bs", "512"), ("--bs", "128k"), ("--offset", "2k")):
            for command in ("run", "verify"):
                said = bench(env, command, server.uri, "--quiet", *options, fails=True).err
                wanted = "at most 65536" if "128k" in options else "takes multiples of 4096"
                check(wanted in said, f"{command} {options}: {said}")


@test(quick=True)
def a_read_only_export_is_not_written(env):
    daemon = env.serve(
        "--config",
        env.config(f"[server]\nlisten = 127.0.0.1:0\n[export x]\npath = {env.file(MIB)}\nread-only = yes\n"),
    )
    said = bench(env, "run", daemon.uri("x"), "--rw", "randwrite", fails=True).err
    check("the export is read-only" in said, said)
    said = bench(env, "verify", daemon.uri("x"), fails=True).err
    check("is read-only; only --check can be done" in said, said)
