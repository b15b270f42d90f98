// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * vmcomm-semantics: does a TCP socket behave as TCP sockets do?
 *
 *   client process            control connection, one per case          server process
 *     parent --- fork ---> case client <-------------------> case server <--- fork --- parent
 *                                 |______ data connections ________|
 *
 * The output of two runs, one over plain TCP and one over anything that claims to be it, is compared
 * with diff by the caller. Exit code 0: all cases ran to their end.
 */
#include <getopt.h>
#include <sys/prctl.h>

#include "sem.h"

#define CASE_TIMEOUT_MS 60000
#define NO_PORT		UINT64_MAX
#define JOBS_MAX	64
#define OUTPUT_MAX	65536

static const struct sem_group *const groups[] = {
	&sem_io,     &sem_peek,	  &sem_signals, &sem_events,  &sem_closing, &sem_killed,
	&sem_share,  &sem_splice, &sem_setup,	&sem_options, &sem_special, &sem_uring,
};

struct job {
	const struct sem_case *c;
	pid_t pid; /* 0: done or not started */
	int out;
	uint64_t deadline;
	char *text;
	size_t len;
	int status;
	bool started, timeout;
};

static const struct sem_case *case_find(const char *name)
{
	size_t g, i;

	for (g = 0; g < ARRAY_SIZE(groups); g++)
		for (i = 0; i < groups[g]->n; i++)
			if (!strcmp(groups[g]->cases[i].name, name))
				return &groups[g]->cases[i];
	return NULL;
}

static size_t case_list(const struct sem_case **list, size_t max)
{
	size_t g, i, n = 0;

	for (g = 0; g < ARRAY_SIZE(groups); g++)
		for (i = 0; i < groups[g]->n && n < max; i++)
			list[n++] = &groups[g]->cases[i];
	return n;
}

static void half_names(struct sem *s)
{
	s->self.len = sizeof(s->self.ss);
	s->peer.len = sizeof(s->peer.ss);
	if (getsockname(s->ctl, (struct sockaddr *)&s->self.ss, &s->self.len) ||
	    getpeername(s->ctl, (struct sockaddr *)&s->peer.ss, &s->peer.len))
		die_errno("control connection");
}

static void half_run(struct sem *s, const struct sem_case *c)
{
	int fd;

	/* A group of its own: whatever the case starts can be ended with it. */
	setpgid(0, 0);
	signal(SIGPIPE, SIG_DFL);
	half_names(s);
	set_nodelay(s->ctl);
	s->fd = -1;
	if (c->flags & SEM_CONN)
		s->fd = sem_pair(s);
	if (s->server)
		c->server(s);
	else
		c->client(s);
	/* The other half may be waiting for the end of a connection that this one still has. */
	for (fd = 3; fd < 256; fd++)
		if (fd != s->ctl && fd != s->out)
			close(fd);
}

static void server_child(int ctl)
{
	struct sem s = {.server = true, .ctl = ctl};
	char name[64];
	const struct sem_case *c;
	size_t n = 0;

	while (n < sizeof(name) - 1) {
		if (read_all(ctl, name + n, 1))
			_exit(3);
		if (name[n] == '\n')
			break;
		n++;
	}
	name[n] = '\0';
	c = case_find(name);
	if (!c) {
		sem_say(&s, "server: unknown case '%s': both ends must be of one version", name);
		_exit(2);
	}
	half_run(&s, c);
	if (write_all(ctl, "E\n", 2))
		_exit(3);
	_exit(0);
}

static int server_main(const struct addr *a)
{
	struct {
		pid_t pid;
		uint64_t deadline;
	} kids[2 * JOBS_MAX] = {0};
	struct pollfd p = {.events = POLLIN};
	size_t i;
	int ctl;
	pid_t pid;

	p.fd = tcp_listen(a, 64);
	if (p.fd < 0)
		die("listen on port %u: %s", addr_port(a), strerror(-p.fd));
	fprintf(stderr, "listening on port %u\n", sock_port(p.fd));
	for (;;) {
		for (i = 0; i < ARRAY_SIZE(kids); i++) {
			if (!kids[i].pid)
				continue;
			if (now_ms() > kids[i].deadline)
				kill(-kids[i].pid, SIGKILL);
			if (waitpid(kids[i].pid, NULL, WNOHANG) == kids[i].pid) {
				kill(-kids[i].pid, SIGKILL);
				kids[i].pid = 0;
			}
		}
		if (poll(&p, 1, 500) <= 0)
			continue;
		ctl = accept4(p.fd, NULL, NULL, SOCK_CLOEXEC);
		if (ctl < 0)
			continue;
		for (i = 0; i < ARRAY_SIZE(kids) && kids[i].pid; i++)
			;
		if (i == ARRAY_SIZE(kids)) {
			fprintf(stderr, "too many cases at once, one refused\n");
			close(ctl);
			continue;
		}
		pid = fork();
		if (!pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			close(p.fd);
			server_child(ctl);
		}
		if (pid > 0) {
			kids[i].pid = pid;
			kids[i].deadline = now_ms() + CASE_TIMEOUT_MS + 5000;
		}
		close(ctl);
	}
}

