// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * churn.c - sockets that live short and die in every way
 *
 *	churn server PORT [fail]
 *	churn client ADDRESS PORT PROCESSES SECONDS SEED [calm] [fail]
 *
 * Each of PROCESSES connects, talks, and ends the connection again and again: by close, by a reset,
 * with unread bytes, by connect(AF_UNSPEC), by exit, or killed with SIGKILL by its parent. Beside the
 * thread that sends and receives another one polls and asks ioctl() about the same socket. Some
 * connections get kTLS in the middle. The server echoes.
 *
 * Any call may fail at any time (the suite makes allocations fail, devices and modules come and go);
 * what is received must be what was sent. With "calm" nobody is killed and the client's own calls
 * must not fail either. With "fail" who talks is one of whom the kernel's fault injection may let
 * allocations fail; not who starts them, and nobody during exec(), which a failure there kills.
 * Exit code 0, or 3 after a wrong byte (or an error, with calm).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tls.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef TCP_ULP
#define TCP_ULP 31
#endif
#ifndef SOL_TLS
#define SOL_TLS 282
#endif

#define CHUNK_MAX 65536
/* Marks a request for kTLS; an ordinary byte of the stream is never 0xff. */
#define ASK_TLS 0xff

static bool calm, fail;
static volatile uint64_t *connections, *echoed, *tls; /* shared by all processes */

static uint32_t draw(uint64_t *state)
{
	*state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)(*state >> 33);
}

static uint8_t pattern(uint32_t key, uint64_t at)
{
	return (uint8_t)((key + at * 2654435761U + (at >> 8)) % 251);
}

/* Whether the calling thread's allocations may fail from now on. */
static void may_fail(bool on)
{
	int fd;

	if (!fail)
		return;
	/* This may fail for the same reason. */
	do
		fd = open("/proc/thread-self/make-it-fail", O_WRONLY | O_CLOEXEC);
	while (fd < 0 && errno == ENOMEM);
	if (fd < 0 || write(fd, on ? "1" : "0", 1) != 1) {
		printf("churn: make-it-fail: %s\n", strerror(errno));
		fflush(stdout);
		_exit(3);
	}
	close(fd);
}

static int tls_start(int fd)
{
	struct tls12_crypto_info_aes_gcm_128 k = {
		.info = {.version = TLS_1_2_VERSION, .cipher_type = TLS_CIPHER_AES_GCM_128},
	};

	if (setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")) ||
	    setsockopt(fd, SOL_TLS, TLS_TX, &k, sizeof(k)) ||
	    setsockopt(fd, SOL_TLS, TLS_RX, &k, sizeof(k)))
		return -errno;
	return 0;
}

static bool put(int fd, const uint8_t *p, size_t n)
{
	while (n) {
		ssize_t r = send(fd, p, n, MSG_NOSIGNAL);

		if (r <= 0)
			return false;
		p += r;
		n -= (size_t)r;
	}
	return true;
}

/* --- server --- */

static void *echo(void *arg)
{
	int fd = (int)(intptr_t)arg;
	uint8_t *buf = malloc(CHUNK_MAX);
	ssize_t n;

	may_fail(true);
	while (buf) {
		n = recv(fd, buf, CHUNK_MAX, 0);
		if (n <= 0)
			break;
		if (buf[n - 1] == ASK_TLS) {
			/* What came before it, then the answer in clear, then records. */
			if (!put(fd, buf, (size_t)n) || tls_start(fd))
				break;
			continue;
		}
		if (!put(fd, buf, (size_t)n))
			break;
	}
	free(buf);
	close(fd);
	return NULL;
}

static int serve(const char *port)
{
	struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(port))};
	int fd = socket(AF_INET6, SOCK_STREAM, 0), one = 1, no = 0, c;
	pthread_attr_t attr;
	pthread_t t;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof(no));
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 128)) {
		fprintf(stderr, "churn: port %s: %s\n", port, strerror(errno));
		return 1;
	}
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, 64 << 10);
	for (;;) {
		c = accept(fd, NULL, NULL);
		if (c < 0)
			continue;
		if (pthread_create(&t, &attr, echo, (void *)(intptr_t)c))
			close(c);
	}
}

/* --- client --- */

