// SPDX-License-Identifier: GPL-2.0-or-later
/* vmcomm-perf: what happens in a round, and what it costs. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "perf.h"

/* Reading the clock is dear on some machines: small writes look at it once per so many bytes. */
#define CLOCK_BYTES 65536u

uint64_t perf_busy_ns(void)
{
	unsigned long long user = 0, nice = 0, sys = 0, idle, iowait, irq = 0, soft = 0, steal = 0;
	uint64_t tick = 1000000000u / (uint64_t)sysconf(_SC_CLK_TCK);
	FILE *f = fopen("/proc/stat", "r");

	if (!f)
		return 0;
	if (fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &sys, &idle,
		   &iowait, &irq, &soft, &steal) != 8)
		user = nice = sys = irq = soft = 0;
	fclose(f);
	return (user + nice + sys + irq + soft) * tick;
}

void perf_histogram_add(struct perf_histogram *h, uint64_t ns)
{
	unsigned int shift = 0;

	if (ns > h->max)
		h->max = ns;
	if (ns >> PERF_SUB_BITS)
		shift = 64 - (unsigned int)__builtin_clzll(ns) - PERF_SUB_BITS;
	/* Above the first row the leading bit is always set: rows overlap by half, which only wastes. */
	h->bucket[(shift << PERF_SUB_BITS) + (ns >> shift)]++;
	h->n++;
}

uint64_t perf_histogram_at(const struct perf_histogram *h, double part)
{
	uint64_t want = (uint64_t)(part * (double)h->n), sum = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(h->bucket); i++) {
		sum += h->bucket[i];
		if (sum > want)
			return (uint64_t)(i & ((1u << PERF_SUB_BITS) - 1)) << (i >> PERF_SUB_BITS);
	}
	return h->max;
}

static void cost_start(struct perf_cost *c)
{
	c->cpu_ns = cpu_ns();
	c->busy_ns = perf_busy_ns();
}

static void cost_end(struct perf_cost *c)
{
	c->cpu_ns = cpu_ns() - c->cpu_ns;
	c->busy_ns = perf_busy_ns() - c->busy_ns;
}

static void client_rr(const struct perf_path *path, const struct perf_plan *plan,
		      struct perf_result *res)
{
	struct perf_end e = perf_connect(path, plan->nodelay);
	char *buf = xcalloc(1, plan->size);
	uint64_t start = now_ns(), last, now = start, end = start + plan->warmup_ms * 1000000;
	bool warm = false;

	for (;;) {
		if (!warm && now >= end) {
			warm = true;
			cost_start(&res->client);
			start = now = now_ns();
			end = start + plan->seconds_ms * 1000000;
		} else if (plan->count ? warm && res->client.count >= plan->count : now >= end) {
			break;
		}
		perf_write(e, buf, plan->size);
		if (!perf_read(e, buf, plan->size, plan->spin))
			die("the server closed the connection");
		last = now;
		now = now_ns();
		if (warm) {
			res->client.count++;
			perf_histogram_add(res->latency, now - last);
		}
	}
	cost_end(&res->client);
	res->seconds = (double)(now - start) / 1e9;
	res->value = res->seconds * 1e6 / (double)res->client.count;
	perf_close(path, e);
	free(buf);
}

static void client_stream(const struct perf_path *path, const struct perf_plan *plan,
			  struct perf_result *res)
{
	struct perf_end e = perf_connect(path, plan->nodelay);
	char *buf = xcalloc(1, plan->size);
	uint64_t start, end, total, unseen = 0;

	memset(buf, 'v', plan->size);
	cost_start(&res->client);
	start = now_ns();
	end = start + plan->seconds_ms * 1000000;
	while (!plan->bytes || res->client.bytes < plan->bytes) {
		perf_write(e, buf, plan->size);
		res->client.bytes += plan->size;
		res->client.count++;
		unseen += plan->size;
		if (plan->bytes || unseen < CLOCK_BYTES)
			continue;
		unseen = 0;
		if (now_ns() >= end)
			break;
	}
	/* The clock stops when the receiver has told that it has all. */
	if (e.in == e.out)
		shutdown(e.out, SHUT_WR);
	else
		close(e.out);
	if (!perf_read(e, &total, sizeof(total), false) || total != res->client.bytes)
		die("the receiver did not get all of %llu bytes", (unsigned long long)res->client.bytes);
	res->seconds = (double)(now_ns() - start) / 1e9;
	cost_end(&res->client);
	res->value = (double)total / 1e6 / res->seconds;
	close(e.in);
	free(buf);
}

