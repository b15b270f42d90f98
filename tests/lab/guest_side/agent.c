// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Agent of a lab guest: process 1, runs commands for the host.
 *
 * It talks in frames: a header (struct frame, little endian) and len bytes; over a virtio-serial port,
 * or, with a number as its argument, to whoever connects to that TCP port (Xen domains).
 * The host names each command with an id of its choice; any number of commands run at once. Kernel
 * messages are sent as they come, so that the host has them even if the guest dies.
 *
 *	host -> guest	EXEC	u32 argc, u32 envc, then strings ending in 0: directory, argv, NAME=value
 *			STDIN	bytes; no bytes: end of file
 *			SIGNAL	u32 signal, to the command's process group
 *			SYNC	answered by SYNCED, after all kernel messages up to now
 *			POWER	u32 for reboot(2), without any sync or shutdown but of the network
 *	guest -> host	HELLO	text: boot id, release, uptime; HELLO_MAGIC goes before it
 *			STARTED	u32 pid
 *			STDOUT, STDERR	bytes
 *			STDIN_ACK	u32: so many bytes of STDIN were taken (the host keeps a window)
 *			EXIT	u32 status as from waitpid, after all output written before the exit
 *			KMSG	one record of /dev/kmsg
 *
 * Children of a command that outlive it keep their output pipes; what they write is still sent.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PORT "/dev/vport0p1"
#define HELLO_MAGIC "\x7fvmlab-hello-01\n"
#define FRAME_MAX (1u << 20)
#define CHUNK 65536u
#define ARGS_MAX 4096u

enum frame_type {
	EXEC = 1,
	STDIN,
	SIGNAL,
	SYNC,
	POWER,
	HELLO = 64,
	STARTED,
	STDOUT,
	STDERR,
	STDIN_ACK,
	EXIT,
	KMSG,
	SYNCED,
};

struct frame {
	uint32_t len;
	uint32_t id;
	uint32_t type;
};

/* Input for a command that its pipe has not taken yet. */
struct input {
	struct input *next;
	uint32_t len;
	uint32_t done;
	char data[];
};

struct job {
	struct job *next;
	uint32_t id;
	pid_t pid;
	bool exited;
	int in;
	int out[2];
	struct input *input;
	struct input **input_end;
};

static int port = -1;
static int listener = -1; /* TCP: the port is whoever connected last */
static int kmsg = -1;
static struct job *jobs;
static char inbuf[sizeof(struct frame) + FRAME_MAX];
static size_t inlen;

/* Process 1 must not simply exit: say why on the console first, then let the kernel panic. */
static void __attribute__((format(printf, 1, 2), noreturn)) die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fprintf(stderr, "lab agent: ");
	vfprintf(stderr, format, args);
	fprintf(stderr, "\n");
	va_end(args);
	exit(1);
}

static void port_write(const void *data, size_t len)
{
	while (len > 0) {
		ssize_t n = write(port, data, len);

		if (n < 0) {
			struct pollfd p = { .fd = port, .events = POLLOUT };

			if (listener >= 0 && errno != EAGAIN && errno != EINTR)
				return; /* the reader finds out */
			if (errno != EAGAIN && errno != EINTR)
				die("write to %s: %s", PORT, strerror(errno));
			poll(&p, 1, 100);
			continue;
		}
		data = (const char *)data + n;
		len -= (size_t)n;
	}
}

/* One write per frame: a write is a buffer of the port and costs an exit to the host. */
static void send_frame(uint32_t id, uint32_t type, const void *data, uint32_t len)
{
	static char buf[sizeof(struct frame) + CHUNK];
	struct frame f = { .len = len, .id = id, .type = type };

	if (len > CHUNK)
		die("frame of %u bytes", len);
	memcpy(buf, &f, sizeof(f));
	memcpy(buf + sizeof(f), data, len);
	port_write(buf, sizeof(f) + len);
}

static void send_u32(uint32_t id, uint32_t type, uint32_t value)
{
	send_frame(id, type, &value, sizeof(value));
}

