// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * keeper.c - a region keeper whose vmcommd, QEMUs and guests are not what they should be
 *
 * Input: records of [kind][argument][length 2][bytes]: a packet on the admin socket, a QEMU that
 * connects to a slot or goes, the one-second round, a guest that writes into the region.
 */
#define _GNU_SOURCE
#define main keeper_main
#include "../../host/keeper/main.c"
#undef main

#include <ftw.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "fuzz.h"

#define QEMUS 4

static int pass(struct keeper *k)
{
	struct epoll_event ev[32];
	struct keeper_source *src;
	int i, n = epoll_wait(k->epfd, ev, 32, 0);

	for (i = 0; i < n; i++) {
		src = ev[i].data.ptr;
		if (src->fd >= 0)
			src->ready(k, src, ev[i].events);
	}
	return n;
}

/* The timer never ends, so a bounded number of rounds. */
static void settle(struct keeper *k)
{
	unsigned int i;

	for (i = 0; i < 20 && pass(k) > 0; i++)
		;
}

static int dial(const char *path, int type)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&sun, sizeof(sun))) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static void drain(int fd)
{
	char buf[8192];
	unsigned int i;

	/* Descriptors that come along are closed by the kernel: there is no control buffer. */
	for (i = 0; i < 64 && fd >= 0 && recv(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0; i++)
		;
}

static void record(struct keeper *k, int *admin, int qemu[QEMUS], struct fuzz_input *in)
{
	uint8_t kind = fuzz_u8(in), arg = fuzz_u8(in);
	size_t n = fuzz_u16(in), room;
	const uint8_t *bytes;
	char path[64];

	n = fuzz_bytes(in, n, &bytes);
	switch (kind % 8) {
	case 0:
		snprintf(path, sizeof(path), "slot-%u.sock", arg % 5);
		if (qemu[arg % QEMUS] < 0)
			qemu[arg % QEMUS] = dial(path, SOCK_STREAM);
		break;
	case 1:
		if (qemu[arg % QEMUS] >= 0)
			close(qemu[arg % QEMUS]);
		qemu[arg % QEMUS] = -1;
		break;
	case 2:
		if (qemu[arg % QEMUS] >= 0 && n)
			(void)!send(qemu[arg % QEMUS], bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL);
		break;
	case 3: /* anywhere in the region */
		room = (size_t)arg << 14;
		if (n > 4 && room + 65536 + n <= k->lay.size)
			memcpy((uint8_t *)k->base + room + bytes[0] * 256U + bytes[1] / 4 * 4,
			       bytes + 2, n - 2);
		break;
	case 4:
		keeper_region_reclaim(k);
		for (n = 0; n < k->lay.slots; n++)
			keeper_slot_tick(k, (uint32_t)n);
		break;
	default:
		if (*admin < 0)
			*admin = dial("keeper.sock", SOCK_SEQPACKET);
		if (*admin >= 0 && send(*admin, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
			close(*admin);
			*admin = -1;
		}
	}
	settle(k);
	drain(*admin);
	for (n = 0; n < QEMUS; n++)
		drain(qemu[n]);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static char dir[] = "/tmp/vmcomm-fuzz-XXXXXX";

static void leave(void)
{
	nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	/* It logs; so do the others. */
	if (!freopen("/dev/null", "w", stdout) || !mkdtemp(dir) || chdir(dir))
		abort();
	atexit(leave);
	signal(SIGPIPE, SIG_IGN);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct keeper *k = calloc(1, sizeof(*k));
	struct fuzz_input in = {data, size};
	int admin = -1, qemu[QEMUS] = {-1, -1, -1, -1}, i;

	sources_init(k);
	memcpy(k->gid, "fuzz", 5);
	k->epfd = epoll_create1(EPOLL_CLOEXEC);
	fuzz_check(k->epfd >= 0);
	fuzz_check(!keeper_region_init(k, VMCOMM_REGION_MIN, 4, VMCOMM_CHUNK_SHIFT_MIN));
	fuzz_check(!keeper_admin_init(k));
	while (in.left && !k->quit)
		record(k, &admin, qemu, &in);
	for (i = 0; i < QEMUS; i++)
		if (qemu[i] >= 0)
			close(qemu[i]);
	if (admin >= 0)
		close(admin);
	settle(k);
	sources_deinit(k);
	free(k);
	return 0;
}
