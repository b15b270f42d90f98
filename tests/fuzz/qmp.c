// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * qmp.c - a QEMU that answers what it likes while a device is attached or detached
 *
 * Input: one byte of options, then lines, which are sent one after the other.
 */
#define _GNU_SOURCE
#include <jansson.h>
#include <stdbool.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fuzz.h"
#include "../../backends/kvm/ports.h"
#include "../../host/daemon/backend.h"

static char path[] = "/tmp/vmcomm-fuzz-qmp-XXXXXX";
static int listener;

static void leave(void)
{
	unlink(path);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};

	fuzz_check(mktemp(path)[0]);
	memcpy(sun.sun_path, path, sizeof(path));
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	fuzz_check(!bind(listener, (struct sockaddr *)&sun, sizeof(sun)) && !listen(listener, 8));
	atexit(leave);
	signal(SIGPIPE, SIG_IGN);
	return 0;
}

static void step(void *arg, const char *text)
{
	fuzz_check(text[0]);
}

static void done(void *arg, int err, const char *text)
{
	fuzz_check(!*(bool *)arg && err <= 0 && text);
	*(bool *)arg = true;
}

/* The job's end comes by a timer of 0 s; other timers are far away. */
static void turn(sd_event *event)
{
	unsigned int i;

	for (i = 0; i < 10 && sd_event_run(event, 0) > 0; i++)
		;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t uuid[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
	static const struct vmcomm_backend_callbacks cb = {step, done};
	struct vmcomm_backend_vm vm = {.name = "v", .control = path};
	struct vmcomm_backend_device dev = {"/run/slot", 64U << 20, 4};
	struct vmcomm_backend_job *job = NULL;
	struct fuzz_input in = {data, size};
	uint8_t options = fuzz_u8(&in);
	bool ended = false;
	sd_event *event = NULL;
	const uint8_t *nl;
	char sink[4096];
	int fd;
	size_t n;

	if (options & 1)
		vm.uuid = uuid;
	if (options & 2)
		vm.bus = "rp0";
	fuzz_check(sd_event_new(&event) >= 0);
	if (options & 4)
		fuzz_check(!vmcomm_backend_kvm.detach(event, &vm, &cb, &ended, &job));
	else
		fuzz_check(!vmcomm_backend_kvm.attach(event, &vm, &dev, &cb, &ended, &job));
	fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	fuzz_check(fd >= 0);
	while (in.left && !ended) {
		nl = memchr(in.data, '\n', in.left);
		n = nl ? (size_t)(nl - in.data) + 1 : in.left;
		(void)!send(fd, in.data, n, MSG_DONTWAIT | MSG_NOSIGNAL);
		in.data += n;
		in.left -= n;
		turn(event);
		while (recv(fd, sink, sizeof(sink), MSG_DONTWAIT) > 0)
			;
	}
	close(fd);
	turn(event);
	vmcomm_backend_job_free(job);
	sd_event_unref(event);
	return 0;
}
