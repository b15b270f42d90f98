// SPDX-License-Identifier: GPL-2.0-or-later
/* config.c - vmcomm.conf, and the lists in it that commands take as well; input: the file */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "../../host/common/addr.h"
#include "../../host/common/key.h"
#include "../../host/daemon/config.h"

static void texts(const char *text)
{
	struct vmcomm_abi_policy policy[VMCOMM_POLICY_MAX];
	uint8_t key[VMCOMM_KEY_SIZE], addr[16];
	uint32_t count = 0;
	uint64_t n;

	if (!config_policy_ports(text, policy, &count))
		fuzz_check(count <= VMCOMM_POLICY_MAX);
	if (!config_policy_addresses(text, policy, &count))
		fuzz_check(count <= VMCOMM_POLICY_MAX);
	vmcomm_key_parse(text, key);
	vmcomm_addr_parse(text, addr);
	vmcomm_uuid_parse(text, addr);
	vmcomm_size_parse(text, &n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vmcomm_error e = {0};
	char path[64], *text;
	struct config c;
	int fd;

	fd = memfd_create("vmcomm.conf", MFD_CLOEXEC);
	fuzz_check(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (config_load(&c, path, false, &e))
		fuzz_check(e.text[0] && memchr(e.text, 0, sizeof(e.text)));
	config_deinit(&c);
	close(fd);
	text = calloc(1, size + 1);
	memcpy(text, data, size);
	texts(text);
	free(text);
	return 0;
}
