# SPDX-License-Identifier: GPL-2.0-or-later
"""Speed between two guests: the same programs, the same boot, module off and on in turns."""
