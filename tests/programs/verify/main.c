// SPDX-License-Identifier: GPL-2.0-or-later
/* vmcomm-verify: seeded bulk verification between two machines; see verify.h. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "verify.h"

#define NO_PORT UINT64_MAX

#define CTL_STOP    'S' /* client to server: end sending now */
#define CTL_RELEASE 'R' /* client to server: held connections may end */
#define CTL_COUNTS  'C' /* client to server: all is over, send the counts */

static volatile sig_atomic_t told_stop, told_release;

static void on_signal(int sig)
{
	if (sig == SIGUSR1)
		told_release = 1;
	else
		told_stop = 1;
}

static struct session *session_new(bool client, const struct verify_plan *plan, int ctl)
{
	struct session *v = xcalloc(1, sizeof(*v));

	v->client = client;
	v->plan = *plan;
	v->ctl = ctl;
	v->conns = xcalloc(plan->connections, sizeof(*v->conns));
	v->ep = epoll_create1(EPOLL_CLOEXEC);
	v->start_ms = v->last_any_ms = now_ms();
	pthread_mutex_init(&v->lock, NULL);
	if (v->ep < 0)
		die_errno("epoll_create1");
	need_files(plan->connections + 32);
	return v;
}

static void counts_fill(struct session *v, struct verify_count *counts)
{
	uint32_t i;

	for (i = 0; i < v->plan.connections; i++) {
		struct conn *c = &v->conns[i];

		counts[i] = (struct verify_count){.tx = c->tx, .rx = c->rx, .rx_digest = c->rx_digest,
						  .max_gap_ms = c->max_gap_ms, .errors = c->errors,
						  .kind = c->kind};
	}
}

/* Longest time in which no connection that expected bytes got any. */
static void session_watch(struct session *v, uint64_t *seen)
{
	uint64_t now = now_ms(), sum = 0;
	bool expects = false;
	uint32_t i;

	for (i = 0; i < v->plan.connections; i++) {
		struct conn *c = &v->conns[i];

		sum += c->rx;
		if (c->session && c->open && conn_expects(c, now)) {
			uint64_t gap = now - c->last_rx_ms;

			expects = true;
			if (now > c->last_rx_ms && gap > c->max_gap_ms)
				c->max_gap_ms = gap;
		} else if (c->session && c->kind != KIND_BLOCK) {
			c->last_rx_ms = now;
		}
	}
	if (sum != *seen || !expects) {
		if (expects && now - v->last_any_ms > v->max_any_gap_ms)
			v->max_any_gap_ms = now - v->last_any_ms;
		v->last_any_ms = now;
		*seen = sum;
	}
}

/* ---- server ---- */

static bool plan_good(const struct verify_plan *p)
{
	return p->magic == VERIFY_MAGIC && p->connections && p->connections <= VERIFY_CONNS_MAX &&
	       p->write_max && p->write_max <= VERIFY_IO_MAX && p->read_max &&
	       p->read_max <= VERIFY_IO_MAX && p->idle_ms && p->kinds;
}

