// SPDX-License-Identifier: GPL-2.0-or-later
/* region.c - the connection to a group's region keeper */
#include "region.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../keeper/protocol.h"
#include "log.h"

#define REPLY_MS	2000
#define STALL_MS	5000 /* after a request without a reply the next ones fail at once */
#define EVENTS_WAITING	256

struct region {
	sd_event *event;
	char *dir;
	int sock;
	int memfd;
	int bell; /* the host's doorbell */
	struct vmcomm_layout lay;
	void *base;
	uint64_t epoch;
	uint32_t pid;
	uint32_t serial;
	int64_t stalled; /* until then; 0: it answers */
	bool lost;
	bool in_callback; /* then region_free() only marks it ... */
	bool dead;	  /* ... here */
	struct region_callbacks cb;
	void *arg;
	sd_event_source *io;
	sd_event_source *bell_io;
	sd_event_source *later;
	/* events that came while a reply was waited for */
	struct vmcomm_keeper_status waiting[EVENTS_WAITING];
	unsigned int waiting_count;
};

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void region_lost(struct region *r)
{
	if (r->lost)
		return;
	r->lost = true;
	if (r->io)
		sd_event_source_set_enabled(r->io, SD_EVENT_OFF);
	/* The owner hears of it from the loop, not in the middle of a call of its own. */
	sd_event_source_set_enabled(r->later, SD_EVENT_ONESHOT);
}

static void status_convert(struct region_status *st, const struct vmcomm_keeper_status *in)
{
	st->open = in->open;
	st->connected = in->connected;
	st->pid = in->pid;
	st->decoys = in->decoys;
	st->row = in->row;
}

static void event_queue(struct region *r, const union vmcomm_keeper_any *in, size_t size)
{
	if (size != sizeof(in->status) || in->h.slot >= r->lay.slots)
		return;
	if (r->waiting_count == EVENTS_WAITING) {
		/* Cannot happen with 64 slots unless the keeper is mad: forget the oldest. */
		memmove(r->waiting, r->waiting + 1, sizeof(r->waiting) - sizeof(r->waiting[0]));
		r->waiting_count--;
	}
	r->waiting[r->waiting_count++] = in->status;
	sd_event_source_set_enabled(r->later, SD_EVENT_ONESHOT);
}

