// SPDX-License-Identifier: GPL-2.0-or-later
/* main.c - vmcomm-keeper: command line, loop, stand-alone mode */
#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "../common/addr.h"
#include "../common/host-id.h"
#include "../common/line.h"
#include "../common/text.h"

#define PID_FILE "keeper.pid"

struct options {
	char gid[VMCOMM_GID_MAX];
	const char *dir;
	uint64_t memory;
	uint64_t slots;
	uint64_t chunk;
	bool daemonize;
	bool open[VMCOMM_SLOTS_MAX];
	struct vmcomm_location row[VMCOMM_SLOTS_MAX];
	bool any_open;
};

void keeper_log(const struct keeper *k, const char *fmt, ...)
{
	char prefix[VMCOMM_GID_MAX + 32];
	va_list args;

	snprintf(prefix, sizeof(prefix), "vmcomm-keeper[%s]: ", k->gid);
	va_start(args, fmt);
	vmcomm_line(prefix, fmt, args);
	va_end(args);
}

int keeper_watch(struct keeper *k, struct keeper_source *src, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = src};

	return epoll_ctl(k->epfd, EPOLL_CTL_ADD, src->fd, &ev) ? -errno : 0;
}

void keeper_unwatch(struct keeper *k, struct keeper_source *src)
{
	if (src->fd < 0)
		return;
	epoll_ctl(k->epfd, EPOLL_CTL_DEL, src->fd, NULL);
	close(src->fd);
	src->fd = -1;
}

static uint64_t random64(void)
{
	uint64_t n = 0;

	while (getrandom(&n, sizeof(n), 0) != (ssize_t)sizeof(n))
		;
	return n;
}

static uint64_t new_number(const struct vmcomm_location *row, uint64_t previous)
{
	uint8_t host[VMCOMM_HOST_ID_MAX];
	uint32_t len = vmcomm_host_id(host);

	return vmcomm_location_number(row->vm_id, row->addr[0], host, len, random64(), previous);
}

/* Nobody steers: give a slot that was left back to the same VM as soon as its peers let go. */
static void standalone_tick(struct keeper *k, uint32_t slot)
{
	struct vmcomm_location row = k->row[slot];
	int err;

	if (vmcomm_group_holder(&k->group, &k->lay, k->base, slot) != -ENOENT)
		return;
	if (keeper_slot_close(k, slot))
		return;
	row.generation++;
	row.number = new_number(&row, row.number);
	err = keeper_slot_open(k, slot, &row, (uint32_t)-1, (uint32_t)-1);
	if (err)
		keeper_log(k, "slot %u: cannot open it again: %s", slot, strerror(-err));
	else
		keeper_log(k, "slot %u: open again, generation %llu", slot,
			   (unsigned long long)row.generation);
}

static void timer_ready(struct keeper *k, struct keeper_source *src, uint32_t events)
{
	uint64_t n;
	uint32_t i;

	if (read(src->fd, &n, sizeof(n)) != (ssize_t)sizeof(n))
		return;
	k->ticks++;
	for (i = 0; i < k->lay.slots; i++) {
		keeper_slot_tick(k, i);
		if (k->standalone && k->row[i].number)
			standalone_tick(k, i);
	}
	if (!(k->ticks % 10)) {
		keeper_region_repair(k);
		keeper_region_reclaim(k);
	}
}

static void reclaim_ready(struct keeper *k, struct keeper_source *src, uint32_t events)
{
	uint64_t n;

	if (read(src->fd, &n, sizeof(n)) == (ssize_t)sizeof(n))
		keeper_region_reclaim(k);
}

static int timer_init(struct keeper *k)
{
	/* 100 ms: short enough for slots that wait; a wake-up of a few microseconds. */
	struct itimerspec its = {{0, 100000000}, {0, 100000000}};

	k->timer.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (k->timer.fd < 0)
		return -errno;
	timerfd_settime(k->timer.fd, 0, &its, NULL);
	k->timer.ready = timer_ready;
	return keeper_watch(k, &k->timer, EPOLLIN);
}