struct talk {
	int fd;
	volatile bool end;
};

/* The one who only looks. */
static void *look(void *arg)
{
	struct talk *t = arg;
	struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP};
	int ep = epoll_create1(0), n;
	uint8_t byte;

	may_fail(true);
	epoll_ctl(ep, EPOLL_CTL_ADD, t->fd, &ev);
	while (!t->end) {
		struct pollfd p = {.fd = t->fd, .events = POLLIN | POLLOUT};

		poll(&p, 1, 1);
		ioctl(t->fd, SIOCINQ, &n);
		ioctl(t->fd, SIOCOUTQ, &n);
		if (recv(t->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EBADF)
			break;
		epoll_wait(ep, &ev, 1, 1);
	}
	close(ep);
	return NULL;
}

static void wrong(const char *what, uint64_t at)
{
	printf("churn: %s at byte %llu\n", what, (unsigned long long)at);
	fflush(stdout);
	_exit(3);
}

static bool failed(const char *what)
{
	if (calm) {
		printf("churn: %s: %s\n", what, strerror(errno));
		fflush(stdout);
		_exit(3);
	}
	return false;
}

/* One request and its echo, of @n bytes. */
static bool round_trip(int fd, uint32_t key, uint64_t *at, size_t n, bool ask_tls)
{
	static uint8_t out[CHUNK_MAX], in[CHUNK_MAX];
	size_t got = 0, i;
	ssize_t r;

	for (i = 0; i < n; i++)
		out[i] = pattern(key, *at + i);
	if (ask_tls)
		out[n - 1] = ASK_TLS;
	if (!put(fd, out, n))
		return failed("send");
	while (got < n) {
		r = recv(fd, in + got, n - got, 0);
		if (r <= 0)
			return failed(r ? "recv" : "recv: end of file");
		if (memcmp(in + got, out + got, (size_t)r))
			wrong("wrong echo", *at + got);
		got += (size_t)r;
	}
	*at += n;
	__atomic_add_fetch(echoed, n, __ATOMIC_RELAXED);
	return true;
}

static bool converse(struct talk *t, uint64_t *seed)
{
	uint32_t key = draw(seed), rounds = 1 + draw(seed) % 6;
	uint64_t at = 0;
	size_t n;

	while (rounds--) {
		n = 1 + draw(seed) % (draw(seed) % 4 ? 2000 : CHUNK_MAX - 1);
		if (!round_trip(t->fd, key, &at, n, false))
			return false;
	}
	if (!calm && draw(seed) % 16 == 0) {
		if (!round_trip(t->fd, key, &at, 1, true))
			return false;
		if (tls_start(t->fd))
			return false;
		__atomic_add_fetch(tls, 1, __ATOMIC_RELAXED);
		if (!round_trip(t->fd, key, &at, 1 + draw(seed) % 5000, false))
			return false;
	}
	return true;
}

static void part(int fd, uint64_t *seed)
{
	struct sockaddr none = {.sa_family = AF_UNSPEC};
	struct linger now = {.l_onoff = 1};
	uint8_t junk[3000] = {1};

	switch (draw(seed) % 8) {
	case 0: /* a reset */
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
		break;
	case 1: /* unread bytes: a reset, too */
		send(fd, junk, sizeof(junk), MSG_NOSIGNAL);
		usleep(draw(seed) % 3000);
		break;
	case 2:
		shutdown(fd, SHUT_WR);
		while (recv(fd, junk, sizeof(junk), 0) > 0)
			;
		break;
	case 3:
		connect(fd, &none, sizeof(none));
		break;
	case 4: /* it listens then, or cannot */
		connect(fd, &none, sizeof(none));
		listen(fd, 1);
		break;
	case 5:
		send(fd, junk, sizeof(junk), MSG_NOSIGNAL | MSG_DONTWAIT);
		shutdown(fd, SHUT_RDWR);
		break;
	default:
		break;
	}
}

