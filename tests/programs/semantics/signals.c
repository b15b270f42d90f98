// SPDX-License-Identifier: GPL-2.0-or-later
/* Cases: signals that meet a blocked call; SIGIO and SIGURG by O_ASYNC. */
#include <sys/epoll.h>
#include <sys/time.h>

#include "sem.h"

static struct sem *sig_sem;
static volatile sig_atomic_t sig_count;

/* The first signal tells the other half, the others only interrupt. */
static void on_alarm(int sig)
{
	if (!sig_count++ && sig_sem)
		sem_post(sig_sem);
}

/* A signal every SEM_SIGNAL_MS, so that one that comes too early for the call does no harm. */
static void alarm_start(int sa_flags, struct sem *tell)
{
	struct sigaction sa = {.sa_handler = on_alarm, .sa_flags = sa_flags};
	struct itimerval it = {.it_value.tv_usec = SEM_SIGNAL_MS * 1000,
			       .it_interval.tv_usec = SEM_SIGNAL_MS * 1000};

	sig_sem = tell;
	sig_count = 0;
	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &it, NULL);
}

static void alarm_stop(void)
{
	struct itimerval it = {0};

	setitimer(ITIMER_REAL, &it, NULL);
}

static void sig_recv_client(struct sem *s)
{
	struct pollfd p = {.fd = s->fd, .events = POLLIN};
	struct epoll_event ev = {.events = EPOLLIN};
	int ep = epoll_create1(0), r;
	char b[16];
	ssize_t n;

	alarm_start(0, NULL);
	n = recv(s->fd, b, 5, 0);
	alarm_stop();
	sem_say(s, "recv: %s", RC(n));
	alarm_start(0, NULL);
	r = poll(&p, 1, -1);
	alarm_stop();
	sem_say(s, "poll: %s", RC(r));
	epoll_ctl(ep, EPOLL_CTL_ADD, s->fd, &ev);
	alarm_start(SA_RESTART, NULL);
	r = epoll_wait(ep, &ev, 1, -1);
	alarm_stop();
	sem_say(s, "epoll_wait with SA_RESTART: %s", RC(r));
	alarm_start(0, NULL);
	n = recv(s->fd, b, 5, MSG_PEEK);
	alarm_stop();
	sem_say(s, "peek: %s", RC(n));
	/* A timeout on the socket turns SA_RESTART off. */
	sem_set_timeout(s->fd, SO_RCVTIMEO, 60000);
	alarm_start(SA_RESTART, NULL);
	n = recv(s->fd, b, 5, 0);
	alarm_stop();
	sem_say(s, "recv with SA_RESTART and a timeout: %s", RC(n));
	sem_set_timeout(s->fd, SO_RCVTIMEO, 0);
	/* The server sends when the signal has come: the call goes on and gets it. */
	alarm_start(SA_RESTART, s);
	n = recv(s->fd, b, 5, 0);
	alarm_stop();
	sem_say(s, "recv with SA_RESTART: %s, signal seen: %s", RC(n), sem_bool(sig_count > 0));
}

static void sig_recv_server(struct sem *s)
{
	sem_wait_post(s);
	sleep_ms(50);
	send(s->fd, "hello", 5, 0);
	sem_say_recv(s, "end", s->fd, 1, 0);
}

static void sig_waitall_client(struct sem *s)
{
	char b[32];
	ssize_t n;

	sem_wait_inq(s, s->fd, 10);
	alarm_start(0, NULL);
	n = recv(s->fd, b, 20, MSG_WAITALL);
	alarm_stop();
	sem_say(s, "part: %s", RC(n));
	sem_barrier(s);
	sem_wait_inq(s, s->fd, 10);
	alarm_start(SA_RESTART, NULL);
	n = recv(s->fd, b, 20, MSG_WAITALL);
	alarm_stop();
	sem_say(s, "part with SA_RESTART: %s", RC(n));
	alarm_start(0, NULL);
	n = recv(s->fd, b, 20, MSG_WAITALL);
	alarm_stop();
	sem_say(s, "nothing: %s", RC(n));
	alarm_start(SA_RESTART, s);
	n = recv(s->fd, b, 20, MSG_WAITALL);
	alarm_stop();
	sem_say(s, "nothing yet, with SA_RESTART: %s", n == 20 || n == 10 ? "went on" : RC(n));
}

