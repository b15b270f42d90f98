/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * key.h - the secret of a group (M12)
 *
 * A key file holds 64 hexadecimal digits and perhaps a newline. Nobody but its owner may read it.
 */
#ifndef VMCOMM_HOST_KEY_H
#define VMCOMM_HOST_KEY_H

#include <stdint.h>

#include "error.h"

#define VMCOMM_KEY_SIZE 32
#define VMCOMM_KEY_HEX	(2 * VMCOMM_KEY_SIZE)

/** vmcomm_key_parse() - from hexadecimal. Return: 0 or -EINVAL. */
int vmcomm_key_parse(const char *hex, uint8_t key[VMCOMM_KEY_SIZE]);

/**
 * vmcomm_key_load() - read a key file
 *
 * Return: 0; -EPERM: others can read the file; -EINVAL: no key in it; other negative errno.
 */
int vmcomm_key_load(const char *path, uint8_t key[VMCOMM_KEY_SIZE], struct vmcomm_error *e);

/** vmcomm_key_generate() - a new random key. Return: 0 or negative errno. */
int vmcomm_key_generate(uint8_t key[VMCOMM_KEY_SIZE]);

/** vmcomm_key_save() - write a new file with mode 0600; -EEXIST: there is one already. */
int vmcomm_key_save(const char *path, const uint8_t key[VMCOMM_KEY_SIZE], struct vmcomm_error *e);

/** vmcomm_key_wipe() - forget a key for good */
void vmcomm_key_wipe(uint8_t key[VMCOMM_KEY_SIZE]);

#endif
