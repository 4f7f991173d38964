"""Medians, ratios and tables.

Results are {row name: {server name: {figure name: [one value per round]}}}.
"""

import statistics

DIRECT = "fio direct"
OURS = "millraced"
OURS_CACHED = "millraced cache=host"
# These answer a write when the page cache has it, the others when the device has.
PAGE_CACHE = (OURS_CACHED, "nbdkit", "nbdkit cache=none", "nbd-server")

# Title, figure and format of each column.
COLUMNS = [
    ("IOPS", "iops", "{:,.0f}"),
    ("MiB/s", "mib", "{:,.0f}"),
    ("p50 us", "p50_us", "{:,.1f}"),
    ("p99 us", "p99_us", "{:,.1f}"),
    ("p99.9 us", "p999_us", "{:,.1f}"),
    ("CPU us/req", "cpu_us", "{:.2f}"),
    ("client CPU", "client_cpu_us", "{:.2f}"),
    ("switches/req", "switches", "{:.3f}"),
    ("syscalls/req", "syscalls", "{:.2f}"),
    ("MiB memory", "memory_mib", "{:,.0f}"),
]
# millraced's figure divided by the server's.
RATIOS = [("IOPS ratio", "iops"), ("p50 ratio", "p50_us"), ("CPU ratio", "cpu_us")]


def median(results, row, server, figure):
    values = results.get(row, {}).get(server, {}).get(figure)
    return statistics.median(values) if values else None


def ratio(dividend, divisor, form="{:.2f}"):
    return form.format(dividend / divisor) if dividend and divisor else "-"


def spread(values, form):
    if not values:
        return "-"
    return f"{form.format(min(values))}..{form.format(max(values))}"


def median_cells(results, row, server):
    cells = []
    for _, figure, form in COLUMNS:
        value = median(results, row, server, figure)
        cells.append("-" if value is None else form.format(value))
    return cells


def comparison_cells(results, row, server):
    """IOPS relative to fio on the storage, then millraced's figures as multiples of SERVER's."""
    iops = median(results, row, server, "iops")
    cells = [ratio(iops, median(results, row.partition(" ")[0], DIRECT, "iops"), "{:.0%}")]
    for _, figure in RATIOS if measured_ours(results) else []:
        ours = median(results, row, ours_beside(results, row, server), figure)
        theirs = median(results, row, server, figure)
        cells.append("" if server in (OURS, OURS_CACHED) else ratio(ours, theirs))
    return cells


def comparison_titles(results):
    return ["of direct"] + [title for title, _ in RATIOS if measured_ours(results)]


def measured_ours(results):
    return any(servers.get(OURS) for servers in results.values())


def text_table(results, row):
    """The table of one row: a line of medians per server, and below it min..max."""
    lines = [[row] + [title for title, _, _ in COLUMNS] + comparison_titles(results)]
    for server, figures in results[row].items():
        lines.append([server] + median_cells(results, row, server)
                     + comparison_cells(results, row, server))
        spreads = [spread(figures.get(figure), form) if len(figures.get(figure, [])) > 1 else ""
                   for _, figure, form in COLUMNS]
        if any(spreads):
            lines.append([""] + spreads + [""] * len(comparison_titles(results)))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join([line[0].ljust(widths[0])]
                               + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:])])
                     .rstrip() for line in lines)


def markdown(results, facts):
    """One table of all rows, and the facts that belong to it."""
    titles = ["row", "server", "rounds", "IOPS", "min..max"] + [title for title, _, _ in COLUMNS[1:]]
    titles += comparison_titles(results)
    lines = ["| " + " | ".join(titles) + " |", "| " + " | ".join(["---"] * 2 + ["---:"] *
                                                                 (len(titles) - 2)) + " |"]
    for row, servers in results.items():
        for server, figures in servers.items():
            cells = median_cells(results, row, server)
            cells.insert(1, spread(figures.get("iops"), COLUMNS[0][2]))
            cells = [row, server, str(len(figures.get("iops", [])))] + cells + comparison_cells(results, row, server)
            lines.append("| " + " | ".join(cells) + " |")
    lines += [""] + [f"- {name}: {value}" for name, value in facts]
    return "\n".join(lines) + "\n"


def ours_beside(results, row, server):
    """Which of ours SERVER is compared with in ROW: with the one that promises the same."""
    return OURS_CACHED if server in PAGE_CACHE and results.get(row, {}).get(OURS_CACHED) else OURS


