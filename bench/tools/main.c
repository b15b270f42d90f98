// SPDX-License-Identifier: GPL-2.0-or-later
/* vmcomm-perf: options, sessions, JSON; see perf.h. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "perf.h"

#define NO_PORT UINT64_MAX

static const char *const mode_names[PERF_MODES] = {"rr", "stream", "crr", "memcpy"};
static const char *const transport_names[PERF_TRANSPORTS] = {"tcp", "unix", "pipe"};

static bool plan_good(const struct perf_plan *p)
{
	return p->magic == PERF_MAGIC && p->mode < PERF_MEMCPY && p->size &&
	       p->size <= PERF_SIZE_MAX && p->read_size && p->read_size <= PERF_SIZE_MAX;
}

/* The server's half of one session. */
static void server_session(int ctl)
{
	struct perf_path path = {.transport = PERF_TCP};
	struct perf_cost cost = {0};
	struct perf_plan plan;

	if (read_all(ctl, &plan, sizeof(plan)) || !plan_good(&plan)) {
		fprintf(stderr, "a control connection without a proper plan\n");
		return;
	}
	path.listener = serve_data(ctl, &path.addr, 1024);
	if (path.listener < 0)
		return;
	perf_server_round(&path, &plan, &cost);
	write_all(ctl, &cost, sizeof(cost));
}

/* A round with a server elsewhere. */
static void remote_round(const struct addr *server, const struct perf_plan *plan,
			 struct perf_result *res)
{
	struct perf_path path = {.transport = PERF_TCP, .addr = *server};
	int ctl = tcp_connect(server), r;
	uint16_t port;

	if (ctl < 0)
		die("control connection: %s", strerror(-ctl));
	r = write_all(ctl, plan, sizeof(*plan));
	if (!r)
		r = read_all(ctl, &port, sizeof(port));
	if (r)
		die("control connection: %s (is the server of the same version?)", strerror(-r));
	addr_set_port(&path.addr, port);
	perf_client_round(&path, plan, res);
	r = read_all(ctl, &res->server, sizeof(res->server));
	if (r)
		die("the server's report: %s", strerror(-r));
	close(ctl);
}

static void local_path(enum perf_transport transport, struct perf_path *server,
		       struct perf_path *client)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&server->addr.ss;
	int a[2], b[2];

	server->transport = client->transport = transport;
	if (transport == PERF_PIPE) {
		if (pipe(a) || pipe(b))
			die_errno("pipe");
		server->pipes = (struct perf_end){a[0], b[1]};
		client->pipes = (struct perf_end){b[0], a[1]};
		return;
	}
	if (transport == PERF_UNIX) {
		un->sun_family = AF_UNIX;
		server->addr.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
			(size_t)snprintf(un->sun_path + 1, sizeof(un->sun_path) - 1,
					 "vmcomm-perf-%d", getpid()));
	} else {
		addr_parse(&server->addr, "127.0.0.1", 0, AF_INET);
	}
	server->listener = tcp_listen(&server->addr, 1024);
	if (server->listener < 0)
		die("local listener: %s", strerror(-server->listener));
	client->addr = server->addr;
	if (transport == PERF_TCP)
		addr_set_port(&client->addr, sock_port(server->listener));
}

/* A round with a server that is our own child. */
static void local_round(enum perf_transport transport, const struct perf_plan *plan,
			struct perf_result *res)
{
	struct perf_path server = {.listener = -1}, client = {.listener = -1};
	struct perf_cost cost = {0};
	int report[2];
	pid_t pid;

	local_path(transport, &server, &client);
	if (pipe(report))
		die_errno("pipe");
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		die_errno("fork");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (transport == PERF_PIPE)
			perf_close(&client, client.pipes);
		perf_server_round(&server, plan, &cost);
		_exit(write_all(report[1], &cost, sizeof(cost)) ? 1 : 0);
	}
	if (transport == PERF_PIPE)
		perf_close(&server, server.pipes);
	else
		close(server.listener);
	close(report[1]);
	perf_client_round(&client, plan, res);
	if (read_all(report[0], &res->server, sizeof(res->server)))
		die("the server half failed");
	close(report[0]);
	waitpid(pid, NULL, 0);
}