/* One packet. Return: its size; -EAGAIN; another negative errno: the keeper is lost. */
static ssize_t packet_receive(struct region *r, union vmcomm_keeper_any *in, int *fds,
			      unsigned int *count)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * VMCOMM_VECTORS)];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = in, .iov_len = sizeof(*in)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf,
			     .msg_controllen = sizeof(control.buf)};
	struct cmsghdr *cmsg;
	unsigned int got = 0, i;
	int tmp[VMCOMM_VECTORS];
	ssize_t n;

	*count = 0;
	memset(in, 0, sizeof(*in));
	n = recvmsg(r->sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return -EAGAIN;
	if (n < (ssize_t)sizeof(in->h))
		return -ENOTCONN;
	for (cmsg = CMSG_FIRSTHDR(&msg); cmsg; cmsg = CMSG_NXTHDR(&msg, cmsg)) {
		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		got = (unsigned int)((cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(tmp, CMSG_DATA(cmsg), got * sizeof(int));
	}
	for (i = 0; i < got; i++)
		fds[i] = tmp[i];
	*count = got;
	return n;
}

/* Send a request and wait for its reply. @in gets the reply, @fds[VECTORS] its descriptors. */
static int call(struct region *r, void *request, size_t size, union vmcomm_keeper_any *in,
		size_t reply_size, int *fds, unsigned int want_fds)
{
	struct vmcomm_keeper_header *h = request;
	int64_t end = now_ms() + REPLY_MS, left;
	unsigned int got, i;
	struct pollfd pfd;
	ssize_t n;

	if (r->lost)
		return -ENOTCONN;
	if (r->stalled && now_ms() < r->stalled)
		return -ETIMEDOUT;
	h->serial = ++r->serial ? r->serial : ++r->serial;
	if (send(r->sock, request, size, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)size) {
		region_lost(r);
		return -ENOTCONN;
	}
	for (;;) {
		n = packet_receive(r, in, fds, &got);
		if (n == -EAGAIN) {
			left = end - now_ms();
			if (left <= 0) {
				log_warning("keeper %u in %s does not answer", r->pid, r->dir);
				r->stalled = now_ms() + STALL_MS;
				return -ETIMEDOUT;
			}
			pfd = (struct pollfd){.fd = r->sock, .events = POLLIN};
			poll(&pfd, 1, (int)left);
			continue;
		}
		if (n < 0) {
			region_lost(r);
			return -ENOTCONN;
		}
		if (in->h.serial == h->serial && in->h.op == h->op)
			break;
		for (i = 0; i < got; i++)
			close(fds[i]);
		if (!in->h.serial)
			event_queue(r, in, (size_t)n);
		/* else: the reply to a request that was given up */
	}
	r->stalled = 0;
	if (in->h.result < 0 && in->h.result > -4096) {
		for (i = 0; i < got; i++)
			close(fds[i]);
		return in->h.result;
	}
	if ((size_t)n != reply_size || got != want_fds) {
		for (i = 0; i < got; i++)
			close(fds[i]);
		return -EPROTO;
	}
	return 0;
}

static int call_simple(struct region *r, void *request, size_t size)
{
	union vmcomm_keeper_any in;
	int fds[VMCOMM_VECTORS];

	return call(r, request, size, &in, sizeof(in.h), fds, 0);
}

static int io_ready(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
	struct region *r = arg;
	union vmcomm_keeper_any in;
	unsigned int count, budget = 128;
	int fds[VMCOMM_VECTORS];
	ssize_t n;

	while (budget--) {
		n = packet_receive(r, &in, fds, &count);
		while (count)
			close(fds[--count]);
		if (n == -EAGAIN)
			return 0;
		if (n < 0) {
			region_lost(r);
			return 0;
		}
		if (!in.h.serial)
			event_queue(r, &in, (size_t)n);
	}
	return 0;
}

static int later_ready(sd_event_source *s, void *arg)
{
	struct region *r = arg;
	struct vmcomm_keeper_status batch[EVENTS_WAITING];
	unsigned int n = r->waiting_count, i;
	struct region_status st;

	memcpy(batch, r->waiting, n * sizeof(batch[0]));
	r->waiting_count = 0;
	r->in_callback = true;
	for (i = 0; i < n && !r->dead; i++) {
		status_convert(&st, &batch[i]);
		r->cb.changed(r->arg, batch[i].h.slot, &st);
	}
	if (r->lost && !r->dead)
		r->cb.lost(r->arg);
	r->in_callback = false;
	if (r->dead)
		region_free(r);
	return 0;
}

static int bell_ready(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
	struct region *r = arg;
	uint64_t n;

	if (read(fd, &n, sizeof(n)) != (ssize_t)sizeof(n))
		return 0;
	r->in_callback = true;
	r->cb.rung(r->arg);
	r->in_callback = false;
	if (r->dead)
		region_free(r);
	return 0;
}

static int region_map(struct region *r, struct vmcomm_error *e)
{
	struct vmcomm_keeper_header req = {.op = VMCOMM_KEEPER_GET_MEMORY};
	union vmcomm_keeper_any in;
	int err, seals, fds[VMCOMM_VECTORS];
	struct stat st;

	err = call(r, &req, sizeof(req), &in, sizeof(in.h), fds, 1);
	if (err)
		return vmcomm_error_set(e, err, "the region keeper does not hand out its memory: %s",
					strerror(-err));
	r->memfd = fds[0];
	seals = fcntl(r->memfd, F_GET_SEALS);
	if (fstat(r->memfd, &st) || seals < 0 || !(seals & F_SEAL_SHRINK) ||
	    st.st_size < (off_t)VMCOMM_REGION_MIN || st.st_size > (off_t)VMCOMM_REGION_MAX)
		return vmcomm_error_set(e, -EPROTO, "what the region keeper hands out is no region");
	r->base = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, r->memfd, 0);
	if (r->base == MAP_FAILED) {
		r->base = NULL;
		return vmcomm_error_set(e, -errno, "cannot map the region: %s", strerror(errno));
	}
	err = vmcomm_layout_read(&r->lay, r->base, (uint64_t)st.st_size);
	if (err)
		munmap(r->base, (size_t)st.st_size), r->base = NULL;
	if (err)
		return vmcomm_error_set(e, err, "the region's header is damaged or of another "
					"version (%s)", strerror(-err));

	req.op = VMCOMM_KEEPER_GET_EVENTS;
	req.slot = r->lay.slots;
	err = call(r, &req, sizeof(req), &in, sizeof(in.h), fds, VMCOMM_VECTORS);
	if (err)
		return vmcomm_error_set(e, err, "the region keeper has no doorbells: %s",
					strerror(-err));
	r->bell = fds[0];
	for (unsigned int i = 1; i < VMCOMM_VECTORS; i++)
		close(fds[i]);
	return 0;
}

static int region_hello(struct region *r, const char *gid, struct vmcomm_error *e)
{
	struct vmcomm_keeper_hello req = {.h.op = VMCOMM_KEEPER_HELLO,
					  .protocol = VMCOMM_KEEPER_PROTOCOL};
	union vmcomm_keeper_any in;
	int err, fds[VMCOMM_VECTORS];

	err = call(r, &req, sizeof(req), &in, sizeof(in.hello), fds, 0);
	if (err)
		return vmcomm_error_set(e, err, "no answer from the region keeper in %s: %s", r->dir,
					strerror(-err));
	if (in.hello.protocol != VMCOMM_KEEPER_PROTOCOL)
		return vmcomm_error_set(e, -EPROTO, "the region keeper in %s (process %u) speaks "
					"protocol %u, this vmcommd %d: end the group's VMs once",
					r->dir, in.hello.pid, in.hello.protocol,
					VMCOMM_KEEPER_PROTOCOL);
	if (strncmp(in.hello.gid, gid, sizeof(in.hello.gid)))
		return vmcomm_error_set(e, -EPROTO, "the region keeper in %s belongs to group '%.*s'",
					r->dir, (int)sizeof(in.hello.gid), in.hello.gid);
	r->epoch = in.hello.epoch;
	r->pid = in.hello.pid;
	return 0;
}

int region_connect(struct region **out, sd_event *event, const char *dir, const char *gid,
		   const struct region_callbacks *cb, void *arg, struct vmcomm_error *e)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	struct region *r;
	int err;

	if ((size_t)snprintf(sun.sun_path, sizeof(sun.sun_path), "%s/keeper.sock", dir) >=
	    sizeof(sun.sun_path))
		return vmcomm_error_set(e, -ENAMETOOLONG, "%s: the path is too long for a socket",
					dir);
	r = calloc(1, sizeof(*r));
	if (!r)
		return vmcomm_error_set(e, -ENOMEM, "out of memory");
	r->sock = r->memfd = r->bell = -1;
	r->event = sd_event_ref(event);
	r->cb = *cb;
	r->arg = arg;
	r->dir = strdup(dir);
	r->sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (!r->dir || r->sock < 0) {
		err = vmcomm_error_set(e, -ENOMEM, "cannot make a socket");
		goto fail;
	}
	if (connect(r->sock, (struct sockaddr *)&sun, sizeof(sun))) {
		err = vmcomm_error_set(e, -errno, "no region keeper at %s: %s", sun.sun_path,
				       strerror(errno));
		goto fail;
	}
	err = sd_event_add_defer(event, &r->later, later_ready, r);
	if (err >= 0)
		err = sd_event_source_set_enabled(r->later, SD_EVENT_OFF);
	if (err < 0)
		goto fail;
	err = region_hello(r, gid, e);
	if (!err)
		err = region_map(r, e);
	if (err)
		goto fail;
	err = sd_event_add_io(event, &r->io, r->sock, EPOLLIN, io_ready, r);
	if (err >= 0)
		err = sd_event_add_io(event, &r->bell_io, r->bell, EPOLLIN, bell_ready, r);
	if (err < 0)
		goto fail;
	*out = r;
	return 0;

fail:
	region_free(r);
	return err;
}