static void server_accept(struct session *v, int l)
{
	struct verify_hello h;
	struct timeval tv = {.tv_sec = 60};
	int fd;

	/* The client sends the hello right after it has connected. */
	while ((fd = accept4(l, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
		if (read_all(fd, &h, sizeof(h)) || h.magic != VERIFY_MAGIC ||
		    h.index >= v->plan.connections || h.kind >= KINDS || v->conns[h.index].session) {
			fprintf(stderr, "a data connection without a proper hello\n");
			close(fd);
			continue;
		}
		conn_start(v, &v->conns[h.index], fd, h.index, h.kind);
		v->n++;
		pthread_mutex_lock(&v->lock);
		v->open++;
		pthread_mutex_unlock(&v->lock);
		engine_add(v, &v->conns[h.index]);
	}
}

static void server_finish(struct session *v)
{
	struct verify_count *counts = xcalloc(v->plan.connections, sizeof(*counts));
	uint32_t i, kept = v->errors < VERIFY_ERRORS_KEPT ? v->errors : VERIFY_ERRORS_KEPT;
	uint64_t gap = v->max_any_gap_ms;

	counts_fill(v, counts);
	write_all(v->ctl, counts, v->plan.connections * sizeof(*counts));
	write_all(v->ctl, &gap, sizeof(gap));
	write_all(v->ctl, &v->errors, sizeof(v->errors));
	for (i = 0; i < kept; i++)
		write_all(v->ctl, v->error_text[i], sizeof(v->error_text[i]));
	free(counts);
}

static void server_session(int ctl)
{
	struct verify_plan plan;
	struct session *v;
	struct addr a;
	uint64_t seen = 0;
	bool counts = false;
	int l;
	char order;

	if (read_all(ctl, &plan, sizeof(plan)) || !plan_good(&plan)) {
		fprintf(stderr, "a control connection without a proper plan\n");
		return;
	}
	v = session_new(false, &plan, ctl);
	l = serve_data(ctl, &a, 4096);
	if (l < 0)
		return;
	set_nonblock(l, true);
	/*
	 * The client may order while connections are still busy: held ones and endless ones end only
	 * when told. "Counts" comes when the client has seen the end of all of its connections.
	 */
	while (!counts || v->open) {
		struct pollfd p = {.fd = ctl, .events = POLLIN};

		if (v->n < plan.connections)
			server_accept(v, l);
		engine_run(v, 5);
		session_watch(v, &seen);
		if (poll(&p, 1, 0) <= 0)
			continue;
		if (read_all(ctl, &order, 1)) {
			fprintf(stderr, "the control connection ended before the session\n");
			_exit(1);
		}
		if (order == CTL_STOP)
			v->stop = v->release = 1;
		else if (order == CTL_RELEASE)
			v->release = 1;
		else if (order == CTL_COUNTS)
			counts = true;
	}
	server_finish(v);
}

/* ---- client ---- */

static enum verify_kind kind_of(const struct verify_plan *p, uint32_t index)
{
	enum verify_kind list[KINDS] = {0}, k;
	uint32_t n = 0;

	for (k = 0; k < KINDS; k++)
		if (p->kinds & 1u << k)
			list[n++] = k;
	k = n ? list[index % n] : 0;
	/* Threads are dear: beyond a limit the blocking ones become bulk. */
	if (k == KIND_BLOCK && index / n >= VERIFY_BLOCKS_MAX)
		k = KIND_BULK;
	return k;
}

static void client_connect(struct session *v, const struct addr *a)
{
	struct verify_hello h = {.magic = VERIFY_MAGIC};
	uint32_t i;
	int fd, r;

	for (i = 0; i < v->plan.connections; i++) {
		fd = tcp_connect(a);
		if (fd < 0)
			die("connection %u of %u: %s", i, v->plan.connections, strerror(-fd));
		h.index = i;
		h.kind = kind_of(&v->plan, i);
		r = write_all(fd, &h, sizeof(h));
		if (r)
			die("hello of connection %u: %s", i, strerror(-r));
		conn_start(v, &v->conns[i], fd, i, h.kind);
		v->n++;
		pthread_mutex_lock(&v->lock);
		v->open++;
		pthread_mutex_unlock(&v->lock);
		engine_add(v, &v->conns[i]);
		/* Those that are there are busy while the others come. */
		if (i % 16 == 15)
			engine_run(v, 0);
	}
}

static void client_progress(struct session *v)
{
	uint64_t tx = 0, rx = 0, gap = 0, now = now_ms();
	uint32_t i, held = 0;

	for (i = 0; i < v->plan.connections; i++) {
		struct conn *c = &v->conns[i];

		tx += c->tx;
		rx += c->rx;
		held += c->held;
		if (c->open && conn_expects(c, now) && now > c->last_rx_ms && now - c->last_rx_ms > gap)
			gap = now - c->last_rx_ms;
	}
	fprintf(stderr, "%6.1f s  open %u  held %u  sent %.1f MiB  received %.1f MiB  errors %u  "
			"longest silence now %" PRIu64 " ms\n",
		(double)(now - v->start_ms) / 1000, v->open, held, (double)tx / 1048576,
		(double)rx / 1048576, v->errors, gap);
}

static void json_text(const char *t)
{
	putchar('"');
	for (; *t; t++) {
		if (*t == '"' || *t == '\\')
			putchar('\\');
		if ((unsigned char)*t >= ' ')
			putchar(*t);
	}
	putchar('"');
}

/* The two ends' counts of one connection must agree. */
static void client_compare(struct session *v, const struct verify_count *theirs)
{
	unsigned char *buf = xcalloc(1, VERIFY_IO_MAX);
	uint32_t i;

	for (i = 0; i < v->plan.connections; i++) {
		struct conn *c = &v->conns[i];
		const struct verify_count *t = &theirs[i];

		if (c->tx != t->rx)
			session_error(v, c, "sent %" PRIu64 " bytes, server received %" PRIu64, c->tx,
				      t->rx);
		if (c->rx != t->tx)
			session_error(v, c, "received %" PRIu64 " bytes, server sent %" PRIu64, c->rx,
				      t->tx);
		if (!c->tx && !c->rx)
			session_error(v, c, "not a byte either way");
	}
	free(buf);
}

static void client_summary(struct session *v, const struct verify_count *theirs, uint64_t their_gap,
			   uint32_t their_errors, char (*their_text)[200])
{
	uint64_t tx = 0, rx = 0, digest_tx = 0, digest_rx = 0;
	uint32_t i, n, kept;
	enum verify_kind k;
	bool first = true;

	for (i = 0; i < v->plan.connections; i++) {
		tx += v->conns[i].tx;
		rx += v->conns[i].rx;
		digest_rx ^= mix64(v->conns[i].rx_digest + i);
		digest_tx ^= mix64(theirs[i].rx_digest + i);
	}
	printf("{\n  \"program\": \"vmcomm-verify\", \"seed\": %" PRIu64 ", \"connections\": %u,\n",
	       v->plan.seed, v->plan.connections);
	printf("  \"ok\": %s, \"errors\": %u, \"seconds\": %.3f,\n",
	       v->errors + their_errors ? "false" : "true", v->errors + their_errors,
	       (double)(now_ms() - v->start_ms) / 1000);
	printf("  \"bytes_client_to_server\": %" PRIu64 ", \"bytes_server_to_client\": %" PRIu64 ",\n",
	       tx, rx);
	printf("  \"digest_client_to_server\": \"%016" PRIx64 "\", \"digest_server_to_client\": "
	       "\"%016" PRIx64 "\",\n",
	       digest_tx, digest_rx);
	/* Silence on all connections at once, and (below) on any one of a kind. */
	printf("  \"max_gap_all_ms\": {\"client\": %" PRIu64 ", \"server\": %" PRIu64 "},\n",
	       v->max_any_gap_ms, their_gap);
	printf("  \"kinds\": [");
	for (k = 0; k < KINDS; k++) {
		uint64_t ktx = 0, krx = 0, gap = 0;

		for (n = 0, i = 0; i < v->plan.connections; i++) {
			struct conn *c = &v->conns[i];

			if (c->kind != k)
				continue;
			n++;
			ktx += c->tx;
			krx += c->rx;
			gap = c->max_gap_ms > gap ? c->max_gap_ms : gap;
			gap = theirs[i].max_gap_ms > gap ? theirs[i].max_gap_ms : gap;
		}
		if (!n)
			continue;
		printf("%s\n    {\"kind\": \"%s\", \"connections\": %u, \"bytes_client_to_server\": %" PRIu64
		       ", \"bytes_server_to_client\": %" PRIu64 ", \"max_gap_ms\": %" PRIu64 "}",
		       first ? "" : ",", verify_kind_names[k], n, ktx, krx, gap);
		first = false;
	}
	printf("\n  ],\n  \"error_texts\": [");
	kept = v->errors < VERIFY_ERRORS_KEPT ? v->errors : VERIFY_ERRORS_KEPT;
	for (i = 0; i < kept; i++) {
		printf("%s\n    ", i ? "," : "");
		json_text(v->error_text[i]);
	}
	for (n = 0; n < their_errors && n < VERIFY_ERRORS_KEPT; n++, i++) {
		printf("%s\n    ", i ? "," : "");
		their_text[n][199] = '\0';
		json_text(their_text[n]);
	}
	printf("%s]\n}\n", i ? "\n  " : "");
}

static void client_order(struct session *v, char order)
{
	int r = write_all(v->ctl, &order, 1);

	if (r)
		die("control connection: %s", strerror(-r));
}

static int client_main(const struct addr *a, const struct verify_plan *plan, bool progress)
{
	int ctl = tcp_connect(a), r;
	struct session *v;
	struct verify_count *theirs;
	char (*text)[200] = xcalloc(VERIFY_ERRORS_KEPT, 200);
	struct addr data = *a;
	uint16_t port;
	uint64_t seen = 0, gap = 0, next = 0;
	uint32_t errors = 0;

	if (ctl < 0)
		die("control connection: %s", strerror(-ctl));
	set_nodelay(ctl);
	r = write_all(ctl, plan, sizeof(*plan));
	if (!r)
		r = read_all(ctl, &port, sizeof(port));
	if (r)
		die("control connection: %s (is the server of the same version?)", strerror(-r));
	addr_set_port(&data, port);
	v = session_new(true, plan, ctl);
	client_connect(v, &data);
	v->last_any_ms = now_ms();
	while (v->open) {
		engine_run(v, 5);
		session_watch(v, &seen);
		if (told_stop && !v->stop) {
			v->stop = v->release = 1;
			client_order(v, CTL_STOP);
		}
		if (told_release && !v->release) {
			v->release = 1;
			client_order(v, CTL_RELEASE);
		}
		if (plan->hold && !v->release) {
			/* A line or the end of standard input tells, too. */
			struct pollfd p = {.fd = 0, .events = POLLIN};
			char b[64];

			if (poll(&p, 1, 0) > 0 && read(0, b, sizeof(b)) >= 0)
				told_release = 1;
		}
		if (progress && now_ms() >= next) {
			client_progress(v);
			next = now_ms() + 1000;
		}
	}
	client_order(v, CTL_COUNTS);
	theirs = xcalloc(plan->connections, sizeof(*theirs));
	r = read_all(ctl, theirs, plan->connections * sizeof(*theirs));
	if (!r)
		r = read_all(ctl, &gap, sizeof(gap));
	if (!r)
		r = read_all(ctl, &errors, sizeof(errors));
	if (!r && errors)
		r = read_all(ctl, text, (errors < VERIFY_ERRORS_KEPT ? errors : VERIFY_ERRORS_KEPT) * 200);
	if (r)
		die("the server's counts: %s", strerror(-r));
	client_compare(v, theirs);
	client_summary(v, theirs, gap, errors, text);
	r = v->errors + errors ? 1 : 0;
	close(v->ep);
	free(v->conns);
	free(v);
	free(theirs);
	free(text);
	return r;
}

static uint32_t kinds_parse(const char *text)
{
	char copy[128], *p = copy, *word;
	uint32_t mask = 0;
	enum verify_kind k;

	if (!strcmp(text, "mix"))
		return (1u << KINDS) - 1;
	snprintf(copy, sizeof(copy), "%s", text);
	while ((word = strsep(&p, ","))) {
		for (k = 0; k < KINDS && strcmp(word, verify_kind_names[k]); k++)
			;
		if (k == KINDS)
			die("--kind: '%s' is none of mix, bulk, rr, idle, half, block", word);
		mask |= 1u << k;
	}
	return mask;
}

static void usage(FILE *f)
{
	fprintf(f,
		"usage: vmcomm-verify server --port P [--bind ADDRESS]     (P 0: any, it is told)\n"
		"       vmcomm-verify client HOST --port P [options]\n"
		"  --connections N      at once (default 16)\n"
		"  --bytes N            each way on each connection (default 1m), or\n"
		"  --seconds N          how long they send instead\n"
		"  --kind LIST          of bulk,rr,idle,half,block, or mix for all (default mix)\n"
		"  --seed N             (default 1)\n"
		"  --write-max N, --read-max N   largest single call (default 64k)\n"
		"  --sleep MS/BYTES     readers pause MS after each BYTES\n"
		"  --idle-max MS        longest pause of kind idle (default 500)\n"
		"  --hold               keep connections open after that, until a line on standard input\n"
		"                       or SIGUSR1; then a little more on each, as proof\n"
		"  --progress           a line per second on standard error\n"
		"SIGTERM, SIGINT: end sending now, then check and report. Exit code 0: every byte was right.\n");
}

int main(int argc, char **argv)
{
	enum { CONNECTIONS = 256, BYTES, SECONDS, KIND, SEED, WRITE_MAX, READ_MAX, SLEEP, IDLE, HOLD,
	       PROGRESS };
	static const struct option options[] = {
		{"port", required_argument, NULL, 'p'},
		{"bind", required_argument, NULL, 'b'},
		{"connections", required_argument, NULL, CONNECTIONS},
		{"bytes", required_argument, NULL, BYTES},
		{"seconds", required_argument, NULL, SECONDS},
		{"kind", required_argument, NULL, KIND},
		{"seed", required_argument, NULL, SEED},
		{"write-max", required_argument, NULL, WRITE_MAX},
		{"read-max", required_argument, NULL, READ_MAX},
		{"sleep", required_argument, NULL, SLEEP},
		{"idle-max", required_argument, NULL, IDLE},
		{"hold", no_argument, NULL, HOLD},
		{"progress", no_argument, NULL, PROGRESS},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	struct verify_plan plan = {.magic = VERIFY_MAGIC, .seed = 1, .bytes = 1 << 20,
				   .connections = 16, .write_max = 65536, .read_max = 65536,
				   .idle_ms = 500, .kinds = (1u << KINDS) - 1};
	const char *bind_to = NULL;
	bool progress = false;
	uint64_t port = NO_PORT;
	struct addr a;
	char *slash;
	int o;

	while ((o = getopt_long(argc, argv, "h", options, NULL)) >= 0) {
		switch (o) {
		case 'p':
			port = parse_u64("--port", optarg, 65535);
			break;
		case 'b':
			bind_to = optarg;
			break;
		case CONNECTIONS:
			plan.connections = (uint32_t)parse_u64("--connections", optarg, VERIFY_CONNS_MAX);
			break;
		case BYTES:
			plan.bytes = parse_u64("--bytes", optarg, 1ull << 40);
			break;
		case SECONDS:
			plan.ms = parse_u64("--seconds", optarg, 1000000) * 1000;
			plan.bytes = 0;
			break;
		case KIND:
			plan.kinds = kinds_parse(optarg);
			break;
		case SEED:
			plan.seed = parse_u64("--seed", optarg, UINT64_MAX);
			break;
		case WRITE_MAX:
			plan.write_max = (uint32_t)parse_u64("--write-max", optarg, VERIFY_IO_MAX);
			break;
		case READ_MAX:
			plan.read_max = (uint32_t)parse_u64("--read-max", optarg, VERIFY_IO_MAX);
			break;
		case SLEEP:
			slash = strchr(optarg, '/');
			if (!slash)
				die("--sleep: '%s' is not MS/BYTES", optarg);
			*slash = '\0';
			plan.sleep_ms = (uint32_t)parse_u64("--sleep", optarg, 600000);
			plan.sleep_bytes = parse_u64("--sleep", slash + 1, 1ull << 40);
			break;
		case IDLE:
			plan.idle_ms = (uint32_t)parse_u64("--idle-max", optarg, 3600000);
			break;
		case HOLD:
			plan.hold = 1;
			break;
		case PROGRESS:
			progress = true;
			break;
		default:
			usage(o == 'h' ? stdout : stderr);
			return o == 'h' ? 0 : 2;
		}
	}
	signal(SIGPIPE, SIG_IGN);
	if (argc - optind == 1 && !strcmp(argv[optind], "server") && port != NO_PORT) {
		addr_parse_bind(&a, bind_to, (uint16_t)port);
		serve(&a, server_session);
	}
	if (argc - optind != 2 || strcmp(argv[optind], "client") || !port || port == NO_PORT) {
		usage(stderr);
		return 2;
	}
	if (addr_parse(&a, argv[optind + 1], (uint16_t)port, AF_UNSPEC))
		die("'%s' is not a numeric address", argv[optind + 1]);
	if (!plan_good(&plan))
		die("--connections, --write-max, --read-max and --idle-max must not be 0");
	signal(SIGUSR1, on_signal);
	signal(SIGTERM, on_signal);
	signal(SIGINT, on_signal);
	return client_main(&a, &plan, progress);
}