static void live(const struct sockaddr *a, socklen_t len, uint64_t seed)
{
	struct talk t = {0};
	struct timeval patience = {.tv_sec = calm ? 300 : 20};
	pthread_t looker;
	bool looked, well;

	may_fail(true);
	for (;;) {
		t.fd = socket(a->sa_family, SOCK_STREAM, 0);
		if (t.fd < 0) {
			usleep(1000);
			continue;
		}
		setsockopt(t.fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
		setsockopt(t.fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
		if (connect(t.fd, a, len)) {
			failed("connect");
			close(t.fd);
			usleep(1000);
			continue;
		}
		__atomic_add_fetch(connections, 1, __ATOMIC_RELAXED);
		t.end = false;
		/* The kernel complains when it cannot make a thread's stack. */
		may_fail(false);
		looked = draw(&seed) % 2 && !pthread_create(&looker, NULL, look, &t);
		may_fail(true);
		well = converse(&t, &seed);
		if (well)
			part(t.fd, &seed);
		t.end = true;
		if (looked)
			pthread_join(looker, NULL);
		if (!calm && draw(&seed) % 32 == 0)
			_exit(0); /* the parent starts another */
		close(t.fd);
	}
}

static int run(char **argv)
{
	static pid_t pid[256];
	struct sockaddr_storage a = {0};
	struct sockaddr_in *a4 = (struct sockaddr_in *)&a;
	struct sockaddr_in6 *a6 = (struct sockaddr_in6 *)&a;
	int n = atoi(argv[3]), i, status, bad = 0;
	uint64_t seed = strtoull(argv[5], NULL, 0);
	time_t end = time(NULL) + atoi(argv[4]);
	socklen_t len = sizeof(*a4);
	pid_t dead;

	if (inet_pton(AF_INET, argv[1], &a4->sin_addr) == 1) {
		a4->sin_family = AF_INET;
		a4->sin_port = htons((uint16_t)atoi(argv[2]));
	} else if (inet_pton(AF_INET6, argv[1], &a6->sin6_addr) == 1) {
		a6->sin6_family = AF_INET6;
		a6->sin6_port = htons((uint16_t)atoi(argv[2]));
		len = sizeof(*a6);
	}
	if (n < 1 || n > 256 || !a.ss_family) {
		fprintf(stderr, "churn: 1 to 256 processes, a numeric address\n");
		return 1;
	}
	connections = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	echoed = connections + 1;
	tls = connections + 2;
	while (time(NULL) < end && !bad) {
		for (i = 0; i < n; i++) {
			if (pid[i])
				continue;
			seed += 0x9e3779b97f4a7c15ULL;
			pid[i] = fork();
			if (!pid[i])
				live((struct sockaddr *)&a, len, seed);
			if (pid[i] < 0)
				pid[i] = 0;
		}
		usleep(20000);
		i = (int)(draw(&seed) % (uint32_t)n);
		if (!calm && pid[i] && draw(&seed) % 3 == 0)
			kill(pid[i], SIGKILL);
		while ((dead = waitpid(-1, &status, WNOHANG)) > 0) {
			for (i = 0; i < n; i++)
				if (pid[i] == dead)
					pid[i] = 0;
			if (WIFEXITED(status) && WEXITSTATUS(status))
				bad = WEXITSTATUS(status);
		}
	}
	for (i = 0; i < n; i++)
		if (pid[i])
			kill(pid[i], SIGKILL);
	while (wait(&status) > 0)
		if (WIFEXITED(status) && WEXITSTATUS(status))
			bad = WEXITSTATUS(status);
	printf("{\"connections\": %llu, \"echoed\": %llu, \"tls\": %llu}\n",
	       (unsigned long long)*connections, (unsigned long long)*echoed,
	       (unsigned long long)*tls);
	return bad;
}

int main(int argc, char **argv)
{
	struct rlimit files = {.rlim_cur = 20000, .rlim_max = 20000};
	int i;

	for (i = 3; i < argc; i++) {
		calm |= !strcmp(argv[i], "calm");
		fail |= !strcmp(argv[i], "fail");
	}
	setrlimit(RLIMIT_NOFILE, &files);
	signal(SIGPIPE, SIG_IGN);
	if (argc >= 3 && !strcmp(argv[1], "server"))
		return serve(argv[2]);
	if (argc >= 7 && !strcmp(argv[1], "client"))
		return run(argv + 1);
	fprintf(stderr, "usage: churn server PORT [fail]\n"
			"       churn client ADDRESS PORT PROCESSES SECONDS SEED [calm] [fail]\n");
	return 1;
}
