// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * port.c - vmcomm-xen: one domain's access to a slot of its group
 *
 * To the region keeper this process is what a QEMU is on a KVM host: it connects to the slot's socket
 * and gets the group's memory and doorbells; when it ends, or its domain does, the slot is left. To
 * the domain it is the backend of device/vmcomm/0:
 *
 *   - it grants the domain a copy of the header and the location table, and keeps that up to date;
 *   - it keeps a copy of the domain's slot page and lists of connections in the region, where vmcommd
 *     looks (view.c has those in shared memory);
 *   - it hands the notes of members to each other ("peer/N"), which only the two may read, and tells
 *     them each other's domain ids ("member/N").
 *
 * The domain's nodes and pages are hostile input; nothing here waits for it.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <xenevtchn.h>
#include <xengnttab.h>
#include <xenstore.h>

#include "layout.h"
#include "location.h"
#include "view.h"

#define TICK_MS		100
#define CLOSE_MS	10000 /* that the frontend has for leaving */
#define TABLE_PAGES_MAX 8
#define PLAIN_PAGES	(VMCOMM_PLAIN_MAX * sizeof(struct vmcomm_abi_plain) / VMCOMM_PAGE)
#define SLOT_PAGES	(1 + PLAIN_PAGES)
#define NODE_MAX	128
#define TEXT_MAX	512

/* XenbusState */
enum { STATE_INIT_WAIT = 2, STATE_CONNECTED = 4, STATE_CLOSING = 5, STATE_CLOSED = 6 };

struct port {
	unsigned int domid;
	uint32_t slot;
	struct xs_handle *xs;
	xengntshr_handle *share;
	xengnttab_handle *map;
	xenevtchn_handle *evtchn;
	int sock;   /* to the keeper: open for as long as we hold the slot */
	int memfd;
	int bell;   /* the slot's doorbell from the host */
	struct vmcomm_layout lay;
	void *base;	  /* the region */
	uint8_t *table;	  /* the copy of its first pages that the domain has */
	unsigned int table_pages;
	void *slot_page;  /* the domain's, mapped; NULL: not connected */
	struct view view;
	int port;	  /* event channel to the domain; -1: none */
	int frontend_state;
	bool closing;
	bool gone;
	char backend[NODE_MAX], frontend[NODE_MAX], group[NODE_MAX];
	unsigned int member[VMCOMM_SLOTS_MAX]; /* domids; 0: none */
};

