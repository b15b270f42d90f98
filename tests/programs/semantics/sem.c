// SPDX-License-Identifier: GPL-2.0-or-later
/* vmcomm-semantics: what all cases use. */
#include <linux/sockios.h>
#include <stdarg.h>
#include <sys/prctl.h>

#include "sem.h"

static char *text_slot(void)
{
	static __thread char texts[16][96];
	static __thread unsigned int next;

	return texts[next++ % 16];
}

const char *sem_rc(ssize_t r)
{
	char *t = text_slot();

	if (r >= 0)
		snprintf(t, 96, "%zd", r);
	else
		snprintf(t, 96, "-%s", strerrorname_np(errno) ?: "E?");
	return t;
}

const char *sem_amount(ssize_t r, size_t all)
{
	if (r < 0)
		return sem_rc(r);
	return !r ? "none" : (size_t)r < all ? "some" : (size_t)r == all ? "all" : "too much";
}

const char *sem_bool(bool b)
{
	return b ? "yes" : "no";
}

const char *sem_events_text(unsigned int events)
{
	static const struct {
		unsigned int bit;
		const char *name;
	} names[] = {{POLLIN, "IN"},	 {POLLPRI, "PRI"},	 {POLLOUT, "OUT"},
		     {POLLERR, "ERR"},	 {POLLHUP, "HUP"},	 {POLLNVAL, "NVAL"},
		     {POLLRDHUP, "RDHUP"}, {POLLRDNORM, "RDNORM"}, {POLLRDBAND, "RDBAND"},
		     {POLLWRNORM, "WRNORM"}};
	char *t = text_slot();
	size_t i, len = 0;

	for (i = 0; i < ARRAY_SIZE(names); i++)
		if (events & names[i].bit)
			len += (size_t)snprintf(t + len, 96 - len, "%s%s", len ? "|" : "",
						names[i].name);
	return len ? t : "none";
}

/* Control lines: "B" barrier, "V n" value, "L text" a line to report, "E" end of the server half. */
static void ctl_write(struct sem *s, const char *text, size_t len)
{
	if (write_all(s->ctl, text, len))
		_exit(3);
}

void sem_say(struct sem *s, const char *fmt, ...)
{
	char text[512];
	size_t len;
	va_list ap;

	text[0] = s->server ? 'L' : 'c';
	text[1] = ' ';
	va_start(ap, fmt);
	vsnprintf(text + 2, sizeof(text) - 3, fmt, ap);
	va_end(ap);
	len = strlen(text);
	text[len++] = '\n';
	if (s->server)
		ctl_write(s, text, len);
	else if (write(s->out, text, len) < 0)
		_exit(3);
}

/* The next control line that is not a report; reports are passed on. */
static void ctl_read(struct sem *s)
{
	char c;

	for (;;) {
		s->line_len = 0;
		for (;;) {
			if (read_all(s->ctl, &c, 1))
				_exit(3);
			if (c == '\n')
				break;
			if (s->line_len < sizeof(s->line) - 2)
				s->line[s->line_len++] = c;
		}
		s->line[s->line_len] = '\0';
		if (s->line[0] != 'L')
			return;
		s->line[0] = 's';
		s->line[s->line_len++] = '\n';
		if (write(s->out, s->line, s->line_len) < 0)
			_exit(3);
	}
}

void sem_post(struct sem *s)
{
	ctl_write(s, "B\n", 2);
}

void sem_wait_post(struct sem *s)
{
	ctl_read(s);
	if (s->line[0] != 'B') {
		sem_say(s, "HALVES OUT OF STEP: '%s' where a barrier was due", s->line);
		_exit(4);
	}
}

void sem_barrier(struct sem *s)
{
	sem_post(s);
	sem_wait_post(s);
}

void sem_put(struct sem *s, uint64_t v)
{
	char text[32];

	ctl_write(s, text, (size_t)snprintf(text, sizeof(text), "V %llu\n", (unsigned long long)v));
}

uint64_t sem_get(struct sem *s)
{
	ctl_read(s);
	if (s->line[0] != 'V') {
		sem_say(s, "HALVES OUT OF STEP: '%s' where a value was due", s->line);
		_exit(4);
	}
	return strtoull(s->line + 2, NULL, 10);
}

