"""What is shown of a run: doc/peers.md with all of it, doc/peers.svg, and the part of the README between two marks."""

import os

import picture
import report

BEGIN = "<!-- By bench/peers.py --publish, up to the mark of its end. -->\n"
END = "<!-- The end of it. -->\n"

# In the README: what is shown always; a row with an aim that is missed is shown, too.
ROWS = ("file-read-1", "file-read-32x4", "file-write-32x4", "file-seqread", "file-seqwrite", "file-mixed", "file-flush",
        "file-tls-read-32", "file-tls-seqread", "file-read-1x1000", "xfs-read-32x4", "xfs-seqread", "cached-read-32x4", "zram-read-1",
        "zram-read-32x4", "zram-seqread", "memory-read-1", "memory-read-32x4", "memory-seqread", "null-read-1", "null-read-32x4",
        "null-read-64x16", "null-read-1x1000")

TITLES = ("load", "millraced", "best peer", "IOPS to peer", "to fio itself", "latency us", "peers' lowest", "CPU us/request",
          "to peer")


def shown(results):
    missed = {(row, ours) for row, ours, _, _, met, _ in report.aims(results) if not met}
    return [line for line in report.lines(results) if line[0] in ROWS or line in missed]


def number(value):
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"


def short_line(results, row, ours):
    """The cells of ROW for OURS: each ratio with its aim behind it, in bold where that is missed."""
    ratios = {figure: text if met else f"**{text}**" for *_, figure, text, met, _ in report.aims(results, (row, ours))}
    best, name = max(report.peers(results, row, "iops", ours), default=(None, ""))
    figure = report.latency_of(row)
    unit = "p50" if figure == "p50_us" else "p99"
    mode = "" if ours == report.OURS else ", `cache = host`"
    return (report.words(row) + mode, number(report.median(results, row, ours, "iops")), f"{number(best)} {name}", ratios.get("iops", "-"),
            ratios.get("direct", "-"), f"{unit} {number(report.median(results, row, ours, figure))}",
            ratios.get(figure, "-"), number(report.median(results, row, ours, "cpu_us")), ratios.get("cpu_us", "-"))


def short_table(results):
    lines = ["| " + " | ".join(TITLES) + " |", "| --- | ---: | --- |" + " ---: |" * (len(TITLES) - 3)]
    return "\n".join(lines + ["| " + " | ".join(short_line(results, *line)) + " |" for line in shown(results)]) + "\n"


def file_system(facts):
    """Of "file", such as ext4."""
    for text in facts.get("storage", "").split("; "):
        if text.startswith("file: "):
            return text.rpartition(", ")[2].partition(" on ")[0]
    return "a disk"


def short_text(results, facts):
    known = dict(facts)
    found = report.aims(results)
    missed = [sentence for *_, met, sentence in found if not met]
    text = (f"Requests per second through the network port over loopback, server and client on one machine: {known['machine']}, "
            f"{known['date']}; {known['method'].partition('; ')[2]}. Each line compares millraced with the best of {known['servers']} in that row.\n\n"
            "![requests per second and CPU time per request](doc/peers.svg)\n\n"
            f"{short_table(results)}\n"
            "`4 x 32` is four connections with 32 requests under way on each. \"to\" is millraced's figure divided by the other's, and behind it "
            "the aim; **bold** falls short of it. \"fio itself\" works on the storage without any server. Latency is the median (p50) "
            "at one request at a time, else the 99th percentile. "
            f"\"file\" is on {file_system(known)}, \"cached\" the same in the page cache, \"zram\" compressed memory, \"memory\" and \"null\" the servers' own volumes. "
            "nbdkit and nbd-server answer a write when the page cache has it: where something is written to a file or device they are "
            "compared with `cache = host`, which promises the same; the others, which answer when the device has it, with the default. "
            "A read promises nothing: the default is compared with all, and where they read in sequence `cache = host`, which reads ahead as they do, with those two. "
            f"{len(found) - len(missed)} of {len(found)} aims are met")
    if missed:
        text += "; these are not:\n\n" + "\n".join(f"- {sentence}" for sentence in missed) + "\n"
    else:
        text += ".\n"
    if known.get("problem"):
        text += f"\nNot everything was measured: {'; '.join(value for name, value in facts if name == 'problem')}.\n"
    return text + (f"\nEvery row, server and figure, and how each was started: [doc/peers.md](doc/peers.md). {known['command']} repeats it; "
                   "[bench/README.md](bench/README.md) says how.\n")


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
