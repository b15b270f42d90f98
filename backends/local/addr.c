// SPDX-License-Identifier: LGPL-2.1-or-later
/* addr.c - addresses as the location table has them: IPv6, or IPv4 mapped into it */
#include <arpa/inet.h>

#include "local.h"

int local_addr_parse(const char *text, u8 addr[16])
{
	memset(addr, 0, 16);
	addr[10] = addr[11] = 0xff;
	if (inet_pton(AF_INET, text, addr + 12) == 1)
		return 0;
	return inet_pton(AF_INET6, text, addr) == 1 ? 0 : -EINVAL;
}

int local_addr_list(const char *text, u8 addr[][16], u32 max)
{
	char one[INET6_ADDRSTRLEN];
	size_t len;
	u32 n = 0;

	for (; text && *text; text += len + (text[len] == ',')) {
		len = strcspn(text, ",");
		if (len >= sizeof(one) || n == max)
			return -EINVAL;
		memcpy(one, text, len);
		one[len] = 0;
		if (local_addr_parse(one, addr[n++]))
			return -EINVAL;
	}
	return (int)n;
}
