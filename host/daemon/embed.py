#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Make a C string of a text file. Usage: embed.py NAME HEADER IN OUT"""

import sys

name, header, source, out = sys.argv[1:]
with open(source, encoding="ascii") as f:
    lines = f.read().splitlines()
with open(out, "w", encoding="ascii") as f:
    f.write(f'#include "{header}"\n\nconst char {name}[] =\n')
    for line in lines:
        text = line.replace("\\", "\\\\").replace('"', '\\"')
        f.write(f'\t"{text}\\n"\n')
    f.write("\t;\n")
