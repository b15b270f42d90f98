# SPDX-License-Identifier: GPL-2.0-or-later
"""Two hosts with a libvirtd and a vmcommd each, guests that are domains."""

from .hosts import DomainHost, DomainSite

__all__ = ["DomainHost", "DomainSite"]
