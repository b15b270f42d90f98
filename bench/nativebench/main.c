// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * main.c - vmcomm-bench-native PATH TEST SIZE SECONDS [PLACE]: one measurement between two processes
 *
 *	PATH	vmcomm, vmcomm-spin, unix, tcp, pipe; memcpy (stream only): one process that copies
 *	TEST	stream: MB/s of writes and reads of SIZE bytes; rr: microseconds of a round trip
 *	PLACE	01: on cores 0 and 1; 10: the other way round; 00: both on core 0; free (default)
 *
 * Prints one number.
 */
#include "native.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "vmcomm.h"

static const struct path *const paths[] = {&path_vmcomm, &path_vmcomm_spin, &path_unix, &path_tcp,
					   &path_pipe};

void fail(const char *what, int err)
{
	fprintf(stderr, "vmcomm-bench-native: %s: %s\n", what,
		err ? vmcomm_strerror(err) : "not known");
	exit(1);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static void pin(const char *place, bool client)
{
	char digit = place[!client];
	cpu_set_t set;

	if (digit < '0' || digit > '9')
		return;
	CPU_ZERO(&set);
	CPU_SET(digit - '0', &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		fail("no such core", -EINVAL);
}

static void must_recv(const struct path *p, char *buf, size_t size)
{
	size_t have = 0;
	ssize_t n;

	while (have < size) {
		n = p->recv(buf + have, size - have);
		if (n <= 0)
			fail("receive", n ? (int)n : -ECONNRESET);
		have += (size_t)n;
	}
}

static void must_send(const struct path *p, const char *buf, size_t size)
{
	ssize_t n = p->send(buf, size);

	if (n != (ssize_t)size)
		fail("send", (int)n);
}

/* How many calls take so long that looking at the clock does not count. */
static unsigned int batch_of(size_t size)
{
	return size >= 65536 ? 1 : (unsigned int)(65536 / size);
}

static void stream_client(const struct path *p, char *buf, size_t size, double seconds)
{
	double end = now() + seconds;
	unsigned int i;

	do {
		for (i = 0; i < batch_of(size); i++)
			must_send(p, buf, size);
	} while (now() < end);
	p->finish();
	must_recv(p, buf, 1); /* the other one has read all of it */
}

/* Measured at the receiver, from the first byte to the last. */
static void stream_server(const struct path *p, char *buf, size_t size, int report)
{
	double begin = 0, value;
	size_t sum = 0;
	ssize_t n;

	while ((n = p->recv(buf, size)) > 0) {
		if (!sum)
			begin = now();
		sum += (size_t)n;
	}
	value = (double)sum / (now() - begin) / 1e6;
	if (n < 0 || write(report, &value, sizeof(value)) != sizeof(value))
		fail("receive", (int)n);
	must_send(p, buf, 1);
}

static double rr_client(const struct path *p, char *buf, size_t size, double seconds)
{
	unsigned long count = 0, i, warm = 100;
	double begin = 0, end = 0;

	for (i = 0; !end || now() < end; i++) {
		if (i == warm) {
			begin = now();
			end = begin + seconds;
		}
		must_send(p, buf, size);
		must_recv(p, buf, size);
		count += i >= warm;
	}
	p->finish();
	return (now() - begin) / (double)count * 1e6;
}

static void rr_server(const struct path *p, char *buf, size_t size)
{
	size_t have;
	ssize_t n;

	for (;;) {
		for (have = 0; have < size; have += (size_t)n) {
			n = p->recv(buf + have, size - have);
			if (n <= 0)
				return;
		}
		must_send(p, buf, size);
	}
}

/* What one core can copy, through a ring of 256 KiB as the local backend does. */
static double copy_limit(char *buf, size_t size, double seconds)
{
	size_t ring = 262144, at = 0, sum = 0, n;
	char *to = malloc(ring), *from;
	double begin = now();

	memset(to, 1, ring);
	do {
		for (n = 0; n < 1 << 20; n += size < ring ? size : ring) {
			from = buf + (size > ring ? n % size : 0);
			memcpy(to + at, from, size < ring ? size : ring);
			__asm__ volatile("" : : "r"(to) : "memory");
			at = size < ring ? (at + size) % ring : 0;
		}
		sum += n;
	} while (now() - begin < seconds);
	free(to);
	return (double)sum / (now() - begin) / 1e6;
}

int main(int argc, char **argv)
{
	const char *place = argc > 5 ? argv[5] : "free";
	const struct path *p = NULL;
	bool stream, client;
	double seconds, value = 0;
	int report[2], err, status = 0;
	size_t size, i;
	char *buf;
	pid_t pid;

	if (argc < 5) {
		fputs("usage: vmcomm-bench-native PATH stream|rr SIZE SECONDS [01|10|00|free]\n",
		      stderr);
		return 2;
	}
	for (i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		if (!strcmp(paths[i]->name, argv[1]))
			p = paths[i];
	stream = !strcmp(argv[2], "stream");
	size = strtoul(argv[3], NULL, 0);
	seconds = strtod(argv[4], NULL);
	if (!size || size > 1 << 24 || seconds <= 0)
		fail("size or seconds", -EINVAL);
	buf = aligned_alloc(4096, (size + 4095) & ~4095ul);
	if (!buf)
		fail("memory", -ENOMEM);
	memset(buf, 'x', size);
	if (!strcmp(argv[1], "memcpy")) {
		pin(place, true);
		printf("%.3f\n", copy_limit(buf, size, seconds));
		return 0;
	}
	if (!p)
		fail(argv[1], 0);
	err = p->prepare();
	if (err || pipe(report))
		fail("prepare", err);
	pid = fork();
	client = pid != 0;
	pin(place, client);
	err = p->open(client);
	if (err)
		fail("open", err);
	if (!client) {
		if (stream)
			stream_server(p, buf, size, report[1]);
		else
			rr_server(p, buf, size);
		_exit(0);
	}
	if (stream) {
		stream_client(p, buf, size, seconds);
		if (read(report[0], &value, sizeof(value)) != sizeof(value))
			fail("no result", -EPIPE);
	} else {
		value = rr_client(p, buf, size, seconds);
	}
	if (waitpid(pid, &status, 0) != pid || status)
		fail("the other process", -ECONNRESET);
	printf("%.3f\n", value);
	return 0;
}