int sem_listener(struct sem *s, int backlog)
{
	struct addr a;
	int fd;

	addr_parse(&a, NULL, 0, s->self.ss.ss_family);
	fd = tcp_listen(&a, backlog);
	if (fd < 0) {
		errno = -fd;
		sem_say(s, "listen %s", sem_rc(-1));
		_exit(4);
	}
	return fd;
}

int sem_listen(struct sem *s, int backlog)
{
	int fd = sem_listener(s, backlog);

	sem_put(s, sock_port(fd));
	return fd;
}

int sem_dial(struct sem *s)
{
	struct addr a = s->peer;
	int fd;

	addr_set_port(&a, (uint16_t)sem_get(s));
	fd = tcp_connect(&a);
	if (fd < 0) {
		errno = -fd;
		sem_say(s, "connect %s", sem_rc(-1));
		_exit(4);
	}
	return fd;
}

int sem_pair(struct sem *s)
{
	int l, fd;

	if (!s->server)
		return sem_dial(s);
	l = sem_listen(s, 1);
	fd = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0) {
		sem_say(s, "accept %s", sem_rc(-1));
		_exit(4);
	}
	close(l);
	return fd;
}

void sem_fill_buf(void *buf, uint64_t pos, size_t len)
{
	stream_fill(SEM_SEED, pos, buf, len);
}

bool sem_check_buf(const void *buf, uint64_t pos, size_t len)
{
	return stream_check(SEM_SEED, pos, buf, len) < 0;
}

ssize_t sem_send_stream(int fd, uint64_t pos, size_t len)
{
	char buf[16384];
	size_t done, n;

	for (done = 0; done < len; done += n) {
		n = len - done < sizeof(buf) ? len - done : sizeof(buf);
		sem_fill_buf(buf, pos + done, n);
		errno = -write_all(fd, buf, n);
		if (errno)
			return -1;
	}
	return (ssize_t)len;
}

void sem_expect_stream(struct sem *s, const char *what, int fd, uint64_t pos, size_t len)
{
	static __thread char buf[65536];
	size_t done = 0;
	ssize_t r = 0;
	bool good = true;

	while (done < len) {
		r = recv(fd, buf, len - done < sizeof(buf) ? len - done : sizeof(buf), 0);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0 && errno == EAGAIN) {
			struct pollfd p = {.fd = fd, .events = POLLIN};

			if (poll(&p, 1, SEM_WAIT_MS) == 1)
				continue;
		}
		if (r <= 0)
			break;
		good = good && sem_check_buf(buf, pos + done, (size_t)r);
		done += (size_t)r;
	}
	if (done < len)
		sem_say(s, "%s: ended early, last result %s, content %s", what, RC(r),
			good ? "good" : "WRONG");
	else
		sem_say(s, "%s: all, content %s", what, good ? "good" : "WRONG");
}

size_t sem_stuff(int fd, uint64_t pos)
{
	char buf[32768];
	size_t done = 0;
	ssize_t r;
	int quiet = 0;

	/* Acknowledgements and a growing window make room for a while: ask until it stays full. */
	while (quiet < 10) {
		sem_fill_buf(buf, pos + done, sizeof(buf));
		r = send(fd, buf, sizeof(buf), MSG_DONTWAIT | MSG_NOSIGNAL);
		if (r > 0) {
			done += (size_t)r;
			quiet = 0;
			continue;
		}
		if (errno != EAGAIN)
			break;
		quiet++;
		sleep_ms(15);
	}
	return done;
}

size_t sem_read_all(int fd, uint64_t pos, bool *good, int *err)
{
	static __thread char buf[65536];
	size_t done = 0;
	ssize_t r;

	*good = true;
	for (;;) {
		r = recv(fd, buf, sizeof(buf), 0);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			break;
		*good = *good && sem_check_buf(buf, pos + done, (size_t)r);
		done += (size_t)r;
	}
	*err = r < 0 ? errno : 0;
	return done;
}

