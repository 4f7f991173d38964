"""bench/report.py, rounds.py and publish.py: what the README's table is made of, from results that are made up here."""

import os
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