static int keeper_spawn(const char *program, char *const argv[], struct vmcomm_error *e)
{
	int status, waited = 0;
	sigset_t none;
	pid_t pid, got;

	pid = fork();
	if (pid < 0)
		return vmcomm_error_set(e, -errno, "cannot start %s: %s", program, strerror(errno));
	if (!pid) {
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);

		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		signal(SIGPIPE, SIG_DFL);
		dup2(null, 0);
		dup2(null, 1);
		/* The keeper goes on when vmcommd ends: not our notify socket, not our watchdog. */
		unsetenv("NOTIFY_SOCKET");
		unsetenv("WATCHDOG_USEC");
		unsetenv("WATCHDOG_PID");
		execv(program, argv);
		_exit(127);
	}
	/* It forks again and ends as soon as everything is ready: milliseconds. */
	while ((got = waitpid(pid, &status, WNOHANG)) == 0 && waited < 5000) {
		poll(NULL, 0, 2);
		waited += 2;
	}
	if (got != pid) {
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		return vmcomm_error_set(e, -ETIMEDOUT, "%s did not start within 5 s", program);
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		return vmcomm_error_set(e, -ENOENT, "cannot execute %s (option keeper in [daemon])",
					program);
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		return vmcomm_error_set(e, -EIO, "%s failed; its reason is in vmcommd's log",
					program);
	return 0;
}

