# SPDX-License-Identifier: GPL-2.0-or-later
"""Two hosts on one machine, guests that move between them."""

from .hosts import Host, Mover, Site

__all__ = ["Host", "Mover", "Site"]
