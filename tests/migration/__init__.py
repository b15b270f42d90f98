# SPDX-License-Identifier: GPL-2.0-or-later
"""Two hosts on one machine, guests that move between them."""

from .hosts import Host, Mover, Site, kill_9

__all__ = ["Host", "Mover", "Site", "kill_9"]