int region_create(struct region **r, sd_event *event, const char *program, const char *dir,
		  const char *gid, uint32_t slots, uint64_t memory, uint64_t chunk,
		  const struct region_callbacks *cb, void *arg, struct vmcomm_error *e)
{
	char slots_text[16], memory_text[32], chunk_text[32];
	char *argv[] = {(char *)(uintptr_t)"vmcomm-keeper", (char *)(uintptr_t)"--gid",
			(char *)(uintptr_t)gid, (char *)(uintptr_t)"--dir", (char *)(uintptr_t)dir,
			(char *)(uintptr_t)"--slots", slots_text, (char *)(uintptr_t)"--memory",
			memory_text, (char *)(uintptr_t)"--chunk", chunk_text,
			(char *)(uintptr_t)"--daemonize", NULL};
	int err;

	snprintf(slots_text, sizeof(slots_text), "%u", slots);
	snprintf(memory_text, sizeof(memory_text), "%llu", (unsigned long long)memory);
	snprintf(chunk_text, sizeof(chunk_text), "%llu", (unsigned long long)chunk);
	err = keeper_spawn(program, argv, e);
	if (err)
		return err;
	return region_connect(r, event, dir, gid, cb, arg, e);
}

void region_free(struct region *r)
{
	if (!r)
		return;
	if (r->in_callback) {
		r->dead = true;
		return;
	}
	sd_event_source_disable_unref(r->io);
	sd_event_source_disable_unref(r->bell_io);
	sd_event_source_disable_unref(r->later);
	sd_event_unref(r->event);
	if (r->base)
		munmap(r->base, r->lay.size);
	if (r->sock >= 0)
		close(r->sock);
	if (r->memfd >= 0)
		close(r->memfd);
	if (r->bell >= 0)
		close(r->bell);
	free(r->dir);
	free(r);
}

const struct vmcomm_layout *region_layout(const struct region *r)
{
	return &r->lay;
}

void *region_base(const struct region *r)
{
	return r->base;
}

uint64_t region_epoch(const struct region *r)
{
	return r->epoch;
}

uint32_t region_pid(const struct region *r)
{
	return r->pid;
}

int region_slot_open(struct region *r, uint32_t slot, const struct vmcomm_location *row,
		     uint32_t uid)
{
	struct vmcomm_keeper_row req = {.h.op = VMCOMM_KEEPER_OPEN, .h.slot = slot, .uid = uid,
					.gid = (uint32_t)-1, .row = *row};

	return call_simple(r, &req, sizeof(req));
}

int region_slot_close(struct region *r, uint32_t slot)
{
	struct vmcomm_keeper_header req = {.op = VMCOMM_KEEPER_CLOSE, .slot = slot};

	return call_simple(r, &req, sizeof(req));
}

int region_row_set(struct region *r, uint32_t slot, const struct vmcomm_location *row)
{
	struct vmcomm_keeper_row req = {.h.op = VMCOMM_KEEPER_SET_ROW, .h.slot = slot, .row = *row};

	return call_simple(r, &req, sizeof(req));
}

int region_status(struct region *r, uint32_t slot, struct region_status *st)
{
	struct vmcomm_keeper_header req = {.op = VMCOMM_KEEPER_STATUS, .slot = slot};
	union vmcomm_keeper_any in;
	int err, fds[VMCOMM_VECTORS];

	err = call(r, &req, sizeof(req), &in, sizeof(in.status), fds, 0);
	if (!err)
		status_convert(st, &in.status);
	return err;
}

int region_policy_set(struct region *r, const struct vmcomm_abi_policy *policy, uint32_t count)
{
	struct vmcomm_keeper_policy req = {.h.op = VMCOMM_KEEPER_POLICY, .count = count};

	memcpy(req.policy, policy, count * sizeof(*policy));
	return call_simple(r, &req, sizeof(req));
}

int region_shutdown(struct region *r)
{
	struct vmcomm_keeper_header req = {.op = VMCOMM_KEEPER_SHUTDOWN};

	return call_simple(r, &req, sizeof(req));
}

int region_slot_path(const struct region *r, uint32_t slot, char *buf, size_t size)
{
	return (size_t)snprintf(buf, size, "%s/slot-%u.sock", r->dir, slot) < size ? 0 :
										    -ENAMETOOLONG;
}