static void say(const struct port *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(const struct port *p, const char *fmt, ...)
{
	va_list args;

	fprintf(stderr, "vmcomm-xen[%u]: ", p->domid);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
}

/* --- xenstore ------------------------------------------------------------------------------------ */

static char *node_read(struct port *p, const char *dir, const char *name)
{
	char path[2 * NODE_MAX];
	unsigned int len;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return xs_read(p->xs, XBT_NULL, path, &len);
}

static bool node_write(struct port *p, const char *dir, const char *name, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
static bool node_write(struct port *p, const char *dir, const char *name, const char *fmt, ...)
{
	char path[2 * NODE_MAX], text[TEXT_MAX];
	va_list args;
	int n;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	va_start(args, fmt);
	n = vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	return xs_write(p->xs, XBT_NULL, path, text, (unsigned int)n);
}

static void node_remove(struct port *p, const char *dir, const char *name)
{
	char path[2 * NODE_MAX];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	xs_rm(p->xs, XBT_NULL, path);
}

/* A number that a guest may have written; -1: none. */
static long node_number(struct port *p, const char *dir, const char *name)
{
	char *text = node_read(p, dir, name), *end = NULL;
	long n = -1;

	if (text && *text >= '0' && *text <= '9') {
		n = strtol(text, &end, 10);
		if (*end)
			n = -1;
	}
	free(text);
	return n;
}

/* A directory whose owner is @owner and that nobody but @reader may read. */
static bool node_dir(struct port *p, const char *path, unsigned int owner, unsigned int reader)
{
	struct xs_permissions perms[2] = {{.id = owner, .perms = XS_PERM_NONE},
					  {.id = reader, .perms = XS_PERM_READ}};

	xs_rm(p->xs, XBT_NULL, path);
	return xs_mkdir(p->xs, XBT_NULL, path) &&
	       xs_set_permissions(p->xs, XBT_NULL, path, perms, 2);
}

/*
 * Tell the frontend of @domid to look at its backend's nodes: it watches its own directory, whose name
 * it knows wherever it migrates to.
 */
static void frontend_poke(struct port *p, unsigned int domid)
{
	char dir[NODE_MAX], *there;
	static unsigned int count;

	snprintf(dir, sizeof(dir), "/local/domain/%u/device/vmcomm/0", domid);
	there = node_read(p, dir, "backend");
	if (there)
		node_write(p, dir, "event", "%u", ++count);
	free(there);
}

/* --- the keeper ---------------------------------------------------------------------------------- */

static int receive(int sock, int64_t *value, int *fd)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = value, .iov_len = sizeof(*value)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf,
			     .msg_controllen = sizeof(control.buf)};
	struct cmsghdr *cmsg;

	*fd = -1;
	if (recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) != (ssize_t)sizeof(*value))
		return -EPROTO;
	cmsg = CMSG_FIRSTHDR(&msg);
	if (cmsg && cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS)
		memcpy(fd, CMSG_DATA(cmsg), sizeof(int));
	return 0;
}

/* The ivshmem handshake, as QEMU would do it; see host/keeper/slot.c. */
static int keeper_connect(struct port *p, const char *path)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	struct stat st;
	unsigned int own = 0;
	int64_t value;
	int fd, err;

	if (strlen(path) >= sizeof(sun.sun_path))
		return -ENAMETOOLONG;
	memcpy(sun.sun_path, path, strlen(path) + 1);
	p->sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (p->sock < 0 || connect(p->sock, (struct sockaddr *)&sun, sizeof(sun)))
		return -errno;
	if (receive(p->sock, &value, &fd) || receive(p->sock, &value, &fd))
		return -EPROTO;
	p->slot = (uint32_t)value;
	if (receive(p->sock, &value, &p->memfd) || p->memfd < 0 || fstat(p->memfd, &st))
		return -EPROTO;
	p->base = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, p->memfd, 0);
	if (p->base == MAP_FAILED)
		return -errno;
	err = vmcomm_layout_read(&p->lay, p->base, (uint64_t)st.st_size);
	if (err)
		return err;
	if (p->slot >= p->lay.slots)
		return -EPROTO;
	/* Doorbells: the others' first, our own last. */
	while (own < VMCOMM_VECTORS) {
		if (receive(p->sock, &value, &fd) || fd < 0)
			return -EPROTO;
		if (value == (int64_t)p->slot && own++ == VMCOMM_VECTOR_HOST)
			p->bell = fd;
		else
			close(fd);
	}
	return 0;
}

/* --- the domain ---------------------------------------------------------------------------------- */

static bool row_same(const struct vmcomm_location *a, const struct vmcomm_location *b)
{
	return a->state == b->state && a->vectors == b->vectors && a->generation == b->generation &&
	       a->number == b->number && a->addr_count == b->addr_count &&
	       !memcmp(a->vm_id, b->vm_id, sizeof(a->vm_id)) &&
	       !memcmp(a->addr, b->addr, a->addr_count * sizeof(a->addr[0]));
}