static void sig_waitall_server(struct sem *s)
{
	send(s->fd, "0123456789", 10, 0);
	sem_barrier(s);
	send(s->fd, "0123456789", 10, 0);
	sem_wait_post(s);
	sleep_ms(50);
	send(s->fd, "01234567890123456789", 20, 0);
	sem_say_recv(s, "end", s->fd, 1, 0);
}

static void sig_send_client(struct sem *s)
{
	size_t len = 64 << 20, n;
	char *buf = xcalloc(1, len);
	ssize_t r;

	sem_fill_buf(buf, 0, len);
	/* A peer that does not read lets the first send get a part through, the next ones nothing. */
	alarm_start(0, NULL);
	r = send(s->fd, buf, len, 0);
	alarm_stop();
	sem_say(s, "send more than fits: %s", sem_amount(r, len));
	n = r > 0 ? (size_t)r : 0;
	n += sem_stuff(s->fd, n);
	alarm_start(0, NULL);
	r = send(s->fd, buf + n, 4 << 20, 0);
	alarm_stop();
	sem_say(s, "send when full: %s", RC(r));
	sem_set_timeout(s->fd, SO_SNDTIMEO, 60000);
	alarm_start(SA_RESTART, NULL);
	r = send(s->fd, buf + n, 4 << 20, 0);
	alarm_stop();
	sem_say(s, "send with SA_RESTART and a timeout: %s", RC(r));
	sem_set_timeout(s->fd, SO_SNDTIMEO, 0);
	sem_put(s, n);
	alarm_start(SA_RESTART, s);
	/* Once something has been taken a signal ends the call with that part: go on by hand. */
	r = send(s->fd, buf + n, 100000, 0);
	alarm_stop();
	if (r > 0 && r < 100000)
		r += sem_send_stream(s->fd, n + (size_t)r, 100000 - (size_t)r);
	sem_say(s, "send with SA_RESTART: %s, signal seen: %s", sem_amount(r, 100000),
		sem_bool(sig_count > 0));
	free(buf);
}

static void sig_send_server(struct sem *s)
{
	size_t n = sem_get(s);

	sem_wait_post(s);
	sem_expect_stream(s, "read", s->fd, 0, n + 100000);
	sem_say_recv(s, "end", s->fd, 1, 0);
}

static void sig_accept_client(struct sem *s)
{
	int fd;

	sem_wait_post(s);
	fd = sem_dial(s);
	sem_say_recv(s, "recv", fd, 32, 0);
}

static void sig_accept_server(struct sem *s)
{
	struct addr a;
	int l, fd;

	addr_parse(&a, NULL, 0, s->self.ss.ss_family);
	l = tcp_listen(&a, 1);
	alarm_start(0, NULL);
	fd = accept(l, NULL, NULL);
	alarm_stop();
	sem_say(s, "accept: %s", RC(fd));
	alarm_start(SA_RESTART, s);
	while (!sig_count)
		pause();
	sem_put(s, sock_port(l));
	fd = accept(l, NULL, NULL);
	alarm_stop();
	sem_say(s, "accept with SA_RESTART: %s", fd < 0 ? RC(fd) : "went on");
	send(fd, "hello", 5, 0);
}

/* SIGSTOP and SIGCONT around a blocked call: it is restarted unseen. */
static void sig_stop_client(struct sem *s)
{
	pid_t pid = sem_fork();
	char b[8];

	if (!pid)
		_exit(recv(s->fd, b, 5, MSG_WAITALL) == 5 && !memcmp(b, "hello", 5) ? 0 : 1);
	sleep_ms(100);
	kill(pid, SIGSTOP);
	sleep_ms(50);
	sem_barrier(s);
	sem_wait_inq(s, s->fd, 5);
	sleep_ms(50);
	kill(pid, SIGCONT);
	sem_say(s, "stopped reader: %s", sem_wait_child(pid));
}

static void sig_stop_server(struct sem *s)
{
	sem_barrier(s);
	send(s->fd, "hello", 5, 0);
	sem_say_recv(s, "end", s->fd, 1, 0);
}

