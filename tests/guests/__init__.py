# SPDX-License-Identifier: GPL-2.0-or-later
"""What suites with guests share: a region keeper, members of its group, counters, programs.

	from guests import Cluster
	with Lab("example") as lab:
	    cluster = Cluster(lab, 2)          # a keeper and two members, module loaded, pairs up
	    a, b = cluster.members
	    a.run(...)                          # the guest is a.guest; run(), sh(), spawn() are there
	    before = a.counters()
"""

from .cluster import Cluster, Member, Traffic, access_is_checked
from .host import Host
from .keeper import Keeper

__all__ = ["Cluster", "Host", "Keeper", "Member", "Traffic", "access_is_checked"]