/* Bring the domain's copy of the table up to date. Return: has anything changed? */
static bool table_copy(struct port *p)
{
	const struct vmcomm_abi_header *from = p->base;
	struct vmcomm_abi_header *to = (void *)p->table;
	struct vmcomm_location now, then;
	bool changed = false;
	uint32_t i, seq;

	if (!from || !to)
		return false;
	for (i = 0; i < p->lay.slots; i++) {
		if (vmcomm_location_read(vmcomm_layout_location(&p->lay, p->base, i), &now))
			continue;
		if (!vmcomm_location_read(vmcomm_layout_location(&p->lay, p->table, i), &then) &&
		    row_same(&now, &then))
			continue;
		vmcomm_location_write(vmcomm_layout_location(&p->lay, p->table, i), &now);
		changed = true;
	}
	seq = vmcomm_load_acquire32(&from->policy_seq);
	if (!(seq & 1) && seq != vmcomm_load32(&to->policy_seq)) {
		vmcomm_store32(&to->policy_seq, seq | 1);
		vmcomm_wmb();
		memcpy(to->policy, from->policy, sizeof(to->policy));
		vmcomm_store32(&to->policy_count, vmcomm_load32(&from->policy_count));
		vmcomm_store_release32(&to->policy_seq, seq);
		changed = true;
	}
	return changed;
}

/* Grant the domain a copy of the header and the table. */
static int table_share(struct port *p)
{
	uint64_t size = p->lay.table_off + p->lay.slots * sizeof(struct vmcomm_abi_location);
	uint32_t ref[TABLE_PAGES_MAX];
	char text[TABLE_PAGES_MAX * 11 + 1] = "";
	unsigned int i;
	int at = 0;

	p->table_pages = (unsigned int)((size + VMCOMM_PAGE - 1) / VMCOMM_PAGE);
	if (!p->base || p->table_pages > TABLE_PAGES_MAX)
		return -E2BIG;
	p->table = xengntshr_share_pages(p->share, p->domid, (int)p->table_pages, ref, 0);
	if (!p->table)
		return -errno;
	memset(p->table, 0, (size_t)p->table_pages * VMCOMM_PAGE);
	memcpy(p->table, p->base, VMCOMM_PAGE);
	table_copy(p);
	for (i = 0; i < p->table_pages; i++)
		at += snprintf(text + at, sizeof(text) - (size_t)at, "%s%u", i ? " " : "", ref[i]);
	return node_write(p, p->backend, "table-refs", "%s", text) ? 0 : -EIO;
}

static void slot_unmap(struct port *p)
{
	if (p->base)
		view_close(&p->view);
	if (p->slot_page)
		xengnttab_unmap(p->map, p->slot_page, SLOT_PAGES);
	p->slot_page = NULL;
	if (p->port >= 0)
		xenevtchn_unbind(p->evtchn, (evtchn_port_t)p->port);
	p->port = -1;
}

/* The frontend says where its slot page is. */
static void slot_map(struct port *p)
{
	char *text = node_read(p, p->frontend, "slot-refs"), *at, *word;
	long remote = node_number(p, p->frontend, "event-channel"), view;
	uint32_t ref[SLOT_PAGES];
	unsigned int n = 0;

	for (at = text; text && n < SLOT_PAGES && (word = strsep(&at, " "));)
		ref[n++] = (uint32_t)strtoul(word, NULL, 10);
	free(text);
	if (n != SLOT_PAGES || remote < 0)
		return;
	p->slot_page = xengnttab_map_domain_grant_refs(p->map, SLOT_PAGES, p->domid, ref, PROT_READ);
	if (!p->slot_page) {
		say(p, "cannot map the domain's slot page: %s", strerror(errno));
		return;
	}
	view = node_number(p, p->frontend, "view-ref");
	if (view > 0)
		view_open(&p->view, (uint32_t)view);
	p->port = xenevtchn_bind_interdomain(p->evtchn, p->domid, (evtchn_port_t)remote);
	if (p->port < 0)
		say(p, "cannot bind the domain's event channel: %s", strerror(errno));
	node_write(p, p->backend, "state", "%d", STATE_CONNECTED);
	say(p, "the domain is in slot %u", p->slot);
}

