"""bench/processes.py: what a server's process tree has cost, whatever has become of its parts; bench/clients.py: that both clients
count the same; and bench/measure.py: whose cost counts."""

import os
import re
import shutil
import socket
import sys
import time

from harness import FILE, MIB, TCP, check, equal, read_text, test, write_text

BENCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../bench")

# Works for 0.3 s of CPU time in a child that ends, as nbd-server does for a connection, and tells when.
FORKS = """
import os, time
child = os.fork()
if child == 0:
    while time.process_time() < 0.3:
        pass
    os._exit(0)
os.waitpid(child, 0)
print("done", flush=True)
time.sleep(60)
"""


@test()
def what_ended_children_took_counts(env):
    sys.path.insert(0, BENCH)
    import processes

    log = env.path("log")
    with processes.Child([sys.executable, "-c", FORKS], log) as child:
        before = processes.cpu_ns(child.pid)
        while os.path.getsize(log) == 0:
            check(not child.wait(0.02), "it has ended")
        used_s = (processes.cpu_ns(child.pid) - before) / 1e9
        check(len(processes.tree(child.pid)) == 1, "the child is not gone")
        check(0.28 <= used_s <= 0.5, f"{used_s} s of CPU time instead of 0.3")


@test()
def flushes_are_no_requests_of_either_client(env):
    """fio counts none: with them a server looked an eighth faster than the file it serves."""
    sys.path.insert(0, BENCH)
    import clients
    import loads

    daemon = env.serve_image(env.image(FILE, 8 * MIB), TCP)
    endpoint = clients.Endpoint(0)
    endpoint.uri = daemon.uri()
    load = next(load for load in loads.LOADS if load.name == "flush")
    program = os.path.join(os.path.dirname(env.binary), "millrace-bench")
    directory = os.path.dirname(env.path("log"))
    both = [clients.MillraceBench(directory, None, program)]
    if shutil.which("fio"):
        both.append(clients.Fio(directory, None))
    for client in both:
        figures = client.on_server(load, endpoint, 0.3)
        check(figures["requests"] > 100, f"{client.name}: {figures}")
        written = figures["mib"] * MIB / load.block_bytes
        check(abs(written / figures["iops"] - 1) < 0.001, f"{client.name}: {figures['iops']} IOPS, {written} blocks written")


@test()
def a_file_that_is_not_cached_is_read_once(env):
    """Behind its end servers that go through the page cache would be measured in it."""
    sys.path.insert(0, BENCH)
    import clients
    import loads
    import measure

    image = env.image(FILE, 8 * MIB)
    daemon = env.serve_image(image, TCP)
    endpoint = clients.Endpoint(0)
    endpoint.uri = daemon.uri()
    load = next(load for load in loads.LOADS if load.name == "seqread")
    wanted = {("file", "seqread"): 32, ("zram", "tls-seqread"): 32, ("cached", "seqread"): None, ("file", "seqwrite"): None}
    for (storage, name), requests in wanted.items():
        row = next(loads.Row(storage, load) for load in loads.LOADS if load.name == name)
        equal(measure.requests_of_a_pass(row, image.path), requests, row.name)
    program = os.path.join(os.path.dirname(env.binary), "millrace-bench")
    directory = os.path.dirname(env.path("log"))
    both = [clients.MillraceBench(directory, None, program)]
    if shutil.which("fio"):
        both.append(clients.Fio(directory, None))
    for client in both:
        equal(client.on_server(load, endpoint, 10, 32)["requests"], 32, client.name)


@test()
def memory_is_held_until_it_is_no_more_needed(env):
    sys.path.insert(0, BENCH)
    import memory_hold

    nowhere = memory_hold.NoReporting(env.path("no-such-file"))
    with memory_hold.Held(os.path.dirname(env.path("log")), 64 * MIB, nowhere) as held:
        with open(f"/proc/{held.child.pid}/smaps") as maps:
            largest = max((int(size), int(kept)) for size, kept in re.findall(r"\nSize: +(\d+) (?:.*\n)+?Rss: +(\d+)", maps.read()))
        check(64 * 4 <= largest[1] <= 64 * 8, f"{largest[1]} KiB are kept of {largest[0]}")
        pid = held.child.pid
    check(not os.path.exists(f"/proc/{pid}"), "it is there still")


@test()
def memory_is_not_reported_while_it_is_needed_where_that_can_be_had(env):
    sys.path.insert(0, BENCH)
    import memory_hold

    order = env.path("order")
    write_text(order, "9\n")
    with memory_hold.Held(os.path.dirname(env.path("log")), 64 * MIB, memory_hold.NoReporting(order)) as held:
        check(int(read_text(order)) >= 10, "blocks are reported still")
        equal(held.child.status, 0, "of who has touched it")
    equal(read_text(order), "9\n", "what was told the kernel at the end")


# Takes 3 ms of CPU time for each connection, and next to none for a request; tells at each connection's end what everything but those
# 3 ms has taken.
SLOW_TO_BEGIN = """
import asyncio, sys, time

began = time.process_time()

async def serve(reader, writer):
    global began
    until = time.process_time() + 0.003
    while time.process_time() < until:
        pass
    began += 0.003
    writer.write(b"NBDMAGICIHAVEOPT" + bytes((0, 3)))
    await reader.readexactly(4)
    while True:
        option = await reader.readexactly(16)
        await reader.readexactly(int.from_bytes(option[12:], "big"))
        reply = (0x3E889045565A9).to_bytes(8, "big") + option[8:12]
        info = bytes(2) + (1 << 30).to_bytes(8, "big") + bytes((0, 1))
        writer.write(reply + (3).to_bytes(4, "big") + (12).to_bytes(4, "big") + info)
        writer.write(reply + (1).to_bytes(4, "big") + bytes(4))
        if option[11] == 7:
            break
    try:
        while (request := await reader.readexactly(28))[7] == 0:
            writer.write(bytes((0x67, 0x44, 0x66, 0x98)) + bytes(4) + request[8:16] + bytes(4096))
    except asyncio.IncompleteReadError:
        pass
    print(time.process_time() - began, flush=True)
    writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()

asyncio.run(main())
"""


