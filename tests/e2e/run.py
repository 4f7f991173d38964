#!/usr/bin/python3
"""Runs the end-to-end tests: millraced with clients nobody here wrote, and with a client that breaks the rules.

    tests/e2e/run.py --daemon build/millraced [--quick] [--only SUBSTRING] [--counts FILE]

One line a test; a failed test is followed by its daemon's log; the last line counts.  Exits 1 if any failed.
"""

import argparse
import os
import shutil
import sys

sys.dont_write_bytecode = True

import harness  # noqa: E402

MODULES = (
    "test_clients",
    "test_unaligned",
    "test_durability",
    "test_wire",
    "test_protocol",
    "test_sparse",
    "test_rules_handshake",
    "test_rules_io",
    "test_rules_replies",
    "test_rules_clients",
    "test_rules_tls",
    "test_faults",
    "test_bounds",
    "test_bad_input",
    "test_floods",
    "test_access",
    "test_tls",
    "test_vsock",
    "test_dead_peers",
    "test_memory",
    "test_service",
    "test_logging",
    "test_privileges",
    "test_kinds",
    "test_limits",
    "test_bench",
    "test_cost",
    "test_reload",
)
LOG_LINES_SHOWN = 60


def parse_arguments():
    parser = argparse.ArgumentParser(description="Millrace's end-to-end tests.")
    parser.add_argument("--daemon", required=True, help="the millraced to test")
    parser.add_argument("--quick", action="store_true", help="a representative part, at smaller sizes")
    parser.add_argument("--only", default="", metavar="SUBSTRING", help="only tests with this in their name")
    parser.add_argument("--counts", metavar="FILE", help="write the last line to this file too")
    parser.add_argument(
        "--work",
        default="build/e2e-work",
        metavar="DIR",
        help="scratch, on a disk file system: O_DIRECT is needed (default %(default)s)",
    )
    parser.add_argument("--list", action="store_true", help="print the tests' names and stop")
    return parser.parse_args()


def report(outcome):
    reason = f": {outcome.reason}" if outcome.reason else ""
    print(f"{outcome.word:4} {outcome.case.name} ({outcome.seconds:.1f} s){reason}", flush=True)
    for log in outcome.logs:
        lines = log.splitlines()
        if len(lines) > LOG_LINES_SHOWN:
            print(f"     | ({len(lines) - LOG_LINES_SHOWN} lines before)")
        for line in lines[-LOG_LINES_SHOWN:]:
            print(f"     | {line}")


def run_all(cases, arguments):
    """Returns how many had each outcome."""
    scratch = os.path.join(os.path.abspath(arguments.work), str(os.getpid()))
    os.makedirs(scratch)
    runner = harness.Runner(os.path.abspath(arguments.daemon), scratch, arguments.quick)
    counts = {"ok": 0, "FAIL": 0, "skip": 0}
    try:
        for index, case in enumerate(cases):
            outcome = runner.run(case, index)
            counts[outcome.word] += 1
            report(outcome)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        remove_if_empty(arguments.work)
    return counts


def remove_if_empty(directory):
    try:
        os.rmdir(directory)
    except OSError:
        pass  # another run's scratch is in there


def summary(counts):
    text = f"{counts['ok']} passed, {counts['FAIL']} failed"
    if counts["skip"]:
        text += f", {counts['skip']} skipped"
    return text


def main():
    arguments = parse_arguments()
    for module in MODULES:
        __import__(module)
    cases = [case for case in harness.ALL_TESTS if arguments.only in case.name]
    if arguments.quick:
        cases = [case for case in cases if case.quick]
    if arguments.list:
        print("\n".join(case.name for case in cases))
        return 0
    if not os.access(arguments.daemon, os.X_OK):
        print(f"{arguments.daemon}: no such program; build it first", file=sys.stderr)
        return 2
    harness.install_handlers()
    try:
        counts = run_all(cases, arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    line = summary(counts)
    print(line)
    if arguments.counts:
        harness.write_text(arguments.counts, line + "\n")
    return 1 if counts["FAIL"] or not cases else 0


if __name__ == "__main__":
    sys.exit(main())