static void client_child(const struct addr *a, const struct sem_case *c, int out)
{
	struct sem s = {.out = out};
	char name[64];

	s.ctl = tcp_connect(a);
	if (s.ctl < 0) {
		sem_say(&s, "NO SERVER: %s", strerror(-s.ctl));
		_exit(2);
	}
	if (write_all(s.ctl, name, (size_t)snprintf(name, sizeof(name), "%s\n", c->name)))
		_exit(3);
	half_run(&s, c);
	/* Collects what the server half still has to say. */
	for (;;) {
		char c1;

		s.line_len = 0;
		while (!read_all(s.ctl, &c1, 1) && c1 != '\n')
			if (s.line_len < sizeof(s.line) - 2)
				s.line[s.line_len++] = c1;
		s.line[s.line_len] = '\0';
		if (s.line[0] == 'E' || !s.line_len)
			break;
		s.line[0] = s.line[0] == 'L' ? 's' : '?';
		s.line[s.line_len++] = '\n';
		if (write(s.out, s.line, s.line_len) < 0)
			_exit(3);
	}
	if (s.line[0] != 'E')
		_exit(5);
	_exit(0);
}

static void job_start(struct job *j, const struct addr *a)
{
	int p[2];

	if (pipe2(p, O_CLOEXEC))
		die_errno("pipe");
	fflush(stdout);
	j->pid = fork();
	if (j->pid < 0)
		die_errno("fork");
	if (!j->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(p[0]);
		client_child(a, j->c, p[1]);
	}
	close(p[1]);
	j->out = p[0];
	j->text = xcalloc(1, OUTPUT_MAX);
	j->deadline = now_ms() + CASE_TIMEOUT_MS;
	j->started = true;
}

/* Takes in what the case has said; returns true when it has ended. */
static bool job_poll(struct job *j)
{
	ssize_t r = 0;

	do {
		struct pollfd p = {.fd = j->out, .events = POLLIN};

		if (poll(&p, 1, 0) <= 0)
			break;
		r = read(j->out, j->text + j->len, OUTPUT_MAX - 1 - j->len);
		if (r > 0)
			j->len += (size_t)r;
	} while (r > 0);
	if (!j->timeout && now_ms() > j->deadline) {
		kill(-j->pid, SIGKILL);
		kill(j->pid, SIGKILL);
		j->timeout = true;
	}
	if (waitpid(j->pid, &j->status, WNOHANG) != j->pid)
		return false;
	r = read(j->out, j->text + j->len, OUTPUT_MAX - 1 - j->len);
	if (r > 0)
		j->len += (size_t)r;
	kill(-j->pid, SIGKILL);
	close(j->out);
	j->pid = 0;
	return true;
}

static int job_print_half(const struct job *j, char half, const char *title)
{
	const char *p = j->text, *end;

	while (p && *p) {
		end = strchr(p, '\n');
		if (!end)
			break;
		if (*p == half)
			printf("%s %s: %.*s\n", j->c->name, title, (int)(end - p - 2), p + 2);
		p = end + 1;
	}
	return 0;
}

static bool job_print(struct job *j)
{
	bool ok = false;

	job_print_half(j, 'c', "client");
	job_print_half(j, 's', "server");
	if (j->timeout)
		printf("%s: TIMEOUT\n", j->c->name);
	else if (WIFSIGNALED(j->status))
		printf("%s: CLIENT KILLED BY SIGNAL %d\n", j->c->name, WTERMSIG(j->status));
	else if (WEXITSTATUS(j->status) == 5)
		printf("%s: SERVER ENDED EARLY\n", j->c->name);
	else if (WEXITSTATUS(j->status))
		printf("%s: CLIENT ENDED WITH %d\n", j->c->name, WEXITSTATUS(j->status));
	else
		ok = true;
	fflush(stdout);
	free(j->text);
	return ok;
}

