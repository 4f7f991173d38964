#!/usr/bin/python3
"""Runs the end-to-end tests: millraced with clients nobody here wrote, and with a client that breaks the rules.

    tests/e2e/run.py --daemon build/millraced [--quick] [--jobs N] [--only SUBSTRING] [--counts FILE]

Several at a time, but for those that must be alone, which come last.  One line a test; a failed test is followed by its daemon's log; the last line counts.  Exits 1 if any failed.
What fails while the host of this machine takes CPU time from it is tried again, alone, unless that can't be why.
"""

import argparse
import concurrent.futures
import contextlib
import multiprocessing
import os
import shutil
import sys
import time

sys.dont_write_bytecode = True

import harness  # noqa: E402

MODULES = (
    "test_clients",
    "test_unaligned",
    "test_overlap",
    "test_durability",
    "test_wire",
    "test_protocol",
    "test_sparse",
    "test_trims",
    "test_rules_handshake",
    "test_rules_io",
    "test_rules_replies",
    "test_rules_clients",
    "test_libnbd",
    "test_rules_tls",
    "test_faults",
    "test_bounds",
    "test_bad_input",
    "test_check",
    "test_floods",
    "test_access",
    "test_tls",
    "test_handshakes",
    "test_vsock",
    "test_kernel",
    "test_dead_peers",
    "test_memory",
    "test_move",
    "test_service",
    "test_logging",
    "test_slow",
    "test_import",
    "test_privileges",
    "test_kinds",
    "test_cache",
    "test_splice",
    "test_create",
    "test_limits",
    "test_bench",
    "test_bench_tls",
    "test_bench_replies",
    "test_bench_processes",
    "test_cost",
    "test_reload",
    "test_report",
    "test_bench_report",
    "test_grow",
)
LOG_LINES_SHOWN = 60
AGAIN = "again"  # the outcome of a try that is not the last one
DISTURBED_TRIES = 3
PAUSE_S = 5  # before another try: what was in the way may be over then
JOBS = 4 * len(os.sched_getaffinity(0))  # many wait more than they work


def parse_arguments():
    parser = argparse.ArgumentParser(description="Millrace's end-to-end tests.")
    parser.add_argument("--daemon", required=True, help="the millraced to test")
    parser.add_argument("--quick", action="store_true", help="a representative part, at smaller sizes")
    parser.add_argument("--jobs", type=int, default=JOBS, metavar="N", help="tests side by side (default %(default)s)")
    parser.add_argument("--only", default="", metavar="SUBSTRING", help="only tests with this, or with one of A,B,..., in their name")
    parser.add_argument("--counts", metavar="FILE", help="write the last line to this file too, and those of failed tests behind it")
    parser.add_argument(
        "--work",
        default="build/e2e-work",
        metavar="DIR",
        help="scratch, on a disk file system: O_DIRECT is needed (default %(default)s)",
    )
    parser.add_argument("--list", action="store_true", help="print the tests' names and stop")
    return parser.parse_args()


def result_line(outcome):
    reason = f": {outcome.reason}" if outcome.reason else ""
    return f"{outcome.word:4} {outcome.name} ({outcome.seconds:.1f} s){reason}"


def report(outcome):
    print(result_line(outcome), flush=True)
    for log in outcome.logs:
        lines = log.splitlines()
        if len(lines) > LOG_LINES_SHOWN:
            print(f"     | ({len(lines) - LOG_LINES_SHOWN} lines before)")
        for line in lines[-LOG_LINES_SHOWN:]:
            print(f"     | {line}")


def outcomes(runner, indices, jobs):
    """Yields the outcome of each try: first those that may run side by side, JOBS at a time, then the others."""
    cases = harness.ALL_TESTS
    tries = dict.fromkeys(indices, 0)
    alone = [index for index in indices if cases[index].alone]
    with side_by_side(jobs) as pool:
        futures = {pool.submit(run_beside, runner, index): index for index in indices if not cases[index].alone}
        for future in concurrent.futures.as_completed(futures):
            index = futures[future]
            outcome = judge(future.result(), tries, index)
            if outcome.word == AGAIN:
                alone.append(index)
            yield outcome
    while alone:
        index = alone.pop(0)
        if tries[index] > 0:
            time.sleep(PAUSE_S)
        outcome = judge(runner.run(index), tries, index)
        if outcome.word == AGAIN:
            alone.append(index)
        yield outcome


def judge(outcome, tries, index):
    """A failure is none yet while the case has tries left."""
    tries[index] += 1
    tries_max = DISTURBED_TRIES if outcome.disturbed else 1
    if outcome.word == "FAIL" and tries[index] < max(tries_max, harness.ALL_TESTS[index].tries):
        outcome.word = AGAIN
    return outcome


@contextlib.contextmanager
def side_by_side(jobs):
    """A pool of JOBS processes; they end when we are interrupted."""
    pool = concurrent.futures.ProcessPoolExecutor(jobs, multiprocessing.get_context("fork"), initializer=begin_process)
    try:
        yield pool
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def begin_process():
    harness.end_with_parent()
    harness.remove_handlers()


def run_beside(runner, index):
    """In a process of the pool: interrupted, it undoes what the case made, and ends."""
    harness.install_handlers()
    try:
        return runner.run(index)
    except KeyboardInterrupt:
        os._exit(130)
    finally:
        harness.remove_handlers()


def run_all(indices, arguments):
    """Returns how many had each outcome, and the lines of those that failed."""
    scratch = os.path.join(os.path.abspath(arguments.work), str(os.getpid()))
    os.makedirs(scratch)
    runner = harness.Runner(os.path.abspath(arguments.daemon), scratch, arguments.quick)
    counts = {"ok": 0, "FAIL": 0, "skip": 0, AGAIN: 0}
    failed = []
    try:
        for outcome in outcomes(runner, indices, arguments.jobs):
            counts[outcome.word] += 1
            report(outcome)
            if outcome.word == "FAIL":
                failed.append(result_line(outcome))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        remove_if_empty(arguments.work)
    return counts, failed


def remove_if_empty(directory):
    try:
        os.rmdir(directory)
    except OSError:
        pass  # another run's scratch is in there


def summary(counts):
    text = f"{counts['ok']} passed, {counts['FAIL']} failed"
    if counts["skip"]:
        text += f", {counts['skip']} skipped"
    if counts[AGAIN]:
        text += f", {counts[AGAIN]} times too slow or disturbed and tried again"
    return text


def main():
    arguments = parse_arguments()
    for module in MODULES:
        __import__(module)
    cases = harness.ALL_TESTS
    wanted = arguments.only.split(",")
    indices = [
        index
        for index, case in enumerate(cases)
        if any(part in case.name for part in wanted) and (case.quick or not arguments.quick)
    ]
    if arguments.list:
        print("\n".join(cases[index].name for index in indices))
        return 0
    if not os.access(arguments.daemon, os.X_OK):
        print(f"{arguments.daemon}: no such program; build it first", file=sys.stderr)
        return 2
    harness.install_handlers()
    try:
        counts, failed = run_all(indices, arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    line = summary(counts)
    print(line)
    if arguments.counts:
        harness.write_text(arguments.counts, "\n".join([line] + failed) + "\n")
    return 1 if counts["FAIL"] or not indices else 0


if __name__ == "__main__":
    sys.exit(main())