/* Into the region, where vmcommd looks. */
static void slot_copy(struct port *p, bool lists)
{
	if (!p->slot_page)
		return;
	memcpy(vmcomm_layout_slot(&p->lay, p->base, p->slot), p->slot_page, VMCOMM_PAGE);
	if (!lists)
		return;
	view_copy(&p->view);
	memcpy(vmcomm_layout_plain(&p->lay, p->base, p->slot),
		       (uint8_t *)p->slot_page + VMCOMM_PAGE, PLAIN_PAGES * VMCOMM_PAGE);
}

/* --- members ------------------------------------------------------------------------------------- */

/* Who is in which slot: each process writes its domain below the group's node. */
static void members_look(struct port *p)
{
	char name[32];
	uint32_t i;
	long domid;

	for (i = 0; i < p->lay.slots; i++) {
		if (i == p->slot)
			continue;
		snprintf(name, sizeof(name), "%u", i);
		domid = node_number(p, p->group, name);
		if (domid < 0)
			domid = 0;
		if (p->member[i] == (unsigned int)domid)
			continue;
		p->member[i] = (unsigned int)domid;
		snprintf(name, sizeof(name), "member/%u", i);
		if (domid) {
			node_write(p, p->backend, name, "%ld", domid);
		} else {
			node_remove(p, p->backend, name);
			snprintf(name, sizeof(name), "peer/%u", i);
			node_remove(p, p->backend, name);
		}
		frontend_poke(p, p->domid);
	}
}

/* Hand on what our domain wrote for the others, into directories that only these can read. */
static void peers_look(struct port *p)
{
	unsigned int to, dir, port, i;
	char name[32], theirs[NODE_MAX], mine[32], *text, *old;
	unsigned long long cookie;

	snprintf(mine, sizeof(mine), "peer/%u", p->slot);
	for (i = 0; i < p->lay.slots; i++) {
		if (i == p->slot || !p->member[i])
			continue;
		snprintf(name, sizeof(name), "peer/%u", i);
		snprintf(theirs, sizeof(theirs), "/local/domain/0/backend/vmcomm/%u/0", p->member[i]);
		text = node_read(p, p->frontend, name);
		old = node_read(p, theirs, mine);
		if (text && sscanf(text, "%u %llx %u %u", &to, &cookie, &dir, &port) == 4 &&
		    to == p->member[i] && cookie) {
			char line[80];

			/* Not the guest's words, only its numbers. */
			snprintf(line, sizeof(line), "%u %llx %u %u", p->domid, cookie, dir, port);
			if (!old || strcmp(line, old)) {
				node_write(p, theirs, mine, "%s", line);
				frontend_poke(p, p->member[i]);
			}
		} else if (old) {
			node_remove(p, theirs, mine);
			frontend_poke(p, p->member[i]);
		}
		free(text);
		free(old);
	}
}

static void peers_forget(struct port *p)
{
	char theirs[NODE_MAX], mine[32];
	uint32_t i;

	snprintf(mine, sizeof(mine), "peer/%u", p->slot);
	for (i = 0; i < p->lay.slots; i++) {
		if (!p->member[i])
			continue;
		snprintf(theirs, sizeof(theirs), "/local/domain/0/backend/vmcomm/%u/0", p->member[i]);
		node_remove(p, theirs, mine);
		frontend_poke(p, p->member[i]);
	}
}

/* --- life ---------------------------------------------------------------------------------------- */

