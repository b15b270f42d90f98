// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * probe.c - boot a guest, to know that one boots
 *
 * A /dev/kvm that opens says little: in a cloud machine it may make a VM, and even execute some
 * instructions, but never get a kernel anywhere. So a kernel of this machine is booted with an
 * initramfs of one program (probe-init.S), and what that says on the serial console is waited for.
 */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef __x86_64__

extern const uint8_t cli_probe_init[];
extern const uint32_t cli_probe_init_size;

#define SAID "VMCOMM-PROBE-OK"

extern char **environ;

static bool find_kernel(char *path, size_t size)
{
	struct utsname u;
	bool found;
	glob_t g;

	uname(&u);
	if ((size_t)snprintf(path, size, "/boot/vmlinuz-%s", u.release) < size &&
	    !access(path, R_OK))
		return true;
	if (glob("/boot/vmlinuz-*", 0, NULL, &g))
		return false;
	found = (size_t)snprintf(path, size, "%s", g.gl_pathv[g.gl_pathc - 1]) < size &&
		!access(path, R_OK);
	globfree(&g);
	return found;
}

/* One file of a cpio archive ("newc"), padded. Return: false if it cannot be written. */
static bool cpio_add(FILE *f, const char *name, unsigned int mode, const void *data, unsigned int size)
{
	unsigned int len = (unsigned int)strlen(name) + 1;

	fprintf(f, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", 1U, mode, 0U, 0U, 1U,
		0U, size, 0U, 0U, 0U, 0U, len, 0U);
	fwrite(name, 1, len, f);
	fwrite("\0\0\0", 1, -(110 + len) & 3, f);
	if (size)
		fwrite(data, 1, size, f);
	fwrite("\0\0\0", 1, -size & 3, f);
	return !ferror(f);
}

/* Return: a descriptor that a child inherits, or negative errno. */
static int initramfs_new(void)
{
	int fd = memfd_create("vmcomm-probe", 0), copy = -1;
	FILE *f = NULL;
	bool ok;

	if (fd >= 0)
		copy = dup(fd);
	if (copy >= 0)
		f = fdopen(copy, "wb");
	if (!f) {
		if (copy >= 0)
			close(copy);
		if (fd >= 0)
			close(fd);
		return -EMFILE;
	}
	ok = cpio_add(f, "init", 0100755, cli_probe_init, cli_probe_init_size) &&
	     cpio_add(f, "TRAILER!!!", 0, NULL, 0);
	if (fclose(f) || !ok) {
		close(fd);
		return -ENOSPC;
	}
	return fd;
}

/* QEMU with its console, and its complaints, on @out. Return: 0 or negative errno. */
static int qemu_spawn(const char *accel, const char *kernel, int initrd, int out, pid_t *pid)
{
	posix_spawn_file_actions_t fa;
	char initrd_path[32];
	char *argv[] = {(char *)(uintptr_t)"qemu-system-x86_64",
			(char *)(uintptr_t)"-nodefaults",
			(char *)(uintptr_t)"-no-user-config",
			(char *)(uintptr_t)"-display",
			(char *)(uintptr_t)"none",
			(char *)(uintptr_t)"-machine",
			(char *)(uintptr_t)"q35",
			(char *)(uintptr_t)"-accel",
			(char *)(uintptr_t)accel,
			(char *)(uintptr_t)"-cpu",
			(char *)(uintptr_t)(strcmp(accel, "kvm") ? "max" : "host"),
			(char *)(uintptr_t)"-m",
			(char *)(uintptr_t)"256",
			(char *)(uintptr_t)"-kernel",
			(char *)(uintptr_t)kernel,
			(char *)(uintptr_t)"-initrd",
			initrd_path,
			(char *)(uintptr_t)"-append",
			(char *)(uintptr_t)"console=ttyS0 quiet panic=-1",
			(char *)(uintptr_t)"-no-reboot",
			(char *)(uintptr_t)"-serial",
			(char *)(uintptr_t)"stdio",
			NULL};
	int err;

	snprintf(initrd_path, sizeof(initrd_path), "/dev/fd/%d", initrd);
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&fa, out, STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&fa, out, STDERR_FILENO);
	err = posix_spawnp(pid, argv[0], &fa, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&fa);
	return -err;
}

static long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000L + ts.tv_nsec / 1000000;
}

/* The last line that is not empty; printable characters only: it goes to a terminal. */
static void last_words(char *console, char *text, size_t size)
{
	size_t n = strlen(console);
	char *p;

	while (n && (unsigned char)console[n - 1] <= ' ')
		console[--n] = 0;
	for (p = console; *p; p++)
		if (*p != '\n' && (*p < ' ' || *p > '~'))
			*p = ' ';
	p = strrchr(console, '\n');
	snprintf(text, size, "%.200s", p ? p + 1 : console);
}

/* Return: 0: it said that it is there; -ETIMEDOUT; -EIO: QEMU ended, with its last words in @text. */
static int listen_to(int fd, unsigned int seconds, char *text, size_t size)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	long left, end = now_ms() + seconds * 1000L;
	char console[65536];
	size_t len = 0;
	int err = -EIO;
	ssize_t n;

	console[0] = 0;
	for (;;) {
		left = end - now_ms();
		if (left <= 0 || !poll(&p, 1, (int)left)) {
			err = -ETIMEDOUT;
			break;
		}
		/* The end is what counts; a kernel that never stops talking is not waited for. */
		if (len > sizeof(console) / 2) {
			memmove(console, console + len / 2, len - len / 2 + 1);
			len -= len / 2;
		}
		n = read(fd, console + len, sizeof(console) - 1 - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		len += (size_t)n;
		console[len] = 0;
		if (strstr(console, SAID))
			return 0;
	}
	last_words(console, text, size);
	return err;
}

int cli_probe_boot(const char *accel, unsigned int seconds, char *text, size_t size)
{
	char kernel[256], words[256] = "";
	int initrd, console[2], err;
	pid_t pid;

	if (!find_kernel(kernel, sizeof(kernel))) {
		snprintf(text, size, "no readable kernel in /boot to try it with");
		return -ENOENT;
	}
	initrd = initramfs_new();
	if (initrd < 0) {
		snprintf(text, size, "no initramfs: %s", strerror(-initrd));
		return initrd;
	}
	if (pipe2(console, O_CLOEXEC)) {
		err = -errno;
		snprintf(text, size, "no pipe: %s", strerror(errno));
		goto out;
	}
	err = qemu_spawn(accel, kernel, initrd, console[1], &pid);
	close(console[1]);
	if (err) {
		snprintf(text, size, "cannot start qemu-system-x86_64: %s", strerror(-err));
	} else {
		err = listen_to(console[0], seconds, words, sizeof(words));
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		if (!err)
			snprintf(text, size, "%s", kernel);
		else if (err == -ETIMEDOUT)
			snprintf(text, size, "%s did not get there in %u s", kernel, seconds);
		else
			snprintf(text, size, "QEMU ended: %s", words[0] ? words : "it said nothing");
	}
	close(console[0]);
out:
	close(initrd);
	return err;
}

#else

int cli_probe_boot(const char *accel, unsigned int seconds, char *text, size_t size)
{
	snprintf(text, size, "not known for this architecture");
	return -ENOENT;
}

#endif
