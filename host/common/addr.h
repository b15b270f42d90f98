/* SPDX-License-Identifier: GPL-2.0-or-later */
/* addr.h - addresses, UUIDs and sizes as people write them */
#ifndef VMCOMM_HOST_ADDR_H
#define VMCOMM_HOST_ADDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VMCOMM_ADDR_STRLEN 48
#define VMCOMM_UUID_STRLEN 37

/**
 * vmcomm_addr_parse() - an IPv4 or IPv6 address into 16 bytes (IPv4 becomes v4-mapped)
 *
 * Return: 0 or -EINVAL; unspecified and multicast addresses are invalid.
 */
int vmcomm_addr_parse(const char *text, uint8_t addr[16]);

/** vmcomm_addr_format() - the usual form; v4-mapped ones as IPv4. Return: @buf. */
const char *vmcomm_addr_format(const uint8_t addr[16], char buf[VMCOMM_ADDR_STRLEN]);

/**
 * vmcomm_addr_parse_list() - addresses separated by commas or blanks
 * @max: room in @addr
 * @bad: where the offending word begins, on -EINVAL; may be NULL
 *
 * Return: their number; -EINVAL: one is no address or is there twice; -E2BIG: more than @max.
 */
int vmcomm_addr_parse_list(const char *text, uint8_t (*addr)[16], unsigned int max,
			   const char **bad);

/** vmcomm_uuid_parse() - 8-4-4-4-12 hexadecimal digits. Return: 0 or -EINVAL. */
int vmcomm_uuid_parse(const char *text, uint8_t uuid[16]);
const char *vmcomm_uuid_format(const uint8_t uuid[16], char buf[VMCOMM_UUID_STRLEN]);

/**
 * vmcomm_size_parse() - bytes, with K, M or G (powers of 1024) behind the number
 *
 * Return: 0; -EINVAL: no number, unknown letter; -ERANGE: over 64 bits.
 */
int vmcomm_size_parse(const char *text, uint64_t *bytes);

/** vmcomm_number_parse() - a decimal number from @min to @max. Return: 0, -EINVAL or -ERANGE. */
int vmcomm_number_parse(const char *text, uint64_t min, uint64_t max, uint64_t *number);

/**
 * vmcomm_name_valid() - can it be a group's, VM's or host's name?
 *
 * Letters, digits, '_', '-', '.'; not first '-' or '.'; at most 63 characters. Such a name is safe as
 * a file name.
 */
bool vmcomm_name_valid(const char *name);

#endif