static int double_compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void print_round(const struct perf_plan *plan, const struct perf_result *r)
{
	const struct perf_histogram *h = r->latency;

	printf("    {\"value\": %.3f, \"seconds\": %.4f, \"count\": %" PRIu64 ", \"bytes\": %" PRIu64,
	       r->value, r->seconds, r->client.count, r->client.bytes);
	if (plan->mode == PERF_RR || plan->mode == PERF_CRR)
		printf(", \"p50_us\": %.2f, \"p90_us\": %.2f, \"p99_us\": %.2f, \"p999_us\": %.2f, "
		       "\"max_us\": %.2f",
		       (double)perf_histogram_at(h, .5) / 1e3, (double)perf_histogram_at(h, .9) / 1e3,
		       (double)perf_histogram_at(h, .99) / 1e3,
		       (double)perf_histogram_at(h, .999) / 1e3, (double)h->max / 1e3);
	printf(", \"client_cpu_s\": %.4f, \"server_cpu_s\": %.4f, \"client_busy_s\": %.2f, "
	       "\"server_busy_s\": %.2f",
	       (double)r->client.cpu_ns / 1e9, (double)r->server.cpu_ns / 1e9,
	       (double)r->client.busy_ns / 1e9, (double)r->server.busy_ns / 1e9);
	if (r->client.bytes)
		printf(", \"cpu_ns_per_byte\": %.4f",
		       (double)(r->client.cpu_ns + r->server.cpu_ns) / (double)r->client.bytes);
	printf("}");
}

static void usage(FILE *f)
{
	fprintf(f,
		"usage: vmcomm-perf server --port P [--bind ADDRESS]     (P 0: any, it is told)\n"
		"       vmcomm-perf rr|stream|crr HOST --port P [options]\n"
		"       vmcomm-perf rr|stream|crr [--transport tcp|unix|pipe] [options]   on this host\n"
		"       vmcomm-perf memcpy [options]\n"
		"  rr: request and response of SIZE; stream: writes of SIZE; crr: connect, rr, close\n"
		"  --size N        bytes (default 64, stream and memcpy 64k)\n"
		"  --rounds N      (default 5)\n"
		"  --seconds N     of each round (default 2; fractions allowed)\n"
		"  --bytes N       stream: so much instead\n"
		"  --count N       rr, crr: so many instead\n"
		"  --read-size N   stream: the receiver's buffer (default: size, at least 64k)\n"
		"  --warmup MS     rr, crr: not counted (default 100)\n"
		"  --spin none|busy   block in receive, or ask again and again (default none)\n"
		"  --no-nodelay    leave Nagle's algorithm on\n"
		"Prints JSON: unit us (rr, crr: mean of a round) or MB/s (stream, memcpy), and the median.\n");
}

