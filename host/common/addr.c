// SPDX-License-Identifier: GPL-2.0-or-later
/* addr.c - addresses, UUIDs and sizes as people write them */
#include "addr.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t v4_mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

int vmcomm_addr_parse(const char *text, uint8_t addr[16])
{
	static const uint8_t zero[16];
	uint8_t tmp[16];

	if (inet_pton(AF_INET, text, tmp + 12) == 1) {
		memcpy(tmp, v4_mapped, 12);
	} else if (inet_pton(AF_INET6, text, tmp) != 1) {
		return -EINVAL;
	}
	if (!memcmp(tmp, v4_mapped, 12)) {
		if (tmp[12] == 0 || tmp[12] >= 224)
			return -EINVAL;
	} else if (tmp[0] == 0xff || !memcmp(tmp, zero, 16)) {
		return -EINVAL;
	}
	memcpy(addr, tmp, 16);
	return 0;
}

const char *vmcomm_addr_format(const uint8_t addr[16], char buf[VMCOMM_ADDR_STRLEN])
{
	if (!memcmp(addr, v4_mapped, 12))
		inet_ntop(AF_INET, addr + 12, buf, VMCOMM_ADDR_STRLEN);
	else
		inet_ntop(AF_INET6, addr, buf, VMCOMM_ADDR_STRLEN);
	return buf;
}

int vmcomm_addr_parse_list(const char *text, uint8_t (*addr)[16], unsigned int max,
			   const char **bad)
{
	unsigned int n = 0, i;
	char word[64];
	size_t len;

	for (;;) {
		text += strspn(text, ", \t");
		if (!*text)
			return (int)n;
		if (bad)
			*bad = text;
		len = strcspn(text, ", \t");
		if (len >= sizeof(word))
			return -EINVAL;
		if (n == max)
			return -E2BIG;
		memcpy(word, text, len);
		word[len] = 0;
		if (vmcomm_addr_parse(word, addr[n]))
			return -EINVAL;
		for (i = 0; i < n; i++)
			if (!memcmp(addr[i], addr[n], 16))
				return -EINVAL;
		n++;
		text += len;
	}
}

int vmcomm_uuid_parse(const char *text, uint8_t uuid[16])
{
	uint8_t tmp[16];
	unsigned int i, pos = 0;
	char two[3] = "";

	if (strlen(text) != 36)
		return -EINVAL;
	for (i = 0; i < 16; i++) {
		if (pos == 8 || pos == 13 || pos == 18 || pos == 23) {
			if (text[pos++] != '-')
				return -EINVAL;
		}
		two[0] = text[pos++];
		two[1] = text[pos++];
		if (!isxdigit((unsigned char)two[0]) || !isxdigit((unsigned char)two[1]))
			return -EINVAL;
		tmp[i] = (uint8_t)strtoul(two, NULL, 16);
	}
	memcpy(uuid, tmp, 16);
	return 0;
}

const char *vmcomm_uuid_format(const uint8_t uuid[16], char buf[VMCOMM_UUID_STRLEN])
{
	unsigned int i;
	char *p = buf;

	for (i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		snprintf(p, 3, "%02x", uuid[i]);
		p += 2;
	}
	return buf;
}

int vmcomm_size_parse(const char *text, uint64_t *bytes)
{
	unsigned int shift = 0;
	unsigned long long n;
	char *end;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno)
		return -ERANGE;
	switch (*end) {
	case 'K':
	case 'k':
		shift = 10;
		break;
	case 'M':
	case 'm':
		shift = 20;
		break;
	case 'G':
	case 'g':
		shift = 30;
		break;
	case 0:
		*bytes = n;
		return 0;
	default:
		return -EINVAL;
	}
	if (end[1])
		return -EINVAL;
	if (n > UINT64_MAX >> shift)
		return -ERANGE;
	*bytes = (uint64_t)n << shift;
	return 0;
}

int vmcomm_number_parse(const char *text, uint64_t min, uint64_t max, uint64_t *number)
{
	unsigned long long n;
	char *end;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (*end)
		return -EINVAL;
	if (errno || n < min || n > max)
		return -ERANGE;
	*number = n;
	return 0;
}

bool vmcomm_name_valid(const char *name)
{
	size_t i;

	if (!*name || *name == '-' || *name == '.')
		return false;
	for (i = 0; name[i]; i++)
		if (i >= 63 || (!isalnum((unsigned char)name[i]) && !strchr("_-.", name[i])))
			return false;
	return true;
}
