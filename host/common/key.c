// SPDX-License-Identifier: GPL-2.0-or-later
/* key.c - the secret of a group (M12) */
#include "key.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static int key_parse(const char *hex, size_t len, uint8_t key[VMCOMM_KEY_SIZE])
{
	unsigned int i;

	if (len != VMCOMM_KEY_HEX)
		return -EINVAL;
	for (i = 0; i < VMCOMM_KEY_SIZE; i++) {
		int high = hex_digit(hex[2 * i]), low = hex_digit(hex[2 * i + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		key[i] = (uint8_t)(high << 4 | low);
	}
	return 0;
}

int vmcomm_key_parse(const char *hex, uint8_t key[VMCOMM_KEY_SIZE])
{
	return key_parse(hex, strlen(hex), key);
}

int vmcomm_key_load(const char *path, uint8_t key[VMCOMM_KEY_SIZE], struct vmcomm_error *e)
{
	char text[VMCOMM_KEY_HEX + 2];
	struct stat st;
	ssize_t n;
	int fd, err;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return vmcomm_error_set(e, -errno, "cannot open key file %s: %s", path,
					strerror(errno));
	if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		close(fd);
		return vmcomm_error_set(e, -EINVAL, "key file %s is not a regular file", path);
	}
	if (st.st_mode & 077) {
		close(fd);
		return vmcomm_error_set(e, -EPERM,
					"key file %s can be read by others (mode %04o): chmod 600 it",
					path, st.st_mode & 07777);
	}
	n = read(fd, text, sizeof(text));
	close(fd);
	if (n > 0 && text[n - 1] == '\n')
		n--;
	err = n < 0 ? -EIO : key_parse(text, (size_t)n, key);
	explicit_bzero(text, sizeof(text));
	if (err)
		return vmcomm_error_set(e, -EINVAL,
					"key file %s does not hold 64 hexadecimal digits", path);
	return 0;
}

int vmcomm_key_generate(uint8_t key[VMCOMM_KEY_SIZE])
{
	return getrandom(key, VMCOMM_KEY_SIZE, 0) == VMCOMM_KEY_SIZE ? 0 : -EIO;
}

int vmcomm_key_save(const char *path, const uint8_t key[VMCOMM_KEY_SIZE], struct vmcomm_error *e)
{
	static const char digits[] = "0123456789abcdef";
	char text[VMCOMM_KEY_HEX + 1];
	unsigned int i;
	int fd, err = 0;

	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return vmcomm_error_set(e, -errno, "cannot create key file %s: %s", path,
					strerror(errno));
	for (i = 0; i < VMCOMM_KEY_SIZE; i++) {
		text[2 * i] = digits[key[i] >> 4];
		text[2 * i + 1] = digits[key[i] & 15];
	}
	text[VMCOMM_KEY_HEX] = '\n';
	if (write(fd, text, sizeof(text)) != (ssize_t)sizeof(text) || fsync(fd))
		err = -EIO;
	explicit_bzero(text, sizeof(text));
	close(fd);
	if (err) {
		unlink(path);
		return vmcomm_error_set(e, err, "cannot write key file %s", path);
	}
	return 0;
}

void vmcomm_key_wipe(uint8_t key[VMCOMM_KEY_SIZE])
{
	explicit_bzero(key, VMCOMM_KEY_SIZE);
}
