// SPDX-License-Identifier: GPL-2.0-or-later
/* host-id.c - what tells this host from others (M14) */
#include "host-id.h"

#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netpacket/packet.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The smallest MAC address: interfaces come in any order. */
static uint32_t lowest_mac(uint8_t mac[6])
{
	static const uint8_t zero[6];
	struct ifaddrs *list, *i;
	uint32_t found = 0;

	if (getifaddrs(&list))
		return 0;
	for (i = list; i; i = i->ifa_next) {
		const struct sockaddr_ll *ll = (const void *)i->ifa_addr;

		if (!ll || ll->sll_family != AF_PACKET || ll->sll_halen != 6)
			continue;
		/* Locally administered ones (taps, bridges, containers) come and go. */
		if (!memcmp(ll->sll_addr, zero, 6) || (ll->sll_addr[0] & 2))
			continue;
		if (!found || memcmp(ll->sll_addr, mac, 6) < 0) {
			memcpy(mac, ll->sll_addr, 6);
			found = 6;
		}
	}
	freeifaddrs(list);
	return found;
}

uint32_t vmcomm_host_id(uint8_t id[VMCOMM_HOST_ID_MAX])
{
	uint32_t used = lowest_mac(id);
	ssize_t n = 0;
	int fd;

	fd = open("/etc/machine-id", O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, id + used, 32);
		close(fd);
	}
	return used + (n > 0 ? (uint32_t)n : 0);
}