static void send_error(uint32_t id, const char *format, ...)
{
	char text[256];
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	send_frame(id, STDERR, text, (uint32_t)n < sizeof(text) ? (uint32_t)n : sizeof(text) - 1);
	send_u32(id, EXIT, 127 << 8);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static struct job *job_find(uint32_t id)
{
	struct job *j;

	for (j = jobs; j; j = j->next)
		if (j->id == id && !j->exited)
			return j;
	return NULL;
}

static void job_drop_input(struct job *j)
{
	while (j->input) {
		struct input *i = j->input;

		j->input = i->next;
		free(i);
	}
	j->input_end = &j->input;
}

/* Write what the command takes; a zero-length piece is the end of its input. */
static void job_feed(struct job *j)
{
	while (j->input && j->in >= 0) {
		struct input *i = j->input;
		ssize_t n = 0;

		if (i->len == 0) {
			close_fd(&j->in);
			break;
		}
		n = write(j->in, i->data + i->done, i->len - i->done);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n < 0) {
			close_fd(&j->in);
			break;
		}
		send_u32(j->id, STDIN_ACK, (uint32_t)n);
		i->done += (uint32_t)n;
		if (i->done < i->len)
			return;
		j->input = i->next;
		if (!j->input)
			j->input_end = &j->input;
		free(i);
	}
	if (j->in < 0) {
		/* Nobody reads: give the host its window back so that it does not wait for ever. */
		struct input *i;

		for (i = j->input; i; i = i->next)
			if (i->len > i->done)
				send_u32(j->id, STDIN_ACK, i->len - i->done);
		job_drop_input(j);
	}
}

/* Send at most limit bytes of one output; close it at its end. Returns false when it is empty. */
static bool job_output(struct job *j, int which, size_t limit)
{
	static char buf[CHUNK];
	ssize_t n;

	if (j->out[which] < 0)
		return false;
	n = read(j->out[which], buf, limit < sizeof(buf) ? limit : sizeof(buf));
	if (n < 0)
		return errno == EINTR;
	if (n == 0)
		close_fd(&j->out[which]);
	else
		send_frame(j->id, which ? STDERR : STDOUT, buf, (uint32_t)n);
	return n > 0;
}

static void job_exited(struct job *j, int status)
{
	int which, left;

	for (which = 0; which < 2; which++) {
		/* A child that lives on may write for ever: take what was there at the exit. */
		left = 0;
		if (j->out[which] >= 0 && ioctl(j->out[which], FIONREAD, &left) < 0)
			left = 0;
		while (left > 0 && job_output(j, which, (size_t)left) && j->out[which] >= 0) {
			int now = 0;

			ioctl(j->out[which], FIONREAD, &now);
			left = now < left ? now : left - 1;
		}
	}
	close_fd(&j->in);
	job_feed(j);
	j->exited = true;
	send_u32(j->id, EXIT, (uint32_t)status);
}

static void jobs_reap(void)
{
	struct job *j;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (j = jobs; j; j = j->next)
			if (j->pid == pid && !j->exited) {
				job_exited(j, status);
				break;
			}
}

static void jobs_free_finished(void)
{
	struct job **at = &jobs;

	while (*at) {
		struct job *j = *at;

		if (j->exited && j->out[0] < 0 && j->out[1] < 0) {
			*at = j->next;
			free(j);
		} else {
			at = &j->next;
		}
	}
}

static void child(char *dir, char **argv, char **env, int in, int out, int err)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	setsid();
	dup2(in, 0);
	dup2(out, 1);
	dup2(err, 2);
	for (; *env; env++)
		putenv(*env);
	if (*dir && chdir(dir) < 0) {
		fprintf(stderr, "lab agent: cannot enter %s: %s\n", dir, strerror(errno));
	} else {
		execvp(argv[0], argv);
		fprintf(stderr, "lab agent: cannot run %s: %s\n", argv[0], strerror(errno));
	}
	_exit(127);
}

/* Split the strings of an EXEC frame. Returns their number or -1 if they are malformed. */
static int split(char *data, size_t len, char **strings, size_t max)
{
	size_t n = 0, at = 0;

	if (len == 0 || data[len - 1] != 0)
		return -1;
	while (at < len) {
		if (n == max)
			return -1;
		strings[n++] = data + at;
		at += strlen(data + at) + 1;
	}
	return (int)n;
}

