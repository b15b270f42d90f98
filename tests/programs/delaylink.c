// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * vmcomm-delaylink: a link between two network namespaces that delays each packet, for kernels
 * that have no netem. Needs CAP_NET_ADMIN and /dev/net/tun. Runs until it is killed.
 *
 *   namespace A: tun "delay0" <---- this program, DELAY ms each way ----> "delay0" in namespace B
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common.h"

#define QUEUE_LEN 32768
#define PACKET_MAX 65536

struct packet {
	uint64_t due;
	size_t len;
	unsigned char *data;
};

struct direction {
	int in, out;
	struct packet queue[QUEUE_LEN];
	unsigned int head, tail;
};

static int tun_open(const char *netns)
{
	struct ifreq ifr = {.ifr_flags = IFF_TUN | IFF_NO_PI};
	char path[256];
	int ns, tun;

	snprintf(path, sizeof(path), "/run/netns/%s", netns);
	ns = open(path, O_RDONLY | O_CLOEXEC);
	if (ns < 0 || setns(ns, CLONE_NEWNET))
		die_errno("network namespace %s", netns);
	close(ns);
	tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (tun < 0)
		die_errno("/dev/net/tun");
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "delay0");
	if (ioctl(tun, TUNSETIFF, &ifr))
		die_errno("delay0 in %s", netns);
	return tun;
}

/* Takes in what has come; a full queue loses packets, as any link does. */
static void direction_read(struct direction *d, uint64_t delay_ns)
{
	static unsigned char buf[PACKET_MAX];
	struct packet *p;
	ssize_t r;

	while ((r = read(d->in, buf, sizeof(buf))) > 0) {
		if (d->head - d->tail == QUEUE_LEN)
			continue;
		p = &d->queue[d->head++ % QUEUE_LEN];
		p->due = now_ns() + delay_ns;
		p->len = (size_t)r;
		p->data = xcalloc(1, p->len);
		memcpy(p->data, buf, p->len);
	}
}

/* Hands on what is due; returns the time of the next packet, 0 for none. */
static uint64_t direction_write(struct direction *d)
{
	struct packet *p;

	while (d->head != d->tail) {
		p = &d->queue[d->tail % QUEUE_LEN];
		if (p->due > now_ns())
			return p->due;
		if (write(d->out, p->data, p->len) < 0 && errno != EAGAIN && errno != EIO)
			die_errno("write of %zu bytes", p->len);
		free(p->data);
		d->tail++;
	}
	return 0;
}

int main(int argc, char **argv)
{
	static struct direction d[2];
	struct pollfd p[2];
	uint64_t delay, next, t;
	int i;

	if (argc != 4) {
		fprintf(stderr, "usage: vmcomm-delaylink NETNS NETNS MILLISECONDS\n");
		return 2;
	}
	delay = parse_u64("MILLISECONDS", argv[3], 10000) * 1000000;
	d[0].in = d[1].out = tun_open(argv[1]);
	d[0].out = d[1].in = tun_open(argv[2]);
	for (;;) {
		next = 0;
		for (i = 0; i < 2; i++) {
			t = direction_write(&d[i]);
			if (t && (!next || t < next))
				next = t;
			p[i] = (struct pollfd){.fd = d[i].in, .events = POLLIN};
		}
		t = now_ns();
		struct timespec ts = {.tv_nsec = next > t ? (long)((next - t) % 1000000000) : 0};

		ppoll(p, 2, next ? &ts : NULL, NULL);
		for (i = 0; i < 2; i++)
			direction_read(&d[i], delay);
	}
}
