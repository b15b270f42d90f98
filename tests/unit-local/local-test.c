// SPDX-License-Identifier: GPL-2.0-or-later
/* local-test.c - see local-test.h */
#include "local-test.h"

#include <fcntl.h>
#include <spawn.h>

extern char **environ;

int local_main(const char *name, const TTest *const *all, size_t count)
{
	Suite *suite = suite_create(name);
	TCase *tc = tcase_create(name);
	SRunner *runner;
	size_t i;
	int failed;

	/* For what hangs; nothing comes near it, sanitizers and busy machines included. */
	tcase_set_timeout(tc, 300);
	for (i = 0; i < count; i++)
		tcase_add_test(tc, all[i]);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_set_tap(runner, "-");
	srunner_run_all(runner, CK_SILENT);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

void two_up(struct two *t, uint64_t memory, unsigned int ring)
{
	const struct vmcomm_hub_config hc = {.size = sizeof(hc), .slots = 2, .memory = memory};
	const struct vmcomm_member_config mc = {.size = sizeof(mc), .ring_size = ring};

	memset(t, 0, sizeof(*t));
	ok(vmcomm_hub_new(&t->hub, &hc));
	ok(vmcomm_join_fd(&t->a, vmcomm_hub_open(t->hub, 0, "192.0.2.1,fd00::1"), &mc));
	ok(vmcomm_join_fd(&t->b, vmcomm_hub_open(t->hub, 1, "192.0.2.2,fd00::2"), &mc));
	ok(vmcomm_listen(&t->listener, t->b, 7, 0));
}

void two_connect(struct two *t)
{
	ok(vmcomm_connect(&t->x, t->a, "1", 7, 0));
	ok(vmcomm_accept(&t->y, t->listener, 0));
}

void two_down(struct two *t)
{
	vmcomm_close(t->x);
	vmcomm_close(t->y);
	vmcomm_listener_close(t->listener);
	vmcomm_leave(t->a);
	vmcomm_leave(t->b);
	vmcomm_hub_free(t->hub);
}

void peer_start(struct peer *p, int fd, const char *path, const char *mode, const char *arg)
{
	const char *program = getenv("LOCAL_PEER");
	char *argv[] = {(char *)program, (char *)mode, (char *)arg, NULL};
	posix_spawn_file_actions_t act;
	int in[2], out[2];

	ck_assert_msg(program, "set LOCAL_PEER to the program local-peer");
	if (path)
		setenv("VMCOMM_SLOT", path, 1);
	else
		unsetenv("VMCOMM_SLOT");
	ck_assert(!pipe2(in, O_CLOEXEC) && !pipe2(out, O_CLOEXEC));
	posix_spawn_file_actions_init(&act);
	posix_spawn_file_actions_adddup2(&act, in[0], 0);
	posix_spawn_file_actions_adddup2(&act, out[1], 1);
	if (fd >= 0)
		posix_spawn_file_actions_adddup2(&act, fd, 3);
	ck_assert_int_eq(posix_spawn(&p->pid, program, &act, NULL, argv, environ), 0);
	posix_spawn_file_actions_destroy(&act);
	close(in[0]);
	close(out[1]);
	if (fd >= 0)
		close(fd);
	p->in = in[1];
	p->out = out[0];
}

void peer_ready(struct peer *p)
{
	char line[8];
	size_t have = 0;
	ssize_t n;

	while (have < 6) {
		n = read(p->out, line + have, 6 - have);
		ck_assert_msg(n > 0, "the peer ended before it was ready");
		have += (size_t)n;
	}
	ck_assert(!memcmp(line, "ready\n", 6));
}

static void peer_wait(struct peer *p, int *status)
{
	ck_assert_int_eq(waitpid(p->pid, status, 0), p->pid);
	close(p->in);
	close(p->out);
}

void peer_kill(struct peer *p)
{
	int status;

	kill(p->pid, SIGKILL);
	peer_wait(p, &status);
}

void peer_end(struct peer *p)
{
	int status, end = p->in;

	p->in = dup(p->out);
	close(end);
	peer_wait(p, &status);
	ck_assert_msg(WIFEXITED(status) && !WEXITSTATUS(status), "the peer's status is %x", status);
}

void echo_check(struct vmcomm_stream *s, uint64_t pos, size_t n, size_t piece)
{
	unsigned char *buf = malloc(2 * piece);
	size_t sent = 0, got = 0, k;
	ssize_t r;

	while (got < n) {
		if (sent < n && sent - got < piece) {
			k = n - sent < piece ? n - sent : piece;
			pattern_fill(buf, pos + sent, k);
			r = vmcomm_send(s, buf, k, 0);
			ck_assert_int_eq(r, (ssize_t)k);
			sent += k;
		}
		r = vmcomm_recv(s, buf, 2 * piece, 0);
		ck_assert_msg(r > 0, "recv: %zd (%s)", r, vmcomm_strerror((int)r));
		ck_assert_uint_eq(pattern_check(buf, pos + got, (size_t)r), (size_t)r);
		got += (size_t)r;
	}
	ck_assert_uint_eq(got, n);
	free(buf);
}

void connect_retry(struct vmcomm_stream **s, struct vmcomm_member *m, const char *to)
{
	int err, i;

	for (i = 0; i < 10000; i++) {
		err = vmcomm_connect(s, m, to, 7, 0);
		if (err != -EHOSTUNREACH && err != -ECONNREFUSED)
			break;
		usleep(1000);
	}
	ok(err);
}
