"""The result as a picture: for each of some rows a bar for each server, IOPS on the left, CPU per request on the right."""

import html

from report import DIRECT, OURS, OURS_CACHED, median, words

# Those that say most: a picture of all would be read by nobody.
ROWS = ("file-read-32x4", "file-write-32x4", "file-seqread", "file-seqwrite", "file-tls-seqread", "file-read-1x1000", "zram-read-32x4",
        "memory-read-32x4", "null-read-32x4", "null-read-64x16")

FONT = 13
BAR = 18
GAP = 16
HEAD = 34
LABEL = 160
WIDTH = 220  # of the longest bar
FIGURE = 70  # behind it
COLUMN = LABEL + WIDTH + FIGURE
COLOURS = {OURS: "#1f77b4", OURS_CACHED: "#1f77b4", DIRECT: "#999999"}
OTHER = "#f0a35e"


def bar(x, y, share, server, text):
    colour = COLOURS.get(server, OTHER)
    width = max(1.0, share * WIDTH)
    weight = ' font-weight="bold"' if server in (OURS, OURS_CACHED) else ""
    return (f'<text x="{x + LABEL - 6}" y="{y + FONT}" text-anchor="end"{weight}>{html.escape(server)}</text>'
            f'<rect x="{x + LABEL}" y="{y + 1}" width="{width:.1f}" height="{BAR - 3}" fill="{colour}"/>'
            f'<text x="{x + LABEL + width + 4:.1f}" y="{y + FONT}"{weight}>{text}</text>')


def bars(results, row, figure, form, x, y):
    """A line for each server of the row, also where it has no such figure, so that both sides are beside each other."""
    values = [(server, median(results, row, server, figure)) for server in results[row]]
    most = max((value for _, value in values if value), default=1)
    return [bar(x, y + number * BAR, value / most, server, form.format(value))
            for number, (server, value) in enumerate(values) if value]


def svg(results):
    lines, y = [], HEAD
    for row in [row for row in results if row in ROWS] or list(results):
        lines.append(f'<text x="6" y="{y + FONT}" font-size="{FONT + 1}" font-weight="bold">{html.escape(words(row))}</text>')
        y += BAR + 2
        lines += bars(results, row, "iops", "{:,.0f}", 0, y)
        lines += bars(results, row, "cpu_us", "{:,.1f}", COLUMN, y)
        y += len(results[row]) * BAR + GAP
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * COLUMN} {y}" width="{2 * COLUMN}" height="{y}" '
            f'font-family="sans-serif" font-size="{FONT}">\n<rect width="100%" height="100%" fill="white"/>\n'
            f'<text x="{LABEL}" y="20" font-size="{FONT + 2}">requests per second (more is better)</text>\n'
            f'<text x="{COLUMN + LABEL}" y="20" font-size="{FONT + 2}">CPU us per request (less is better)</text>\n')
    return head + "\n".join(lines) + "\n</svg>\n"
