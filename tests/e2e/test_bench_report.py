"""bench/report.py, rounds.py and publish.py: what the README's table is made of, from results that are made up here."""

import argparse
import json
import os
import subprocess
import sys

from harness import check, equal, read_text, test, write_text

BENCH = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "bench")


def figures(iops, p99_us, cpu_us):
    return {"iops": [iops], "p50_us": [p99_us / 2], "p99_us": [p99_us], "cpu_us": [cpu_us]}


@test(quick=True)
def a_write_is_compared_with_what_promises_the_same(env):
    sys.path.insert(0, BENCH)
    import report

    row = "file-write-32x4"
    results = {row: {report.OURS: figures(100, 10, 1), report.OURS_CACHED: figures(300, 50, 1),
                     "nbdkit": figures(200, 20, 4), "qemu-nbd native": figures(90, 30, 2)}}
    found = {(ours, figure): (text, met) for _, ours, figure, text, met, _ in report.aims(results)}
    equal(found[report.OURS, "iops"], ("1.11 (1)", True), "beside qemu-nbd")
    equal(found[report.OURS, "cpu_us"], ("0.50 (0.33)", False), "beside qemu-nbd")
    equal(found[report.OURS_CACHED, "iops"], ("1.50 (1)", True), "beside nbdkit")
    equal(found[report.OURS_CACHED, "p99_us"], ("2.50 (1)", False), "beside nbdkit")


@test(quick=True)
def turns_that_the_host_disturbed_do_not_count_beside_better_ones(env):
    sys.path.insert(0, BENCH)
    import rounds

    run = object.__new__(rounds.Run)
    run.results = {"row": {"one": {"iops": [1, 2, 3], "stolen": [0.5, 0.0, 0.2], "syscalls": [9]},
                           "all": {"iops": [4, 5], "stolen": [0.4, 0.3]}}}
    run.settle()
    equal(run.results["row"]["one"], {"iops": [2], "stolen": [0.0], "syscalls": [9]}, "the undisturbed turn")
    equal(run.results["row"]["all"], {"iops": [5], "stolen": [0.3]}, "the least disturbed one")


@test(quick=True)
def a_page_keeps_what_is_outside_of_the_marks(env):
    sys.path.insert(0, BENCH)
    import publish

    path = env.path("page.md")
    write_text(path, f"before\n{publish.BEGIN}old\n{publish.END}behind\n")
    publish.replace_part(path, "new\n")
    equal(read_text(path), f"before\n{publish.BEGIN}new\n{publish.END}behind\n", "the page")
    write_text(path, "no marks\n")
    try:
        publish.replace_part(path, "new\n")
    except ValueError:
        equal(read_text(path), "no marks\n", "a page without marks")
    else:
        check(False, "a page without marks was written")


def a_run(storages):
    """A run without clients and servers, on STORAGES by kind."""
    sys.path.insert(0, BENCH)
    import rounds

    arguments = argparse.Namespace(work="", seconds=1, server_cpu_set=None, quick=True, client_cpus=None, clients="", bench="", rows=[],
                                   minutes=None, rounds=1)
    run = rounds.Run(arguments, [], None, None)
    run.storages = storages
    return run


class Refilled:
    """A storage that writes into EVENTS when it is filled again."""

    def __init__(self, events):
        self.events = events

    def refill(self):
        self.events.append("refill")


@test(quick=True)
def what_was_written_is_not_what_is_read(env):
    """zram keeps what does not compress as it is, and only copied it for all the reads that followed."""
    events = []
    run = a_run({"zram": Refilled(events), "file": Refilled(events)})
    import loads

    def turns_of(row):
        return [(row.name, server, lambda: events.append(row.name) or {"iops": 1}) for server in ("one", "other")]

    kinds = {load.name: load for load in loads.LOADS}
    rows = [loads.Row("zram", kinds[name]) for name in ("read-1", "write-1", "write-32", "read-32", "seqread", "seqwrite")]
    rows.insert(3, loads.Row("file", kinds["read-1"]))
    check(run.measure_round(rows, "a round", turns_of), "out of time")
    run.measure_round(rows[:1], "the next", turns_of)
    equal([event for event, before in zip(events, [None] + events) if event != before],
          ["zram-read-1", "zram-write-1", "zram-write-32", "file-read-1", "refill", "zram-read-32", "zram-seqread", "zram-seqwrite", "refill",
           "zram-read-1"], "what was done")
    equal(run.problems, [], "problems")


@test(quick=True)
def a_turn_that_fails_does_not_take_the_others_along(env):
    run = a_run({})

    def fails():
        raise ValueError("no number")

    again = iter([{"iops": 3, "stolen": 0.2}])
    run.measure_row([("row", "one", lambda: {"iops": 1, "stolen": 0}), ("row", "broken", fails),
                     ("row", "again", lambda: next(again, None) or fails()), ("row", "last", lambda: {"iops": 4, "stolen": 0})])
    equal({name: figures["iops"] for name, figures in run.results["row"].items()}, {"one": [1], "again": [3], "last": [4]}, "results")
    equal(run.problems, ["row, broken: ValueError: no number", "row, again, taken again: ValueError: no number"], "problems")


@test(quick=True)
def a_figure_that_is_missing_is_a_dash(env):
    run = a_run({})
    import picture
    import publish
    import report

    row = "null-read-32x4"
    run.results = {row: {report.OURS: {**figures(100, 10, None), "stolen": [0], "syscalls": [None]},
                         "nbdkit": {name: [values[0], values[0], None] for name, values in figures(50, 20, 1).items()} | {"stolen": [0, 0, 0]},
                         "nbd-server": {"iops": [9], "stolen": [0]}}}
    run.settle()
    check("cpu_us" not in run.results[row][report.OURS] and run.results[row]["nbdkit"]["cpu_us"] == [1, 1], f"{run.results}")
    check("None" not in json.dumps(run.results) and "null," not in json.dumps(run.results), "JSON")
    equal([figure for _, _, figure, *_ in report.aims(run.results)], ["iops", "p99_us"], "aims")
    check(" - " in report.text_table(run.results, row), "the table")
    check("| - |" in report.markdown(run.results, []) and "None" not in report.markdown(run.results, []), "the page")
    facts = {"machine": "", "date": "", "method": "", "servers": "", "command": ""}
    storage = "file: regular file, 1 MiB, btrfs on /dev/sda; zram: zram device, 1 MiB"
    text = publish.short_text(run.results, [*facts.items(), ("storage", storage)])
    check('"file" is on btrfs, "cached"' in text and "None" not in text, text)
    check("<svg" in picture.svg(run.results), "the picture")


@test(quick=True)
def what_cannot_work_is_said_before_it_is_measured(env):
    peers = os.path.join(BENCH, "peers.py")
    for argv, wanted in ((["--bench", "/nonexistent"], "bench: /nonexistent: not found; build it with ninja, or name it with --bench\n"),
                         (["--json", "/nonexistent/a"], "bench: /nonexistent/a: No such file or directory\n")):
        result = subprocess.run([sys.executable, peers, "--work", env.path("work"), *argv], capture_output=True, text=True, timeout=20)
        equal((result.returncode, result.stderr), (1, wanted), " ".join(argv))
