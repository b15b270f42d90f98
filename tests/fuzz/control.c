// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * control.c - vmcommd's socket, with everything behind it except keepers and hypervisors
 *
 * Input: a number of bytes (2) that guests write into each region that comes to be (sparsely: an
 * offset of 3 bytes in words, then 8 bytes, again and again), these bytes, and what a client sends.
 */
#define _GNU_SOURCE
#include "../../host/daemon/control.c"

#include <ftw.h>
#include <signal.h>

#include "fuzz.h"
#include "fuzz-region.h"

static char dir[] = "/tmp/vmcomm-fuzz-XXXXXX";
static char conf[64];
static struct fuzz_input guest;

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return ftw->level ? remove(path) : 0;
}

static void leave(void)
{
	nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	rmdir(dir);
}

/* The control areas are where most of it is: every second write goes there. */
static void guests_write(struct vmcomm_layout *lay, void *base)
{
	struct fuzz_input in = guest;
	uint64_t at, value;

	while (in.left) {
		at = fuzz_number(&in, 3) * 4;
		value = fuzz_number(&in, 8);
		if (at & 4)
			at = lay->ctl_off + at % (lay->slots * lay->ctl_stride);
		at %= lay->size - 8;
		memcpy((uint8_t *)base + at, &value, 8);
	}
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	FILE *f;

	if (!mkdtemp(dir) || chdir(dir))
		abort();
	atexit(leave);
	signal(SIGPIPE, SIG_IGN);
	fuzz_region_made = guests_write;
	return 0;
}

static void prepare(void)
{
	FILE *f;

	nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	snprintf(conf, sizeof(conf), "%s/vmcomm.conf", dir);
	f = fopen(conf, "w");
	fuzz_check(f);
	fprintf(f,
		"[daemon]\nbackend = kvm\nruntime_dir = %s/run\nstate_dir = %s/state\n"
		"keeper = /nonexistent\n[group g]\nkey_file = %s/key\nmemory = 4M\nslots = 4\n"
		"[vm a]\ngroup = g\nkey_file = %s/key\naddress = 10.0.0.1\nqmp = %s/qmp\n"
		"[vm b]\ngroup = g\nkey_file = %s/key\naddress = 10.0.0.2\n",
		dir, dir, dir, dir, dir, dir);
	fclose(f);
	f = fopen("key", "w");
	fuzz_check(f && !fchmod(fileno(f), 0600));
	fprintf(f, "%064d\n", 1);
	fclose(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	struct vmcomm_error e = {0};
	struct control *ct = NULL;
	sd_event *event = NULL;
	struct manager m;
	const uint8_t *text;
	char path[128], sink[65536];
	int pair[2];
	unsigned int i;
	size_t n;
	struct vm *vm;

	n = fuzz_u16(&in);
	guest.left = fuzz_bytes(&in, n, &guest.data);
	n = fuzz_bytes(&in, 65536, &text);
	prepare();
	fuzz_check(sd_event_new(&event) >= 0);
	if (manager_init(&m, event, conf, false, &e)) {
		fprintf(stderr, "%s\n", e.text);
		abort();
	}
	snprintf(path, sizeof(path), "%s/run/sock", dir);
	fuzz_check(!control_init(&ct, &m, path, &e));
	fuzz_check(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair));
	for (vm = m.vms; vm; vm = vm->next)
		manager_poll_vm(vm);
	client_new(ct, pair[1]);
	(void)!send(pair[0], text, n, MSG_NOSIGNAL);
	shutdown(pair[0], SHUT_WR);
	for (i = 0; i < 3000 && sd_event_run(event, 0) > 0; i++)
		while (recv(pair[0], sink, sizeof(sink), MSG_DONTWAIT) > 0)
			;
	for (vm = m.vms; vm; vm = vm->next)
		manager_poll_vm(vm);
	for (i = 0; i < 3; i++) {
		struct group *g, *next;

		for (g = m.groups; g; g = next) {
			next = g->next;
			group_maintain(g);
		}
		sd_event_run(event, 0);
	}
	close(pair[0]);
	control_free(ct);
	manager_deinit(&m);
	sd_event_unref(event);
	return 0;
}