static volatile sig_atomic_t io_in, io_out, io_fd, io_plain, io_urg;

static void on_io(int sig, siginfo_t *si, void *context)
{
	if (sig == SIGIO) {
		io_plain = 1;
		return;
	}
	if (sig == SIGURG) {
		io_urg = 1;
		return;
	}
	io_fd = si->si_fd;
	if (si->si_band & POLLIN)
		io_in = 1;
	if (si->si_band & POLLOUT)
		io_out = 1;
}

static bool io_wait(volatile sig_atomic_t *flag)
{
	uint64_t end = now_ms() + SEM_WAIT_MS;

	while (!*flag && now_ms() < end)
		sleep_ms(2);
	return *flag;
}

static void sigio_client(struct sem *s)
{
	struct sigaction sa = {.sa_sigaction = on_io, .sa_flags = SA_SIGINFO | SA_RESTART};
	size_t n;

	sigaction(SIGIO, &sa, NULL);
	sigaction(SIGRTMIN, &sa, NULL);
	fcntl(s->fd, F_SETOWN, getpid());
	sem_say(s, "O_ASYNC: %s", RC(fcntl(s->fd, F_SETFL, O_ASYNC | O_NONBLOCK)));
	sem_barrier(s);
	sem_say(s, "SIGIO on data: %s", sem_bool(io_wait(&io_plain)));
	sem_wait_inq(s, s->fd, 5);
	sem_say_recv(s, "recv", s->fd, 32, 0);
	sem_say(s, "F_SETSIG: %s", RC(fcntl(s->fd, F_SETSIG, SIGRTMIN)));
	io_in = 0;
	sem_barrier(s);
	sem_say(s, "signal with IN on data: %s", sem_bool(io_wait(&io_in)));
	sem_say(s, "it names the descriptor: %s", sem_bool(io_fd == s->fd));
	sem_wait_inq(s, s->fd, 5);
	sem_say_recv(s, "recv", s->fd, 32, 0);
	n = sem_stuff(s->fd, 0);
	io_out = 0;
	sem_put(s, n);
	sem_say(s, "signal with OUT when there is room: %s", sem_bool(io_wait(&io_out)));
	io_in = 0;
	sem_barrier(s);
	sem_say(s, "signal with IN at end: %s", sem_bool(io_wait(&io_in)));
	sem_say(s, "O_ASYNC off: %s", RC(fcntl(s->fd, F_SETFL, O_NONBLOCK)));
}

static void sigio_server(struct sem *s)
{
	sem_barrier(s);
	send(s->fd, "hello", 5, 0);
	sem_barrier(s);
	send(s->fd, "again", 5, 0);
	sem_expect_stream(s, "read", s->fd, 0, sem_get(s));
	sem_barrier(s);
	shutdown(s->fd, SHUT_WR);
	sem_say_recv(s, "end", s->fd, 1, 0);
}

static void sigurg_client(struct sem *s)
{
	struct sigaction sa = {.sa_sigaction = on_io, .sa_flags = SA_SIGINFO | SA_RESTART};

	sigaction(SIGURG, &sa, NULL);
	fcntl(s->fd, F_SETOWN, getpid());
	sem_barrier(s);
	sem_say(s, "SIGURG: %s", sem_bool(io_wait(&io_urg)));
	sem_wait_events(s, s->fd, POLLPRI);
	sem_say_recv(s, "urgent byte", s->fd, 1, MSG_OOB);
}

static void sigurg_server(struct sem *s)
{
	sem_barrier(s);
	sem_say(s, "send urgent: %s", RC(send(s->fd, "!", 1, MSG_OOB)));
	sem_say_recv(s, "end", s->fd, 1, 0);
}

static const struct sem_case cases[] = {
	SEM_CASE(sig_recv, SEM_CONN), SEM_CASE(sig_waitall, SEM_CONN), SEM_CASE(sig_send, SEM_CONN),
	SEM_CASE(sig_accept, 0),      SEM_CASE(sig_stop, SEM_CONN),    SEM_CASE(sigio, SEM_CONN),
	SEM_CASE(sigurg, SEM_CONN),
};

const struct sem_group sem_signals = {cases, ARRAY_SIZE(cases)};