static int device_create(struct port *p)
{
	char path[2 * NODE_MAX], epoch[32];
	const struct vmcomm_abi_header *h = p->base;
	int err;

	snprintf(p->backend, sizeof(p->backend), "/local/domain/0/backend/vmcomm/%u/0", p->domid);
	snprintf(p->frontend, sizeof(p->frontend), "/local/domain/%u/device/vmcomm/0", p->domid);
	snprintf(p->group, sizeof(p->group), "/local/domain/0/vmcomm/%016" PRIx64,
		 vmcomm_load64(&h->group_epoch));
	if (!node_dir(p, p->backend, 0, p->domid) || !node_dir(p, p->frontend, p->domid, 0))
		return -errno;
	err = table_share(p);
	if (err)
		return err;
	snprintf(path, sizeof(path), "%s/peer", p->backend);
	if (!node_dir(p, path, 0, p->domid))
		return -errno;
	snprintf(path, sizeof(path), "%s/member", p->backend);
	if (!node_dir(p, path, 0, p->domid))
		return -errno;
	if (!node_write(p, p->backend, "frontend", "%s", p->frontend) ||
	    !node_write(p, p->backend, "frontend-id", "%u", p->domid) ||
	    !node_write(p, p->backend, "online", "1") ||
	    !node_write(p, p->backend, "pid", "%d", (int)getpid()) ||
	    !node_write(p, p->backend, "slot", "%u", p->slot) ||
	    !node_write(p, p->backend, "state", "%d", STATE_INIT_WAIT) ||
	    !node_write(p, p->frontend, "backend", "%s", p->backend) ||
	    !node_write(p, p->frontend, "backend-id", "0") ||
	    !node_write(p, p->frontend, "state", "1"))
		return -errno;
	/* Others may be waiting for this one. */
	snprintf(epoch, sizeof(epoch), "%u", p->slot);
	if (!xs_watch(p->xs, p->group, "group") || !xs_watch(p->xs, p->frontend, "frontend") ||
	    !xs_watch(p->xs, "@releaseDomain", "release") ||
	    !node_write(p, p->group, epoch, "%u", p->domid))
		return -errno;
	return 0;
}

static void device_remove(struct port *p)
{
	char name[32];

	peers_forget(p);
	snprintf(name, sizeof(name), "%u", p->slot);
	/* A later process may have taken the slot for another domain. */
	if (node_number(p, p->group, name) == (long)p->domid)
		node_remove(p, p->group, name);
	slot_unmap(p);
	xs_rm(p->xs, XBT_NULL, p->frontend);
	xs_rm(p->xs, XBT_NULL, p->backend);
	if (p->table)
		xengntshr_unshare(p->share, p->table, p->table_pages);
}

static void frontend_look(struct port *p)
{
	int state = (int)node_number(p, p->frontend, "state");

	if (state == STATE_CONNECTED && !p->slot_page && !p->closing)
		slot_map(p);
	if (state != STATE_CONNECTED && p->frontend_state == STATE_CONNECTED) {
		slot_copy(p, true); /* its last words */
		slot_unmap(p);
	}
	p->frontend_state = state;
	peers_look(p);
}