static void job_start(uint32_t id, char *data, uint32_t len)
{
	static char *strings[1 + 2 * ARGS_MAX];
	static char *argv[ARGS_MAX + 1], *env[ARGS_MAX + 1];
	int in[2] = { -1, -1 }, out[2] = { -1, -1 }, err[2] = { -1, -1 };
	uint32_t argc, envc;
	struct job *j;

	if (len < 8)
		die("EXEC frame of %u bytes", len);
	memcpy(&argc, data, 4);
	memcpy(&envc, data + 4, 4);
	if (argc == 0 || argc > ARGS_MAX || envc > ARGS_MAX ||
	    split(data + 8, len - 8, strings, 1 + 2 * ARGS_MAX) != (int)(1 + argc + envc)) {
		send_error(id, "lab agent: malformed or too long command\n");
		return;
	}
	memcpy(argv, strings + 1, argc * sizeof(*argv));
	argv[argc] = NULL;
	memcpy(env, strings + 1 + argc, envc * sizeof(*env));
	env[envc] = NULL;

	j = calloc(1, sizeof(*j));
	if (!j || pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0)
		goto fail;
	j->pid = fork();
	if (j->pid < 0)
		goto fail;
	if (j->pid == 0)
		child(strings[0], argv, env, in[0], out[1], err[1]);
	close(in[0]);
	close(out[1]);
	close(err[1]);
	fcntl(in[1], F_SETFL, O_NONBLOCK);
	fcntl(out[0], F_SETFL, O_NONBLOCK);
	fcntl(err[0], F_SETFL, O_NONBLOCK);
	j->id = id;
	j->in = in[1];
	j->out[0] = out[0];
	j->out[1] = err[0];
	j->input_end = &j->input;
	j->next = jobs;
	jobs = j;
	send_u32(id, STARTED, (uint32_t)j->pid);
	return;
fail:
	send_error(id, "lab agent: cannot start a command: %s\n", strerror(errno));
	free(j);
	for (int i = 0; i < 2; i++) {
		close_fd(&in[i]);
		close_fd(&out[i]);
		close_fd(&err[i]);
	}
}

static void job_input(uint32_t id, const char *data, uint32_t len)
{
	struct job *j = job_find(id);
	struct input *i;

	if (!j)
		return;
	i = malloc(sizeof(*i) + len);
	if (!i)
		die("no memory for %u bytes of input", len);
	i->next = NULL;
	i->len = len;
	i->done = 0;
	memcpy(i->data, data, len);
	*j->input_end = i;
	j->input_end = &i->next;
	job_feed(j);
}

static void kmsg_drain(void)
{
	char record[8192];
	ssize_t n;

	while (kmsg >= 0) {
		n = read(kmsg, record, sizeof(record));
		if (n > 0)
			send_frame(0, KMSG, record, (uint32_t)n);
		else if (n < 0 && (errno == EPIPE || errno == EINTR))
			continue; /* records were overwritten: go on with the oldest one left */
		else
			break;
	}
}

/*
 * Debian's 6.1 takes virtio devices away in reboot(2) while they are in use: a thread that sends just
 * then goes round in virtio-net's start_xmit() for ever, and where the kernel does not preempt, so does
 * the CPU. Take the interface down before, as every distribution does. TCP sends nothing because of it.
 */
static void network_down(void)
{
	struct ifreq ifr = {.ifr_name = "eth0"};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return;
	if (!ioctl(fd, SIOCGIFFLAGS, &ifr)) {
		ifr.ifr_flags &= (short)~IFF_UP;
		ioctl(fd, SIOCSIFFLAGS, &ifr);
	}
	close(fd);
}

static void handle(const struct frame *f, char *data)
{
	struct job *j;
	uint32_t value = 0;

	if (f->len >= sizeof(value))
		memcpy(&value, data, sizeof(value));
	switch (f->type) {
	case EXEC:
		job_start(f->id, data, f->len);
		break;
	case STDIN:
		job_input(f->id, data, f->len);
		break;
	case SIGNAL:
		j = job_find(f->id);
		/* It may not have made its process group yet. */
		if (j && kill(-j->pid, (int)value) < 0)
			kill(j->pid, (int)value);
		break;
	case SYNC:
		kmsg_drain();
		send_frame(f->id, SYNCED, "", 0);
		break;
	case POWER:
		network_down();
		reboot((int)value);
		break;
	default:
		die("unknown frame type %u", f->type);
	}
}

/* Returns false when the host is not connected. */
static bool port_read(void)
{
	ssize_t n = read(port, inbuf + inlen, sizeof(inbuf) - inlen);
	struct frame f;
	size_t at = 0;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (n <= 0)
		return false;
	inlen += (size_t)n;
	while (inlen - at >= sizeof(f)) {
		memcpy(&f, inbuf + at, sizeof(f));
		if (f.len > FRAME_MAX)
			die("frame of %u bytes", f.len);
		if (inlen - at < sizeof(f) + f.len)
			break;
		handle(&f, inbuf + at + sizeof(f));
		at += sizeof(f) + f.len;
	}
	inlen -= at;
	memmove(inbuf, inbuf + at, inlen);
	return true;
}