static void client_crr(const struct perf_path *path, const struct perf_plan *plan,
		       struct perf_result *res)
{
	char *buf = xcalloc(1, plan->size), b;
	uint64_t start = now_ns(), last, now = start, end = start + plan->warmup_ms * 1000000;
	bool warm = false;
	struct perf_end e;

	for (;;) {
		if (!warm && now >= end) {
			warm = true;
			cost_start(&res->client);
			start = now = now_ns();
			end = start + plan->seconds_ms * 1000000;
		} else if (plan->count ? warm && res->client.count >= plan->count : now >= end) {
			break;
		}
		e = perf_connect(path, plan->nodelay);
		perf_write(e, buf, plan->size);
		if (!perf_read(e, buf, plan->size, plan->spin) || perf_read(e, &b, 1, plan->spin))
			die("the server did not answer as it should");
		perf_close(path, e);
		last = now;
		now = now_ns();
		if (warm) {
			res->client.count++;
			perf_histogram_add(res->latency, now - last);
		}
	}
	cost_end(&res->client);
	res->seconds = (double)(now - start) / 1e9;
	res->value = res->seconds * 1e6 / (double)res->client.count;
	/* Tells the server that this was the last one. */
	e = perf_connect(path, plan->nodelay);
	perf_close(path, e);
	free(buf);
}

void perf_client_round(const struct perf_path *path, const struct perf_plan *plan,
		       struct perf_result *res)
{
	if (plan->mode == PERF_RR)
		client_rr(path, plan, res);
	else if (plan->mode == PERF_STREAM)
		client_stream(path, plan, res);
	else
		client_crr(path, plan, res);
}

static void server_rr(const struct perf_path *path, const struct perf_plan *plan,
		      struct perf_cost *cost)
{
	struct perf_end e = perf_accept(path, plan->nodelay);
	char *buf = xcalloc(1, plan->size);

	while (perf_read(e, buf, plan->size, plan->spin)) {
		perf_write(e, buf, plan->size);
		cost->count++;
	}
	perf_close(path, e);
	free(buf);
}

static void server_stream(const struct perf_path *path, const struct perf_plan *plan,
			  struct perf_cost *cost)
{
	struct perf_end e = perf_accept(path, plan->nodelay);
	char *buf = xcalloc(1, plan->read_size);
	ssize_t r;

	while ((r = read(e.in, buf, plan->read_size)) > 0) {
		cost->bytes += (uint64_t)r;
		cost->count++;
	}
	perf_write(e, &cost->bytes, sizeof(cost->bytes));
	perf_close(path, e);
	free(buf);
}

/* The server closes first, as HTTP/1.0 does: so the client's ports do not run out in TIME_WAIT. */
static void server_crr(const struct perf_path *path, const struct perf_plan *plan,
		       struct perf_cost *cost)
{
	char *buf = xcalloc(1, plan->size);
	struct perf_end e;

	for (;;) {
		e = perf_accept(path, plan->nodelay);
		if (!perf_read(e, buf, plan->size, plan->spin)) {
			/* A connection without a request is the sign that the round is over. */
			perf_close(path, e);
			break;
		}
		perf_write(e, buf, plan->size);
		perf_close(path, e);
		cost->count++;
	}
	free(buf);
}

void perf_server_round(const struct perf_path *path, const struct perf_plan *plan,
		       struct perf_cost *cost)
{
	cost_start(cost);
	if (plan->mode == PERF_RR)
		server_rr(path, plan, cost);
	else if (plan->mode == PERF_STREAM)
		server_stream(path, plan, cost);
	else
		server_crr(path, plan, cost);
	cost_end(cost);
}

/* Copies through a set larger than the caches: what a copy between two rings at most can do. */
void perf_memcpy_round(const struct perf_plan *plan, struct perf_result *res)
{
	size_t set = 128u << 20, at = 0;
	char *from = xcalloc(1, set), *to = xcalloc(1, set);
	uint64_t start, end, unseen = 0;

	memset(from, 1, set);
	memset(to, 2, set);
	cost_start(&res->client);
	start = now_ns();
	end = start + plan->seconds_ms * 1000000;
	for (;;) {
		memcpy(to + at, from + at, plan->size);
		/* Keeps the compiler from leaving the copy out. */
		__asm__ volatile("" : : "r"(to + at) : "memory");
		at += plan->size;
		if (at + plan->size > set)
			at = 0;
		res->client.bytes += plan->size;
		res->client.count++;
		unseen += plan->size;
		if (unseen < CLOCK_BYTES)
			continue;
		unseen = 0;
		if (now_ns() >= end)
			break;
	}
	res->seconds = (double)(now_ns() - start) / 1e9;
	cost_end(&res->client);
	res->value = (double)res->client.bytes / 1e6 / res->seconds;
	free(from);
	free(to);
}
