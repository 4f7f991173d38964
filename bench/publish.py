"""What is shown of a run: doc/peers.md with all of it, doc/peers.svg, and the part of the README between two marks."""

import os

import picture
import report

BEGIN = "<!-- By bench/peers.py --publish, up to the mark of its end. -->\n"
END = "<!-- The end of it. -->\n"

# In the README: the columns, and the rows where they were measured.
COLUMNS = ("IOPS", "p50 us", "p99 us", "CPU us/req", "switches/req", "MiB memory")
ROWS = ("file-read-1", "file-read-32", "file-read-32x4", "file-read-64x16", "file-write-32x4", "file-seqread", "file-mixed",
        "file-flush", "file-tls-read-32", "file-read-1x1000", "zram-read-1", "zram-read-32x4", "memory-read-32x4",
        "null-read-1", "null-read-32x4", "null-read-1x1000")


def chosen(results):
    """Of several clients the first."""
    return [row for row in results if row.partition(" ")[0] in ROWS and "(fio)" not in row] or list(results)


def short_table(results):
    columns = [column for column in report.COLUMNS if column[0] in COLUMNS]
    titles = ["row", "server"] + [title for title, _, _ in columns] + ["of direct"]
    lines = ["| " + " | ".join(titles) + " |", "| --- | --- |" + " ---: |" * (len(titles) - 2)]
    for row in chosen(results):
        for server in results[row]:
            bold = "**" if server == report.OURS else ""
            cells = []
            for _, figure, form in columns:
                value = report.median(results, row, server, figure)
                cells.append("-" if value is None else f"{bold if figure == 'iops' else ''}{form.format(value)}"
                             f"{bold if figure == 'iops' else ''}")
            iops, direct = (report.median(results, row, name, "iops") for name in (server, report.DIRECT))
            cells.append(report.ratio(iops, direct, "{:.0%}"))
            lines.append("| " + " | ".join([row, f"{bold}{server}{bold}"] + cells) + " |")
    return "\n".join(lines) + "\n"


def short_text(results, facts):
    known = dict(facts)
    aims = report.aims(results)
    missed = [sentence for met, sentence in aims if not met]
    text = (f"Medians through the network port (loopback), {known['date']}, on {known['machine']}; {known['storage']}. "
            f"{known['method'][0].upper()}{known['method'][1:]}.\n`read-32x4` is 4 KiB random reads, four connections of depth 32; \"fio direct\" is "
            "fio on the storage itself. All rows and figures, and how each server was started, are in [doc/peers.md](doc/peers.md); "
            "[bench/README.md](bench/README.md) says how to read them.\n\n![requests per second and CPU time, all rows](doc/peers.svg)\n\n"
            f"{short_table(results)}\n{len(aims) - len(missed)} of {len(aims)} aims are met. ")
    if missed:
        text += "What falls short:\n\n" + "\n".join(f"- {sentence}" for sentence in missed) + "\n"
    return text + f"\n{known['command']} repeats it.\n"


def replace_part(path, text):
    with open(path, encoding="utf-8") as file:
        page = file.read()
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path}: the marks are not there")
    with open(path, "w", encoding="utf-8") as file:
        file.write(before + begin + text + end + after)


def publish(root, results, facts):
    """Below ROOT, the top of the tree."""
    with open(os.path.join(root, "doc/peers.svg"), "w", encoding="utf-8") as file:
        file.write(picture.svg(results))
    with open(os.path.join(root, "doc/peers.md"), "w", encoding="utf-8") as file:
        file.write("# Beside other servers\n\nWritten by `bench/peers.py --publish`; [bench/README.md](../bench/README.md) says "
                   "how to read it.\n\n![requests per second and CPU time](peers.svg)\n\n" + report.markdown(results, facts))
    replace_part(os.path.join(root, "README.md"), short_text(results, facts))