/* The lock, not the file, says that a keeper lives; it goes with the process. */
static int pid_file_lock(struct keeper *k)
{
	char text[32] = "";
	int n;

	k->pid_fd = open(PID_FILE, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (k->pid_fd < 0)
		return -errno;
	if (flock(k->pid_fd, LOCK_EX | LOCK_NB)) {
		n = (int)read(k->pid_fd, text, sizeof(text) - 1);
		text[n > 0 ? strcspn(text, "\n") : 0] = 0;
		keeper_log(k, "a keeper of this group runs already (process %s)", text);
		return -EBUSY;
	}
	return 0;
}

static int pid_file_write(struct keeper *k)
{
	char text[32];
	int n = snprintf(text, sizeof(text), "%ld\n", (long)getpid());

	if (ftruncate(k->pid_fd, 0) || pwrite(k->pid_fd, text, (size_t)n, 0) != n)
		return -EIO;
	return 0;
}

static void limits(struct keeper *k)
{
	struct rlimit rl;

	/* 65 x 4 doorbells, a socket or two for each slot; and the limit for those in flight. */
	if (!getrlimit(RLIMIT_NOFILE, &rl) && rl.rlim_cur < 65536) {
		rl.rlim_cur = rl.rlim_max < 65536 ? rl.rlim_max : 65536;
		setrlimit(RLIMIT_NOFILE, &rl);
		if (rl.rlim_cur < 1024)
			keeper_log(k, "only %llu file descriptors allowed; 1024 are needed for "
				   "large groups", (unsigned long long)rl.rlim_cur);
	}
	/* A core file would hold what the VMs say to each other. */
	rl.rlim_cur = rl.rlim_max = 0;
	setrlimit(RLIMIT_CORE, &rl);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

static void loop(struct keeper *k, int sigfd)
{
	struct epoll_event ev[32];
	struct keeper_source *src;
	struct signalfd_siginfo si;
	int i, n;

	while (!k->quit) {
		n = epoll_wait(k->epfd, ev, 32, -1);
		for (i = 0; i < n; i++) {
			src = ev[i].data.ptr;
			if (!src) {
				if (read(sigfd, &si, sizeof(si)) > 0) {
					keeper_log(k, "signal %u: ends", si.ssi_signo);
					k->quit = true;
				}
				continue;
			}
			/* An earlier event of this round may have closed it. */
			if (src->fd >= 0)
				src->ready(k, src, ev[i].events);
		}
	}
}

static void usage(FILE *out)
{
	fputs("Usage: vmcomm-keeper --gid NAME --dir DIR [OPTION...]\n"
	      "Own the shared memory and the doorbells of one group of VMs.\n\n"
	      "  --gid NAME           the group's name\n"
	      "  --dir DIR            directory of its sockets; made if it is missing\n"
	      "  --slots N            how many VMs can be members at a time, 2 to 64 (default 8)\n"
	      "  --memory SIZE        of the region, a power of two such as 64M (default 64M)\n"
	      "  --chunk SIZE         unit of sharing, 64K to 256K (default 64K)\n"
	      "  --daemonize          go to the background when everything is ready\n"
	      "  --open N=ADDR[,ADDR] stand-alone mode: let a VM with these addresses into slot N;\n"
	      "                       may be given for each slot\n"
	      "  --help, --version\n",
	      out);
}

static int parse_open(struct options *o, const char *arg)
{
	struct vmcomm_location row = {.generation = 1};
	char number[8];
	uint64_t slot;
	size_t len = strcspn(arg, "=");
	int n;

	if (arg[len] != '=' || len >= sizeof(number))
		return -EINVAL;
	memcpy(number, arg, len);
	number[len] = 0;
	if (vmcomm_number_parse(number, 0, VMCOMM_SLOTS_MAX - 1, &slot))
		return -EINVAL;
	n = vmcomm_addr_parse_list(arg + len + 1, row.addr, VMCOMM_ADDRS_MAX, NULL);
	if (n < 1 || o->open[slot])
		return -EINVAL;
	row.addr_count = (uint32_t)n;
	/* No UUID was given: one that depends on the slot alone. */
	memcpy(row.vm_id, "vmcomm-slot-", 12);
	row.vm_id[15] = (uint8_t)slot;
	o->row[slot] = row;
	o->open[slot] = true;
	o->any_open = true;
	return 0;
}

static int bad(const char *what, const char *value, const char *want)
{
	fprintf(stderr, "vmcomm-keeper: %s '%s': %s\n", what, value, want);
	return -EINVAL;
}

static int parse(struct options *o, int argc, char **argv)
{
	static const struct option longs[] = {
		{"gid", required_argument, NULL, 'g'},	 {"dir", required_argument, NULL, 'd'},
		{"slots", required_argument, NULL, 's'}, {"memory", required_argument, NULL, 'm'},
		{"chunk", required_argument, NULL, 'c'}, {"open", required_argument, NULL, 'o'},
		{"daemonize", no_argument, NULL, 'D'},	 {"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},	 {NULL, 0, NULL, 0},
	};
	int opt;

	while ((opt = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (opt) {
		case 'g':
			if (!vmcomm_name_valid(optarg))
				return bad("--gid", optarg,
					   "use up to 63 letters, digits, '_', '-' and '.'");
			vmcomm_text_copy(o->gid, sizeof(o->gid), optarg);
			break;
		case 'd':
			o->dir = optarg;
			break;
		case 's':
			if (vmcomm_number_parse(optarg, 2, VMCOMM_SLOTS_MAX, &o->slots))
				return bad("--slots", optarg, "give a number from 2 to 64");
			break;
		case 'm':
			if (vmcomm_size_parse(optarg, &o->memory) || !o->memory ||
			    (o->memory & (o->memory - 1)) || o->memory < VMCOMM_REGION_MIN ||
			    o->memory > VMCOMM_REGION_MAX)
				return bad("--memory", optarg,
					   "give a power of two from 4M to 64G, such as 64M");
			break;
		case 'c':
			if (vmcomm_size_parse(optarg, &o->chunk) || !o->chunk ||
			    (o->chunk & (o->chunk - 1)) ||
			    o->chunk < 1ULL << VMCOMM_CHUNK_SHIFT_MIN ||
			    o->chunk > 1ULL << VMCOMM_CHUNK_SHIFT_MAX)
				return bad("--chunk", optarg, "give 64K, 128K or 256K");
			break;
		case 'o':
			if (parse_open(o, optarg))
				return bad("--open", optarg,
					   "give SLOT=ADDRESS[,ADDRESS...], each slot once");
			break;
		case 'D':
			o->daemonize = true;
			break;
		case 'h':
			usage(stdout);
			exit(0);
		case 'V':
			printf("vmcomm-keeper %s, protocol %d, ABI %d.%d\n", VMCOMM_VERSION,
			       VMCOMM_KEEPER_PROTOCOL, VMCOMM_ABI_MAJOR, VMCOMM_ABI_MINOR);
			exit(0);
		default:
			return -EINVAL;
		}
	}
	if (optind < argc)
		return bad("argument", argv[optind], "unexpected");
	if (!o->gid[0] || !o->dir) {
		fprintf(stderr, "vmcomm-keeper: %s is needed\n", o->gid[0] ? "--dir" : "--gid");
		return -EINVAL;
	}
	for (opt = 0; opt < VMCOMM_SLOTS_MAX; opt++)
		if (o->open[opt] && (uint64_t)opt >= o->slots) {
			fprintf(stderr, "vmcomm-keeper: --open %d=...: there are only %llu slots\n",
				opt, (unsigned long long)o->slots);
			return -EINVAL;
		}
	return 0;
}

/*
 * Go to the background. The parent ends when the child says that everything is ready, so that who
 * started it knows. Return: in the child, the descriptor to tell it on.
 */
static int daemonize(void)
{
	int pipefd[2], status = 1;
	char byte;
	pid_t pid;

	if (pipe2(pipefd, O_CLOEXEC))
		return -errno;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid) {
		close(pipefd[1]);
		if (read(pipefd[0], &byte, 1) == 1)
			status = 0;
		_exit(status);
	}
	close(pipefd[0]);
	setsid();
	return pipefd[1];
}

static int run(struct keeper *k, const struct options *o, int ready_fd)
{
	struct epoll_event ev = {.events = EPOLLIN};
	unsigned int shift = 0;
	sigset_t set;
	int err, sigfd;
	uint32_t i;

	while (1ULL << shift < o->chunk)
		shift++;
	k->epfd = epoll_create1(EPOLL_CLOEXEC);
	if (k->epfd < 0)
		return -errno;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	sigfd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (sigfd < 0 || epoll_ctl(k->epfd, EPOLL_CTL_ADD, sigfd, &ev))
		return -errno;

	err = pid_file_lock(k);
	if (err)
		return err;
	err = pid_file_write(k);
	if (err)
		return err;
	err = keeper_region_init(k, o->memory, (uint32_t)o->slots, shift);
	if (err == -ENOSPC)
		keeper_log(k, "%llu bytes are too little for %llu slots with chunks of %llu bytes",
			   (unsigned long long)o->memory, (unsigned long long)o->slots,
			   (unsigned long long)o->chunk);
	if (err)
		return err;
	k->reclaim_bell.fd = dup(k->event[k->lay.slots][1]);
	k->reclaim_bell.ready = reclaim_ready;
	if (k->reclaim_bell.fd < 0 || keeper_watch(k, &k->reclaim_bell, EPOLLIN))
		return -EIO;
	err = timer_init(k);
	if (err)
		return err;
	for (i = 0; i < k->lay.slots; i++) {
		struct vmcomm_location row = o->row[i];

		if (!o->open[i])
			continue;
		row.number = new_number(&row, 0);
		err = keeper_slot_open(k, i, &row, (uint32_t)-1, (uint32_t)-1);
		if (err)
			return err;
	}
	err = keeper_admin_init(k);
	if (err)
		return err;
	keeper_log(k, "%u slots, %llu MiB, %u chunks of %u KiB per slot, in %s", k->lay.slots,
		   (unsigned long long)(k->lay.size >> 20), k->lay.chunks,
		   1U << (k->lay.chunk_shift - 10), o->dir);
	if (ready_fd >= 0) {
		if (write(ready_fd, "r", 1) != 1)
			keeper_log(k, "who started the keeper is gone");
		close(ready_fd);
	}
	loop(k, sigfd);
	close(sigfd);
	return 0;
}

static void sources_init(struct keeper *k)
{
	unsigned int i;

	k->epfd = k->memfd = k->decoy_memfd = k->pid_fd = -1;
	k->admin.fd = k->timer.fd = k->reclaim_bell.fd = -1;
	memset(k->event, 0xff, sizeof(k->event));
	memset(k->decoy_event, 0xff, sizeof(k->decoy_event));
	for (i = 0; i < VMCOMM_SLOTS_MAX; i++)
		k->slot[i].listener.fd = k->slot[i].conn.fd = -1;
	for (i = 0; i < KEEPER_DECOYS; i++)
		k->decoy[i].fd = -1;
	for (i = 0; i < VMCOMM_KEEPER_CLIENTS; i++)
		k->client[i].src.fd = -1;
}

static void sources_deinit(struct keeper *k)
{
	unsigned int i;

	keeper_admin_deinit(k);
	for (i = 0; i < VMCOMM_SLOTS_MAX; i++)
		keeper_slot_deinit(k, i);
	for (i = 0; i < KEEPER_DECOYS; i++)
		keeper_unwatch(k, &k->decoy[i]);
	keeper_unwatch(k, &k->timer);
	keeper_unwatch(k, &k->reclaim_bell);
	keeper_region_deinit(k);
	if (k->pid_fd >= 0) {
		/* The file stays if somebody else holds the lock on it. */
		if (!flock(k->pid_fd, LOCK_EX | LOCK_NB))
			unlink(PID_FILE);
		close(k->pid_fd);
	}
	if (k->epfd >= 0)
		close(k->epfd);
}

int main(int argc, char **argv)
{
	static struct keeper k;
	static struct options o = {.memory = 64ULL << 20, .slots = 8, .chunk = 65536};
	int err, ready_fd = -1;

	if (parse(&o, argc, argv) || !o.dir) {
		fprintf(stderr, "Try 'vmcomm-keeper --help'.\n");
		return 2;
	}
	memcpy(k.gid, o.gid, sizeof(k.gid));
	k.standalone = o.any_open;
	sources_init(&k);
	umask(0077);
	if (mkdir(o.dir, 0755) && errno != EEXIST) {
		keeper_log(&k, "cannot make directory %s: %s", o.dir, strerror(errno));
		return 1;
	}
	if (chdir(o.dir)) {
		keeper_log(&k, "cannot enter directory %s: %s", o.dir, strerror(errno));
		return 1;
	}
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	if (o.daemonize) {
		ready_fd = daemonize();
		if (ready_fd < 0) {
			keeper_log(&k, "cannot go to the background: %s", strerror(-ready_fd));
			return 1;
		}
	}
	limits(&k);
	err = run(&k, &o, ready_fd);
	if (err)
		keeper_log(&k, "cannot run in %s: %s", o.dir, strerror(-err));
	sources_deinit(&k);
	return err ? 1 : 0;
}