def is_compared(results, row, server, ours):
    """With OURS.  A read promises nothing, so the default is compared with all there; cache = host only with those like it."""
    return ours_beside(results, row, server) == ours or ("seqread" in row and ours == OURS)


def peers(results, row, figure, ours=OURS):
    """[(median, server)] of the servers that are compared with OURS."""
    found = [(median(results, row, server, figure), server) for server in results.get(row, {})
             if server not in (OURS, OURS_CACHED, DIRECT) and is_compared(results, row, server, ours)]
    return [pair for pair in found if pair[0] is not None]


def storage_of(row):
    return row.partition("-")[0]


def words(row):
    """What a row is called for people."""
    name, _, load = row.partition("-")
    tls, load = load.startswith("tls-"), load.removeprefix("tls-")
    kind, _, shape = load.partition("-")
    text = {"read": "4 KiB reads", "write": "4 KiB writes", "seqread": "256 KiB reads in sequence",
            "seqwrite": "256 KiB writes in sequence", "mixed": "4 KiB, 70 % reads", "flush": "4 KiB writes, a flush every 8"}[kind]
    shapes = {"": {"mixed": ", 4 x 32", "flush": ", 4 x 8"}.get(kind, ", 1 x 8"), "1x1000": ", 1,000 x 1"}
    depth, _, connections = shape.partition("x")
    return f"{name}: {text}{' in TLS' if tls else ''}{shapes.get(shape) or f', {connections or 1} x {depth}'}"


def is_saturating(row):
    return "32x4" in row or "64x16" in row


def latency_of(row):
    """What counts of a row's latency: with one request at a time the middle, else the slow ones."""
    return "p50_us" if row.endswith(("-read-1", "-write-1")) else "p99_us"


def lines(results):
    """(row, which of ours) of all that is compared with peers.  What the second client measured is not: it is there to check the
    first."""
    return [(row, ours) for row in results if " " not in row for ours in (OURS, OURS_CACHED) if median(results, row, ours, "iops")]


def line_name(row, ours):
    return row + ours.removeprefix(OURS)


def aims(results, only=None):
    """What millraced is meant to reach, as (row, ours, figure, ratio and aim, met, sentence); of all LINES, or of the one ONLY."""
    found = []
    for row, ours in [only] if only else lines(results):
        found += [(row, ours) + aim for aim in aim_direct(results, row, ours) + aim_best_peer(results, row, ours)]
    return found


def aim_direct(results, row, ours):
    """On a file most of what fio reaches on the file itself."""
    direct = median(results, row, DIRECT, "iops")
    if ours != OURS or not direct or storage_of(row) not in ("file", "xfs") or not ("32x4" in row or "seq" in row):
        return []
    share = median(results, row, ours, "iops") / direct
    return [("direct", f"{share:.2f} (0.92)", share >= 0.92, f"{row}: {share:.0%} of the IOPS of fio itself (92 %)")]


def aim_best_peer(results, row, ours):
    """More requests than the best peer, three times as many where the device is no limit; at a third of its CPU; and no
    higher latency."""
    others = peers(results, row, "iops", ours)
    if not others:
        return []
    line = line_name(row, ours)
    best, name = max(others)
    wanted = 3 if storage_of(row) in ("zram", "memory", "null") and is_saturating(row) else 1
    times = median(results, row, ours, "iops") / best
    found = [("iops", f"{times:.2f} ({wanted})", times >= wanted,
              f"{line}: {times:.2f} times the IOPS of {name}, the best peer ({wanted})")]
    cpu, theirs = median(results, row, ours, "cpu_us"), median(results, row, name, "cpu_us")
    if is_saturating(row) and cpu and theirs:
        cpu /= theirs
        found.append(("cpu_us", f"{cpu:.2f} (0.33)", cpu <= 1 / 3, f"{line}: {cpu:.2f} of the CPU per request of {name} (0.33)"))
    figure = latency_of(row)
    lowest, lowest_name = min(peers(results, row, figure, ours), default=(None, ""))
    latency = median(results, row, ours, figure)
    if not lowest or latency is None:
        return found
    found.append((figure, f"{latency / lowest:.2f} (1)", latency <= lowest,
                  f"{line}: {figure.removesuffix('_us')} {latency:,.1f} us; lowest of the peers {lowest_name} {lowest:,.1f}"))
    return found
