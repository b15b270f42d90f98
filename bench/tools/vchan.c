// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * vchan.c - speed of libxenvchan between two Xen domains, for comparison (bench/guests --hypervisor xen)
 *
 *	vmcomm-vchan server DOMID                            serves that domain's client, once
 *	vmcomm-vchan client DOMID rr|stream --size N --seconds S
 *
 * libxenvchan is what Xen comes with for user space that knows about it. rr: a request and a response
 * of N bytes each; stream: writes of N bytes, acknowledged once every 4 MiB. Output as vmcomm-perf's.
 */
#include <errno.h>
#include <getopt.h>
#include <libxenvchan.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define NODE	   "data/vmcomm-vchan"
#define RING	   (256 << 10) /* bytes, each way */
#define SIZE_MAX_  (1 << 20)
#define BATCH	   (4 << 20)
#define BATCH_RR   20

enum mode { MODE_RR = 1, MODE_STREAM = 2 };

struct request {
	uint32_t mode;
	uint32_t size;
	uint32_t count; /* of messages */
};

static char buf[SIZE_MAX_];

static int die(const char *what)
{
	fprintf(stderr, "vmcomm-vchan: %s: %s\n", what, strerror(errno));
	return 1;
}

static int get(struct libxenvchan *c, void *to, size_t size)
{
	int n;

	for (; size; size -= (size_t)n, to = (char *)to + n) {
		n = libxenvchan_read(c, to, size);
		if (n <= 0)
			return -1;
	}
	return 0;
}

static int put(struct libxenvchan *c, const void *from, size_t size)
{
	int n;

	for (; size; size -= (size_t)n, from = (const char *)from + n) {
		n = libxenvchan_write(c, from, size);
		if (n <= 0)
			return -1;
	}
	return 0;
}

static int serve(int domid)
{
	struct libxenvchan *c = libxenvchan_server_init(NULL, domid, NODE, RING, RING);
	struct request r;
	uint32_t i;

	if (!c)
		return die("libxenvchan_server_init (are xen-gntalloc, xen-evtchn loaded?)");
	c->blocking = 1;
	c->server_persist = 1;
	fputs("listening\n", stderr);
	while (!get(c, &r, sizeof(r)) && r.size && r.size <= SIZE_MAX_) {
		for (i = 0; i < r.count; i++)
			if (get(c, buf, r.size) || (r.mode == MODE_RR && put(c, buf, r.size)))
				return die("client");
		if (r.mode == MODE_STREAM && put(c, buf, 1))
			return die("client");
	}
	libxenvchan_close(c);
	return 0;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int batch(struct libxenvchan *c, const struct request *r)
{
	uint32_t i;

	if (put(c, r, sizeof(*r)))
		return -1;
	for (i = 0; i < r->count; i++)
		if (put(c, buf, r->size) || (r->mode == MODE_RR && get(c, buf, r->size)))
			return -1;
	return r->mode == MODE_STREAM ? get(c, buf, 1) : 0;
}

static int measure(int domid, struct request r, double seconds)
{
	struct libxenvchan *c;
	double begin, took;
	uint64_t n = 0;
	char path[64];

	snprintf(path, sizeof(path), "/local/domain/%d/" NODE, domid);
	c = libxenvchan_client_init(NULL, domid, path);
	if (!c)
		return die("libxenvchan_client_init (are xen-gntdev, xen-evtchn loaded?)");
	c->blocking = 1;
	r.count = r.mode == MODE_RR ? BATCH_RR : BATCH / r.size;
	if (batch(c, &r))
		return die("server");
	begin = now();
	do {
		if (batch(c, &r))
			return die("server");
		n += r.count;
		took = now() - begin;
	} while (took < seconds);
	printf("{\"rounds\": [{\"value\": %.3f}]}\n",
	       r.mode == MODE_RR ? took * 1e6 / (double)n : (double)n * r.size / 1e6 / took);
	libxenvchan_close(c);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {{"size", required_argument, NULL, 's'},
					      {"seconds", required_argument, NULL, 't'},
					      {NULL, 0, NULL, 0}};
	struct request r = {.size = 64};
	double seconds = 1;
	int opt;

	while ((opt = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (opt == 's')
			r.size = (uint32_t)strtoul(optarg, NULL, 10);
		else if (opt == 't')
			seconds = strtod(optarg, NULL);
		else
			return 2;
	}
	argc -= optind;
	argv += optind;
	if (argc == 2 && !strcmp(argv[0], "server"))
		return serve(atoi(argv[1]));
	if (argc == 3 && !strcmp(argv[0], "client"))
		r.mode = !strcmp(argv[2], "rr") ? MODE_RR : !strcmp(argv[2], "stream") ? MODE_STREAM : 0;
	if (!r.mode || !r.size || r.size > SIZE_MAX_) {
		fputs("usage: vmcomm-vchan server DOMID\n"
		      "       vmcomm-vchan client DOMID rr|stream [--size N] [--seconds S]\n", stderr);
		return 2;
	}
	return measure(atoi(argv[1]), r, seconds);
}