int main(int argc, char **argv)
{
	enum { SIZE = 256, ROUNDS, SECONDS, BYTES, COUNT, READ_SIZE, WARMUP, SPIN, TRANSPORT, NAGLE };
	static const struct option options[] = {
		{"port", required_argument, NULL, 'p'},
		{"bind", required_argument, NULL, 'b'},
		{"size", required_argument, NULL, SIZE},
		{"rounds", required_argument, NULL, ROUNDS},
		{"seconds", required_argument, NULL, SECONDS},
		{"bytes", required_argument, NULL, BYTES},
		{"count", required_argument, NULL, COUNT},
		{"read-size", required_argument, NULL, READ_SIZE},
		{"warmup", required_argument, NULL, WARMUP},
		{"spin", required_argument, NULL, SPIN},
		{"transport", required_argument, NULL, TRANSPORT},
		{"no-nodelay", no_argument, NULL, NAGLE},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	struct perf_plan plan = {.magic = PERF_MAGIC, .nodelay = 1, .seconds_ms = 2000,
				 .warmup_ms = 100};
	enum perf_transport transport = PERF_TRANSPORTS;
	uint64_t port = NO_PORT, rounds = 5, i;
	const char *bind_to = NULL, *host;
	double values[1000], seconds;
	struct perf_result res;
	bool latency;
	struct addr a;
	char *end;
	int o;

	while ((o = getopt_long(argc, argv, "h", options, NULL)) >= 0) {
		switch (o) {
		case 'p':
			port = parse_u64("--port", optarg, 65535);
			break;
		case 'b':
			bind_to = optarg;
			break;
		case SIZE:
			plan.size = (uint32_t)parse_u64("--size", optarg, PERF_SIZE_MAX);
			break;
		case ROUNDS:
			rounds = parse_u64("--rounds", optarg, ARRAY_SIZE(values));
			break;
		case SECONDS:
			seconds = strtod(optarg, &end);
			if (*end || end == optarg || !(seconds >= 0.01 && seconds <= 86400))
				die("--seconds: '%s' is not a number from 0.01 to 86400", optarg);
			plan.seconds_ms = (uint64_t)(seconds * 1000);
			break;
		case BYTES:
			plan.bytes = parse_u64("--bytes", optarg, 1ull << 50);
			break;
		case COUNT:
			plan.count = (uint32_t)parse_u64("--count", optarg, UINT32_MAX);
			break;
		case READ_SIZE:
			plan.read_size = (uint32_t)parse_u64("--read-size", optarg, PERF_SIZE_MAX);
			break;
		case WARMUP:
			plan.warmup_ms = parse_u64("--warmup", optarg, 600000);
			break;
		case SPIN:
			if (strcmp(optarg, "none") && strcmp(optarg, "busy"))
				die("--spin: '%s' is neither none nor busy", optarg);
			plan.spin = !strcmp(optarg, "busy");
			break;
		case TRANSPORT:
			for (transport = 0; transport < PERF_TRANSPORTS &&
					    strcmp(optarg, transport_names[transport]); transport++)
				;
			if (transport == PERF_TRANSPORTS)
				die("--transport: '%s' is none of tcp, unix, pipe", optarg);
			break;
		case NAGLE:
			plan.nodelay = 0;
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
	for (plan.mode = 0; argc > optind && plan.mode < PERF_MODES &&
			    strcmp(argv[optind], mode_names[plan.mode]); plan.mode++)
		;
	host = argc - optind == 2 ? argv[optind + 1] : NULL;
	if (argc - optind < 1 || argc - optind > 2 || plan.mode == PERF_MODES || !rounds) {
		usage(stderr);
		return 2;
	}
	if (host && (!port || port == NO_PORT || transport < PERF_TRANSPORTS || plan.mode == PERF_MEMCPY))
		die("with a HOST there must be --port, and neither --transport nor memcpy");
	if (!host && transport == PERF_TRANSPORTS)
		transport = PERF_TCP;
	if (transport == PERF_PIPE && plan.mode == PERF_CRR)
		die("a pipe cannot connect: --transport pipe has rr and stream only");
	if (host && addr_parse(&a, host, (uint16_t)port, AF_UNSPEC))
		die("'%s' is not a numeric address", host);
	latency = plan.mode == PERF_RR || plan.mode == PERF_CRR;
	if (!plan.size)
		plan.size = latency ? 64 : 65536;
	if (!plan.read_size)
		plan.read_size = plan.size > 65536 ? plan.size : 65536;
	printf("{\n  \"program\": \"vmcomm-perf\", \"test\": \"%s\", \"path\": \"%s\", \"size\": %u, "
	       "\"unit\": \"%s\", \"spin\": \"%s\", \"rounds\": [\n",
	       mode_names[plan.mode], plan.mode == PERF_MEMCPY ? "memory" :
	       host ? "tcp" : transport_names[transport], plan.size, latency ? "us" : "MB/s",
	       plan.spin ? "busy" : "none");
	for (i = 0; i < rounds; i++) {
		memset(&res, 0, sizeof(res));
		res.latency = xcalloc(1, sizeof(*res.latency));
		if (plan.mode == PERF_MEMCPY)
			perf_memcpy_round(&plan, &res);
		else if (host)
			remote_round(&a, &plan, &res);
		else
			local_round(transport, &plan, &res);
		print_round(&plan, &res);
		printf("%s\n", i + 1 < rounds ? "," : "");
		fflush(stdout);
		values[i] = res.value;
		free(res.latency);
	}
	qsort(values, rounds, sizeof(values[0]), double_compare);
	printf("  ], \"median\": %.3f\n}\n",
	       rounds % 2 ? values[rounds / 2] : (values[rounds / 2 - 1] + values[rounds / 2]) / 2);
	return 0;
}