static size_t read_file(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, buf, size - 1);

	if (fd >= 0)
		close(fd);
	buf[n > 0 ? n : 0] = 0;
	buf[strcspn(buf, " \n")] = 0;
	return strlen(buf);
}

static void hello(void)
{
	char boot_id[64], release[64], uptime[64], text[256];
	int n;

	read_file("/proc/sys/kernel/random/boot_id", boot_id, sizeof(boot_id));
	read_file("/proc/sys/kernel/osrelease", release, sizeof(release));
	read_file("/proc/uptime", uptime, sizeof(uptime));
	n = snprintf(text, sizeof(text), "%s %s %s", boot_id, release, uptime);
	port_write(HELLO_MAGIC, sizeof(HELLO_MAGIC) - 1);
	send_frame(0, HELLO, text, (uint32_t)n);
}

static void tcp_listen(const char *number)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(number)) };
	int on = 1;

	listener = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(listener, (struct sockaddr *)&any, sizeof(any)) < 0 || listen(listener, 1) < 0)
		die("TCP port %s: %s", number, strerror(errno));
}

/* Wait for the host. What was half read or half sent belonged to the last connection. */
static void tcp_accept(void)
{
	int on = 1;

	close_fd(&port);
	do
		port = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	while (port < 0);
	setsockopt(port, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	inlen = 0;
}

static void set_up(const char *tcp_port)
{
	struct rlimit files = { .rlim_cur = 1 << 20, .rlim_max = 1 << 20 };
	int tries;

	setrlimit(RLIMIT_NOFILE, &files);
	setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
	setenv("HOME", "/root", 1);
	setenv("USER", "root", 1);
	setenv("LANG", "C.UTF-8", 1);
	unsetenv("TERM");
	if (chdir("/") < 0)
		die("cannot enter /: %s", strerror(errno));
	kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (tcp_port) {
		tcp_listen(tcp_port);
		tcp_accept();
		return;
	}
	/* The port appears a moment after its driver. */
	for (tries = 0; port < 0 && tries < 500; tries++) {
		port = open(PORT, O_RDWR | O_NONBLOCK | O_CLOEXEC);
		if (port < 0)
			usleep(10000);
	}
	if (port < 0)
		die("cannot open %s: %s", PORT, strerror(errno));
}

int main(int argc, char **argv)
{
	static struct pollfd *fds;
	static size_t fds_size;
	struct signalfd_siginfo info;
	sigset_t chld;
	int sigfd;

	set_up(argc > 1 ? argv[1] : NULL);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, NULL);
	sigfd = signalfd(-1, &chld, SFD_CLOEXEC | SFD_NONBLOCK);
	if (sigfd < 0)
		die("signalfd: %s", strerror(errno));
	hello();
	for (bool connected = true;;) {
		struct job *j;
		size_t n = 3;

		for (j = jobs; j; j = j->next)
			n += 3;
		if (n > fds_size) {
			fds_size = 2 * n;
			fds = realloc(fds, fds_size * sizeof(*fds));
			if (!fds)
				die("no memory for %zu descriptors", n);
		}
		/* While no host is connected the port says POLLHUP all the time: look now and then. */
		fds[0] = (struct pollfd){ .fd = connected ? port : -1, .events = POLLIN };
		fds[1] = (struct pollfd){ .fd = sigfd, .events = POLLIN };
		fds[2] = (struct pollfd){ .fd = kmsg, .events = POLLIN };
		n = 3;
		for (j = jobs; j; j = j->next) {
			fds[n++] = (struct pollfd){ .fd = j->out[0], .events = POLLIN };
			fds[n++] = (struct pollfd){ .fd = j->out[1], .events = POLLIN };
			fds[n++] = (struct pollfd){ .fd = j->input ? j->in : -1, .events = POLLOUT };
		}
		if (poll(fds, n, connected ? -1 : 20) < 0 && errno != EINTR)
			die("poll: %s", strerror(errno));
		n = 3;
		for (j = jobs; j; j = j->next, n += 3) {
			if (fds[n].revents)
				job_output(j, 0, CHUNK);
			if (fds[n + 1].revents)
				job_output(j, 1, CHUNK);
			if (fds[n + 2].revents)
				job_feed(j);
		}
		if (fds[2].revents)
			kmsg_drain();
		if (fds[1].revents && read(sigfd, &info, sizeof(info)) > 0)
			jobs_reap();
		if (fds[0].revents || !connected)
			connected = port_read();
		if (!connected && listener >= 0) {
			tcp_accept();
			hello();
			connected = true;
		}
		jobs_free_finished();
	}
}
