#!/usr/bin/python3
"""Talks to a running daemon as hostile clients do, beside well-behaved ones, plain and inside TLS, that must see nothing of it.

    tests/fuzz/session.py --daemon build/sanitize/millraced [--seconds 40] [--seed N] [--only ATTACK] [--counts FILE]

One line an attack: what the bystanders saw meanwhile.  After each, the daemon must be alive, its log without a sanitizer's report,
its files as many as before; a second round of all may need no memory that the first did not, and at the end comes an orderly
exit, where a leak would be found.  The bystanders' volumes are memory: the disk's queue, which the attackers fill, is not the
daemon's.  The same seed sends the same bytes; how they meet the daemon's threads is up to the machine.
"""

import argparse
import os
import random
import resource
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))

import attacks  # noqa: E402
import authority  # noqa: E402
import bystander  # noqa: E402
import harness  # noqa: E402
import messages  # noqa: E402
import tls_attacks  # noqa: E402
import tls_peer  # noqa: E402

ATTACKS = (*attacks.ATTACKS, *tls_attacks.TLS_ATTACKS)
HANDSHAKE_SECONDS = 2
SETTLE_SECONDS = 15  # by then the daemon has closed what its clients have left
ROUNDS = 2  # the first touches what is set aside for clients; the last may need no more
ROUNDS_MAX = 6  # or the first few did: on a slow machine a round has few sessions
GROWTH_BYTES = 8 << 20
P99_SECONDS = 0.5  # of the bystander: two cores do all of this, with sanitizers, and the attackers' work as well
LONGEST_SECONDS = 3.0

CONFIG = """
[reactor]
cores = {cores}
[server]
listen = 127.0.0.1:0
listen = unix:{socket}
handshake-s = {handshake}
{tls}
[export disk]
path = {disk}
[export calm]
type = memory
size = {size}
[export sealed]
type = memory
size = {size}
tls-only = yes
[export memory]
type = memory
size = {size}
[export cached]
path = {cached}
cache = host
[export locked]
type = null
size = {size}
read-only = yes
[export faulty]
type = fault
size = {size}
fault = seed=7 read-error=0.2 write-error=0.2 flush-error=0.01 short-io=0.3 torn-write=0.1
"""


def parse_arguments():
    parser = argparse.ArgumentParser(description="A fuzzer of whole sessions.")
    parser.add_argument("--daemon", required=True, help="the millraced to bother, best one with sanitizers")
    parser.add_argument("--seconds", type=float, default=40, help="in all, about (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of all choices (default %(default)s)")
    parser.add_argument("--only", default="", metavar="SUBSTRING", help="only attacks with this in their name")
    parser.add_argument("--slack", type=float, default=1, metavar="FACTOR", help="times as slow is fine, on a busy machine")
    parser.add_argument("--counts", metavar="FILE", help="write the last line to this file too")
    parser.add_argument("--work", default="build/fuzz-work", metavar="DIR", help="scratch (default %(default)s)")
    return parser.parse_args()