static int client_main(const struct addr *a, const struct sem_case **list, size_t n, size_t jobs)
{
	struct job *all = xcalloc(n, sizeof(*all));
	size_t next = 0, printed = 0, running = 0, bad = 0, i;

	for (i = 0; i < n; i++)
		all[i].c = list[i];
	while (printed < n) {
		while (running < jobs && next < n) {
			job_start(&all[next++], a);
			running++;
		}
		for (i = printed; i < next; i++)
			if (all[i].pid && job_poll(&all[i]))
				running--;
		while (printed < next && !all[printed].pid)
			bad += !job_print(&all[printed++]);
		sleep_ms(2);
	}
	free(all);
	fprintf(stderr, "%zu cases, %zu did not run to their end\n", n, bad);
	return bad ? 1 : 0;
}

static void usage(FILE *f)
{
	fprintf(f, "usage: vmcomm-semantics server --port P [--family 4|6] [--bind ADDRESS]  (P 0: any)\n"
		   "       vmcomm-semantics client HOST --port P [--case NAME]... [--skip NAME]...\n"
		   "                        [--jobs N] [--family 4|6]\n"
		   "       vmcomm-semantics --list\n");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"port", required_argument, NULL, 'p'},	  {"case", required_argument, NULL, 'c'},
		{"skip", required_argument, NULL, 's'},	  {"jobs", required_argument, NULL, 'j'},
		{"family", required_argument, NULL, 'f'}, {"bind", required_argument, NULL, 'b'},
		{"list", no_argument, NULL, 'l'},	  {"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	const struct sem_case *list[512], *all[512];
	size_t n = 0, i, k, n_all = case_list(all, ARRAY_SIZE(all));
	const char *bind_to = NULL;
	bool skip[512] = {false};
	uint64_t port = NO_PORT, jobs = 1;
	int family = AF_UNSPEC, o;
	struct addr a;

	while ((o = getopt_long(argc, argv, "h", options, NULL)) >= 0) {
		switch (o) {
		case 'p':
			port = parse_u64("--port", optarg, 65535);
			break;
		case 'j':
			jobs = parse_u64("--jobs", optarg, JOBS_MAX);
			break;
		case 'f':
			family = parse_u64("--family", optarg, 6) == 6 ? AF_INET6 : AF_INET;
			break;
		case 'b':
			bind_to = optarg;
			break;
		case 'c':
		case 's':
			for (i = 0; i < n_all && strcmp(all[i]->name, optarg); i++)
				;
			if (i == n_all)
				die("no case '%s'; --list names them", optarg);
			if (o == 's')
				skip[i] = true;
			else if (n < ARRAY_SIZE(list))
				list[n++] = all[i];
			break;
		case 'l':
			for (i = 0; i < n_all; i++)
				puts(all[i]->name);
			return 0;
		default:
			usage(o == 'h' ? stdout : stderr);
			return o == 'h' ? 0 : 2;
		}
	}
	if (argc - optind == 1 && !strcmp(argv[optind], "server") && port != NO_PORT) {
		/* The wildcard of IPv6 takes IPv4 clients too. */
		if (addr_parse(&a, bind_to, (uint16_t)port,
			       family == AF_UNSPEC && !bind_to ? AF_INET6 : family))
			die("--bind: '%s' is not a numeric address of that family", bind_to);
		return server_main(&a);
	}
	if (argc - optind != 2 || strcmp(argv[optind], "client") || !port || port == NO_PORT || !jobs) {
		usage(stderr);
		return 2;
	}
	if (addr_parse(&a, argv[optind + 1], (uint16_t)port, family))
		die("'%s' is not a numeric address of that family", argv[optind + 1]);
	if (!n)
		for (i = 0; i < n_all; i++)
			if (!skip[i])
				list[n++] = all[i];
	for (k = 0; k < n; k++)
		if (strlen(list[k]->name) > 60)
			die("case name '%s' is too long", list[k]->name);
	return client_main(&a, list, n, jobs);
}
