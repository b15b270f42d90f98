#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Draw the rows of a benchmark's JSON as SVG: chart.py FILE.json > FILE.svg"""

import html
import json
import math
import sys

COLOURS = {"vmcomm": "#c0392b", "vmcomm-spin": "#e59866", "unix": "#2471a3", "tcp": "#148f77",
           "pipe": "#7d6608", "memcpy": "#999999", "sleep": "#e59866", "nic": "#2471a3"}
SPARE = ["#6c3483", "#1b2631", "#b03a2e"]
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 560, 360, 70, 40, 60


def size_name(size):
    return f"{size >> 20}M" if size >= 1 << 20 else f"{size >> 10}K" if size >= 1024 else str(size)


def panel(rows, title, unit, offset):
    """One diagram, sizes to the right, values upwards, both logarithmic."""
    sizes = sorted({row["size"] for row in rows})
    values = [row["median"] for row in rows]
    low = 10 ** math.floor(math.log10(min(values)))
    high = 10 ** math.ceil(math.log10(max(values)) + 1e-9)
    high = high if high > low else low * 10

    def x(size):
        return LEFT + (WIDTH - LEFT - 110) * (sizes.index(size) / max(1, len(sizes) - 1))

    def y(value):
        part = math.log(value / low) / math.log(high / low)
        return offset + TOP + (HEIGHT - TOP - BOTTOM) * (1 - part)

    out = [f'<text x="{LEFT}" y="{offset + 22}" font-size="15">{html.escape(title)}</text>']
    tick = low
    while tick <= high * 1.001:
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - 110}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" '
                   f'stroke="#ddd"/><text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" '
                   f'text-anchor="end">{tick:g}</text>')
        tick *= 10
    for size in sizes:
        out.append(f'<text x="{x(size):.1f}" y="{offset + HEIGHT - BOTTOM + 18}" '
                   f'text-anchor="middle">{size_name(size)}</text>')
    out.append(f'<text x="{LEFT}" y="{offset + HEIGHT - BOTTOM + 36}">bytes; {unit}</text>')
    paths = list(dict.fromkeys(row["path"] for row in rows))
    for nr, path in enumerate(paths):
        colour = COLOURS.get(path, SPARE[nr % len(SPARE)])
        mine = sorted((row["size"], row["median"]) for row in rows if row["path"] == path)
        points = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in mine)
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" '
                   f'stroke-width="2"/>')
        out += [f'<circle cx="{x(s):.1f}" cy="{y(v):.1f}" r="3" fill="{colour}"/>'
                for s, v in mine]
        out.append(f'<rect x="{WIDTH - 98}" y="{offset + TOP + 20 * nr}" width="12" height="12" '
                   f'fill="{colour}"/><text x="{WIDTH - 80}" y="{offset + TOP + 20 * nr + 11}">'
                   f'{html.escape(path)}</text>')
    return "\n".join(out)


def draw(rows):
    """SVG text: one panel for each test and place that has more than one size."""
    groups = {}
    for row in rows:
        groups.setdefault((row["test"], row.get("place", "")), []).append(row)
    panels = []
    for (test, place), mine in groups.items():
        if len({row["size"] for row in mine}) > 1:
            title = f"{test} ({place})" if place else test
            panels.append(panel(mine, title, mine[0]["unit"], HEIGHT * len(panels)))
    return ('<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="12" '
            f'width="{WIDTH}" height="{max(1, len(panels)) * HEIGHT}">\n'
            '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(panels) + "\n</svg>\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: chart.py FILE.json > FILE.svg")
    with open(sys.argv[1], encoding="utf-8") as f:
        print(draw(json.load(f)["rows"]), end="")