class SlowToBegin:
    """A server as bench/servers.py has them."""

    def start(self, storage, path, directory, cpus, tls_directory):
        import processes
        import servers

        port = servers.free_port()
        child = processes.Child([sys.executable, "-c", SLOW_TO_BEGIN, str(port)], os.path.join(directory, "server.log"))
        while not servers.listening(port):
            check(not child.wait(0.02), "it has ended")
        return child, port


@test()
def beginning_many_connections_is_no_cost_of_requests(env):
    """nbdkit's 16 threads for each of a thousand were half of what its requests were said to take."""
    sys.path.insert(0, BENCH)
    import clients
    import loads
    import measure

    directory = os.path.dirname(env.path("log"))
    bench = measure.Bench(directory, 2.5, None, None)
    client = clients.MillraceBench(directory, None, os.path.join(os.path.dirname(env.binary), "millrace-bench"))
    row = loads.Row("null", loads.Load("read-1x100", connections=100))
    figures = bench.server_turn(row, client, SlowToBegin(), None)
    check(figures["requests"] > 500 and figures["cpu_us"] is not None, f"{figures}")
    # With what the connections took it would be 0.3 s more.
    used_s = figures["cpu_us"] * (figures["requests"] - 100) / 1e6
    wanted_s = float(read_text(os.path.join(directory, "server.log")).split()[-1])
    check(abs(used_s - wanted_s) < 0.15, f"{figures}, {used_s} s of CPU time instead of {wanted_s}")


# Has a thread for a connection, which takes 50 ms of CPU time once the client has left, or stays, and tells that it listens.
SLOW_TO_END = """
import socket, sys, threading, time

def serve(connection):
    connection.recv(1)
    while time.thread_time() < 0.05:
        pass
    time.sleep(float(sys.argv[1]))

listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


def cost_of_a_connection(env, stays_seconds):
    """The Cost of a server with SLOW_TO_END, and how long its end took."""
    sys.path.insert(0, BENCH)
    import measure
    import processes

    log = env.path("log")
    with processes.Child([sys.executable, "-c", SLOW_TO_END, str(stays_seconds)], log) as child:
        while not read_text(log).endswith("\n"):
            check(not child.wait(0.02), "it has ended")
        cost = measure.Cost(child)
        with socket.create_connection(("127.0.0.1", int(read_text(log)))):
            while processes.thread_count(child.pid) == 1:
                time.sleep(0.01)
        began = time.monotonic()
        cost.stop()
        return cost, time.monotonic() - began, processes.thread_count(child.pid)


@test()
def what_threads_take_behind_the_client_counts(env):
    """nbdkit had 65 threads left when the client of 100 connections had ended."""
    cost, _, threads = cost_of_a_connection(env, 0)
    check(threads == 1, f"{threads} threads")
    check(cost.cpu_ns >= 50_000_000, f"{cost.cpu_ns / 1e6} ms of 50")


@test()
def threads_that_stay_idle_are_not_waited_for(env):
    cost, seconds, threads = cost_of_a_connection(env, 60)
    check(threads == 2, f"{threads} threads")
    check(cost.cpu_ns >= 50_000_000, f"{cost.cpu_ns / 1e6} ms of 50")
    check(seconds < 5, f"{seconds} s")


class Counter:
    """A tracer, as bench/measure.py has them, that has counted COUNTS."""

    counts = []

    def __init__(self, pid, log_path):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass

    def finish(self):
        return Counter.counts.pop(0)


@test()
def where_beginning_was_most_of_it_there_is_no_figure(env):
    """It was published as exactly 0.00."""
    sys.path.insert(0, BENCH)
    import clients
    import loads
    import measure

    directory = os.path.dirname(env.path("log"))
    bench = measure.Bench(directory, 0.2, None, None)
    client = clients.MillraceBench(directory, None, os.path.join(os.path.dirname(env.binary), "millrace-bench"))
    row = loads.Row("null", loads.Load("read-1x100", connections=100))
    Counter.counts = [1000, 900]
    figures = bench.syscall_turn(row, client, SlowToBegin(), None, Counter)
    equal(figures, {"syscalls": None}, "900 without 1000")
    for begun, amount, wanted in ((1000, 1000, None), (1000, 1900, None), (1000, 2000, 10), (0, 500, 5), (0, 0, None)):
        equal(measure.per_request(amount, begun, 100), wanted, f"{amount} without {begun}")


@test(quick=True)
def a_client_has_no_more_cpus_than_connections(env):
    sys.path.insert(0, BENCH)
    import clients
    import loads

    for cpus, connections, wanted in (({4, 5, 6, 7}, 1, ["7"]), ({4, 5, 6, 7}, 2, ["6,7"]), ({4, 5}, 16, ["4,5"]), (None, 4, [])):
        argv = clients.MillraceBench("", cpus, "program").argv(loads.Load("read", connections=connections), "nbd://", 1)
        found = argv[argv.index("--cores") + 1:] if "--cores" in argv else []
        check(found == wanted, f"{found} of {cpus} for {connections} connections")