static void xenstore_ready(struct port *p)
{
	char **w;

	while ((w = xs_check_watch(p->xs))) {
		const char *token = w[XS_WATCH_TOKEN];

		if (!strcmp(token, "release") && !xs_is_domain_introduced(p->xs, p->domid)) {
			say(p, "the domain is gone");
			p->gone = true;
		} else if (!strcmp(token, "group")) {
			members_look(p);
			peers_look(p);
		} else if (!strcmp(token, "frontend")) {
			frontend_look(p);
		}
		free(w);
	}
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void loop(struct port *p, int sigfd)
{
	struct pollfd fd[] = {{.fd = xs_fileno(p->xs), .events = POLLIN},
			      {.fd = p->sock, .events = POLLIN | POLLRDHUP},
			      {.fd = p->bell, .events = POLLIN},
			      {.fd = sigfd, .events = POLLIN}};
	int64_t next = 0, end = 0;
	unsigned int ticks = 0;
	uint64_t n;

	while (!p->gone) {
		poll(fd, 4, TICK_MS);
		if (fd[1].revents) {
			say(p, "the region keeper is gone");
			end = end ? end : now_ms() + CLOSE_MS;
			fd[1].fd = -1;
		}
		if (fd[3].revents & POLLIN) {
			struct signalfd_siginfo si;

			if (read(sigfd, &si, sizeof(si)) > 0)
				end = end ? end : now_ms() + CLOSE_MS;
		}
		if (end && !p->closing) {
			p->closing = true;
			node_write(p, p->backend, "online", "0");
			node_write(p, p->backend, "state", "%d", STATE_CLOSING);
			frontend_poke(p, p->domid);
		}
		if (fd[2].revents & POLLIN && read(p->bell, &n, sizeof(n)) < 0)
			n = 0;
		if (fd[0].revents)
			xenstore_ready(p);
		if (table_copy(p) && p->port >= 0)
			xenevtchn_notify(p->evtchn, (evtchn_port_t)p->port);
		if (now_ms() >= next) {
			next = now_ms() + TICK_MS;
			slot_copy(p, !(ticks++ % 10));
		}
		/* One without a driver never gets past its first state. */
		if (p->closing && (p->frontend_state == STATE_CLOSED || p->frontend_state <= 1 ||
				   now_ms() >= end)) {
			say(p, p->frontend_state == STATE_CONNECTED ?
				       "the guest does not let go of the device: removed it" :
				       "the device is removed");
			return;
		}
	}
}

static void usage(FILE *out)
{
	fputs("Usage: vmcomm-xen --domain DOMID --slot-socket PATH [--ready-fd N]\n"
	      "Give a Xen domain its place in a group of VMs. Started by vmcommd.\n"
	      "With --ready-fd it goes to the background, and writes a byte there when the device is made.\n",
	      out);
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{"domain", required_argument, NULL, 'd'}, {"slot-socket", required_argument, NULL, 's'},
		{"ready-fd", required_argument, NULL, 'r'}, {"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	static struct port p = {.sock = -1, .memfd = -1, .bell = -1, .port = -1};
	const char *socket_path = NULL;
	int opt, err, sigfd, ready = -1;
	sigset_t set;

	while ((opt = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (opt) {
		case 'd':
			p.domid = (unsigned int)strtoul(optarg, NULL, 10);
			break;
		case 's':
			socket_path = optarg;
			break;
		case 'r':
			ready = atoi(optarg);
			break;
		case 'h':
			usage(stdout);
			return 0;
		default:
			usage(stderr);
			return 2;
		}
	}
	if (!p.domid || !socket_path || optind < argc) {
		usage(stderr);
		return 2;
	}
	/* Who started this waits for ready-fd, not for us. */
	if (ready >= 0 && fork() > 0)
		_exit(0);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	sigfd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	p.xs = xs_open(0);
	p.share = xengntshr_open(NULL, 0);
	p.map = xengnttab_open(NULL, 0);
	p.evtchn = xenevtchn_open(NULL, 0);
	if (!p.xs || !p.share || !p.map || !p.evtchn) {
		say(&p, "this is no dom0, or a module is missing (xen-gntalloc, xen-gntdev, xen-evtchn): %s",
		    strerror(errno));
		return 1;
	}
	if (!xs_is_domain_introduced(p.xs, p.domid)) {
		say(&p, "there is no such domain");
		return 1;
	}
	err = keeper_connect(&p, socket_path);
	if (err) {
		say(&p, "%s: %s", socket_path, strerror(-err));
		return 1;
	}
	p.view = (struct view){.map = p.map, .domid = p.domid, .slot = p.slot, .lay = &p.lay,
			       .base = p.base};
	err = device_create(&p);
	if (err) {
		say(&p, "cannot make the device: %s", strerror(-err));
		device_remove(&p);
		return 1;
	}
	if (ready >= 0) {
		if (write(ready, "r", 1) != 1)
			say(&p, "who started this is gone");
		close(ready);
	}
	loop(&p, sigfd);
	device_remove(&p);
	return 0;
}
