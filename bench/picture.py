"""The result as a picture: for each row a bar for each server, IOPS on the left, CPU per request on the right."""

import html

from report import DIRECT, OURS, median

BAR = 14
GAP = 10
LABEL = 190
WIDTH = 330
COLUMN = LABEL + WIDTH + 60
COLOURS = {OURS: "#1f77b4", DIRECT: "#999999"}
OTHER = "#f0a35e"


def bar(x, y, share, server, text):
    colour = COLOURS.get(server, OTHER)
    width = max(1.0, share * WIDTH)
    weight = ' font-weight="bold"' if server == OURS else ""
    return (f'<text x="{x + LABEL - 6}" y="{y + BAR - 3}" text-anchor="end"{weight}>{html.escape(server)}</text>'
            f'<rect x="{x + LABEL}" y="{y}" width="{width:.1f}" height="{BAR - 2}" fill="{colour}"/>'
            f'<text x="{x + LABEL + width + 4:.1f}" y="{y + BAR - 3}">{text}</text>')


def bars(results, row, figure, form, x, y):
    values = [(server, median(results, row, server, figure)) for server in results[row]]
    values = [(server, value) for server, value in values if value]
    most = max((value for _, value in values), default=1)
    lines = [bar(x, y + number * BAR, value / most, server, form.format(value))
             for number, (server, value) in enumerate(values)]
    return lines, len(values) * BAR


def svg(results):
    lines, y = [], 30
    for row in results:
        lines.append(f'<text x="4" y="{y + 11}" font-size="13" font-weight="bold">{html.escape(row)}</text>')
        y += 18
        left, left_height = bars(results, row, "iops", "{:,.0f}", 0, y)
        right, right_height = bars(results, row, "cpu_us", "{:.1f}", COLUMN, y)
        lines += left + right
        y += max(left_height, right_height) + GAP
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * COLUMN}" height="{y}" font-family="sans-serif" '
            f'font-size="11">\n<rect width="100%" height="100%" fill="white"/>\n'
            f'<text x="{LABEL}" y="18" font-size="14">requests per second (more is better)</text>\n'
            f'<text x="{COLUMN + LABEL}" y="18" font-size="14">CPU us per request (less is better)</text>\n')
    return head + "\n".join(lines) + "\n</svg>\n"