class Run:
    """A daemon under attack."""

    def __init__(self, env, seed, slack):
        self.env = env
        self.seed = seed
        self.slack = slack
        pki = authority.Authority(env)
        text = CONFIG.format(
            tls=pki.settings(),
            cores=harness.two_cores(),
            socket=env.socket_path(),
            handshake=HANDSHAKE_SECONDS,
            disk=env.file(messages.EXPORT_BYTES, harness.random_bytes(messages.EXPORT_BYTES // 2)),
            cached=env.file(messages.EXPORT_BYTES, harness.random_bytes(messages.EXPORT_BYTES), name="cached"),
            size=messages.EXPORT_BYTES,
        )
        self.daemon = env.serve("--config", env.config(text))
        self.target = attacks.Target(self.daemon.addresses, tls_peer.Credentials(pki, authority.IDENTITY).kinds())
        self.bystanders = {
            "plain": bystander.Bystander(self.daemon.address, "calm", seed),
            "inside TLS": bystander.Bystander(self.daemon.address, "sealed", seed, pki.context),
        }
        time.sleep(0.5)
        self.files = self.daemon.fd_count()
        for one in self.bystanders.values():
            one.report()

    def attack(self, attack, seconds, number):
        """One attack of round NUMBER, then judge.  Returns a line about it; raises Failure."""
        rng = random.Random(f"{self.seed} {number} {attack.__name__}")
        before = self.target.sessions
        attack(self.target, rng, seconds)
        told = [f"{self.target.sessions - before} sessions"]
        for which, one in self.bystanders.items():
            seen = one.report()
            self.judge(which, *seen)
            told.append(f"{which}: {seen[0]} operations, p99 {seen[1] * 1e3:.1f} ms, longest {seen[2] * 1e3:.0f} ms")
        what = f"its files are {self.files} again"
        harness.wait_until(lambda: self.daemon.fd_count() <= self.files, SETTLE_SECONDS * self.slack, what)
        return "; ".join(told)

    def judge(self, which, count, p99, longest, mistakes):
        daemon = self.daemon
        harness.check(daemon.process.poll() is None, f"the daemon ended with {daemon.process.returncode}")
        daemon.check_log()
        harness.check(not mistakes, f"the bystander {which}: {mistakes[:3]}")
        harness.check(count > 0, f"the bystander {which} did nothing")
        few = count < 100  # of which the longest would be the p99
        in_time = (few or p99 <= P99_SECONDS * self.slack) and longest <= LONGEST_SECONDS * self.slack
        harness.check(in_time, f"the bystander {which}: p99 {p99} s, longest {longest} s")

    def stop_bystanders(self):
        for one in self.bystanders.values():
            one.stop()


def main():
    arguments = parse_arguments()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    chosen = [attack for attack in ATTACKS if arguments.only in attack.__name__]
    os.environ["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "quarantine_size_mb=2")
    directory = os.path.abspath(os.path.join(arguments.work, str(os.getpid())))
    os.makedirs(os.path.dirname(directory), exist_ok=True)
    env = harness.Env(os.path.abspath(arguments.daemon), directory, False)
    passed, failed = 0, 0
    try:
        passed, failed = run_all(env, chosen, arguments)
    finally:
        env.close()
    line = f"{passed} passed, {failed} failed"
    print(line)
    if arguments.counts:
        harness.write_text(arguments.counts, line + "\n")
    return 1 if failed or not passed else 0


def run_all(env, chosen, arguments):
    passed, failed, run, name = 0, 0, None, "the start"
    try:
        run = Run(env, arguments.seed, arguments.slack)
        each = arguments.seconds / ROUNDS / len(chosen)
        memory = []
        while len(memory) < ROUNDS or memory[-1] - memory[-2] >= GROWTH_BYTES and len(memory) < ROUNDS_MAX:
            for attack in chosen:
                name, began = attack.__name__, time.monotonic()
                told = run.attack(attack, each, len(memory))
                print(f"ok   {name} ({time.monotonic() - began:.1f} s): {told}", flush=True)
                passed += 1
            memory.append(run.daemon.rss_bytes())
        name = "afterwards"
        grown = memory[-1] - memory[-2]
        print(f"     memory after each round: {', '.join(str(count >> 20) for count in memory)} MiB")
        harness.check(grown < GROWTH_BYTES, f"the daemon's memory grew by {grown >> 20} MiB in the last round")
        run.stop_bystanders()
        run.daemon.stop(code=int("acknowledged writes may be lost" in run.daemon.log()))
        passed += 1
    except harness.Failure as failure:
        print(f"FAIL {name}: {failure} (--seed {arguments.seed})")
        failed += 1
        for daemon in env.daemons:
            print("".join(f"     | {line}\n" for line in daemon.log_lines()[-80:]))
    finally:
        if run:
            run.stop_bystanders()
    return passed, failed


if __name__ == "__main__":
    sys.exit(main())