static bool sem_wait_timeout(struct sem *s, const char *what)
{
	sem_say(s, "WAITED IN VAIN for %s", what);
	return false;
}

bool sem_wait_inq(struct sem *s, int fd, int bytes)
{
	uint64_t end = now_ms() + SEM_WAIT_MS;
	int n = 0;

	for (;;) {
		if (!ioctl(fd, SIOCINQ, &n) && n >= bytes)
			return true;
		if (now_ms() > end)
			return sem_wait_timeout(s, "bytes to read");
		sleep_ms(1);
	}
}

bool sem_wait_events(struct sem *s, int fd, short events)
{
	uint64_t end = now_ms() + SEM_WAIT_MS;
	struct pollfd p = {.fd = fd, .events = events};

	for (;;) {
		if (poll(&p, 1, 100) > 0 && (p.revents & events) == events)
			return true;
		if (now_ms() > end)
			return sem_wait_timeout(s, sem_events_text((unsigned short)events));
		sleep_ms(1);
	}
}

bool sem_wait_outq_empty(struct sem *s, int fd)
{
	uint64_t end = now_ms() + SEM_WAIT_MS;
	int n = 1;

	for (;;) {
		if (!ioctl(fd, SIOCOUTQ, &n) && !n)
			return true;
		if (now_ms() > end)
			return sem_wait_timeout(s, "an empty send queue");
		sleep_ms(1);
	}
}

int sem_tcp_state(int fd)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof(info);

	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) ? -1 : info.tcpi_state;
}

bool sem_wait_tcp_state(struct sem *s, int fd, int state)
{
	uint64_t end = now_ms() + SEM_WAIT_MS;

	while (sem_tcp_state(fd) != state) {
		if (now_ms() > end)
			return sem_wait_timeout(s, "a TCP state");
		sleep_ms(1);
	}
	return true;
}

void sem_say_recv(struct sem *s, const char *what, int fd, size_t len, int flags)
{
	char buf[64];
	ssize_t r;
	int i;

	if (len > sizeof(buf) - 1)
		len = sizeof(buf) - 1;
	r = recv(fd, buf, len, flags);
	if (r <= 0) {
		sem_say(s, "%s: %s", what, RC(r));
		return;
	}
	for (i = 0; i < r; i++)
		if (buf[i] < ' ' || buf[i] > '~')
			buf[i] = '?';
	sem_say(s, "%s: %zd '%.*s'", what, r, (int)r, buf);
}

void sem_say_poll(struct sem *s, const char *what, int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT | POLLPRI | POLLRDHUP};
	int r = poll(&p, 1, 0);

	sem_say(s, "%s: %s", what, r < 0 ? RC(r) : sem_events_text((unsigned short)p.revents));
}

int sem_set_int(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value));
}

int sem_get_int(int fd, int level, int name)
{
	int value = 0;
	socklen_t len = sizeof(value);

	return getsockopt(fd, level, name, &value, &len) ? -errno : value;
}

void sem_set_timeout(int fd, int name, unsigned int ms)
{
	struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000};

	setsockopt(fd, SOL_SOCKET, name, &tv, sizeof(tv));
}

bool sem_sleeps(pid_t tid)
{
	char path[64], text[256], *p;
	int i, fd;
	ssize_t r;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	for (i = 0; i < 5; i++, sleep_ms(10)) {
		fd = open(path, O_RDONLY | O_CLOEXEC);
		r = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
		if (fd >= 0)
			close(fd);
		if (r <= 0)
			return false;
		text[r] = '\0';
		/* The state follows the name, which is in brackets. */
		p = strrchr(text, ')');
		if (!p || p[1] != ' ' || p[2] != 'S')
			return false;
	}
	return true;
}

const char *sem_wait_child(pid_t pid)
{
	char *t = text_slot();
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return "no child";
	if (WIFSIGNALED(status))
		snprintf(t, 96, "signal %s", sigabbrev_np(WTERMSIG(status)) ?: "?");
	else
		snprintf(t, 96, "exit %d", WEXITSTATUS(status));
	return t;
}

pid_t sem_fork(void)
{
	pid_t pid = fork();

	if (pid < 0)
		die_errno("fork");
	if (!pid)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}
