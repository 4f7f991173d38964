"""bench/processes.py: what a server's process tree has cost, whatever has become of its parts; and bench/clients.py: that both clients
count the same."""

import os
import shutil
import sys

from harness import FILE, MIB, TCP, check, test

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
